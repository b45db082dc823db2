"""What a recipe would run: every stage, done or to do, with rows, tokens, time, disk and money, and their sums by iteration.

Two kinds of figures: at most, from the recipe alone, and expected, from rates (see
`eva_stages.planning.rates`). What nothing is known about is null.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from eva_stages.core.config.evaluation_config import JudgedBenchmark, benchmark_name, judge_name
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.kinds import BASELINE, JUDGE, QUESTIONS
from eva_stages.core.ledger import tree_bytes
from eva_stages.core.resolved import Resolved
from eva_stages.core.rounds import Iteration
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import Outside, Stage, closure, uses
from eva_stages.models.providers import token_rates
from eva_stages.models.targets import GENERATORS
from eva_stages.planning.judge_costs import JudgeCost, judge_cost
from eva_stages.planning.rates import Rate, Rates, answering_rate, known_rates
from eva_stages.planning.sizes import Size, prompt_count, sizes

SUMMED = ("tokens", "input_tokens", "output_tokens", "seconds_expected", "seconds_low", "seconds_high", "gpu_seconds", "gpu_hours", "bytes")
MONEY = ("usd", "usd_expected")
MOMENTS = {"adamw_torch": 2, "adamw_torch_fused": 2, "rmsprop": 1, "adafactor": 0}
"""Numbers that an optimiser keeps for each weight."""
CHECKPOINTS = 3
"""How many a training has on disk at once: two that it keeps, and the one it writes."""


@dataclass(frozen=True)
class ModelBytes:
    artifact: int
    checkpoints: int | None
    """At most at one time, while training goes; None where only an adapter is trained."""


def plan_document(recipe: Recipe, resolved: Resolved, rounds: list[Iteration], run: Run, given: Rates | None = None) -> dict[str, Any]:
    """Every stage with its state and size; sums of what is to do, by iteration and in all.

    Of a stage: `rows` and `tokens` (generated) are at most, until it has run; `steps` are a training's, as expected. `input_tokens`,
    `output_tokens`, `seconds_expected` with `seconds_low` and `seconds_high`, `gpu_seconds`, `gpu_hours` and `bytes` are expected, actual
    once it has run, and null where no rate is known. `checkpoint_bytes` is what a training needs besides while it goes. `usd` is at most, 0
    for models that run here, null where no price or no number of tokens is known. `judging` has the calls, tokens and money of every
    benchmark's judge, at most and expected, for all policies that are still to be judged. In sums null parts are left out; `unmeasured`
    and `unpriced` say how many, and a sum of nothing is null. `wall_seconds` has the start and what passes between stages too.

    Args:
        given: rates that go before the run's own.
    """
    prompts = prompt_count(recipe, resolved, rounds, run)
    own = sizes(recipe, rounds, prompts)
    stages = closure([stage for one in rounds for stage in one.stages])
    rates = known_rates(run, stages, {fingerprint: size.units for fingerprint, size in own.items()}, given or Rates())
    shares = {
        stage.iteration: rate.rows for stage in stages if stage.name == "pair" and (rate := rates.of(stage)) and rate.rows is not None
    }
    expected = sizes(recipe, rounds, prompts, shares)
    judging, costs = _judging(recipe, run, rounds)
    model = _model_bytes(recipe, stages)
    entries = []
    for stage in stages:
        size = expected[stage.fingerprint]
        rate = rates.of(stage) or answering_rate(rates.of(replace(stage, name="respond")), size.answers, recipe.solver.responses)
        entries.append(_entry(run, stage, size, rate, costs.get(stage.fingerprint), model))
    todo = [entry for entry in entries if entry["state"] == "to do"]
    numbers = sorted({entry["iteration"] for entry in entries})
    return {
        "recipe": recipe.name,
        "run": str(run.root),
        "measured_on": rates.machine,
        "stages": entries,
        "judging": judging,
        "iterations": [{"iteration": number, **_sums(todo, [number], rates)} for number in numbers],
        "to_do": _sums(todo, numbers, rates, rates.start_seconds),
    }


def _sums(todo: list[dict[str, Any]], numbers: Iterable[int], rates: Rates, start: float = 0.0) -> dict[str, Any]:
    """The sums of the stages to do of some iterations."""
    chosen = [entry for entry in todo if entry["iteration"] in numbers]
    sums: dict[str, Any] = {name: _sum(entry[name] for entry in chosen) for name in (*SUMMED, *MONEY)}
    around = start + len(chosen) * rates.between_seconds
    walls = {
        f"wall_{name}": None if sums[name] is None else round(sums[name] + around, 3) for name in SUMMED if name.startswith("seconds_")
    }
    needed = [entry["checkpoint_bytes"] for entry in chosen if entry["checkpoint_bytes"] is not None]
    return {
        "stages": len(chosen),
        **sums,
        "tokens": sums["tokens"] or 0,
        "usd": sums["usd"] if chosen else 0,
        "usd_expected": sums["usd_expected"] if chosen else 0,
        **walls,
        "checkpoint_bytes": max(needed, default=None),
        "unmeasured": sum(entry["seconds_expected"] is None for entry in chosen),
        "unpriced": sum(entry["usd"] is None for entry in chosen),
    }


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known), 9) if known else None


def _judging(recipe: Recipe, run: Run, rounds: list[Iteration]) -> tuple[list[dict[str, Any]], dict[str, JudgeCost]]:
    """What every benchmark's judge will cost over all policies to do; and the cost of each judging stage."""
    stages = [stage for one in rounds for stage in one.stages]
    entries: list[dict[str, Any]] = []
    costs: dict[str, JudgeCost] = {}
    for benchmark in recipe.evaluation.benchmarks:
        if not isinstance(benchmark, JudgedBenchmark):
            continue
        name = benchmark_name(benchmark)
        judges = [stage for stage in stages if (stage.kind, stage.benchmark) == (JUDGE, name)]
        todo = [stage for stage in judges if not run.done(stage)]
        if not judges:
            continue
        own = [stage for stage in stages if stage.kind in (QUESTIONS, BASELINE) and stage.benchmark == name]
        cost = judge_cost(benchmark, (*own, judges[0]))
        costs |= {stage.fingerprint: cost for stage in judges}
        amounts = {key: None if amount is None else amount * len(todo) for key, amount in asdict(cost).items()}
        entries.append({"benchmark": name, "judge": judge_name(benchmark.judge), "policies": len(todo), **amounts})
    return entries, costs


