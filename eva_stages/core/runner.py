"""Runs stages that are not done yet, in order, each in its own way, and commits what they make.

The one place that knows how a stage is started, resumed, checked and finished.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from eva_stages.core.call_file import CALLS, paid
from eva_stages.core.config.engine_config import Engine, LocalEngine, RayEngine
from eva_stages.core.durable import UNWRITABLE, unwritable
from eva_stages.core.errors import DamagedError, EvaError, StageError, describe
from eva_stages.core.event_log import now
from eva_stages.core.failures import commonest, split
from eva_stages.core.ledger import devices, last_sign, pace, taken, tree_bytes
from eva_stages.core.logs import save_traceback
from eva_stages.core.notices import NoticeReader
from eva_stages.core.outside import OutsideInputs
from eva_stages.core.parts import BEGUN, FAILED, NAME, drop_failed, merge_parts, part_facts, read_parts, settle_parts
from eva_stages.core.process import run_in_child
from eva_stages.core.progress import Reporter, Task, facts
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.rowwork import RowWork
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import RUN, WORK, FunctionStage, Limit, RowStage, Stage, TableStage, closure
from eva_stages.core.tables import FILE, Rows, count_rows, first_places

LOCAL = LocalEngine()


@dataclass(frozen=True)
class Context:
    """What a function stage works with."""

    work: Path
    """Folder of the attempt; what an earlier attempt left is still there."""
    out: Path
    """Folder to write the artifact to (below `work`); not there yet."""
    inputs: dict[str, Path]
    task: Task
    run: Path
    """Folder of the run, for what outlives the attempt."""


def execute(run: Run, stages: Iterable[Stage], reporter: Reporter, engine: Engine = LOCAL, repair: bool = False) -> None:
    """Bring every stage, and everything it needs, to done. The caller holds the run's lock.

    Args:
        engine: where row stages run.
        repair: put aside artifacts that are not what was committed, and those that were made from what came out otherwise the second
            time, and make them anew.

    Raises:
        DamagedError: naming the first such artifact, without `repair`.
        StageError: naming the stage and the cause; everything done so far is kept.
    """
    for stage in closure(list(stages)):
        if fault := run.fault(stage):
            if not repair:
                raise DamagedError(fault)
            _put_aside(run, stage, fault, reporter)
        if run.done(stage):
            if (run.work / stage.folder).is_dir():  # killed between its commit and its end
                _end(run, stage)
            _examine(run, stage, reporter)
            continue
        resumed = (run.work / stage.folder).is_dir()
        told = {"stage": stage.label, "fingerprint": stage.fingerprint}
        run.event("resume" if resumed else "start", **told, **({"last_sign": last_sign(run.work / stage.folder)} if resumed else {}))
        clock = time.monotonic()
        reporter.say(f"{stage.label}: {'resumes' if resumed else 'starts'}")
        try:
            manifest = _run(run, stage, reporter, engine)
            _end(run, stage)
        except KeyboardInterrupt:
            _try_event(run, "interrupted", {**told, "seconds": round(time.monotonic() - clock, 3)})
            raise
        except (Exception, SystemExit, GeneratorExit) as error:
            cause = _cause(error, run.root)
            _try_event(run, "failed", {**told, "seconds": round(time.monotonic() - clock, 3), "cause": cause.splitlines()[0]})
            raise StageError(f"stage {stage.label} failed: {cause}") from error
        reporter.say(f"{stage.label}: done, {_summary(manifest)}")
        _examine(run, stage, reporter)


def _cause(error: BaseException, root: Path) -> str:
    """What to tell of an error; the traceback of one that nobody foresaw goes into the run's log of errors."""
    if isinstance(error, EvaError):
        return describe(error)
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return str(unwritable(error, root))
    return f"{describe(error)}; the traceback is in {save_traceback(error, root)}"


def _put_aside(run: Run, stage: Stage, fault: str, reporter: Reporter) -> None:
    place = run.put_aside(stage)
    run.event("repair", stage=stage.label, fingerprint=stage.fingerprint, cause=fault, aside=str(place.relative_to(run.root)))
    reporter.say(f"{stage.label}: {fault}. It is made anew; the old one is in {place}, to look at or to delete")


