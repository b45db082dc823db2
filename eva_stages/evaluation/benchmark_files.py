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


def file_sources(benchmark: Section) -> dict[str, FileSource]:
    """Every file of a benchmark, by the field that can set a path; settings come before the files that depend on them.

    The two files of the alpaca_eval package come from the recipe, and for the official questions from the Hub: other questions are not
    those of the package's fit, so without files in the recipe their length-controlled win rate is null.
    """
    match benchmark:
        case LMEval(include=folder):
            return {} if folder is None else {"include": FileSource(folder, folder=True)}
        case MTBench():
            prompts, references = _source(benchmark.prompts, "mt-bench-prompts"), _source(benchmark.references, "mt-bench-references")
            return {"prompts": prompts, "questions": _source(benchmark.questions, "mt-bench"), "references": references}
        case ArenaHard(version=version):
            suffix = "" if version == "v0.1" else "-v2.0"
            prompts = _source(benchmark.prompts, f"arena-hard{suffix}-prompts")
            system = replace(_source(benchmark.system_prompts, "arena-hard-system-prompts"), settings=prompts)
            questions = _source(benchmark.questions, f"arena-hard{suffix}")
            return {"prompts": prompts, "system_prompts": system, **_arena_hard_baselines(benchmark), "questions": questions}
        case AlpacaEval(baseline=baseline):
            files = {"gamed": benchmark.gamed, "difficulty": benchmark.difficulty}
            package = {name: path for name, path in files.items() if path is not None or benchmark.questions is None}
            return {
                **{name: _source(path, f"alpaca-eval-{name}") for name, path in package.items()},
                **({} if baseline == BASE else {"baseline": _source(baseline, "alpaca-eval-outputs")}),
                "questions": _source(benchmark.questions, "alpaca-eval-outputs"),
            }
        case Benchmark():
            return {"questions": _source(benchmark.questions, benchmark_name(benchmark))}
        case _:
            return {}


def _arena_hard_baselines(benchmark: ArenaHard) -> dict[str, FileSource]:
    """The files with the baseline's responses: from the recipe, or the published ones of models; none for the base policy."""
    if benchmark.baseline == BASE:
        return {}
    if benchmark.baseline is not None:
        return {"baseline": FileSource(benchmark.baseline, arena_hard_answers(benchmark.version, benchmark.baseline))}
    homes = [arena_hard_answers(benchmark.version, model) for model in BASELINES[benchmark.version]]
    return {f"baseline.{index}" if index else "baseline": FileSource(home=home) for index, home in enumerate(homes)}


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
