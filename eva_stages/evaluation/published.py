"""Published scores of known models with their sources, for orientation. AlpacaEval's come from the leaderboards inside the alpaca_eval
package. Another judge or another baseline makes another scale, so they are not comparable to the digit.
"""

import csv
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

EVA = "arXiv 2411.00062, table 5"
MT_BENCH_PAPER = "arXiv 2306.05685; GPT-4 judge"
ARENA_2024 = "arena-hard-auto leaderboard of 2024-07-16; gpt-4-1106-preview judge"
ARENA_2025 = "arena-hard-auto README of 2025; hard prompts, style control, Gemini 2.5 judge"
ALPACA = "leaderboard in the alpaca_eval package"


class PublishedScore(NamedTuple):
    """A published score; None if the source has only the figures in `detail`."""

    model: str
    score: float | None
    source: str
    detail: dict[str, float]


def _scores_of(source: str, **scores: float) -> list[PublishedScore]:
    return [PublishedScore(model, score, source, {}) for model, score in scores.items()]


_MT_BENCH = [
    *_scores_of(MT_BENCH_PAPER, **{"gpt-4": 8.99, "gpt-3.5-turbo": 7.94, "claude-v1": 7.90, "vicuna-33b": 7.12, "llama-2-70b-chat": 6.86}),
    *_scores_of(EVA, **{"gemma-2-9b-it": 8.57, "gemma-2-9b-it DPO": 8.66, "gemma-2-9b-it eva-DPO": 8.90}),
]
_ARENA_V01 = [
    *_scores_of(
        ARENA_2024,
        **{
            "gpt-4-turbo-2024-04-09": 82.63,
            "claude-3-5-sonnet-20240620": 79.35,
            "gpt-4o-2024-05-13": 79.21,
            "gemma-2-27b-it": 57.51,
            "gpt-4-0314": 50.0,
            "llama-3-70b-instruct": 46.57,
            "gpt-4-0613": 37.9,
            "gpt-3.5-turbo-0125": 23.34,
            "llama-3-8b-instruct": 20.56,
            "gemma-7b-it": 7.47,
        },
    ),
    *_scores_of(EVA, **{"gemma-2-9b-it": 41.3, "gemma-2-9b-it DPO": 51.6, "gemma-2-9b-it eva-DPO": 60.1}),
]
_ARENA_V2 = _scores_of(
    ARENA_2025,
    **{"o3-2025-04-16": 85.9, "o4-mini-2025-04-16-high": 79.1, "gemini-2.5": 79.0, "gpt-4.1": 50.0, "claude-3-5-sonnet-20241022": 33.0},
)
ALPACA_ANNOTATOR = "weighted_alpaca_eval_gpt4_turbo"
_ALPACA_SHOWN = (
    "gemma-2-9b-it-SimPO",
    "gpt-4o-2024-05-13",
    "gpt4_1106_preview",
    "Llama-3-Instruct-8B-SimPO",
    "Meta-Llama-3-70B-Instruct",
    "Meta-Llama-3-8B-Instruct",
    "gpt-3.5-turbo-1106",
)
_ALPACA_EVA = _scores_of(EVA, **{"gemma-2-9b-it": 47.11, "gemma-2-9b-it DPO": 55.01, "gemma-2-9b-it eva-DPO": 55.35})


def published_scores(bench: str, version: str | None, models: Iterable[str]) -> list[PublishedScore]:
    """Published scores of a benchmark, best first: of a few known models, and of those in `models`.

    Args:
        bench: mt-bench, arena-hard or alpaca-eval (length-controlled win rates).
        version: v0.1 or v2.0 of arena-hard, the annotator of alpaca-eval.
    """
    if bench == "alpaca-eval":
        leaders = _alpaca_leaderboard(version or ALPACA_ANNOTATOR)
        names = dict.fromkeys([*_ALPACA_SHOWN, *models])
        scores = [leaders[name] for name in names if name in leaders] + _ALPACA_EVA
    else:
        scores = _MT_BENCH if bench == "mt-bench" else _ARENA_V2 if version == "v2.0" else _ARENA_V01
    return sorted(scores, key=lambda score: (score.score is None, -(score.score or 0.0)))


@cache
def _alpaca_leaderboard(annotator: str) -> dict[str, PublishedScore]:
    """The package's leaderboard of an annotator, empty if there is none; read without importing the package."""
    spec = find_spec("alpaca_eval")
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).parent / "leaderboards" / "data_AlpacaEval_2" / f"{Path(annotator).name}_leaderboard.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        return {row[""]: _leader(row, annotator) for row in csv.DictReader(stream)}


def _leader(row: dict[str, str], annotator: str) -> PublishedScore:
    controlled_rate = row.get("length_controlled_winrate")
    detail = {"win_rate": float(row["win_rate"]), "avg_length": int(float(row["avg_length"]))}
    return PublishedScore(row[""], float(controlled_rate) if controlled_rate else None, f"{ALPACA}, {annotator}", detail)
