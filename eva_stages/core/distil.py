"""Row stages as real distilabel pipelines whose resumption is ours.

distilabel 1.5's cache cannot carry a resume, so each run of a pipeline is throw-away: a source yields only the rows that no part
file holds yet, and a sink writes each batch as a part file of its own (temporary name, sync, rename). Killing it anywhere loses
the batch in flight. distilabel turns a failed batch into rows of None and goes on, and waits for ever for a worker that was
killed: here either one ends the stage with its cause.
"""

import logging
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import distilabel.pipeline.base
import pyarrow as pa
import pyarrow.parquet as pq
from distilabel.pipeline import Pipeline
from distilabel.steps import GeneratorStep, GlobalStep, Step, StepInput, StepResources
from pydantic import Field

from eva_stages.core.errors import StageError
from eva_stages.core.parts import BEGUN, ROW, read_parts, write_part
from eva_stages.core.process import fail
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.stage import RUN, WORK, Use
from eva_stages.core.store import PIPELINE
from eva_stages.core.tables import FILE, joined_batches, read_table, write_rows

if TYPE_CHECKING:
    from distilabel.typing import GeneratorStepOutput, StepOutput


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
        (Path(self.parts).parent / BEGUN).touch()  # every step is loaded by now
        folders = [Path(folder) for folder in self.folders]
        done, _ = read_parts(Path(self.parts))
        remaining = len(read_table(folders[0], ["prompt_id"])) - len(done)
        for numbers, rows in joined_batches(folders, self.prefixes, done, self.batch_size):
            remaining -= len(rows)
            yield [{**row, ROW: int(number)} for number, row in zip(numbers, rows, strict=True)], remaining == 0


class PartSink(Step):
    """Writes every batch as one durable part file with the columns of a row schema."""

    parts: str
    rows: str = Field(description="Name of the row schema")
    required: list[str] = Field(default_factory=list)

    @property
    def inputs(self) -> list[str]:
        return [*SCHEMAS[self.rows].names, ROW]

    @property
    def outputs(self) -> list[str]:
        return ["written"]

    def process(self, inputs: StepInput) -> "StepOutput":
        if any(row.get(column) is None for row in inputs for column in self.required):
            raise StageError(f"a batch arrived without {', '.join(self.required)}: a step before it failed")
        write_part(Path(self.parts), SCHEMAS[self.rows], inputs)
        yield [{"written": len(inputs)}]


class TableStep(GlobalStep):
    """A step whose work is on whole Arrow tables. In a pipeline it takes rows; eva hands it the tables themselves."""

    def transform(self, *tables: pa.Table) -> tuple[pa.Table, dict[str, int]]:
        """The output table, and counts of what was left out and why."""
        raise NotImplementedError

    def process(self, *inputs: StepInput) -> "StepOutput":
        table, _ = self.transform(*(pa.Table.from_pylist(rows) for rows in inputs))
        yield table.to_pylist()


def run_pipeline(
    name: str,
    folders: dict[str, Path],
    sources: list[str],
    prefixes: dict[str, str],
    steps: list[Use],
    rows: str,
    required: list[str],
    parts: Path,
    batch_size: int,
) -> None:
    """Run the steps of a row stage over the rows that have no part file yet. Meant for a child process."""
    # distilabel looks only every 2.5 s whether its steps have loaded, which would be most of a small stage's time
    distilabel.pipeline.base.time = SimpleNamespace(sleep=lambda seconds: time.sleep(min(seconds, 0.1)), time=time.time)
    folders = {**folders, WORK: parts.parent, RUN: parts.parents[2]}
    with tempfile.TemporaryDirectory(dir=parts.parent) as cache, Pipeline(name=name, cache_dir=cache) as pipeline:
        step = ArtifactSource(
            name="source",
            folders=[str(folders[source]) for source in sources],
            prefixes=[prefixes.get(source, "") for source in sources],
            parts=str(parts),
            batch_size=batch_size,
        )
        for index, use in enumerate(steps):
            extra = _resources(use)
            following = use.build(folders, name=f"{use.target.rpartition(':')[2].lower()}_{index}", input_batch_size=batch_size, **extra)
            step >> following
            step = following
        step >> PartSink(name="sink", parts=str(parts), rows=rows, required=required, input_batch_size=batch_size)
        pipeline.save(parts.parent / PIPELINE, format="yaml")
        threading.Thread(target=_watch_workers, daemon=True).start()
        pipeline.run(use_cache=False, logging_handlers=[_FailureHandler()])


def _resources(use: Use) -> dict[str, StepResources]:
    """As many copies of a step as its generator is to have."""
    llm = use.arguments.get("llm")
    replicas = llm.runtime.get("replicas", 1) if isinstance(llm, Use) else 1
    return {"resources": StepResources(replicas=replicas)} if replicas > 1 else {}


def run_table_step(folders: dict[str, Path], sources: list[str], step: Use, out: Path) -> dict[str, int]:
    """Run a `TableStep` on whole artifacts and write its output; returns its counts. Meant for a child process."""
    with Pipeline(name="table"):
        built: TableStep = step.build(folders)
    columns = list(built.inputs)
    table, counts = built.transform(*(read_table(folders[source], columns) for source in sources))
    write_rows([table], table.schema, out)
    return counts


class _FailureHandler(logging.Handler):
    """Ends the stage when distilabel logs that a step failed, with the step's own words."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "Subprocess traceback:" in message:
            cause = message.partition("Subprocess traceback:")[2].strip().splitlines()[-1]
            fail(cause.removeprefix("eva_stages.core.errors."))
        elif "Failed to load step" in message or "unhandled exception" in message:
            fail(message)


def _watch_workers() -> None:
    """End the stage if a worker dies: distilabel would wait for its batch for ever."""
    known: dict[int, multiprocessing.process.BaseProcess] = {}
    while True:
        known |= {child.pid: child for child in multiprocessing.active_children() if child.pid}
        for pid, child in known.items():
            if child.exitcode is not None and child.exitcode < 0 and child.exitcode != -15:
                fail(f"worker {pid} of the stage was killed by signal {-child.exitcode} (out of memory?)")
        time.sleep(0.5)
