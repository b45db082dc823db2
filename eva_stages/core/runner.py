"""Runs the stages of a recipe that are not complete, in order, and commits their artifacts.

The one place that knows how a stage is started, resumed, checked and finished. Runs that share a store compute a stage once: the process
that holds the stage's lock computes it, the others wait, then verify the artifact and link it.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

from eva_stages.core.call_file import CALLS, spending_of, take_over_calls
from eva_stages.core.config.engine_config import Engine, LocalEngine
from eva_stages.core.durable import UNWRITABLE, unwritable
from eva_stages.core.errors import DamagedError, EvaError, StageError, describe
from eva_stages.core.event_log import utc_now
from eva_stages.core.failures import commonest
from eva_stages.core.ledger import devices, last_sign, pace, planned_seconds, tree_bytes
from eva_stages.core.logs import LogReader, logs_in, save_traceback
from eva_stages.core.notices import NoticeReader
from eva_stages.core.outside import OutsideInputs
from eva_stages.core.process import held_in_children
from eva_stages.core.progress import RESUMING, RUNNING, STARTING, WAITING, Reporter, Task, facts
from eva_stages.core.row_running import parts_follower, run_rows, run_table
from eva_stages.core.run_folder import Run, attempt_record
from eva_stages.core.stage import FunctionStage, RowStage, Stage, TableStage, closure
from eva_stages.core.tables import FILE, count_rows

LOCAL = LocalEngine()
COMPLETION_EVENTS = ("done", "reused")
"""Events of a stage that is complete: computed in this run, or by another run of the store."""


@dataclass(frozen=True)
class Context:
    """What a function stage works with."""

    work: Path
    """Folder of the attempt; it still has the files of an earlier attempt."""
    artifact: Path
    """Folder to write the artifact to (below `work`); it does not exist yet."""
    inputs: dict[str, Path]
    task: Task
    run: Path
    """Folder of the run, for files that outlive the attempt."""
    report_notices: Callable[[], None] = lambda: None
    """Shows the notices that have come since the last call."""


def execute(run: Run, stages: Iterable[Stage], reporter: Reporter, engine: Engine = LOCAL, repair: bool = False) -> None:
    """Complete every stage and everything it needs. The caller holds the run's lock.

    Args:
        engine: where row stages run.
        repair: put damaged artifacts aside, and those built from another version of their inputs, and rebuild them.

    Raises:
        DamagedError: naming the first such artifact, without `repair`.
        StageError: naming the stage and the cause; completed work is saved.
    """
    logged_stages, all_stages = completed_stages(run), closure(list(stages))
    with reporter.run(all_stages, planned_seconds(run.root)):
        for stage in all_stages:
            complete_stage(run, stage, reporter, engine, repair, logged_stages)


def completed_stages(run: Run) -> set[str]:
    """The fingerprints of the stages that the run's log says are complete."""
    return {str(event.get("fingerprint")) for event in run.events() if event["event"] in COMPLETION_EVENTS}


def complete_stage(
    run: Run, stage: Stage, reporter: Reporter, engine: Engine, repair: bool, logged_stages: set[str], wait: bool = True
) -> str | None:
    """Complete one stage, whose inputs are complete. The caller holds the run's lock.

    Args:
        logged_stages: the run's `completed_stages`.
        wait: for another process that computes the stage.

    Returns:
        None; without `wait`: the process that has locked the stage, so that it is not complete.

    Raises:
        DamagedError, StageError: as `execute`.
    """
    if fault := run.fault(stage):
        if not repair:
            raise DamagedError(fault)
        _put_aside(run, stage, fault, reporter)
    clock = time.monotonic()
    if run.holds(stage):
        if stage.fingerprint not in logged_stages:  # killed between its commit and its event
            _log_completed(run, stage)
        _settle(run, stage)
    elif holder := _complete(run, stage, reporter, engine, wait):
        return holder
    seconds = run.manifest(stage)["seconds"]
    reporter.complete(stage, seconds, min(seconds, time.monotonic() - clock))
    _examine(run, stage, reporter)
    return None


def _settle(run: Run, stage: Stage) -> None:
    """Share a complete artifact and delete what its attempts left, unless another process works on the stage."""
    if run.is_settled(stage):
        return
    with run.store.lock(stage.folder, f"for the run {run.root}", wait=False) as lock:
        if lock is not None:
            run.offer(stage)


