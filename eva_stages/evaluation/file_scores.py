"""Scores of judgment files, one document per benchmark, without model or network.

`eva eval score --json` prints the document: `bench`; `version` (of Arena-Hard; AlpacaEval's annotator); `models`, best first, each with
`model`, `judge`, `score`, `ci` and its benchmark's figures; `differences` of every other model from the best one of the same judge,
paired by question; and `published`. A model with several judges has an entry for each judge. `ci_kind` distinguishes the official
tool's intervals from eva's question-clustered bootstrap; differences are always eva's. A score that is not available is null, with the
reason in `reason`.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from eva_stages.core.errors import ConfigError
from eva_stages.evaluation import alpaca, mt_bench
from eva_stages.evaluation.answers import Answer, by_model, parse_answer
from eva_stages.evaluation.arena_scores import arena_models, arena_version
from eva_stages.evaluation.judgment_files import parse_records, read_records
from eva_stages.evaluation.published import published_scores
from eva_stages.evaluation.statistics import estimate_values, holm, paired_bootstrap

BENCHES = ("mt-bench", "arena-hard", "alpaca-eval")
CONFIDENCE = 0.95
SEED = 0

_JUDGMENTS = {
    "mt-bench": ("FastChat single-answer judgments",),
    "arena-hard": ("Arena-Hard raw judgments", "Arena-Hard battles"),
    "alpaca-eval": ("AlpacaEval annotations",),
}
_ANSWERS = {
    "mt-bench": ("FastChat or Arena-Hard answers",),
    "arena-hard": ("FastChat or Arena-Hard answers", "Arena-Hard answers"),
    "alpaca-eval": ("AlpacaEval model outputs",),
}


class ModelScore(NamedTuple):
    """A model's entry in the document, and its `statistics.VALUES` table; None if scores are not per question."""

    entry: dict[str, Any]
    values: pa.Table | None


def score_files(
    bench: str,
    judgments: Sequence[Path],
    answers: Sequence[Path] = (),
    questions: Path | None = None,
    hub_files: alpaca.HubFiles | None = None,
) -> dict[str, Any]:
    """The score document of judgment files.

    Args:
        bench: one of `BENCHES`.
        answers: files of responses, for lengths, style control and the official order.
        questions: MT-Bench's question file, for the categories.
        hub_files: AlpacaEval's files.

    Raises:
        ConfigError: for files that are missing, damaged or of another kind.
    """
    answers_by_model = by_model(parse_records(read_records(answers, _ANSWERS[bench], f"{bench} answers"), parse_answer))
    models, version = score_models(bench, judgments, answers_by_model, questions, hub_files)
    models.sort(key=lambda model: (model.entry["score"] is None, -(model.entry["score"] or 0.0)))
    return {
        "bench": bench,
        "version": version,
        "models": [model.entry for model in models],
        "differences": differences(models),
        "published": [score._asdict() for score in published_scores(bench, version, [model.entry["model"] for model in models])],
    }


def score_models(
    bench: str,
    judgments: Sequence[Path],
    answers_by_model: dict[str, dict[str, Answer]],
    questions: Path | None = None,
    hub_files: alpaca.HubFiles | None = None,
) -> tuple[list[ModelScore], str | None]:
    """Every model's score with its values, in the order of the files; and the version of arena-hard, the annotator of alpaca-eval."""
    records = read_records(judgments, _JUDGMENTS[bench], bench)
    if bench == "arena-hard":
        scores = [ModelScore(entry, values) for entry, values in arena_models(records, answers_by_model)]
        return scores, arena_version(records)
    if bench == "alpaca-eval":
        scores = _alpaca(parse_records(records, alpaca.parse_annotation), answers_by_model, hub_files or alpaca.available_hub_files())
        return scores, scores[0].entry["annotator"]
    categories = None
    if questions is not None:
        rows = read_records([questions], ("benchmark questions",), "MT-Bench categories")
        categories = mt_bench.question_categories(rows)
    return _mt_bench(parse_records(records, mt_bench.parse_rating), answers_by_model, categories), None


