"""The options of `eva eval run` as a change of the recipe: benchmarks, judge, baseline, spending cap."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cli.bench_names import BENCHMARKS
from eva_stages.core.config.evaluation_config import AlpacaEval, ArenaHard, Evaluation, JudgedBenchmark, benchmark_name
from eva_stages.core.config.models_config import LiteLLMModel
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.decoding import decode_yaml, short
from eva_stages.core.errors import ConfigError
from eva_stages.core.packaged_files import packaged_recipes
from eva_stages.core.recipe_errors import error_text
from eva_stages.models.loading import LETTERCRAFT

MODEL_RECIPE = "evaluate"
"""The packaged recipe for a model without one."""


def is_model(argument: str) -> bool:
    """Whether `RECIPE|MODEL` is a model: a folder, `lettercraft` or a Hub id, and neither a file nor a packaged recipe."""
    if Path(argument).is_file() or argument.endswith((".yaml", ".yml")) or argument in {recipe.name for recipe in packaged_recipes()}:
        return False
    return argument == LETTERCRAFT or Path(argument).expanduser().is_dir() or re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", argument) is not None


def model_overrides(model: str) -> list[str]:
    """Overrides of the packaged recipe for the evaluation of a model."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(Path(model).expanduser().resolve().name) if Path(model).expanduser().is_dir() else model)
    return [f"policy.model={yaml.safe_dump(model, default_flow_style=True, width=10_000).splitlines()[0]}", f"name=eval-{name}"]


def requested_recipe(recipe: Recipe, bench: str | None, judge: str | None, baseline: str | None, max_cost: float | None) -> Recipe:
    """The recipe with the requested benchmarks.

    Args:
        bench: names, separated by commas; None = the recipe's own.
        judge: LiteLLM's name of a model, a checkpoint folder, `lettercraft`, `policy`, or a mapping as in a recipe.
        baseline: as in the recipe, for Arena-Hard and AlpacaEval.
        max_cost: US dollars that this run may spend on judges.

    Raises:
        ConfigError: with what is unknown or does not fit.
    """
    recipe_benchmarks = [benchmark.model_dump(mode="json") for benchmark in recipe.evaluation.benchmarks]
    names = [benchmark_name(benchmark) for benchmark in recipe.evaluation.benchmarks]
    chosen = (
        recipe_benchmarks if bench is None else [_requested_benchmark(name.strip(), recipe_benchmarks, names) for name in bench.split(",")]
    )
    judge_settings = None if judge is None else _judge_settings(judge)
    changed_benchmarks = [_changed_benchmark(benchmark, judge_settings, baseline, max_cost) for benchmark in chosen]
    try:
        evaluation = Evaluation.model_validate({**recipe.evaluation.model_dump(mode="json"), "benchmarks": changed_benchmarks})
    except ValidationError as error:
        place = "eva eval run" if judge is None else "--judge"
        raise ConfigError([error_text(entry, Evaluation, {}, place) for entry in error.errors()]) from error
    judges = [benchmark.judge for benchmark in evaluation.benchmarks if isinstance(benchmark, JudgedBenchmark)]
    errors = []
    if judge is not None and not judges:
        errors.append("--judge: none of the benchmarks takes another judge; mt-bench, arena-hard and alpaca-eval do. Leave it out")
    if baseline is not None and not any(isinstance(benchmark, ArenaHard | AlpacaEval) for benchmark in evaluation.benchmarks):
        errors.append("--baseline: none of the benchmarks compares with a baseline; arena-hard and alpaca-eval do. Leave it out")
    if max_cost is not None and not any(isinstance(model, LiteLLMModel) for model in judges):
        errors.append("--max-cost: none of the benchmarks has a paid judge; leave it out")
    if errors:
        raise ConfigError(errors)
    return recipe.model_copy(update={"evaluation": evaluation})


def _requested_benchmark(name: str, recipe_benchmarks: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    known_names = list(dict.fromkeys((*BENCHMARKS, *names)))
    if name not in known_names:
        raise ConfigError([f"--bench: there is no benchmark {name!r}; known: {', '.join(known_names)}"])
    matches = [
        benchmark
        for benchmark, full in zip(recipe_benchmarks, names, strict=True)
        if full == name or benchmark["kind"].replace("_", "-") == name
    ]
    return matches[0] if matches else BENCHMARKS[name]


def _changed_benchmark(
    benchmark: dict[str, Any], judge: dict[str, Any] | None, baseline: str | None, max_cost: float | None
) -> dict[str, Any]:
    changed_benchmark = dict(benchmark)
    if benchmark["kind"] in ("mt_bench", "arena_hard", "alpaca_eval"):
        if judge is not None:
            changed_benchmark["judge"] = judge
        if max_cost is not None:
            present = changed_benchmark.get("judge", {"kind": "litellm"})
            if present["kind"] == "litellm":
                changed_benchmark["judge"] = {**present, "runtime": {**present.get("runtime", {}), "max_cost_usd": max_cost}}
    if baseline is not None and benchmark["kind"] in ("arena_hard", "alpaca_eval"):
        changed_benchmark["baseline"] = baseline
    return changed_benchmark


def _judge_settings(judge: str) -> dict[str, Any]:
    """A judge as in a recipe, from a word or a mapping in YAML."""
    try:
        mapping, _ = decode_yaml(judge)
    except ValueError as error:
        raise ConfigError([f"--judge: {short(judge)}: {error}"]) from error
    if isinstance(mapping, dict):
        return mapping
    if judge in (LETTERCRAFT, "policy"):
        return {"kind": judge}
    if Path(judge).expanduser().is_dir():
        return {"kind": "transformers", "model": judge}
    return {"kind": "litellm", "model": judge}
