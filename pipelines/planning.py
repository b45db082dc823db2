"""What a recipe would run: every stage, done or to do, with the rows and tokens it will take at most."""

from dataclasses import asdict
from typing import Any

from rich.console import Group
from rich.table import Table

from eva_stages.core.config.evaluation import Benchmark, JudgedBenchmark, Lettercraft
from eva_stages.core.config.models import Player, Sampling
from eva_stages.core.config.prompts import FilePrompts
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.solver import RLOO
from eva_stages.core.stage import Outside, Stage, closure
from eva_stages.core.store import Run
from eva_stages.evaluation.questions import question_rows
from pipelines.benchmarks import benchmark_name, judge_name
from pipelines.costing import JudgeCost, judge_cost
from pipelines.health import health_sizes
from pipelines.iteration import Iteration, iterations


def plan_document(recipe: Recipe, run: Run) -> dict[str, Any]:
    """Every stage with its state and size. Tokens are generated ones, an upper bound until the stage has run.

    `gpu_hours` is null where no rate is known; `usd` is 0 for models that run here. `judging` has the calls, tokens and money of every
    benchmark's judge, at most and expected, for all policies that are still to be judged.
    """
    rounds = iterations(recipe)
    sizes = {fingerprint: size for one in rounds for fingerprint, size in _sizes(recipe, one).items()}
    judging, costs = _judging(recipe, run, rounds)
    stages = [
        _entry(run, stage, sizes.get(stage.fingerprint, (None, 0)), costs.get(stage.fingerprint)) for stage in closure(_all_stages(rounds))
    ]
    todo = [entry for entry in stages if entry["state"] == "to do"]
    total = {name: sum(entry[name] or 0 for entry in todo) for name in ("tokens", "usd", "usd_expected")}
    return {
        "recipe": recipe.name,
        "run": str(run.root),
        "stages": stages,
        "judging": judging,
        "to_do": {"stages": len(todo), "gpu_hours": None, **total},
    }


def _all_stages(rounds: list[Iteration]) -> list[Stage]:
    return [stage for one in rounds for stage in one.stages]


def _judging(recipe: Recipe, run: Run, rounds: list[Iteration]) -> tuple[list[dict[str, Any]], dict[str, JudgeCost]]:
    """What every benchmark's judge will cost over all policies to do; and the cost of each judging stage."""
    stages = _all_stages(rounds)
    entries: list[dict[str, Any]] = []
    costs: dict[str, JudgeCost] = {}
    for benchmark in recipe.evaluation.benchmarks:
        if not isinstance(benchmark, JudgedBenchmark):
            continue
        name = benchmark_name(benchmark)
        judges = [stage for stage in stages if stage.name in (f"base-{name}-judge", f"eval-{name}-judge")]
        todo = [stage for stage in judges if not run.done(stage)]
        if not judges:
            continue
        own = [stage for stage in stages if stage.name in (f"{name}-questions", f"{name}-baseline")]
        cost = judge_cost(benchmark, (*own, judges[0]))
        costs |= {stage.fingerprint: cost for stage in judges}
        amounts = {key: None if amount is None else amount * len(todo) for key, amount in asdict(cost).items()}
        entries.append({"benchmark": name, "judge": judge_name(benchmark.judge), "policies": len(todo), **amounts})
    return entries, costs


def _entry(run: Run, stage: Stage, size: tuple[int | None, int], cost: JudgeCost | None) -> dict[str, Any]:
    rows, tokens_per_row = size
    entry = {"stage": stage.label, "fingerprint": stage.fingerprint[:12], "gpu_hours": None, "usd": 0.0, "usd_expected": 0.0}
    if run.done(stage):
        manifest = run.manifest(stage)
        tokens, usd = (manifest["counts"].get(name, 0) for name in ("output_tokens", "cost_usd"))
        paid = {"usd": usd, "usd_expected": usd}
        return {**entry, **paid, "state": "done", "rows": manifest["rows"], "tokens": tokens, "seconds": manifest["seconds"]}
    if cost is not None:
        told = {"rows": cost.calls, "tokens": cost.output_tokens, "usd": cost.usd, "usd_expected": cost.expected_usd, "seconds": None}
        return {**entry, **told, "state": "to do"}
    tokens = rows * tokens_per_row if rows is not None else None
    return {**entry, "state": "to do", "rows": rows, "tokens": tokens, "seconds": None}


