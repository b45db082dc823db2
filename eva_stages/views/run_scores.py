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
    names = dict.fromkeys(entry["benchmark"] for entry in results)
    published_rows = [
        {"benchmark": name, "model": entry.model, "score": score, "source": entry.source}
        for name in names
        for entry, score in _published_scores(name)
    ]
    return {"run": summary["run"], "results": results, "published": published_rows}


def run_table(document: dict[str, Any]) -> list[TextTable]:
    """The table of a run's scores, with published scores below each benchmark."""
    sources = list(dict.fromkeys(entry["source"] for entry in document["published"]))
    rows: list[tuple[Cell, ...]] = []
    for name in dict.fromkeys(entry["benchmark"] for entry in document["results"]):
        own_results = [entry for entry in document["results"] if entry["benchmark"] == name]
        rows += [
            (name, entry["policy"], entry["judge"], entry["score"], entry["low"], entry["high"], entry["questions"], "this run")
            for entry in own_results
        ]
        published_results = [entry for entry in document["published"] if entry["benchmark"] == name]
        for entry in published_results:
            rows.append((name, entry["model"], None, entry["score"], None, None, None, f"published ({sources.index(entry['source']) + 1})"))
    notes = ["intervals: eva's own, over questions", *(f"({number}) {source}" for number, source in enumerate(sources, 1))]
    heads = ("benchmark", "policy", "judge", "score", "low", "high", "questions", "source")
    return [TextTable(document["run"], heads, rows, tuple(notes))]


def _lettercraft(summary: dict[str, Any]) -> list[dict[str, Any]]:
    base = summary["base"]
    policies = [("base", base["held_out"] if base else None)] if base else []
    policies += [(f"iteration {entry['iteration']}", entry["held_out"]) for entry in summary["iterations"]] if base else []
    return [
        _row(f"lettercraft, {measure}", policy, scores[key])
        for key, measure in LETTERCRAFT.items()
        for policy, scores in policies
        if scores and key in scores
    ]


def _row(benchmark: str, policy: str, estimate: dict[str, Any] | None, judge: str | None = None) -> dict[str, Any]:
    figures_of_estimate = estimate or {}
    figures = {
        "score": figures_of_estimate.get("value"),
        "low": figures_of_estimate.get("low"),
        "high": figures_of_estimate.get("high"),
        "questions": figures_of_estimate.get("n"),
    }
    return {"benchmark": benchmark, "policy": policy, "judge": judge, **figures}


def _published_scores(name: str) -> list[tuple[PublishedScore, float]]:
    """Published scores in the benchmark's unit here: for AlpacaEval that is the raw win rate."""
    if name == "alpaca-eval":
        score_pairs = [(published_score, published_score.detail.get("win_rate")) for published_score in published_scores(name, None, [])]
    elif name == "mt-bench":
        score_pairs = [(published_score, published_score.score) for published_score in published_scores(name, None, [])]
    elif name.startswith("arena-hard-"):
        score_pairs = [
            (published_score, published_score.score)
            for published_score in published_scores("arena-hard", name.removeprefix("arena-hard-"), [])
        ]
    else:
        score_pairs = []
    return [(published_score, score) for published_score, score in score_pairs if score is not None]
