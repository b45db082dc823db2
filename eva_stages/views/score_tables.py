"""Tables of scores and of comparisons.

The column heads and notes distinguish official figures from eva's own; published scores of known models are below the scored
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

OPTIONAL_HEADS = ("outside 1 to 10", "standard error", "first place", "tokens", "length", "unrated", "unjudged", "no verdict", "judge")
"""Columns that a narrow terminal leaves out, the first one first."""


def score_tables(document: dict[str, Any]) -> list[TextTable]:
    """The tables of a score document: scores (published scores below), categories, and differences."""
    bench, models = document["bench"], document["models"]
    kinds = sorted({entry["ci_kind"] for entry in models if entry["ci_kind"]})
    detail_columns = [(head, key) for head, key in _DETAIL[bench] if any(entry.get(key) is not None for entry in models)]
    heads = ("model", "score", "low", "high", *(head for head, _ in detail_columns), "source")
    rows = [
        (entry["model"], entry["score"], *(entry["ci"] or (None, None)), *(entry.get(key) for _, key in detail_columns), "scored here")
        for entry in models
    ]
    sources = list(dict.fromkeys(entry["source"] for entry in document["published"]))
    for entry in document["published"]:
        rows.append(
            (
                entry["model"],
                entry["score"],
                None,
                None,
                *(entry["detail"].get(key) for _, key in detail_columns),
                f"published ({sources.index(entry['source']) + 1})",
            )
        )
    version = f" {document['version']}" if document["version"] else ""
    notes = [f"score: {UNITS[bench]}; official figure. interval: {_interval_note(bench, document['version'], kinds)}"]
    notes += [f"{entry['model']}: no score: {entry['reason']}" for entry in models if entry.get("reason")]
    notes += [
        f"{entry['model']}: {entry['duplicates']} rows occur twice and count twice, as in the official tool"
        for entry in models
        if entry.get("duplicates")
    ]
    notes += [f"({number}) {source}" for number, source in enumerate(sources, 1)]
    tables = [TextTable(f"{bench}{version}", heads, rows, tuple(notes), optional=OPTIONAL_HEADS)]
    return [*tables, *_categories(models), *_styles(models), *_differences(document["differences"])]


def comparison_tables(document: dict[str, Any]) -> list[TextTable]:
    """The table of a comparison of runs or of a run's iterations; with several b, each row names its own."""
    is_named = len({entry["b"] for entry in document["differences"]}) > 1
    heads = ("benchmark", "policy", "judge", "a", "b", "b - a", "low", "high", "P(better)", "p", "p (Holm)", "questions")
    keys = ("bench", "policy", "judge", "score_a", "score_b", "value", "low", "high", "improvement", "p_value", "p_holm", "n")
    rows = [tuple(entry[key] for key in (*(("b",) if is_named else ()), *keys)) for entry in document["differences"]]
    notes = (
        f"a: {document['a']}; b: {document['b']}",
        "eva's own figures: paired bootstrap over questions, 95 %; p two-sided, adjusted for all rows by Holm",
        *document["notes"],
    )
    return [TextTable("comparison", ("b is", *heads) if is_named else heads, rows, notes, optional=("questions", "p", "P(better)"))]


def _interval_note(bench: str, version: str | None, kinds: list[str]) -> str:
    if kinds == ["official"]:
        return f"official bootstrap, {90 if version == 'v2.0' else 95} %"
    return "eva's own, 95 %, bootstrap over questions" if kinds == ["own"] else "none"


def _categories(models: list[dict[str, Any]]) -> list[TextTable]:
    names = list(dict.fromkeys(name for model in models for name in model.get("categories", {})))
    if not names:
        return []
    rows: list[tuple[Cell, ...]] = [(model["model"], *(_category(model, name) for name in names)) for model in models]
    return [TextTable("by category", ("model", *names), rows, ("official figures",))]


def _category(model: dict[str, Any], name: str) -> float | None:
    score_of_category = model.get("categories", {}).get(name)
    score: float | None = score_of_category["score"] if isinstance(score_of_category, dict) else score_of_category
    return score


def _styles(models: list[dict[str, Any]]) -> list[TextTable]:
    if not any("style_controlled" in model for model in models):
        return []
    rows: list[tuple[Cell, ...]] = []
    for model in models:
        controlled_score, converged_score = model.get("style_controlled"), model.get("style_controlled_converged")
        figures = (controlled_score["score"], *controlled_score["ci"]) if controlled_score else (None, None, None)
        rows.append((model["model"], *figures, converged_score["score"] if converged_score else None, model.get("style_reason")))
    heads = ("model", "score", "low", "high", "converged (eva's own)", "reason")
    notes = ["official figures; they depend on the models scored together"]
    if any(model.get("style_controlled_converged") for model in models):
        notes.append("v2.0's official fit stops after 50 steps; the converged fit is eva's own")
    return [TextTable("style-controlled", heads, rows, tuple(notes))]


def _differences(differences: list[dict[str, Any]]) -> list[TextTable]:
    if not differences:
        return []
    heads = ("model", "judge", "difference to the best", "low", "high", "P(better)", "p", "p (Holm)", "questions")
    keys = ("b", "judge", "value", "low", "high", "improvement", "p_value", "p_holm", "n")
    rows: list[tuple[Cell, ...]] = [tuple(difference[key] for key in keys) for difference in differences]
    best = " and ".join(dict.fromkeys(difference["a"] for difference in differences))
    note = f"eva's own figures, against {best}: paired bootstrap over questions, 95 %; p two-sided, adjusted by Holm"
    return [TextTable("differences", heads, rows, (note,), optional=("questions", "p", "P(better)"))]