def _end(run: Run, stage: Stage) -> None:
    """Log a committed stage as done, and only then delete what its attempts left: so that a kill leaves no stage unlogged."""
    manifest = run.manifest(stage)
    run.event("done", stage=stage.label, fingerprint=stage.fingerprint, seconds=manifest["seconds"], rows=manifest["rows"])
    run.clear(stage)


def _examine(run: Run, stage: Stage, reporter: Reporter) -> None:
    """Hold a finished stage's figures against its checks, new or used again.

    Raises:
        StageError: if a check that stops is broken.
    """
    if not isinstance(stage, FunctionStage) or not stage.checks:
        return
    figures = run.manifest(stage)["figures"]
    broken = [(check, said) for check in stage.checks if (said := check.broken(figures))]
    for check, said in broken:
        if not check.stop:
            reporter.say(f"{stage.label}: warning: {said}")
    if stopping := [(check.field, said) for check, said in broken if check.stop]:
        causes = "; ".join(said for _, said in stopping)
        run.event("stopped", stage=stage.label, fingerprint=stage.fingerprint, cause=causes)
        limits = " ".join(f"--set {field}=..." for field, _ in stopping)
        raise StageError(
            f"the run stops after iteration {stage.iteration}: {causes}. Everything is kept. Mend the recipe, or go on with another "
            f"limit ({limits}); nothing is computed again for that"
        )


def _try_event(run: Run, kind: str, facts: dict[str, Any]) -> None:
    try:
        run.event(kind, **facts)
    except OSError:  # the disk that made the stage fail is the one that the log is on
        return


def _run(run: Run, stage: Stage, reporter: Reporter, engine: Engine) -> dict[str, Any]:
    started, clock = now(), time.monotonic()
    work = run.workplace(stage)
    folders = {name: run.folder(upstream) for name, upstream in stage.inputs.items()}
    outside = OutsideInputs.of(stage)
    out = work / "data"
    for unfinished in (out, work / "model"):
        shutil.rmtree(unfinished, ignore_errors=True)
    notices = NoticeReader(work)

    def report_notices() -> None:
        for text in notices.new_texts():
            reporter.say(f"{stage.label}: {text}")

    with reporter.task(stage.label, stage.kind.unit) as task:
        match stage:
            case RowStage():
                made = _run_rows(run, stage, work, out, folders, task, engine, reporter, report_notices)
            case TableStage():
                made = _run_table(stage, work, out, folders)
            case FunctionStage():
                made = stage.function.build(folders, context=Context(work, out, folders, task, run.root))
            case _:
                raise TypeError(f"cannot run a {type(stage).__name__}")
    report_notices()
    # a journal knows of calls that no row tells of: those of rows that were tried again, and those that a kill cut off
    spent = {**paid(work / CALLS, None), **paid(run.root / CALLS, stage.folder)}
    made = {**made, "counts": {**made.get("counts", {}), **spent}, "notices": notices.lasting_texts()}
    outside.check_unchanged(lambda: run.clear(stage))
    out = work / "model" if (work / "model").is_dir() else out
    rows = count_rows(out) if (out / FILE).is_file() else None
    seconds = round(time.monotonic() - clock, 3)
    ledger = {"seconds": seconds, "pace": pace(task.marks), "bytes": tree_bytes(out)}
    recorded = {"rows": rows, "counts": {}, "failures": {}, "devices": devices(stage), **made, "started": started, **ledger}
    return run.commit(stage, out, recorded)