def differences(models: Sequence[ModelScore]) -> list[dict[str, Any]]:
    """For each judge, every other model against the first, on their common questions; p values adjusted by Holm over all."""
    entries: list[dict[str, Any]] = []
    for judge, (first, *other_models) in _groups((model.entry["judge"], model) for model in models if model.values is not None).items():
        for model in other_models:
            try:
                difference = paired_bootstrap(first.values, model.values, CONFIDENCE, SEED)
            except ValueError:  # no common question
                continue
            entries.append({"a": first.entry["model"], "b": model.entry["model"], "judge": judge, **asdict(difference)})
    for entry, adjusted_p in zip(entries, holm([entry["p_value"] for entry in entries]), strict=True):
        entry["p_holm"] = adjusted_p
    return entries


def _mt_bench(
    ratings: Sequence[mt_bench.Rating], answers_by_model: dict[str, dict[str, Answer]], categories: dict[str, str] | None
) -> list[ModelScore]:
    groups = _groups(((rating.model, rating.judge), rating) for rating in ratings)
    scores = []
    for (model, judge), model_ratings in groups.items():
        values = mt_bench.values(model_ratings)
        figures = mt_bench.scores(model_ratings, categories)
        entry = {"model": model, "judge": judge, "score": figures.pop("score"), **_own_interval(values), **figures}
        entry["duplicates"] = _repeated_rows((rating.question, rating.turn) for rating in model_ratings)
        scores.append(ModelScore({**entry, "avg_length": _mean_length(answers_by_model.get(model))}, values))
    return scores


def _alpaca(
    annotations: Sequence[alpaca.Annotation], answers_by_model: dict[str, dict[str, Answer]], hub_files: alpaca.HubFiles
) -> list[ModelScore]:
    keys = ((row.model, row.baseline, row.row.get("annotator"), row.judge) for row in annotations)
    groups = list(_groups(zip(keys, annotations, strict=True)).values())
    order = _official_order(answers_by_model)
    scores = []
    for model_annotations, package_results in zip(groups, alpaca.package_metrics(groups, hub_files, order), strict=True):
        entry, percent = alpaca.figures(model_annotations, package_results)
        values = alpaca.values(model_annotations, percent)
        interval = _own_interval(values) if entry["score"] is not None and percent is not None else {"ci": None, "ci_kind": None}
        length = _mean_length(answers_by_model.get(model_annotations[0].model))
        entry |= {"avg_length": entry["avg_length"] if length is None else length}
        entry["duplicates"] = _repeated_rows(annotation.instruction for annotation in model_annotations)
        first = {"model": model_annotations[0].model, "judge": entry.pop("judge"), "score": entry.pop("score")}
        scores.append(ModelScore({**first, **interval, **entry}, values))
    return scores


def _official_order(answers_by_model: dict[str, dict[str, Answer]]) -> dict[str, int] | None:
    """Place of each instruction, from a model's responses to all of them.

    Raises:
        ConfigError: if there are responses, but no model has all.
    """
    if not answers_by_model:
        return None
    complete = next((model_answers for model_answers in answers_by_model.values() if len(model_answers) == alpaca.INSTRUCTIONS), None)
    if complete is None:
        sizes = ", ".join(f"{model}: {len(model_answers)}" for model, model_answers in answers_by_model.items())
        raise ConfigError([f"--answers: expected a file with all {alpaca.INSTRUCTIONS} instructions in the official order; found {sizes}"])
    return {instruction: place for place, instruction in enumerate(complete)}


def _own_interval(values: pa.Table) -> dict[str, Any]:
    estimate = estimate_values(values, CONFIDENCE, SEED)
    return {"ci": None if estimate is None else [estimate.low, estimate.high], "ci_kind": "own"}


def _mean_length(answers: dict[str, Answer] | None) -> int | None:
    """Mean characters of a model's responses, cut to a whole number as in the official tool."""
    return int(sum(len(answer.text) for answer in answers.values()) / len(answers)) if answers else None


def _groups(pairs: Iterable[tuple[Hashable, Any]]) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups


def _repeated_rows(keys: Iterable[Hashable]) -> int:
    """How many rows repeat an earlier key. They count, as in the official tools."""
    return sum(count - 1 for count in Counter(keys).values())