def _sizes(recipe: Recipe, one: Iteration) -> dict[str, tuple[int | None, int]]:
    """Rows, and generated tokens per row at most, of an iteration's stages."""
    prompts = _prompt_count(recipe)
    limit = recipe.policy.generator.max_new_tokens
    drawn = None if prompts is None else round(prompts * recipe.creator.selection.fraction)
    attempts = None if drawn is None else drawn * recipe.creator.evolve.generations
    online = isinstance(recipe.solver.loss, RLOO)
    evolver_limit = _most_tokens(recipe.creator.evolve.generator)
    critic = recipe.creator.evolve.feedback.critic if recipe.creator.evolve.feedback else None
    scorer = recipe.creator.analysis.scorer if recipe.creator.analysis else None
    lettercraft = next((one for one in recipe.evaluation.benchmarks if isinstance(one, Lettercraft)), None)
    held_out, samples = (lettercraft.prompts, lettercraft.samples) if lettercraft else (0, 0)
    known: dict[str, tuple[int | None, int]] = {
        "creator-respond": (prompts, recipe.creator.responses * limit),
        "respond": (drawn if one.number and recipe.creator.control == "no_evolve" else prompts, recipe.solver.responses * limit),
        "rewrite": (prompts, _most_tokens(recipe.solver.rewrite.generator) if recipe.solver.rewrite else 0),
        "select": (drawn, 0),
        "evolve": (attempts, evolver_limit),
        "feedback": (drawn, 0),
        "critique": (drawn, _most_tokens(critic)),
        "parents": (drawn, 0),
        "curate": (attempts, 0),
        "replay": (None if prompts is None or not recipe.creator.replay else round(prompts * recipe.creator.replay.share), 0),
        "analyse-scores": (prompts, _most_tokens(scorer)),
        "questions": (held_out, 0),
        "train": (prompts, recipe.solver.training.epochs * recipe.solver.responses * limit) if online else (None, 0),
    }
    answered = {f"{prefix}-answer": (held_out, (samples + 1) * limit) for prefix in ("base", "eval")}
    scored = {f"{prefix}-{part}": (held_out, 0) for prefix in ("base", "eval") for part in ("reward", "score")}
    known |= answered | scored | {"eval-judge": (2 * held_out, 0)} | _benchmark_sizes(recipe, one) | health_sizes(recipe, held_out or None)
    return {stage.fingerprint: known.get(stage.name, (prompts, 0)) for stage in closure(list(one.stages))}


def _most_tokens(player: Player | None) -> int:
    """Tokens that one reply of a player takes at most; those of the microworld are free."""
    return player.max_new_tokens if isinstance(player, Sampling) else 0


def _benchmark_sizes(recipe: Recipe, one: Iteration) -> dict[str, tuple[int | None, int]]:
    """Rows and tokens of the public benchmarks' stages, by stage name."""
    sizes: dict[str, tuple[int | None, int]] = {}
    for benchmark in recipe.evaluation.benchmarks:
        name = benchmark_name(benchmark)
        loads = next((stage for stage in closure(list(one.evaluation)) if stage.name == f"{name}-questions"), None)
        if loads is None or not isinstance(benchmark, Benchmark):
            sizes |= dict.fromkeys((f"base-{name}", f"eval-{name}"), (None, 0))
            continue
        file = loads.inputs["questions"]
        assert isinstance(file, Outside)
        rows = question_rows(str(benchmark.model_dump()["kind"]), file.path)
        turns = sum(len(row["turns"]) for row in rows)
        sizes |= {f"{name}-questions": (len(rows), 0), f"{name}-baseline": (len(rows), 0)}
        for prefix in ("base", "eval"):
            own = f"{prefix}-{name}"
            sizes |= {f"{own}-{part}": (len(rows), 0) for part in ("check", "score")}
            sizes[f"{own}-answer"] = len(rows), turns // len(rows) * benchmark.max_new_tokens
    return sizes


def _prompt_count(recipe: Recipe) -> int | None:
    return recipe.prompts.size if not isinstance(recipe.prompts, FilePrompts) or recipe.prompts.size else None


def plan_tables(document: dict[str, Any]) -> Group:
    """The plan for a terminal."""
    tables = [_stage_table(document)]
    if document["judging"]:
        tables.append(_judging_table(document["judging"]))
    return Group(*tables)


def _judging_table(entries: list[dict[str, Any]]) -> Table:
    """What judging costs: expected, as in the official files, and at most."""
    table = Table(title="judging to do: expected (at most)", title_justify="left")
    for column in ("benchmark", "judge", "policies", "calls", "tokens in", "tokens out", "USD"):
        table.add_column(column, justify="left" if column in ("benchmark", "judge") else "right")
    for entry in entries:
        tokens = [f"{entry[f'expected_{name}']:,} (<= {entry[name]:,})" for name in ("input_tokens", "output_tokens")]
        money = _money(entry["expected_usd"], entry["usd"])
        table.add_row(entry["benchmark"], entry["judge"], str(entry["policies"]), f"{entry['calls']:,}", *tokens, money)
    return table


def _money(expected: float | None, most: float | None) -> str:
    if expected is None or most is None:
        return "no price known"
    return f"{most:.2f}" if expected == most else f"{expected:.2f} (<= {most:.2f})"


def _stage_table(document: dict[str, Any]) -> Table:
    table = Table(title=f"{document['recipe']} in {document['run']}", title_justify="left")
    for column in ("stage", "state", "rows", "tokens", "GPU-hours", "USD"):
        table.add_column(column, justify="left" if column in ("stage", "state") else "right")
    for entry in document["stages"]:
        bound = "<= " if entry["state"] == "to do" and entry["tokens"] else ""
        rows = "?" if entry["rows"] is None else f"{entry['rows']:,}"
        tokens = "?" if entry["tokens"] is None else f"{bound}{entry['tokens']:,.0f}"
        table.add_row(entry["stage"], entry["state"], rows, tokens, "not measured", _money(entry["usd_expected"], entry["usd"]))
    todo = document["to_do"]
    table.caption = f"{todo['stages']} of {len(document['stages'])} stages to do, at most {todo['tokens']:,.0f} generated tokens"
    if todo["usd"]:
        table.caption += f", {_money(todo['usd_expected'], todo['usd'])} USD"
    table.caption_justify = "left"
    return table
