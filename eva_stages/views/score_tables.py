"""Tables of scores and of comparisons.

Official figures and eva's own are told apart in the column heads and notes; published scores of known models stand below the scored
ones with their source.
"""

from typing import Any

from eva_stages.core.text_table import Cell, TextTable

UNITS = {"mt-bench": "rating, 1 to 10", "arena-hard": "win rate, %", "alpaca-eval": "length-controlled win rate, %"}
_DETAIL = {
    "mt-bench": (
        ("judge", "judge"),
        ("turn 1", "turn1"),
        ("turn 2", "turn2"),
        ("rated", "n"),
        ("unrated", "unrated"),
        ("outside 1 to 10", "out_of_range"),
    ),
    "arena-hard": (
        ("judge", "judge"),
        ("baseline", "baseline"),
        ("questions", "n"),
        ("no verdict", "no_verdict"),
        ("first place", "first_place"),
        ("tokens", "avg_tokens"),
    ),
    "alpaca-eval": (
        ("judge", "judge"),
        ("win rate", "win_rate"),
        ("standard error", "se"),
        ("judged", "n"),
        ("unjudged", "unjudged"),
        ("length", "avg_length"),
    ),
}


def score_tables(document: dict[str, Any]) -> list[TextTable]:
    """The tables of a score document: scores with published ones below, categories, and differences."""
    bench, models = document["bench"], document["models"]
    kinds = sorted({one["ci_kind"] for one in models if one["ci_kind"]})
    detail = [(head, key) for head, key in _DETAIL[bench] if any(one.get(key) is not None for one in models)]
    heads = ("model", "score", "low", "high", *(head for head, _ in detail), "source")
    rows = [
        (one["model"], one["score"], *(one["ci"] or (None, None)), *(one.get(key) for _, key in detail), "scored here") for one in models
    ]
    sources = list(dict.fromkeys(one["source"] for one in document["published"]))
    for one in document["published"]:
        rows.append(
            (
                one["model"],
                one["score"],
                None,
                None,
                *(one["detail"].get(key) for _, key in detail),
                f"published ({sources.index(one['source']) + 1})",
            )
        )
    version = f" {document['version']}" if document["version"] else ""
    notes = [f"score: {UNITS[bench]}; official figure. interval: {_interval_note(bench, document['version'], kinds)}"]
    notes += [f"{one['model']}: no score: {one['reason']}" for one in models if one.get("reason")]
    notes += [
        f"{one['model']}: {one['duplicates']} rows stand twice and count twice, as in the official tool"
        for one in models
        if one.get("duplicates")
    ]
    notes += [f"({number}) {source}" for number, source in enumerate(sources, 1)]
    tables = [TextTable(f"{bench}{version}", heads, rows, tuple(notes))]
    return [*tables, *_categories(models), *_styles(models), *_differences(document["differences"])]


def comparison_tables(document: dict[str, Any]) -> list[TextTable]:
    """The table of a comparison of two runs or of a run's iterations."""
    heads = ("benchmark", "policy", "judge", "a", "b", "b - a", "low", "high", "P(better)", "p", "p (Holm)", "questions")
    keys = ("bench", "policy", "judge", "score_a", "score_b", "value", "low", "high", "improvement", "p_value", "p_holm", "n")
    rows = [tuple(one[key] for key in keys) for one in document["differences"]]
    notes = (
        f"a: {document['a']}; b: {document['b']}",
        "eva's own figures: paired bootstrap over questions, 95 %; p two-sided, adjusted for all rows by Holm",
        *document["notes"],
    )
    return [TextTable("comparison", heads, rows, notes)]


def _interval_note(bench: str, version: str | None, kinds: list[str]) -> str:
    if kinds == ["official"]:
        return f"official bootstrap, {90 if version == 'v2.0' else 95} %"
    return "eva's own, 95 %, bootstrap over questions" if kinds == ["own"] else "none"


def _categories(models: list[dict[str, Any]]) -> list[TextTable]:
    names = list(dict.fromkeys(name for one in models for name in one.get("categories", {})))
    if not names:
        return []
    rows: list[tuple[Cell, ...]] = [(one["model"], *(_category(one, name) for name in names)) for one in models]
    return [TextTable("by category", ("model", *names), rows, ("official figures",))]


def _category(model: dict[str, Any], name: str) -> float | None:
    found = model.get("categories", {}).get(name)
    score: float | None = found["score"] if isinstance(found, dict) else found
    return score


def _styles(models: list[dict[str, Any]]) -> list[TextTable]:
    if not any("style_controlled" in one for one in models):
        return []
    rows: list[tuple[Cell, ...]] = []
    for one in models:
        found, converged = one.get("style_controlled"), one.get("style_controlled_converged")
        figures = (found["score"], *found["ci"]) if found else (None, None, None)
        rows.append((one["model"], *figures, converged["score"] if converged else None, one.get("style_reason")))
    heads = ("model", "score", "low", "high", "converged (eva's own)", "reason")
    notes = ["official figures; they depend on the models scored together"]
    if any(one.get("style_controlled_converged") for one in models):
        notes.append("v2.0's official fit stops after 50 steps; beside it the converged fit, which is eva's own")
    return [TextTable("style-controlled", heads, rows, tuple(notes))]


def _differences(found: list[dict[str, Any]]) -> list[TextTable]:
    if not found:
        return []
    heads = ("model", "judge", "difference to the best", "low", "high", "P(better)", "p", "p (Holm)", "questions")
    keys = ("b", "judge", "value", "low", "high", "improvement", "p_value", "p_holm", "n")
    rows: list[tuple[Cell, ...]] = [tuple(one[key] for key in keys) for one in found]
    best = " and ".join(dict.fromkeys(one["a"] for one in found))
    note = f"eva's own figures, against {best}: paired bootstrap over questions, 95 %; p two-sided, adjusted by Holm"
    return [TextTable("differences", heads, rows, (note,))]