def _entry(run: Run, stage: Stage, size: Size, rate: Rate | None, cost: JudgeCost | None, model: ModelBytes | None) -> dict[str, Any]:
    entry = {"stage": stage.label, "iteration": stage.iteration, "fingerprint": stage.fingerprint[:12]}
    if run.done(stage):
        return {**entry, **_done(run.manifest(stage))}
    units = cost.calls if cost else size.units
    known = None if units is None else rate
    tokens = {name: _per_unit(known, name, units) for name in ("input_tokens", "output_tokens")}
    if cost is not None:
        tokens = {"input_tokens": cost.expected_input_tokens, "output_tokens": cost.expected_output_tokens}
    seconds = _seconds(known, units)
    gpu = None if known is None or known.gpus is None or seconds["seconds_expected"] is None else seconds["seconds_expected"] * known.gpus
    trains = stage.name == "train"
    return {
        **entry,
        "state": "to do",
        "rows": cost.calls if cost else size.rows,
        "steps": size.steps,
        "tokens": cost.output_tokens if cost else size.tokens,
        **{name: _whole(value) for name, value in tokens.items()},
        "seconds": None,
        **seconds,
        "gpus": known.gpus if known else None,
        "gpu_seconds": gpu,
        "gpu_hours": None if gpu is None else gpu / 3600,
        "bytes": model.artifact if trains and model else _whole(_per_unit(known, "bytes", units)),
        "checkpoint_bytes": model.checkpoints if trains and model else None,
        **_money(stage, size, tokens, cost),
    }


def _done(manifest: dict[str, Any]) -> dict[str, Any]:
    counts, seconds = manifest["counts"], manifest["seconds"]
    gpus = manifest["devices"]["count"] if "devices" in manifest else None
    spent = counts.get("cost_usd", 0.0)
    return {
        "state": "done",
        "rows": manifest["rows"],
        "steps": counts.get("steps"),
        "tokens": counts.get("output_tokens", 0),
        "input_tokens": counts.get("input_tokens"),
        "output_tokens": counts.get("output_tokens"),
        "seconds": seconds,
        **dict.fromkeys(("seconds_expected", "seconds_low", "seconds_high"), seconds),
        "gpus": gpus,
        "gpu_seconds": None if gpus is None else seconds * gpus,
        "gpu_hours": None if gpus is None else seconds * gpus / 3600,
        "bytes": manifest.get("bytes"),
        "checkpoint_bytes": None,
        **dict.fromkeys(MONEY, spent),
    }


def _per_unit(rate: Rate | None, name: str, units: int | None) -> float | None:
    """An amount per unit, times the units."""
    amount = None if rate is None else getattr(rate, name)
    return None if amount is None or units is None else amount * units


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _seconds(rate: Rate | None, units: int | None) -> dict[str, float | None]:
    if rate is None or units is None:
        return dict.fromkeys(("seconds_expected", "seconds_low", "seconds_high"))
    lines = {"expected": rate, "low": rate.fastest or rate, "high": rate.slowest or rate}
    return {f"seconds_{name}": round(line.seconds(units), 3) for name, line in lines.items()}


def _money(stage: Stage, size: Size, tokens: Mapping[str, float | None], cost: JudgeCost | None) -> dict[str, float | None]:
    """What a stage costs, at most and expected; at most has the expected tokens in, because nobody limits them."""
    if cost is not None:
        return {"usd": cost.usd, "usd_expected": cost.expected_usd}
    paid = next((use for use in uses(stage) if use.target == GENERATORS["litellm"]), None)
    if paid is None:
        return dict.fromkeys(MONEY, 0.0)
    rates = token_rates(str(paid.arguments["model"]), paid.runtime.get("price"))
    read, written = tokens["input_tokens"], tokens["output_tokens"]
    if rates is None or read is None or written is None:
        return dict.fromkeys(MONEY)
    return {"usd": read * rates[0] + max(size.tokens or 0, written) * rates[1], "usd_expected": read * rates[0] + written * rates[1]}


def _model_bytes(recipe: Recipe, stages: Sequence[Stage]) -> ModelBytes | None:
    """Disk that a trained policy takes, which is as large as the one it starts from; None where nothing is trained."""
    trained = (stage.inputs["policy"] for stage in stages if stage.name == "train")
    base = next((policy for policy in trained if isinstance(policy, Outside)), None)
    if base is None:
        return None
    training = recipe.solver.training
    if training.adapter:
        return ModelBytes(tree_bytes(base.path), None)
    weights = sum(_weights(path) for path in base.path.glob("*.safetensors"))
    return ModelBytes(tree_bytes(base.path), CHECKPOINTS * weights * 4 * (1 + MOMENTS[training.optimizer]))


def _weights(path: Path) -> int:
    """How many numbers a safetensors file holds."""
    with safe_open(path, "np") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - it has no other way
