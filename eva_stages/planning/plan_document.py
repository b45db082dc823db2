"""The plan of a recipe: every stage, done or to do, with rows, tokens, time, disk and money, and their sums by iteration.

Upper limits come from the recipe, expected figures from rates (`eva_stages.planning.rates`). Unknown figures are null.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from eva_stages.core.config.evaluation_config import JudgedBenchmark, benchmark_name, judge_name
from eva_stages.core.config.models_config import LiteLLMModel
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.solver_config import Optimisation
from eva_stages.core.kinds import BASELINE, JUDGE, QUESTIONS, REJUDGE
from eva_stages.core.ledger import tree_bytes
from eva_stages.core.resolved import Resolved
from eva_stages.core.rounds import Iteration, stages_of
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import Outside, Stage, uses
from eva_stages.models.providers import token_rates
from eva_stages.planning.gate_costs import gate_costs
from eva_stages.planning.judge_costs import JudgeCost, judge_cost, sample_cost
from eva_stages.planning.online_costs import interval_money
from eva_stages.planning.online_sizes import interval_calls
from eva_stages.planning.rates import Rate, Rates, answering_rate, known_rates
from eva_stages.planning.response_lengths import rate_at_length, response_lengths, responses_per_row
from eva_stages.planning.sizes import Size, prompt_count, sizes

SECONDS = ("seconds_expected", "seconds_low", "seconds_high")
SUMMED_FIELDS = ("tokens", "input_tokens", "output_tokens", *SECONDS, "gpu_seconds", "gpu_hours", "bytes")
MONEY = ("usd", "usd_expected")
MOMENTS = {"adamw_torch": 2, "adamw_torch_fused": 2, "rmsprop": 1, "adafactor": 0}
"""Numbers that an optimiser stores for each weight."""
CHECKPOINTS = 3
"""Checkpoints of a training on disk at the same time: two saved ones, and the one being written."""


@dataclass(frozen=True)
class ModelBytes:
    artifact: int
    checkpoints: int | None
    """The most at one time during training; None for adapters."""


def plan_document(
    recipe: Recipe, resolved: Resolved, rounds: list[Iteration], run: Run, given_rates: Rates | None = None
) -> dict[str, Any]:
    """Every stage with its state and size; sums of the stages to do, by iteration and in total.

    Of a stage: `rows` and `tokens` (generated) are upper limits until it has run; `steps` are a training's expected steps. `input_tokens`,
    `output_tokens`, `seconds_expected` with `seconds_low` and `seconds_high`, `gpu_seconds`, `gpu_hours` and `bytes` are expected; actual
    once it has run, and null without a rate. `checkpoint_bytes` is the additional disk during a training. `calls`, of
    an online training, has the calls of its models at most. `usd` is an upper limit: 0 for models that run here, null without a price or a
    number of tokens. `judging` has calls, tokens and money of every benchmark's judge,
    upper limits and expected, for all policies to be judged. Sums leave null parts out; `unmeasured` and `unpriced` count them, and a sum
    of no parts is null. `wall_seconds` includes the start and the time between stages. Expected lengths of responses are those
    of complete stages, where there are any (`eva_stages.planning.response_lengths`).

    Args:
        given_rates: rates that take precedence over the run's own.
    """
    prompts = prompt_count(recipe, resolved, rounds, run)
    planned_sizes = sizes(recipe, rounds, prompts)
    stages = stages_of(rounds)
    rates = known_rates(run, stages, {fingerprint: size.units for fingerprint, size in planned_sizes.items()}, given_rates or Rates())
    shares = {
        stage.iteration: rate.rows for stage in stages if stage.name == "pair" and (rate := rates.of(stage)) and rate.rows is not None
    }
    expected_sizes = sizes(recipe, rounds, prompts, shares)
    judging, costs = _judging(recipe, run, rounds, planned_sizes)
    models = {
        name: _model_bytes(stages, name, training, keeps_state=recipe.mode == "online") for name, training in trained_stages(recipe).items()
    }
    for fingerprint, cost in gate_costs(recipe, stages, expected_sizes).items():
        rate = rates.of(next(stage for stage in stages if stage.fingerprint == fingerprint))
        if rate is None or rate.input_tokens is None:  # a measured rate is closer
            costs[fingerprint] = cost
    entries = []
    lengths = response_lengths(run, stages)
    for stage in stages:
        size = expected_sizes[stage.fingerprint]
        rate = rates.of(stage) or answering_rate(rates.of(replace(stage, name="respond")), size.answers, recipe.solver.responses)
        row_tokens = None
        if stage.fingerprint in lengths and (given_rates is None or given_rates.of(stage) is None):
            row_tokens = lengths[stage.fingerprint] * responses_per_row(stage)
            rate = rate_at_length(rate, row_tokens)
        entry = _entry(run, stage, size, rate, costs.get(stage.fingerprint), models.get(stage.name), row_tokens)
        if recipe.online and stage.name == "train":
            entry["calls"] = interval_calls(recipe, stage.iteration)
            entry |= interval_money(recipe, stage.iteration) if entry["state"] == "to do" else {}
        entries.append(entry)
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
    """Sums over the stages to do in some iterations."""
    entries = [entry for entry in todo if entry["iteration"] in numbers]
    sums: dict[str, Any] = {name: _sum(entry[name] for entry in entries) for name in (*SUMMED_FIELDS, *MONEY)}
    extra_seconds = start + len(entries) * rates.between_seconds
    walls = {f"wall_{name}": None if sums[name] is None else round(sums[name] + extra_seconds, 3) for name in SECONDS}
    checkpoints = [entry["checkpoint_bytes"] for entry in entries if entry["checkpoint_bytes"] is not None]
    return {
        "stages": len(entries),
        **sums,
        "tokens": sums["tokens"] or 0,
        "usd": sums["usd"] if entries else 0,
        "usd_expected": sums["usd_expected"] if entries else 0,
        **walls,
        "checkpoint_bytes": max(checkpoints, default=None),
        "unmeasured": sum(entry["seconds_expected"] is None for entry in entries),
        "unpriced": sum(entry["usd"] is None for entry in entries),
    }


def _sum(values: Iterable[float | None]) -> float | None:
    known_values = [value for value in values if value is not None]
    return round(sum(known_values), 9) if known_values else None


def _judging(
    recipe: Recipe, run: Run, rounds: list[Iteration], planned_sizes: Mapping[str, Size]
) -> tuple[list[dict[str, Any]], dict[str, JudgeCost]]:
    """The cost of every benchmark's judge over all policies to do; and the cost of each judging stage."""
    stages = [stage for iteration in rounds for stage in iteration.stages]
    entries: list[dict[str, Any]] = []
    costs: dict[str, JudgeCost] = {}
    for benchmark in recipe.evaluation.benchmarks:
        if not isinstance(benchmark, JudgedBenchmark):
            continue
        name = benchmark_name(benchmark)
        judges = [stage for stage in stages if (stage.kind, stage.benchmark) == (JUDGE, name)]
        todo = [stage for stage in judges if not run.is_complete(stage)]
        if not judges:
            continue
        file_stages = [stage for stage in stages if stage.kind in (QUESTIONS, BASELINE) and stage.benchmark == name]
        cost = judge_cost(benchmark, (*file_stages, judges[0]))
        costs |= {stage.fingerprint: cost for stage in judges}
        entries.append(_judging_entry(name, benchmark, len(todo), cost))
        for stage in (stage for stage in stages if (stage.kind, stage.benchmark) == (REJUDGE, name)):
            costs[stage.fingerprint] = sample_cost(cost, planned_sizes[stage.fingerprint].rows or 0)
            if not run.is_complete(stage):
                entries.append(_judging_entry(f"{name}, repeated sample", benchmark, 1, costs[stage.fingerprint]))
    return entries, costs