def _complete(run: Run, stage: Stage, reporter: Reporter, engine: Engine, wait: bool) -> str | None:
    """Take a stage's artifact from the store, or compute it, waiting while another process does; returns who has locked the stage."""
    holders: list[str] = []
    with ExitStack() as waiting:

        def report(holder: str) -> None:
            waiting.enter_context(reported_wait(run, stage, reporter, holder))

        with run.store.lock(stage.folder, f"for the run {run.root}", report if wait else holders.append, wait) as lock:
            waiting.close()
            if lock is None:
                return holders[0]
            if fault := run.take(stage):
                reporter.say(f"{stage.label}: the store's artifact is not used: {fault}")
            if not run.holds(stage):
                _compute(run, stage, reporter, engine, lock)
            elif _log_completed(run, stage) == "reused":
                reporter.log(f"{stage.label}: reused from the store {run.store.root}, {_summary(run.manifest(stage))}")
    return None


@contextmanager
def reported_wait(run: Run, stage: Stage, reporter: Reporter, holder: str) -> Iterator[None]:
    """Report that another process computes a stage that the run needs, and while the block runs, how far it is."""
    run.event("waits", stage=stage.label, fingerprint=stage.fingerprint, holder=holder)
    reporter.say(f"{stage.label}: waiting for {holder}, which has locked this stage; the artifact that it completes will be reused")
    with reporter.task(stage.label, stage.kind.unit, WAITING, reporter.expected_seconds(stage)) as task:
        if isinstance(stage, RowStage):
            task.poll = parts_follower(run.work / stage.folder / "parts", run.folder(stage.inputs[stage.sources[0]]), task)
        yield


def _compute(run: Run, stage: Stage, reporter: Reporter, engine: Engine, lock: TextIO) -> None:
    is_resumed = (run.work / stage.folder).is_dir()
    event = {"stage": stage.label, "fingerprint": stage.fingerprint, "attempt": uuid4().hex[:12]}
    run.event("resume" if is_resumed else "start", **event, **({"last_sign": last_sign(run.work / stage.folder)} if is_resumed else {}))
    clock = time.monotonic()
    if is_resumed:
        reporter.log(f"{stage.label}: resumes")
    else:
        reporter.log_start(f"{stage.label}: starts")
    try:
        with held_in_children(lock.fileno()):
            manifest = _run(run, stage, reporter, engine, event["attempt"], is_resumed)
        _log_completed(run, stage)
        run.clear(stage)
    except KeyboardInterrupt:
        _try_event(run, "interrupted", {**event, "seconds": round(time.monotonic() - clock, 3)})
        reporter.log(f"{stage.label}: interrupted")
        raise
    except (Exception, SystemExit, GeneratorExit) as error:
        cause = _cause(error, run)
        _try_event(run, "failed", {**event, "seconds": round(time.monotonic() - clock, 3), "cause": cause.splitlines()[0]})
        raise StageError(f"stage {stage.label} failed: {cause}{_logs_text(run.work / stage.folder, cause)}") from error
    reporter.log(f"{stage.label}: done, {_summary(manifest)}")


def _cause(error: BaseException, run: Run) -> str:
    """The message for an error; the traceback of an unexpected one goes into the run's error log."""
    if isinstance(error, EvaError):
        return describe(error)
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return str(unwritable(error, Path(error.filename2 or error.filename or run.store.root)))
    return f"{describe(error)}; the traceback is in {save_traceback(error, run.root)}"


def _logs_text(work: Path, cause: str) -> str:
    """Where the logs of a failed attempt are, if its cause does not name them."""
    names = [str(log) for log in logs_in(work) if str(log) not in cause]
    return f"; its log: {', '.join(names)}" if names else ""


def _put_aside(run: Run, stage: Stage, fault: str, reporter: Reporter) -> None:
    place = run.put_aside(stage)
    run.event("repair", stage=stage.label, fingerprint=stage.fingerprint, cause=fault, aside=str(place.relative_to(run.root)))
    reporter.say(f"{stage.label}: {fault}. Rebuilding it. The old artifact was moved to {place} and can be deleted")


