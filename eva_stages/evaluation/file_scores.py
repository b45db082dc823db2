"""Scoring judgment files: from rows to one document per benchmark, without any model or network.

The document is what `eva eval score --json` prints: `bench`; `version` (of Arena-Hard; AlpacaEval's annotator); `models`, best first,
each with `model`, `judge`, `score`, `ci` and the figures of its benchmark; `differences`, every other model against the best one of the
same judge, paired by question; and `published`. A score is one judge's: a model that several have judged has an entry for each.
`ci_kind` says whether an interval is the official tool's or eva's own prompt-clustered bootstrap; differences are always eva's own. A
score that cannot be had is null, with the reason in `reason`.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
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
    """A model's entry of the document, and its `statistics.VALUES` table; None where the scores are not of questions."""

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
        answers: answer files, for lengths, style control and the official order.
        questions: MT-Bench question file, for the categories.
        hub_files: AlpacaEval's files.

    Raises:
        ConfigError: for files that are missing, broken, or not what the benchmark expects.
    """
    answered = by_model(parse_records(read_records(answers, _ANSWERS[bench], f"{bench} answers"), parse_answer))
    models, version = score_models(bench, judgments, answered, questions, hub_files)
    models.sort(key=lambda one: (one.entry["score"] is None, -(one.entry["score"] or 0.0)))
    return {
        "bench": bench,
        "version": version,
        "models": [one.entry for one in models],
        "differences": differences(models),
        "published": [one._asdict() for one in published_scores(bench, version, [one.entry["model"] for one in models])],
    }


def score_models(
    bench: str,
    judgments: Sequence[Path],
    answered: dict[str, dict[str, Answer]],
    questions: Path | None = None,
    hub_files: alpaca.HubFiles | None = None,
) -> tuple[list[ModelScore], str | None]:
    """Every model's score with its values, in the order of the files, and the version of arena-hard or annotator of alpaca-eval."""
    records = read_records(judgments, _JUDGMENTS[bench], bench)
    if bench == "arena-hard":
        scored = [ModelScore(entry, values) for entry, values in arena_models(records, answered)]
        return scored, arena_version(records)
    if bench == "alpaca-eval":
        scored = _alpaca(parse_records(records, alpaca.parse_annotation), answered, hub_files or alpaca.cached_hub_files())
        return scored, scored[0].entry["annotator"]
    categories = None
    if questions is not None:
        rows = read_records([questions], ("benchmark questions",), "MT-Bench categories")
        categories = mt_bench.question_categories(rows)
    return _mt_bench(parse_records(records, mt_bench.parse_rating), answered, categories), None


def differences(models: Sequence[ModelScore]) -> list[dict[str, Any]]:
    """Of each judge every other model against the first, on the questions both were judged on, p values adjusted by Holm over all."""
    found: list[dict[str, Any]] = []
    for judge, own in _grouped((one.entry["judge"], one) for one in models if one.values is not None).items():
        for other in own[1:]:
            try:
                difference = paired_bootstrap(own[0].values, other.values, CONFIDENCE, SEED)
            except ValueError:  # they share no question
                continue
            found.append({"a": own[0].entry["model"], "b": other.entry["model"], "judge": judge, **difference.as_dict()})
    for one, adjusted in zip(found, holm([one["p_value"] for one in found]), strict=True):
        one["p_holm"] = adjusted
    return found


def _mt_bench(
    ratings: Sequence[mt_bench.Rating], answered: dict[str, dict[str, Answer]], categories: dict[str, str] | None
) -> list[ModelScore]:
    grouped = _grouped(((one.model, one.judge), one) for one in ratings)
    scored = []
    for (model, judge), own in grouped.items():
        values = mt_bench.values(own)
        figures = mt_bench.scores(own, categories)
        repeated = _repeated((one.question, one.turn) for one in own)
        length = _mean_length(answered.get(model))
        entry = {"model": model, "judge": judge, "score": figures.pop("score"), **_own_interval(values), **figures}
        scored.append(ModelScore({**entry, "duplicates": repeated, "avg_length": length}, values))
    return scored


def _alpaca(
    annotations: Sequence[alpaca.Annotation], answered: dict[str, dict[str, Answer]], hub_files: alpaca.HubFiles
) -> list[ModelScore]:
    grouped = list(_grouped(((one.model, one.baseline, one.row.get("annotator"), one.judge), one) for one in annotations).values())
    order = _official_order(answered)
    scored = []
    for own, found in zip(grouped, alpaca.package_metrics(grouped, hub_files, order), strict=True):
        entry, percent = alpaca.figures(own, found)
        values = alpaca.values(own, percent)
        interval = _own_interval(values) if entry["score"] is not None and percent is not None else {"ci": None, "ci_kind": None}
        length = _mean_length(answered.get(own[0].model))
        entry |= {"avg_length": entry["avg_length"] if length is None else length}
        entry["duplicates"] = _repeated(one.instruction for one in own)
        first = {"model": own[0].model, "judge": entry.pop("judge"), "score": entry.pop("score")}
        scored.append(ModelScore({**first, **interval, **entry}, values))
    return scored


def _official_order(answered: dict[str, dict[str, Answer]]) -> dict[str, int] | None:
    """Place of each instruction, from answers to all of them.

    Raises:
        ConfigError: if answers are given and none are complete.
    """
    if not answered:
        return None
    complete = next((one for one in answered.values() if len(one) == alpaca.INSTRUCTIONS), None)
    if complete is None:
        sizes = ", ".join(f"{model}: {len(one)}" for model, one in answered.items())
        raise ConfigError([f"--answers: expected a file with all {alpaca.INSTRUCTIONS} instructions in the official order; found {sizes}"])
    return {instruction: place for place, instruction in enumerate(complete)}


def _own_interval(values: pa.Table) -> dict[str, Any]:
    estimate = estimate_values(values, CONFIDENCE, SEED)
    return {"ci": None if estimate is None else [estimate.low, estimate.high], "ci_kind": "own"}


def _mean_length(answers: dict[str, Answer] | None) -> int | None:
    """Mean characters of a model's answers, cut to a whole number as the official tool does."""
    return int(sum(len(one.text) for one in answers.values()) / len(answers)) if answers else None


def _grouped(pairs: Iterable[tuple[Hashable, Any]]) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups


def _repeated(keys: Iterable[Hashable]) -> int:
    """Rows beyond the first of their key. They count, as in the official tools."""
    return sum(count - 1 for count in Counter(keys).values())