def _judging_entry(name: str, benchmark: JudgedBenchmark, policies: int, cost: JudgeCost) -> dict[str, Any]:
    amounts = {key: None if amount is None else amount * policies for key, amount in asdict(cost).items()}
    return {"benchmark": name, "judge": judge_name(benchmark.judge), "policies": policies, **amounts}


def _entry(
    run: Run, stage: Stage, size: Size, rate: Rate | None, cost: JudgeCost | None, model: ModelBytes | None, row_tokens: float | None = None
) -> dict[str, Any]:
    entry = {"stage": stage.label, "iteration": stage.iteration, "fingerprint": stage.fingerprint[:12]}
    if run.is_complete(stage):
        return {**entry, **_done_entry(run.manifest(stage))}
    units = size.units
    known_rate = None if units is None else rate
    tokens = {name: _per_unit(known_rate, name, units) for name in ("input_tokens", "output_tokens")}
    if row_tokens is not None and units is not None:
        tokens["output_tokens"] = row_tokens * units
    if cost is not None:
        tokens = {"input_tokens": cost.expected_input_tokens, "output_tokens": cost.expected_output_tokens}
    seconds = _seconds(known_rate, units)
    return {
        **entry,
        "state": "to do",
        "rows": size.rows,
        "steps": size.steps,
        "tokens": cost.output_tokens if cost else size.tokens,
        **{name: _whole(value) for name, value in tokens.items()},
        "seconds": None,
        **seconds,
        **_gpu_time(known_rate.gpus if known_rate else None, seconds["seconds_expected"]),
        "bytes": model.artifact if model else _whole(_per_unit(known_rate, "bytes", units)),
        "checkpoint_bytes": model.checkpoints if model else None,
        **_money(stage, size, tokens, cost),
    }