def _log_completed(run: Run, stage: Stage) -> str:
    """Log a stage whose artifact the run holds: `done` if an attempt of this run computed it, else `reused`; returns which."""
    manifest = run.manifest(stage)
    attempts = {event.get("attempt") for event in run.events() if event.get("fingerprint") == stage.fingerprint}
    kind = "done" if not run.shares or manifest.get("attempt") in attempts else "reused"
    run.event(kind, stage=stage.label, fingerprint=stage.fingerprint, seconds=manifest["seconds"], rows=manifest["rows"])
    return kind


def _examine(run: Run, stage: Stage, reporter: Reporter) -> None:
    """Compare the figures of a complete stage with its checks, also if it was not computed now.

    Raises:
        StageError: if a check that stops is broken.
    """
    if not isinstance(stage, FunctionStage) or not stage.checks:
        return
    figures = run.manifest(stage)["figures"]
    broken_checks = [(check, message) for check in stage.checks if (message := check.violation(figures))]
    for check, message in broken_checks:
        if not check.stop:
            reporter.say(f"{stage.label}: warning: {message}")
    if stopping := [(check.field, message) for check, message in broken_checks if check.stop]:
        causes = "; ".join(message for _, message in stopping)
        run.event("stopped", stage=stage.label, fingerprint=stage.fingerprint, cause=causes)
        limits = " ".join(f"--set {field}=..." for field, _ in stopping)
        raise StageError(
            f"the run stops after iteration {stage.iteration}: {causes}. Completed work is saved. Correct the recipe, or continue with "
            f"another limit ({limits}), which recomputes nothing"
        )


def _try_event(run: Run, kind: str, facts: dict[str, Any]) -> None:
    try:
        run.event(kind, **facts)
    except OSError:  # the log is on the disk that made the stage fail
        return


def _run(run: Run, stage: Stage, reporter: Reporter, engine: Engine, attempt: str, is_resumed: bool) -> dict[str, Any]:
    start_time, clock = utc_now(), time.monotonic()
    if (earlier_run := attempt_record(run.work / stage.folder).get("run")) is not None:
        take_over_calls(Path(earlier_run) / CALLS, run.root / CALLS, stage.folder)
    work = run.workplace(stage, attempt)
    folders = {name: run.folder(upstream) for name, upstream in stage.inputs.items()}
    outside = OutsideInputs.of(stage)
    artifact = work / "data"
    for folder in (artifact, work / "model"):
        shutil.rmtree(folder, ignore_errors=True)
    notices = NoticeReader(work)

    def report_notices() -> None:
        for text in notices.new_texts():
            reporter.say(f"{stage.label}: {text}")

    phase = RESUMING if is_resumed else STARTING if isinstance(stage, RowStage) or stage.kind.unit == "steps" else RUNNING
    with reporter.task(stage.label, stage.kind.unit, phase, reporter.expected_seconds(stage)) as task:
        task.log = LogReader(work)
        match stage:
            case RowStage():
                result = run_rows(run, stage, work, artifact, folders, task, engine, reporter, report_notices)
            case TableStage():
                result = run_table(stage, work, artifact, folders)
            case FunctionStage():
                result = stage.function.build(folders, context=Context(work, artifact, folders, task, run.root, report_notices))
            case _:
                raise TypeError(f"cannot run a {type(stage).__name__}")
    report_notices()
    # the journal also has the calls of rows that were rerun, and those that a kill cut off
    spent_counts = {**spending_of(work / CALLS, None), **spending_of(run.root / CALLS, stage.folder)}
    result = {**result, "counts": {**result.get("counts", {}), **spent_counts}, "notices": notices.lasting_texts()}
    outside.check_unchanged(lambda: run.clear(stage))
    artifact = work / "model" if (work / "model").is_dir() else artifact
    rows = count_rows(artifact) if (artifact / FILE).is_file() else None
    seconds = round(time.monotonic() - clock, 3)
    ledger = {"seconds": seconds, "pace": pace(task.marks), "bytes": tree_bytes(artifact)}
    manifest_facts = {"rows": rows, "counts": {}, "failures": {}, "devices": devices(stage), **result, "started": start_time, **ledger}
    return run.commit(stage, artifact, manifest_facts)


def _summary(manifest: dict[str, Any]) -> str:
    rows = f"{manifest['rows']:,} rows, " if manifest["rows"] is not None else ""
    counts = facts(manifest["counts"])
    reason = commonest(manifest["failures"])
    return f"{rows}{manifest['seconds']:.1f} s{f' ({counts})' if counts else ''}{f'; {reason}' if reason else ''}"
