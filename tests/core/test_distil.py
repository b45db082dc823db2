import os
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from distilabel.pipeline import Pipeline
from distilabel.steps import StepInput
from distilabel.typing import StepOutput

from eva_stages.core.distil import TableStep
from eva_stages.core.progress import Reporter
from eva_stages.core.rows import SCHEMAS, prompt_row
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import execute
from eva_stages.core.stage import WORK, Input, Outside, RowStage, Use
from eva_stages.core.tables import read_table, write_rows
from eva_stages.creator.selection import Subset
from tests.steps import CritiqueStep


class Look(CritiqueStep):
    """Lists the files with rows in the attempt's folder."""

    def process(self, inputs: StepInput) -> StepOutput:
        batch_folders = sorted(path.parent.name for path in Path(self.work).rglob("batch_*.json"))
        for row in inputs:
            row["critique"], row["failure"] = " ".join(batch_folders), None
        yield inputs


class CopyingStep(CritiqueStep):
    """Yields one to three rows per prompt.

    Attributes:
        replicas, device: as those of a model; with several copies the steps run in processes of their own.
    """

    replicas: int = 1
    device: str = "cpu"

    def process(self, inputs: StepInput) -> StepOutput:
        yield [{**row, "critique": str(k), "failure": None} for row in inputs for k in range(int(row["prompt_id"], 16) % 3 + 1)]


class MovingStep(CritiqueStep):
    """Changes the working directory for good, as the function of a reward may."""

    def process(self, inputs: StepInput) -> StepOutput:
        os.chdir("/")
        yield [{**row, "critique": "moved", "failure": None} for row in inputs]


def prompts(count: int) -> pa.Table:
    rows = [prompt_row([{"role": "user", "content": f"prompt {n}"}], "test") for n in range(count)]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])


def left_in_the_cache_of_data_sets() -> set[Path]:
    return set(Path(datasets.config.HF_DATASETS_CACHE).glob("**/*sink*"))


def test_a_row_stage_has_no_copies_of_its_rows_beside_its_parts(tmp_path: Path) -> None:
    earlier_files = left_in_the_cache_of_data_sets()
    write_rows([prompts(40)], SCHEMAS["prompts"], tmp_path / "prompts")
    source = Outside("prompts", tmp_path / "prompts", "0")
    look = Use("tests.core.test_distil:Look", {"work": Input(WORK)})
    stage = RowStage("look", 0, {"prompts": source}, sources=("prompts",), steps=(look,), schema="critiques", rows_per_part=4)
    run = Run(tmp_path / "run")
    run.create()
    with run.lock():
        execute(run, [stage], Reporter())
    output_table = read_table(run.folder(stage))
    assert output_table["prompt_id"].equals(prompts(40)["prompt_id"]) and set(output_table["critique"].to_pylist()) == {""}
    assert left_in_the_cache_of_data_sets() == earlier_files


@pytest.mark.parametrize("copies", [1, 2])
def test_the_rows_of_a_prompt_are_in_one_part_file(copies: int, tmp_path: Path) -> None:
    write_rows([prompts(22)], SCHEMAS["prompts"], tmp_path / "prompts")
    source = Outside("prompts", tmp_path / "prompts", "0")
    copying = Use("tests.core.test_distil:CopyingStep", {"work": Input(WORK)}, {"replicas": copies, "device": "cpu"})
    stage = RowStage("copies", 0, {"prompts": source}, sources=("prompts",), steps=(copying,), schema="critiques", rows_per_part=4)
    run = Run(tmp_path / "run")
    run.create()
    with run.lock():
        execute(run, [stage], Reporter())
    names = [name for name in prompts(22)["prompt_id"].to_pylist() for _ in range(int(name, 16) % 3 + 1)]
    assert read_table(run.folder(stage))["prompt_id"].to_pylist() == names and len(names) > 30


def test_a_step_may_change_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows([prompts(12)], SCHEMAS["prompts"], tmp_path / "prompts")
    source = Outside("prompts", Path("prompts"), "0")
    moving = Use("tests.core.test_distil:MovingStep", {"work": Input(WORK)})
    stage = RowStage("move", 0, {"prompts": source}, sources=("prompts",), steps=(moving,), schema="critiques", rows_per_part=4)
    run = Run(Path("run"))
    run.create()
    with run.lock():
        execute(run, [stage], Reporter())
    assert set(read_table(run.folder(stage))["critique"].to_pylist()) == {"moved"}


def test_a_table_step_does_in_a_pipeline_what_it_does_to_artifacts(tmp_path: Path) -> None:
    whole = prompts(30)
    drawn_prompts = whole.select(["prompt_id"]).take(pa.array([20, 3, 7]))
    with Pipeline(name="test"):
        step: TableStep = Subset(name="subset")
    output_table = next(step.process(whole.to_pylist(), drawn_prompts.to_pylist()))
    assert output_table == whole.take(pa.array([3, 7, 20])).to_pylist()
