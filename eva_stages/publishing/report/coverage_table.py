"""The table of coverage: how diverse all prompts are, up to each iteration."""

from eva_stages.publishing.report.numbers import table
from eva_stages.publishing.report.section_html import Table
from eva_stages.views.history import History

HEADS = {
    "prompts": "prompts so far",
    "new_prompts": "new",
    "sample": "sample",
    "vendi_share": "Vendi score / sample",
    "cluster_share": "share in BLEU clusters",
    "cells": "cells",
    "nearest_distance": "distance of new prompts",
}


def coverage_table(history: History) -> Table:
    """A row per iteration; no rows without `creator.analysis.coverage`."""
    rows = []
    for artifact in history.every("coverage"):
        figures = table(artifact, list(HEADS))
        if figures is not None:
            rows += [[artifact.iteration, *(_rounded_value(row[name]) for name in HEADS)] for row in figures.to_pylist()]
    note = (
        "All different prompts of the sets up to the iteration. Vendi score (1 = no two alike) and clusters (prompts with another one at "
        "a BLEU of .5 or more) are over a uniform sample of at most 1,000 of them; both depend on its size. Distance: mean over at most "
        "1,000 new prompts, to the nearest of all earlier prompts, from 0 to 1."
    )
    return Table("Diversity of all prompts so far", ["iteration", *HEADS.values()], rows, note)


def _rounded_value(value: float | None) -> float | None:
    return round(value, 3) if isinstance(value, float) else value
