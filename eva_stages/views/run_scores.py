"""The scores of a run: benchmark by policy, with published scores of known models beside them."""

from typing import Any

from eva_stages.core.text_table import Cell, TextTable
from eva_stages.evaluation.published import PublishedScore, published_scores

LETTERCRAFT = {"sampled": "sampled reward", "greedy": "greedy reward", "sampled_gain": "gain over base", "win_rate": "win rate"}


def run_results(summary: dict[str, Any]) -> dict[str, Any]:
    """The document of a run's scores, of its summary.

    Returns:
        run; results: benchmark, policy, judge, score, low, high, questions (null where not done); published: benchmark, model, score,
        source.
    """
    results = _lettercraft(summary)
    for entry in summary.get("benchmarks") or []:
        scores = entry["scores"] or {}
        results.append(_row(entry["benchmark"], entry["policy"], scores.get("score"), (scores.get("judging") or {}).get("judge")))
    names = dict.fromkeys(one["benchmark"] for one in results)
    published = [
        {"benchmark": name, "model": one.model, "score": score, "source": one.source} for name in names for one, score in _beside(name)
    ]
    return {"run": summary["run"], "results": results, "published": published}


def run_table(document: dict[str, Any]) -> list[TextTable]:
    """The table of a run's scores, each benchmark's published ones below it."""
    sources = list(dict.fromkeys(one["source"] for one in document["published"]))
    rows: list[tuple[Cell, ...]] = []
    for name in dict.fromkeys(one["benchmark"] for one in document["results"]):
        own = [one for one in document["results"] if one["benchmark"] == name]
        rows += [(name, one["policy"], one["judge"], one["score"], one["low"], one["high"], one["questions"], "this run") for one in own]
        beside = [one for one in document["published"] if one["benchmark"] == name]
        for one in beside:
            rows.append((name, one["model"], None, one["score"], None, None, None, f"published ({sources.index(one['source']) + 1})"))
    notes = ["intervals: eva's own, over questions", *(f"({number}) {source}" for number, source in enumerate(sources, 1))]
    heads = ("benchmark", "policy", "judge", "score", "low", "high", "questions", "source")
    return [TextTable(document["run"], heads, rows, tuple(notes))]


def _lettercraft(summary: dict[str, Any]) -> list[dict[str, Any]]:
    base = summary["base"]
    policies = [("base", base["held_out"] if base else None)] if base else []
    policies += [(f"iteration {one['iteration']}", one["held_out"]) for one in summary["iterations"]] if base else []
    return [
        _row(f"lettercraft, {measure}", policy, scores[key])
        for key, measure in LETTERCRAFT.items()
        for policy, scores in policies
        if scores and key in scores
    ]


def _row(benchmark: str, policy: str, estimate: dict[str, Any] | None, judge: str | None = None) -> dict[str, Any]:
    found = estimate or {}
    figures = {"score": found.get("value"), "low": found.get("low"), "high": found.get("high"), "questions": found.get("n")}
    return {"benchmark": benchmark, "policy": policy, "judge": judge, **figures}


def _beside(name: str) -> list[tuple[PublishedScore, float]]:
    """Published scores in the benchmark's unit here: for AlpacaEval that is the raw win rate."""
    if name == "alpaca-eval":
        known = [(one, one.detail.get("win_rate")) for one in published_scores(name, None, [])]
    elif name == "mt-bench":
        known = [(one, one.score) for one in published_scores(name, None, [])]
    elif name.startswith("arena-hard-"):
        known = [(one, one.score) for one in published_scores("arena-hard", name.removeprefix("arena-hard-"), [])]
    else:
        known = []
    return [(one, score) for one, score in known if score is not None]