def _run_rows(
    run: Run,
    stage: RowStage,
    work: Path,
    out: Path,
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
    if failed := drop_failed(parts):
        reporter.say(f"{stage.label}: asks again for {failed} rows that failed before")
    total = count_rows(folders[stage.sources[0]])
    done, statistics = read_parts(parts)
    (work / BEGUN).unlink(missing_ok=True)
    progress = _PartProgress(parts, total, task, report)
    progress()
    computed = total - len(done)
    used = {}
    if computed:
        target, arguments = _engine(engine, stage)
        accelerators = run_in_child(
            target,
            {
                **arguments,
                "work": RowWork(
                    name=stage.name,
                    folders=folders,
                    sources=list(stage.sources),
                    prefixes=dict(stage.prefixes),
                    steps=list(stage.steps),
                    rows=stage.schema,
                    required=list(stage.required),
                    parts=parts,
                    batch_size=stage.rows_per_part,
                ),
            },
            work / "pipeline.log",
            progress,
        )
        used = {"devices": taken(accelerators)}
        done, statistics = read_parts(parts)
    if len(done) != total:
        raise StageError(f"{total - len(done)} of {total} rows came back missing; see {work / 'pipeline.log'} and run again")
    counts, failures = split(statistics)
    _check(stage.limits, statistics, failures)
    merge_parts(parts, SCHEMAS[stage.schema], out, total)
    _check_ids(stage, folders[stage.sources[0]], out, work)
    return {"counts": counts, "failures": failures, "computed_share": computed / total if total else 1, **used}


def _check_ids(stage: RowStage, source: Path, out: Path, work: Path) -> None:
    """Raises:
    StageError: if the prompts that came out are not those that went in, which stages that make no prompts answer one by one.
    """
    names = SCHEMAS[stage.schema].names
    if "prompt_id" not in names or "parent_id" in names:
        return
    ids = Rows(out, work)["prompt_id"]
    if not ids.take(pa.array(first_places(ids))).equals(Rows(source, work)["prompt_id"]):
        raise StageError(
            f"the prompts that came out are not those that went in; delete {work / 'parts'}, whose files are of others, and rerun"
        )


def _engine(engine: Engine, stage: RowStage) -> tuple[str, dict[str, Any]]:
    """What runs a row stage. Steps that keep something beside the run, such as paid calls in a database, stay on this machine."""
    if isinstance(engine, RayEngine) and not any(step.needs(WORK) or step.needs(RUN) for step in stage.steps):
        return "eva_stages.core.ray_engine:run_on_ray", {"engine": engine}
    return "eva_stages.core.distil:run_pipeline", {}


def _run_table(stage: TableStage, work: Path, out: Path, folders: dict[str, Path]) -> dict[str, Any]:
    arguments = {"folders": folders, "sources": list(stage.sources), "step": stage.step, "out": out}
    counts = run_in_child("eva_stages.core.distil:run_table_step", arguments, work / "step.log", lambda: None)
    return {"counts": counts}


def _check(limits: Sequence[Limit], statistics: Mapping[str, float], failures: Mapping[str, int]) -> None:
    """Raise a StageError that says which limits are exceeded, the commonest reason, and what to do."""
    exceeded = [(limit, sentence) for limit in limits if (sentence := limit.exceeded(statistics))]
    if not exceeded:
        return
    happened = "; ".join(sentence for _, sentence in exceeded)
    reason = commonest(failures)
    advice = "; ".join(dict.fromkeys(f"{limit.advice}, or raise {limit.field}" for limit, _ in exceeded))
    again = "; the next attempt asks again for the rows that failed, and for no others" if statistics.get(FAILED) else ""
    raise StageError(f"{happened}{f'; {reason}' if reason else ''}. To fix it: {advice}. Completed rows are saved{again}")


class _PartProgress:
    """Follows a row stage by the part files that appear, and passes on what its processes report."""

    def __init__(self, parts: Path, total: int, task: Task, report: Callable[[], None]) -> None:
        self._parts, self._total, self._task, self._report = parts, total, task, report
        self._seen: set[str] = set()
        self._rows = 0
        self._tokens = 0.0

    def __call__(self) -> None:
        self._report()
        for entry in os.scandir(self._parts):
            if NAME.fullmatch(entry.name) and entry.name not in self._seen:
                rows, statistics = part_facts(Path(entry.path))
                self._seen.add(entry.name)
                self._rows += rows
                self._tokens += statistics.get("output_tokens", 0)
        if (self._parts.parent / BEGUN).exists():
            self._task.mark(self._rows)
        self._task.update(self._rows, self._total, self._tokens)


def _summary(manifest: dict[str, Any]) -> str:
    rows = f"{manifest['rows']:,} rows, " if manifest["rows"] is not None else ""
    counted = facts(manifest["counts"])
    reason = commonest(manifest["failures"])
    return f"{rows}{manifest['seconds']:.1f} s{f' ({counted})' if counted else ''}{f'; {reason}' if reason else ''}"
