"""What lineage, audit and report show of prompts that an archive drew from earlier sets."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.synthetic_run import SyntheticRun
from eva_stages.core.run_folder import Run
from eva_stages.core.tables import read_table, write_rows
from eva_stages.publishing.report.informativeness_section import selection_table
from eva_stages.views.history import read_history
from eva_stages.views.prompt_lineage import Lineage
from eva_stages.views.selection_records import selection_record
from tests.conftest import artifact_folder


def test_draws_from_earlier_sets_are_shown_apart(tmp_path: Path) -> None:
    run = SyntheticRun(tmp_path / "made", prompts=80, responses=3, iterations=2, words=4).write()
    usual_record = selection_record(read_history(Run(run)), 2)
    drawn_ids = read_table(artifact_folder(run, "2-select") / "data")["prompt_id"][:5]
    for label in ("2-creator-respond", "2-creator-reward", "2-inform"):
        folder = artifact_folder(run, label) / "data"
        rows = read_table(folder)
        current_rows = pa.Table.from_pylist(rows.filter(pc.invert(pc.is_in(rows["prompt_id"], drawn_ids))).to_pylist(), rows.schema)
        write_rows([current_rows], rows.schema, folder)
    history = read_history(Run(run))

    step = Lineage(history).trace(drawn_ids[0].as_py())["lineage"][-1]
    assert [draw["iteration"] for draw in step["archive_draws"]] == [2]
    assert 2 not in [entry["iteration"] for entry in step["informativeness"]]
    record = selection_record(history, 2)
    assert usual_record.orphans == 0 < record.orphans == len(usual_record.children.ids) - len(record.children.ids)
    table = selection_table(history)
    assert [row[2] for row in table.rows] == [20, 15] and table.note.endswith("not counted here: iteration 2: 5.")
