"""The official files that a benchmark reads, and their checks."""

from collections.abc import Mapping
from dataclasses import replace

from eva_stages.core.config.evaluation_config import AlpacaEval, ArenaHard, Benchmark, LMEval, MTBench, benchmark_name
from eva_stages.core.config.section import Section
from eva_stages.core.homes import HOMES, FileSource, arena_hard_answers
from eva_stages.core.kinds import BASE
from eva_stages.core.stage import Outside
from eva_stages.evaluation.benchmark_questions import baseline_answers, question_rows
from eva_stages.evaluation.judge_prompts import arena_hard_templates, mt_bench_templates

BASELINES = {"v0.1": ("gpt-4-0314",), "v2.0": ("o3-mini-2025-01-31", "gemini-2.0-flash-001")}
"""Official baselines of Arena-Hard; of two, the second has the responses to creative writing."""


def _questions(benchmark: Section) -> dict[str, FileSource]:
    """The files with a benchmark's questions, by the field that can set a path."""
    match benchmark:
        case LMEval(include=str() as folder):
            return {"include": FileSource(folder, folder=True)}
        case Benchmark():
            name = benchmark_name(benchmark)
            home = {"arena-hard-v0.1": "arena-hard", "alpaca-eval": "alpaca-eval-outputs"}.get(name, name)
            references = {"references": _source(benchmark.references, "mt-bench-references")} if isinstance(benchmark, MTBench) else {}
            return {"questions": _source(benchmark.questions, home), **references}
        case _:
            return {}


def _baseline(benchmark: Section) -> dict[str, FileSource]:
    """The files with the baseline's responses: from the recipe, or the published ones of a model; none for the base policy."""
    match benchmark:
        case ArenaHard(baseline=path) | AlpacaEval(baseline=path) if path == BASE:
            return {}
        case AlpacaEval():
            return {"baseline": _source(benchmark.baseline, "alpaca-eval-outputs")}
        case ArenaHard(baseline=str() as model, version=version):
            return {"baseline": FileSource(model, arena_hard_answers(version, model))}
        case ArenaHard(version=version):
            homes = [arena_hard_answers(version, model) for model in BASELINES[version]]
            return {f"baseline.{index}" if index else "baseline": FileSource(home=home) for index, home in enumerate(homes)}
        case _:
            return {}


def _judge(benchmark: Section) -> dict[str, FileSource]:
    """The files with a judge's prompts, by the field that can set a path."""
    match benchmark:
        case MTBench():
            return {"prompts": _source(benchmark.prompts, "mt-bench-prompts")}
        case ArenaHard():
            home = "arena-hard-prompts" if benchmark.version == "v0.1" else "arena-hard-v2.0-prompts"
            prompts = _source(benchmark.prompts, home)
            system = replace(_source(benchmark.system_prompts, "arena-hard-system-prompts"), settings=prompts)
            return {"prompts": prompts, "system_prompts": system}
        case _:
            return {}


def _package(benchmark: Section) -> dict[str, FileSource]:
    """The two files of the alpaca_eval package: from the recipe, and for the official questions from the Hub.

    Other questions are not those of the package's fit, so nothing is downloaded for them; without files in the recipe their
    length-controlled win rate is null. Only the recipe decides which files there are.
    """
    if not isinstance(benchmark, AlpacaEval):
        return {}
    files = {"gamed": benchmark.gamed, "difficulty": benchmark.difficulty}
    required_files = {name: path for name, path in files.items() if path is not None or benchmark.questions is None}
    return {name: _source(path, f"alpaca-eval-{name}") for name, path in required_files.items()}


def file_sources(benchmark: Section) -> dict[str, FileSource]:
    """Every file of a benchmark, by the field that can set a path; settings come before the files that depend on them."""
    return {**_judge(benchmark), **_package(benchmark), **_baseline(benchmark), **_questions(benchmark)}


def check_files(benchmark: Benchmark, files: Mapping[str, Outside]) -> None:
    """Read the available files of a benchmark's questions, baseline and judge.

    Raises:
        DataError: if one has another format.
    """
    kind = str(benchmark.model_dump()["kind"])
    paths = {name: file.path for name, file in files.items()}
    if "questions" in paths:
        question_rows(kind, paths["questions"], paths.get("references"))
    if answers := [path for name, path in paths.items() if name.startswith("baseline")]:
        baseline_answers(kind, answers)
    if "prompts" in paths and isinstance(benchmark, MTBench):
        mt_bench_templates(paths["prompts"])
    elif "prompts" in paths:
        arena_hard_templates(paths["prompts"], paths.get("system_prompts"))


def _source(path: str | None, home: str) -> FileSource:
    return FileSource(home=HOMES[home]) if path is None else FileSource(path)