def _done_entry(manifest: dict[str, Any]) -> dict[str, Any]:
    counts, seconds = manifest["counts"], manifest["seconds"]
    usd = counts.get("cost_usd", 0.0)
    return {
        "state": "done",
        "rows": manifest["rows"],
        "steps": counts.get("steps"),
        "tokens": counts.get("output_tokens", 0),
        "input_tokens": counts.get("input_tokens"),
        "output_tokens": counts.get("output_tokens"),
        "seconds": seconds,
        **dict.fromkeys(SECONDS, seconds),
        **_gpu_time(manifest["devices"]["count"] if "devices" in manifest else None, seconds),
        "bytes": manifest.get("bytes"),
        "checkpoint_bytes": None,
        **dict.fromkeys(MONEY, usd),
    }


def _gpu_time(gpus: int | None, seconds: float | None) -> dict[str, float | None]:
    gpu_seconds = None if gpus is None or seconds is None else seconds * gpus
    return {"gpus": gpus, "gpu_seconds": gpu_seconds, "gpu_hours": None if gpu_seconds is None else gpu_seconds / 3600}


def _per_unit(rate: Rate | None, name: str, units: int | None) -> float | None:
    """A rate's amount per unit times the units."""
    amount = None if rate is None else getattr(rate, name)
    return None if amount is None or units is None else amount * units


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _seconds(rate: Rate | None, units: int | None) -> dict[str, float | None]:
    if rate is None or units is None:
        return dict.fromkeys(SECONDS)
    lines = {"expected": rate, "low": rate.fastest or rate, "high": rate.slowest or rate}
    return {f"seconds_{name}": round(line.seconds(units), 3) for name, line in lines.items()}


def _money(stage: Stage, size: Size, tokens: Mapping[str, float | None], cost: JudgeCost | None) -> dict[str, float | None]:
    """The cost of a stage, at most and expected; at most counts the expected input tokens, which have no limit."""
    if cost is not None:
        return {"usd": cost.usd, "usd_expected": cost.expected_usd}
    provider_call = next((use for use in uses(stage) if use.target == LiteLLMModel.target), None)
    if provider_call is None:
        return dict.fromkeys(MONEY, 0.0)
    rates = token_rates(str(provider_call.arguments["model"]), provider_call.runtime.get("price"))
    tokens_in, tokens_out = tokens["input_tokens"], tokens["output_tokens"]
    if rates is None or tokens_in is None or tokens_out is None:
        return dict.fromkeys(MONEY)
    input_usd = tokens_in * rates[0]
    return {"usd": input_usd + max(size.tokens or 0, tokens_out) * rates[1], "usd_expected": input_usd + tokens_out * rates[1]}


def trained_stages(recipe: Recipe) -> dict[str, Optimisation]:
    """The trainings of a recipe by the names of their stages."""
    creator = recipe.creator.training
    return {"train": recipe.solver.training, **({"creator-train": creator} if creator else {})}


def _model_bytes(stages: Sequence[Stage], name: str, training: Optimisation, keeps_state: bool) -> ModelBytes | None:
    """Disk size of a trained model, which is that of the model it starts from; None if nothing is trained, or an adapter alone.

    Args:
        keeps_state: the artifact has the last checkpoint too, with the optimiser's state.
    """
    starts: list[Stage | Outside] = [stage.inputs["policy"] for stage in stages if stage.name == name]
    if not starts or getattr(training, "network", None) == "adapter":
        return None
    base = starts[0]
    while isinstance(base, Stage):
        base = base.inputs["policy"]
    if training.adapter:
        return ModelBytes(tree_bytes(base.path), None)
    weights = sum(_weights(path) for path in base.path.glob("*.safetensors"))
    checkpoint = weights * 4 * (1 + MOMENTS[training.optimizer])
    return ModelBytes(tree_bytes(base.path) + (checkpoint if keeps_state else 0), CHECKPOINTS * checkpoint)


def _weights(path: Path) -> int:
    """How many numbers a safetensors file has."""
    with safe_open(path, "np") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - its only interface
