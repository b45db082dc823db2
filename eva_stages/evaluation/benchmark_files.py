"""Which official files a benchmark reads, and whether they are what they should be."""

from dataclasses import replace

from eva_stages.core.config.evaluation_config import AlpacaEval, ArenaHard, Benchmark, LMEval, MTBench, benchmark_name
from eva_stages.core.config.section import Section
from eva_stages.core.homes import HOMES, FileSource, arena_hard_answers
from eva_stages.core.kinds import BASE
from eva_stages.core.resolved import Resolved
from eva_stages.evaluation.benchmark_questions import baseline_answers, question_rows
from eva_stages.evaluation.judge_prompts import arena_hard_templates, mt_bench_templates

BASELINES = {"v0.1": ("gpt-4-0314",), "v2.0": ("o3-mini-2025-01-31", "gemini-2.0-flash-001")}
"""Official baselines of Arena-Hard; of two, the second answers creative writing."""


def question_sources(benchmark: Section) -> dict[str, FileSource]:
    """The files that a benchmark's questions are read from, by the name of the field that can give a path."""
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


def baseline_sources(benchmark: ArenaHard | AlpacaEval) -> list[FileSource]:
    """The files with the baseline's answers: those given, or the published ones of the model named; none for the base policy."""
    given = benchmark.baseline
    if given == BASE:
        return []
    if isinstance(benchmark, AlpacaEval):
        return [_source(given, "alpaca-eval-outputs")]
    if given is not None:
        return [FileSource(given, arena_hard_answers(benchmark.version, given))]
    return [FileSource(home=arena_hard_answers(benchmark.version, model)) for model in BASELINES[benchmark.version]]


def judge_sources(benchmark: Section) -> dict[str, FileSource]:
    """The files with a judge's prompts, by the name of the field that can give a path."""
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


def package_sources(benchmark: Section) -> dict[str, FileSource]:
    """The two files of the alpaca_eval package: those given, and for the official questions those of the Hub.

    Questions of one's own are not those of the package's fit, so nothing is fetched for them, and without files given the
    length-controlled win rate is null. The recipe alone decides which files there are.
    """
    if not isinstance(benchmark, AlpacaEval):
        return {}
    files = {"gamed": benchmark.gamed, "difficulty": benchmark.difficulty}
    required = {name: path for name, path in files.items() if path is not None or benchmark.questions is None}
    return {name: _source(path, f"alpaca-eval-{name}") for name, path in required.items()}


def file_sources(benchmark: Section) -> dict[str, FileSource]:
    """Every file of a benchmark, by the name of the field that can give a path; a file with settings stands before those it decides on."""
    baseline = baseline_sources(benchmark) if isinstance(benchmark, ArenaHard | AlpacaEval) else []
    answers = {"baseline" if index == 0 else f"baseline ({index + 1})": source for index, source in enumerate(baseline)}
    return {**question_sources(benchmark), **answers, **judge_sources(benchmark), **package_sources(benchmark)}


def check_files(benchmark: Section, resolved: Resolved) -> None:
    """Read the files of a benchmark's questions, baseline and judge.

    Raises:
        DataError: if one is not what it should be.
    """
    kind = str(benchmark.model_dump()["kind"])
    files = {name: file.path for name, file in resolved.found(question_sources(benchmark) | judge_sources(benchmark)).items()}
    if "questions" in files:
        question_rows(kind, files["questions"], files.get("references"))
    if isinstance(benchmark, ArenaHard | AlpacaEval):
        answers = resolved.found(dict(enumerate(baseline_sources(benchmark))))
        if answers:
            baseline_answers(kind, [file.path for file in answers.values()])
    if "prompts" in files and isinstance(benchmark, MTBench):
        mt_bench_templates(files["prompts"])
    elif "prompts" in files:
        arena_hard_templates(files["prompts"], files.get("system_prompts"))


def _source(path: str | None, home: str) -> FileSource:
    return FileSource(home=HOMES[home]) if path is None else FileSource(path)
