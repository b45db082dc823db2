"""The scores of a run as its repositories show them: the most telling ones on the cards, all of them in files."""

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from eva_stages.core.text_table import TextTable, as_csv
from eva_stages.publishing.story import Story
from eva_stages.views.recorded_scores import Score, scores

SCORES_CSV, SCORES_ROWS = "scores.csv", "scores/rows.parquet"
"""All scores, for a reader and for the viewer: the configurations of a data set all have one format."""
MOST_SCORES = 10
"""Scores that a card shows; the files have all."""
SCORE_FIELDS = (
    ("benchmark", pa.string()),
    ("policy", pa.string()),
    ("score", pa.string()),
    ("value", pa.float64()),
    ("low", pa.float64()),
    ("high", pa.float64()),
    ("questions", pa.int64()),
)


def main_scores(every_score: Sequence[Score]) -> list[Score]:
    """At most `MOST_SCORES`, in their order: those with an interval before others, each benchmark's first measure before its second,
    and of each measure the first policy and the last before those between.
    """
    policies_by_measure: dict[tuple[str, str], list[str]] = {}
    for score in every_score:
        policies_by_measure.setdefault((score.benchmark, score.name), []).append(score.policy)
    measures_by_benchmark: dict[str, list[str]] = {}
    for benchmark, name in policies_by_measure:
        measures_by_benchmark.setdefault(benchmark, []).append(name)

    def rank(score: Score) -> tuple[bool, int, bool]:
        policies = policies_by_measure[score.benchmark, score.name]
        is_between = score.policy not in (policies[0], policies[-1])
        return score.low is None, measures_by_benchmark[score.benchmark].index(score.name), is_between

    chosen = sorted(range(len(every_score)), key=lambda place: rank(every_score[place]))[:MOST_SCORES]
    return [every_score[place] for place in sorted(chosen)]


def score_files(story: Story) -> dict[str, bytes]:
    """Every score of the run, by path: as CSV, and as rows for the viewer; empty without scores."""
    rows = [
        (score.benchmark, score.policy, score.name, float(score.value), score.low, score.high, score.n) for score in scores(story.artifacts)
    ]
    if not rows:
        return {}
    names, schema, stream = [name for name, _ in SCORE_FIELDS], pa.schema(SCORE_FIELDS), io.BytesIO()
    pq.write_table(pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=schema), stream)
    return {SCORES_CSV: as_csv(TextTable("scores", names, rows)).encode(), SCORES_ROWS: stream.getvalue()}
