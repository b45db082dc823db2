"""The scores of a run: benchmark by policy, with published scores of known models beside them."""

from typing import Any

from eva_stages.core.text_table import Cell, TextTable
from eva_stages.evaluation.published import PublishedScore, published_scores
from eva_stages.views.policy_costs import cost_table

LETTERCRAFT = {
    "sampled": "sampled reward",
    "greedy": "greedy reward",
    "exact": "exact responses",
    "exact_greedy": "exact greedy responses",
    "sampled_gain": "gain over base",
    "win_rate": "win rate",
}


def run_results(summary: dict[str, Any]) -> dict[str, Any]:
    """The document of a run's scores, of its summary.

    Returns:
        run; results: benchmark, policy, judge, score, low, high, questions (null where not done); published: benchmark, model, score,
        source; costs: what each policy cost (`views.policy_costs`).
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
    return {"run": summary["run"], "results": results, "published": published_rows, "costs": summary.get("costs")}


def run_table(document: dict[str, Any]) -> list[TextTable]:
    """The table of a run's scores, with published scores below each benchmark, and that of what each policy cost."""
    sources = list(dict.fromkeys(entry["source"] for entry in document["published"]))
    keys = ("benchmark", "policy", "judge", "score", "low", "high", "questions")
    rows: list[tuple[Cell, ...]] = []
    for name in dict.fromkeys(entry["benchmark"] for entry in document["results"]):
        rows += [(*(entry[key] for key in keys), "this run") for entry in document["results"] if entry["benchmark"] == name]
        for entry in document["published"]:
            if entry["benchmark"] == name:
                source = f"published ({sources.index(entry['source']) + 1})"
                rows.append((name, entry["model"], None, entry["score"], None, None, None, source))
    notes = ["intervals: eva's own, over questions" if rows else "no evaluation of this run is complete yet"]
    notes += [f"({number}) {source}" for number, source in enumerate(sources, 1)]
    table = TextTable(document["run"], (*keys, "source"), rows, tuple(notes), optional=("source", "questions"))
    costs = document["costs"]
    return [table, *([cost_table(costs)] if costs and costs["policies"] else [])]


def _lettercraft(summary: dict[str, Any]) -> list[dict[str, Any]]:
    base = summary["base"]
    if base is None:
        return []
    policies = [("base", base["held_out"]), *((f"iteration {entry['iteration']}", entry["held_out"]) for entry in summary["iterations"])]
    return [
        _row(f"lettercraft, {measure}", policy, scores[key])
        for key, measure in LETTERCRAFT.items()
        for policy, scores in policies
        if scores and key in scores
    ]


def _row(benchmark: str, policy: str, estimate: dict[str, Any] | None, judge: str | None = None) -> dict[str, Any]:
    names = {"score": "value", "low": "low", "high": "high", "questions": "n"}
    figures = {field: (estimate or {}).get(name) for field, name in names.items()}
    return {"benchmark": benchmark, "policy": policy, "judge": judge, **figures}


def _published_scores(name: str) -> list[tuple[PublishedScore, float]]:
    """Published scores in the benchmark's unit here: for AlpacaEval that is the raw win rate."""
    benchmark, version = ("arena-hard", name.removeprefix("arena-hard-")) if name.startswith("arena-hard-") else (name, None)
    if benchmark not in ("alpaca-eval", "arena-hard", "mt-bench"):
        return []
    entries = published_scores(benchmark, version, [])
    scores = [entry.detail.get("win_rate") if benchmark == "alpaca-eval" else entry.score for entry in entries]
    return [(entry, score) for entry, score in zip(entries, scores, strict=True) if score is not None]
