"""Run row stages and table stages in a child process; row stages resume from their part files."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from eva_stages.core.config.engine_config import Engine, RayEngine
from eva_stages.core.errors import DamagedError, StageError
from eva_stages.core.failures import commonest, split
from eva_stages.core.ledger import used_devices
from eva_stages.core.parts import BEGIN_MARK, FAILED_CALLS, NAME, drop_failed, merge_parts, part_facts, read_parts, settle_parts
from eva_stages.core.process import run_in_child
from eva_stages.core.progress import LOADING, RESUMING, STARTING, Reporter, Task
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.rowwork import RowWork
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import RUN, WORK, Limit, RowStage, TableStage
from eva_stages.core.tables import Rows, count_rows, first_places


def run_rows(
    run: Run,
    stage: RowStage,
    work: Path,
    artifact: Path,
    folders: dict[str, Path],
    task: Task,
    engine: Engine,
    reporter: Reporter,
    report: Callable[[], None],
) -> dict[str, Any]:
    parts = work / "parts"
    parts.mkdir(exist_ok=True)
    for finding in settle_parts(parts):
        run.event(finding.event, stage=stage.label, fingerprint=stage.fingerprint, file=finding.file, cause=finding.cause)
        reporter.say(f"{stage.label}: {parts / finding.file} {finding.cause}")
    if failed_rows := drop_failed(parts):
        reporter.say(f"{stage.label}: rerunning {failed_rows} rows that failed before")
    total = count_rows(folders[stage.sources[0]])
    complete_rows, statistics = read_parts(parts)
    (work / BEGIN_MARK).unlink(missing_ok=True)
    progress = _PartProgress(parts, total, task, report)
    progress()
    computed_rows = total - len(complete_rows)
    device_facts = {}
    if computed_rows:
        target, arguments = _engine(engine, stage)
        accelerators = run_in_child(
            target,
            {
                **arguments,
                "work": RowWork(  # absolute paths: a reward may change the working directory
                    name=stage.name,
                    folders={name: folder.absolute() for name, folder in folders.items()},
                    sources=list(stage.sources),
                    prefixes=dict(stage.prefixes),
                    steps=list(stage.steps),
                    rows=stage.schema,
                    required_columns=list(stage.required_columns),
                    parts=parts.absolute(),
                    run=run.root.absolute(),
                    batch_size=stage.rows_per_part,
                ),
            },
            work / "pipeline.log",
            progress,
        )
        device_facts = {"devices": used_devices(accelerators)}
        complete_rows, statistics = read_parts(parts)
    if len(complete_rows) != total:
        raise StageError(f"{total - len(complete_rows)} of {total} rows are missing; see {work / 'pipeline.log'} and rerun")
    counts, failures = split(statistics)
    _check(stage.limits, statistics, failures)
    merge_parts(parts, SCHEMAS[stage.schema], artifact, total)
    _check_ids(stage, folders[stage.sources[0]], artifact, work)
    return {"counts": counts, "failures": failures, "computed_share": computed_rows / total if total else 1, **device_facts}


def parts_follower(parts: Path, source: Path, task: Task) -> Callable[[], None]:
    """What shows the progress of a stage that another process computes, from its part files."""
    progress = _PartProgress(parts, count_rows(source), task, lambda: None)

    def follow() -> None:
        with suppress(OSError, DamagedError):  # the other process is complete, or has not started
            progress()

    return follow


def _check_ids(stage: RowStage, source: Path, target: Path, work: Path) -> None:
    """Raises:
    StageError: if the stage creates no prompts, and its output prompts are not its input prompts.
    """
    names = SCHEMAS[stage.schema].names
    if "prompt_id" not in names or "parent_id" in names:
        return
    ids = Rows(target, work)["prompt_id"]
    if not ids.take(pa.array(first_places(ids))).equals(Rows(source, work)["prompt_id"]):
        raise StageError(
            f"the output prompts are not the input prompts; delete {work / 'parts'}, whose files belong to other prompts, and rerun"
        )


def _engine(engine: Engine, stage: RowStage) -> tuple[str, dict[str, Any]]:
    """The engine of a row stage. Steps that save files beside the run (a database of paid calls) run on this machine."""
    if isinstance(engine, RayEngine) and not any(step.needs(WORK) or step.needs(RUN) for step in stage.steps):
        return "eva_stages.core.ray_engine:run_on_ray", {"engine": engine}
    return "eva_stages.core.distil:run_pipeline", {}


def run_table(stage: TableStage, work: Path, target: Path, folders: dict[str, Path]) -> dict[str, Any]:
    arguments = {"folders": folders, "sources": list(stage.sources), "step": stage.step, "out_folder": target}
    counts = run_in_child("eva_stages.core.distil:run_table_step", arguments, work / "step.log", lambda: None)
    return {"counts": counts}


def _check(limits: Sequence[Limit], statistics: Mapping[str, float], failures: Mapping[str, int]) -> None:
    """Raise a StageError with the exceeded limits, the commonest reason, and the fix."""
    exceeded_limits = [(limit, sentence) for limit in limits if (sentence := limit.excess(statistics))]
    if not exceeded_limits:
        return
    description = "; ".join(sentence for _, sentence in exceeded_limits)
    reason = commonest(failures)
    advice = "; ".join(dict.fromkeys(f"{limit.advice}, or raise {limit.field}" for limit, _ in exceeded_limits))
    retry_advice = "; the next attempt reruns only the rows that failed" if statistics.get(FAILED_CALLS) else ""
    raise StageError(f"{description}{f'; {reason}' if reason else ''}. To fix it: {advice}. Completed rows are saved{retry_advice}")


class _PartProgress:
    """Reports the progress of a row stage by its part files, and the notices of its processes."""

    def __init__(self, parts: Path, total: int, task: Task, report: Callable[[], None]) -> None:
        self._parts, self._total, self._task, self._report = parts, total, task, report
        self._seen_files: set[str] = set()
        self._rows = 0
        self._tokens = 0.0
        self._is_started = False

    def __call__(self) -> None:
        """Read the new part files. The first call is before the stage's processes start, the others while they work."""
        self._report()
        for entry in os.scandir(self._parts):
            if NAME.fullmatch(entry.name) and entry.name not in self._seen_files:
                rows, statistics = part_facts(Path(entry.path))
                self._seen_files.add(entry.name)
                self._rows += rows
                self._tokens += statistics.get("output_tokens", 0)
        if (self._parts.parent / BEGIN_MARK).exists():
            self._task.mark(self._rows)
        elif self._is_started and self._task.phase in (STARTING, RESUMING):
            self._task.phase = LOADING
        self._is_started = True
        self._task.update(self._rows, self._total, self._tokens)
