"""What a recipe would run: every stage, done or to do, with the rows and tokens it will take at most."""

from typing import Any

from rich.table import Table

from eva_stages.core.config import FilePrompts, Player, Recipe, Sampling
from eva_stages.core.stage import Stage, closure
from eva_stages.core.store import Run
from pipelines.iteration import Iteration, iterations


def plan_document(recipe: Recipe, run: Run) -> dict[str, Any]:
    """Every stage with its state and size. Tokens are generated ones, an upper bound until the stage has run.

    `gpu_hours` is null where no rate is known; `usd` is 0 for models that run here.
    """
    rounds = iterations(recipe)
    sizes = {fingerprint: size for one in rounds for fingerprint, size in _sizes(recipe, one).items()}
    stages = [_entry(run, stage, sizes.get(stage.fingerprint, (None, 0))) for stage in _ordered(rounds)]
    todo = [entry for entry in stages if entry["state"] == "to do"]
    return {
        "recipe": recipe.name,
        "run": str(run.root),
        "stages": stages,
        "to_do": {"stages": len(todo), "tokens": sum(entry["tokens"] or 0 for entry in todo), "gpu_hours": None, "usd": 0.0},
    }


def _ordered(rounds: list[Iteration]) -> list[Stage]:
    return closure([stage for one in rounds for stage in one.stages])


def _entry(run: Run, stage: Stage, size: tuple[int | None, int]) -> dict[str, Any]:
    rows, tokens_per_row = size
    entry = {"stage": stage.label, "fingerprint": stage.fingerprint[:12], "gpu_hours": None, "usd": 0.0}
    if run.done(stage):
        manifest = run.manifest(stage)
        tokens = manifest["counts"].get("output_tokens", 0)
        return {**entry, "state": "done", "rows": manifest["rows"], "tokens": tokens, "seconds": manifest["seconds"]}
    tokens = rows * tokens_per_row if rows is not None else None
    return {**entry, "state": "to do", "rows": rows, "tokens": tokens, "seconds": None}


def _sizes(recipe: Recipe, one: Iteration) -> dict[str, tuple[int | None, int]]:
    """Rows, and generated tokens per row at most, of an iteration's stages."""
    prompts = _prompt_count(recipe)
    limit = recipe.policy.generator.max_new_tokens
    drawn = None if prompts is None else round(prompts * recipe.creator.selection.fraction)
    attempts = None if drawn is None else drawn * recipe.creator.evolve.generations
    evolver_limit = _most_tokens(recipe.creator.evolve.generator)
    critic = recipe.creator.evolve.feedback.critic if recipe.creator.evolve.feedback else None
    scorer = recipe.creator.analysis.scorer if recipe.creator.analysis else None
    held_out = recipe.evaluation.benchmarks[0].prompts if recipe.evaluation.benchmarks else 0
    samples = recipe.evaluation.benchmarks[0].samples if recipe.evaluation.benchmarks else 0
    known: dict[str, tuple[int | None, int]] = {
        "creator-respond": (prompts, recipe.creator.responses * limit),
        "respond": (prompts, recipe.solver.responses * limit),
        "select": (drawn, 0),
        "evolve": (attempts, evolver_limit),
        "feedback": (drawn, 0),
        "critique": (drawn, _most_tokens(critic)),
        "parents": (drawn, 0),
        "curate": (attempts, 0),
        "replay": (None if prompts is None or not recipe.creator.replay else round(prompts * recipe.creator.replay.share), 0),
        "analyse-scores": (prompts, _most_tokens(scorer)),
        "questions": (held_out, 0),
        "train": (None, 0),
    }
    answered = {f"{prefix}-answer": (held_out, (samples + 1) * limit) for prefix in ("base", "eval")}
    scored = {f"{prefix}-{part}": (held_out, 0) for prefix in ("base", "eval") for part in ("reward", "score")}
    known |= answered | scored | {"eval-judge": (2 * held_out, 0)}
    return {stage.fingerprint: known.get(stage.name, (prompts, 0)) for stage in closure(list(one.stages))}


def _most_tokens(player: Player | None) -> int:
    """Tokens that one reply of a player takes at most; those of the microworld are free."""
    return player.max_new_tokens if isinstance(player, Sampling) else 0


def _prompt_count(recipe: Recipe) -> int | None:
    return recipe.prompts.size if not isinstance(recipe.prompts, FilePrompts) or recipe.prompts.size else None


def plan_table(document: dict[str, Any]) -> Table:
    """The plan for a terminal."""
    table = Table(title=f"{document['recipe']} in {document['run']}", title_justify="left")
    for column in ("stage", "state", "rows", "tokens", "GPU-hours", "USD"):
        table.add_column(column, justify="left" if column in ("stage", "state") else "right")
    for entry in document["stages"]:
        bound = "<= " if entry["state"] == "to do" and entry["tokens"] else ""
        rows = "?" if entry["rows"] is None else f"{entry['rows']:,}"
        tokens = "?" if entry["tokens"] is None else f"{bound}{entry['tokens']:,.0f}"
        table.add_row(entry["stage"], entry["state"], rows, tokens, "not measured", f"{entry['usd']:.2f}")
    todo = document["to_do"]
    table.caption = f"{todo['stages']} of {len(document['stages'])} stages to do, at most {todo['tokens']:,.0f} generated tokens"
    table.caption_justify = "left"
    return table
