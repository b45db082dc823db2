"""Row stages as distilabel pipelines that eva resumes.

distilabel's cache cannot resume a pipeline, so each attempt builds a new one: a source yields only the rows that are in no part file,
and a sink writes each batch as a separate part file (temporary name, sync, rename). A kill loses the running batches.
A failed step or a lost worker ends the stage with its cause (`pipeline_patches`, `workers`).
"""

import os
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
from distilabel.pipeline import Pipeline
from distilabel.steps import GeneratorStep, GlobalStep, Step, StepInput, StepResources
from pydantic import Field

from eva_stages.core.devices import Share, free_devices, present_devices, share_cores
from eva_stages.core.errors import StageError
from eva_stages.core.manifests import PIPELINE
from eva_stages.core.parts import BEGIN_MARK, ROW, read_parts, write_part
from eva_stages.core.pipeline_patches import LoudStep, ProcessPipeline, ThreadPipeline, poll_often
from eva_stages.core.placing import fit_one_process, models_on_cores, place
from eva_stages.core.rows import SCHEMAS, table_of_rows
from eva_stages.core.rowwork import RowWork
from eva_stages.core.stage import Use
from eva_stages.core.tables import FILE, Rows, count_rows, joined_batches, read_table, write_made, write_rows

if TYPE_CHECKING:
    from distilabel.typing import GeneratorStepOutput, StepOutput


LOG_LEVEL = "DISTILABEL_LOG_LEVEL"


class ArtifactSource(GeneratorStep):
    """Yields the joined rows of artifacts that have no part file yet, each with its row number in `_row`."""

    folders: list[str]
    prefixes: list[str]
    parts: str

    @property
    def outputs(self) -> list[str]:
        names = [
            prefix + name
            for folder, prefix in zip(self.folders, self.prefixes, strict=True)
            for name in pq.read_schema(Path(folder) / FILE).names
        ]
        return [*dict.fromkeys(names), ROW]

    def process(self, offset: int = 0) -> "GeneratorStepOutput":
        (Path(self.parts).parent / BEGIN_MARK).touch()  # every step has loaded
        folders = [Path(folder) for folder in self.folders]
        done_rows, _ = read_parts(Path(self.parts))
        remaining = count_rows(folders[0]) - len(done_rows)
        for numbers, rows in joined_batches(folders, self.prefixes, done_rows, self.batch_size, Path(self.parts).parent):
            remaining -= len(rows)
            yield [{**row, ROW: int(number)} for number, row in zip(numbers, rows, strict=True)], remaining == 0


class PartSink(Step):
    """Writes every batch as a durable part file with the columns of a row schema.

    A prompt may have several rows. They are in one batch (`WholeBatches`), so that a prompt with a part file is done.
    """

    parts: str
    rows: str = Field(description="Name of the row schema")
    required_columns: list[str] = Field(default_factory=list)

    @property
    def inputs(self) -> list[str]:
        return [*SCHEMAS[self.rows].names, ROW]

    @property
    def outputs(self) -> list[str]:
        return ["written"]

    def process(self, inputs: StepInput) -> "StepOutput":
        write_checked(Path(self.parts), self.rows, self.required_columns, inputs)
        yield [{"written": len(inputs)}]


def write_checked(parts: Path, rows: str, required_columns: Sequence[str], batch: list[dict[str, Any]]) -> None:
    """Write a batch as a part file with the columns of the row schema `rows`.

    Raises:
        StageError: if a required column is missing.
    """
    if any(row.get(column) is None for row in batch for column in required_columns):
        raise StageError(f"a batch has no {', '.join(required_columns)}: an earlier step failed")
    write_part(parts, SCHEMAS[rows], batch)


class TableStep(LoudStep, GlobalStep):
    """A step that reads all rows before it decides. In a pipeline it takes rows; eva passes artifacts, which it reads as a stream.

    Decide on a few narrow columns (`Rows.__getitem__`), then yield the rows batch by batch, so that memory holds one batch.

    `reads` and `writes` are the columns of its inputs and of its output.
    """

    reads: ClassVar[Any] = ()
    writes: ClassVar[Any] = ()

    @property
    def inputs(self) -> Any:
        return self.reads

    @property
    def outputs(self) -> Any:
        return self.writes

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        """Yield the output as tables, at least one, and return counts of omitted rows by reason. Sources have the step's inputs."""
        raise NotImplementedError

    def transform(self, *tables: pa.Table) -> tuple[pa.Table, dict[str, int]]:
        """The same on tables in memory: the output table and the counts."""
        with tempfile.TemporaryDirectory() as name:
            folders = [Path(name) / str(number) for number in range(len(tables))]
            for folder, table in zip(folders, tables, strict=True):
                write_rows([table], table.schema, folder)
            counts = _write_streamed(self, folders, Path(name) / "out")
            return read_table(Path(name) / "out").combine_chunks(), counts

    def process(self, *inputs: StepInput) -> "StepOutput":
        table, _ = self.transform(*(table_of_rows(rows, self.inputs) for rows in inputs))
        yield table.to_pylist()


def build_pipeline(work: RowWork, steps: Sequence[tuple[Use, Share]], cache: str) -> Pipeline:
    """The pipeline of a row stage from its placed steps, described in a file of the attempt's folder."""
    folders, prefixes = work.read
    kind = ThreadPipeline if fit_one_process(steps) else ProcessPipeline
    with kind(name=work.name, cache_dir=cache) as pipeline:
        step = ArtifactSource(
            name="source", folders=[str(folder) for folder in folders], prefixes=prefixes, parts=str(work.parts), batch_size=work.batch_size
        )
        for index, (use, share) in enumerate(steps):
            copies = {"resources": StepResources(replicas=share.copies)} if share.copies > 1 else {}
            name = f"{use.target.rpartition(':')[2].lower()}_{index}"
            following = use.build(work.places, name=name, input_batch_size=work.batch_size, **copies)
            step >> following
            step = following
        step >> PartSink(name="sink", parts=str(work.parts), rows=work.rows, required_columns=work.required_columns)
        pipeline.save(work.parts.parent / PIPELINE, format="yaml")
    return pipeline


def run_pipeline(work: RowWork) -> int:
    """Run the steps of a row stage over the rows that have no part file yet; returns on how many devices. Meant for a child process."""
    poll_often()
    if os.environ.get(LOG_LEVEL) not in ("DEBUG", "INFO"):  # a handful of lines per batch, which take a fifth of its time
        os.environ[LOG_LEVEL] = "WARNING"
    free_devices()
    with tempfile.TemporaryDirectory(dir=work.parts.parent) as cache:
        devices = present_devices()
        placed_steps = place(work.steps, work.places, devices)
        share_cores(models_on_cores(placed_steps))
        pipeline = build_pipeline(work, placed_steps, cache)
        pipeline.run(use_cache=False)
    return min(len(devices.ids), sum(share.copies * share.devices for _, share in placed_steps))


def run_table_step(folders: dict[str, Path], sources: list[str], step: Use, out_folder: Path) -> dict[str, int]:
    """Run a `TableStep` on artifacts and write its output; returns its counts. Meant for a child process."""
    with Pipeline(name="table"):
        built_step: TableStep = step.build(folders)
    return _write_streamed(built_step, [folders[source] for source in sources], out_folder)


def _write_streamed(step: TableStep, folders: list[Path], out_folder: Path) -> dict[str, int]:
    with tempfile.TemporaryDirectory(dir=out_folder.parent) as scratch:
        return write_made(step.stream(*(Rows(folder, Path(scratch), list(step.inputs)) for folder in folders)), out_folder)
