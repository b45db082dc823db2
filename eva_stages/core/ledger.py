"""The ledger: time, tokens, money and disk of every stage, compared with its plan.

A manifest records what its stage used, outside identity and digest; the run's events record attempts that did not complete the stage. The
plan is recorded when a run starts; the plan of a stage is the last one before the stage was computed.
"""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from eva_stages.core.durable import write_whole
from eva_stages.core.event_log import utc_now
from eva_stages.core.job_context import GPUS, job_environment
from eva_stages.core.ourfiles import read_json, rebuilt
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import Stage, uses

PLAN_FILE = "plan.json"
SUMMED_FIELDS = ("seconds", "earlier_attempts", "earlier_seconds", "input_tokens", "output_tokens", "gpu_seconds", "bytes", "usd")


@dataclass(frozen=True)
class Attempts:
    """The attempts before the one that completed a stage."""

    count: int = 0
    seconds: float = 0.0
    """Their time, as far as it is recorded."""
    is_reused: bool = False
    """Another run of the store computed the stage, and paid for it."""


def pace(marks: Sequence[tuple[float, float]]) -> dict[str, float] | None:
    """The speed of a stage's work without its start and its end; None if it has fewer than two marks.

    Args:
        marks: (seconds, units done), ascending; units are rows, of training optimiser steps.

    Returns:
        units between the first mark and the last; total at the last one, with what an earlier attempt had done; seconds_per_unit; fastest
        and slowest: the same between two marks.
    """
    if len(marks) < 2:
        return None
    steps = [((later - earlier) / (later_units - earlier_units)) for (earlier, earlier_units), (later, later_units) in pairwise(marks)]
    units = marks[-1][1] - marks[0][1]
    figures = {"seconds_per_unit": (marks[-1][0] - marks[0][0]) / units, "fastest": min(steps), "slowest": max(steps)}
    return {"units": units, "total": marks[-1][1], **{name: round(value, 9) for name, value in figures.items()}}


def devices(stage: Stage) -> dict[str, Any]:
    """The accelerators that a stage's models are configured to use: their number, and the names of the visible ones."""
    visible = visible_gpus()
    knobs = [runtime for use in uses(stage) for runtime in (use.runtime, use.runtime.get("runtime")) if isinstance(runtime, Mapping)]
    count = min(len(visible), max((_wanted_count(runtime, len(visible)) for runtime in knobs), default=0))
    return {"count": count, "names": sorted(set(visible)) if count else []}


def _wanted_count(runtime: Mapping[str, Any], visible: int) -> int:
    device = runtime.get("device", "auto" if "tensor_parallel" in runtime else "cpu")
    if device in ("cpu", "mps"):
        return 0
    if device == "balanced" or ("replicas" in runtime and runtime["replicas"] is None and not device.startswith("cuda:")):
        return visible  # it uses all of them
    return int((runtime.get("replicas") or 1) * (runtime.get("tensor_parallel") or 1))


def used_devices(count: int) -> dict[str, Any]:
    """The accelerators that a stage's steps used, as in `devices`."""
    return {"count": count, "names": sorted(set(visible_gpus())) if count else []}


def visible_gpus() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs that the stages of this thread may use; none where there is no driver."""
    return _visible_gpus(job_environment().get(GPUS, os.environ.get(GPUS)))


@cache
def _visible_gpus(allowed_ids: str | None) -> tuple[str, ...]:
    """Names of the GPUs that a value of `CUDA_VISIBLE_DEVICES` allows."""
    command = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8", errors="replace").stdout
    except (OSError, subprocess.CalledProcessError):
        return ()
    gpus = [[part.strip() for part in line.split(",", 2)] for line in listing.splitlines()]
    chosen_ids = None if allowed_ids is None else {part.strip() for part in allowed_ids.split(",")}
    return tuple(name for index, uuid, name in gpus if chosen_ids is None or chosen_ids & {index, uuid})


def tree_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def last_sign(work: Path) -> str:
    """When something was last written in the folder of an attempt."""
    newest = max(path.lstat().st_mtime for path in (work, *work.rglob("*")))
    return datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds")


def earlier_attempts(events: Iterable[Mapping[str, Any]]) -> dict[str, Attempts]:
    """Of every stage, by fingerprint, this run's attempts that did not complete it. A killed one lasted until its last sign of life."""
    attempts_by_stage: dict[str, Attempts] = {}
    start_times: dict[str, str] = {}
    for event in events:
        fingerprint, kind = event.get("fingerprint"), event.get("event")
        if fingerprint is None:
            continue
        if kind in ("start", "resume"):
            if fingerprint in start_times:
                attempts_by_stage[fingerprint] = _with_attempt(
                    attempts_by_stage.get(fingerprint, Attempts()), _seconds_between(start_times[fingerprint], event.get("last_sign"))
                )
            start_times[fingerprint] = event["time"]
        elif kind in ("interrupted", "failed") and fingerprint in start_times:
            attempts_by_stage[fingerprint] = _with_attempt(attempts_by_stage.get(fingerprint, Attempts()), event.get("seconds"))
            del start_times[fingerprint]
        elif kind in ("done", "reused"):
            if start_times.pop(fingerprint, None) and kind == "reused":  # killed, and completed by another run
                attempts_by_stage[fingerprint] = _with_attempt(attempts_by_stage.get(fingerprint, Attempts()), None)
            if kind == "reused" or fingerprint in attempts_by_stage:
                attempts_by_stage[fingerprint] = replace(attempts_by_stage.get(fingerprint, Attempts()), is_reused=kind == "reused")
    return attempts_by_stage


def _with_attempt(attempts: Attempts, seconds: float | None) -> Attempts:
    return replace(attempts, count=attempts.count + 1, seconds=round(attempts.seconds + (seconds or 0.0), 3))


def _seconds_between(start: str, end: str | None) -> float | None:
    """Seconds between two times; None if a time is missing, or the clock was turned back between them."""
    if end is None:
        return None
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    return seconds if seconds >= 0 else None


def actual(manifest: Mapping[str, Any], attempts: Attempts) -> dict[str, Any]:
    """The resources that a complete stage used. `seconds` is the last attempt's; values that are not measured are null."""
    counts, used_devices = manifest["counts"], manifest.get("devices")
    gpus = used_devices["count"] if used_devices else None
    return {
        "rows": manifest["rows"],
        "reused": attempts.is_reused,
        "seconds": manifest["seconds"],
        "earlier_attempts": attempts.count,
        "earlier_seconds": attempts.seconds,
        "input_tokens": counts.get("input_tokens"),
        "output_tokens": counts.get("output_tokens"),
        "gpus": gpus,
        "gpu_names": used_devices["names"] if used_devices else None,
        "gpu_seconds": None if gpus is None else round(gpus * (manifest["seconds"] + attempts.seconds), 3),
        "bytes": manifest.get("bytes"),
        "usd": counts.get("cost_usd", 0.0),
    }


def read_ledger(run: Run, manifests: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The resources of every complete stage (see `actual`), and its plan as `planned`; null where no plan is recorded."""
    attempts, planned_by_stage = earlier_attempts(run.events()), planned_entries(run.root)
    return [
        {
            "stage": f"{manifest['iteration']}-{manifest['stage']}",
            "iteration": manifest["iteration"],
            **actual(manifest, attempts.get(manifest["fingerprint"], Attempts())),
            "planned": planned_by_stage.get(manifest["fingerprint"][:12]),
        }
        for manifest in manifests
    ]


def sums(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums over a run's complete stages, without those that another run computed and paid for (`reused_stages`).

    Planned and compared figures are of the stages that had a time planned.
    """
    paid_entries = [entry for entry in entries if not entry["reused"]]
    timed_entries = [entry for entry in paid_entries if entry["planned"] and entry["planned"].get("seconds_expected") is not None]
    return {
        "stages": len(entries),
        "reused_stages": len(entries) - len(paid_entries),
        **{name: _sum(entry[name] for entry in paid_entries) for name in SUMMED_FIELDS},
        "compared_stages": len(timed_entries),
        "compared_seconds": _sum(entry["seconds"] for entry in timed_entries),
        **{
            f"planned_{name}": _sum(entry["planned"][name] for entry in timed_entries)
            for name in ("seconds_expected", "seconds_low", "seconds_high")
        },
    }


def _sum(values: Iterable[float | None]) -> float | None:
    known_values = [value for value in values if value is not None]
    return round(sum(known_values), 6) if known_values else None


def put_down(run: Run, entries: Iterable[Mapping[str, Any]]) -> None:
    """Record the plan of the stages that are to do; complete stages keep the plan that they were computed under."""
    planned_by_stage = {
        **planned_entries(run.root),
        **{entry["fingerprint"]: dict(entry) for entry in entries if entry["state"] == "to do"},
    }
    write_whole(run.root / PLAN_FILE, json.dumps({"time": utc_now(), "stages": list(planned_by_stage.values())}, indent=1) + "\n")


def planned_entries(root: Path) -> dict[str, dict[str, Any]]:
    """The plan of every stage, by the first twelve digits of its fingerprint; empty where none is recorded."""
    path = root / PLAN_FILE
    if not path.is_file():
        return {}
    empty_document: dict[str, Any] = {}
    document = rebuilt(lambda: read_json(path, dict), empty_document, "no stage is compared with its plan; `eva run` writes the file again")
    entries = document.get("stages")
    return {entry["fingerprint"]: entry for entry in (entries if isinstance(entries, list) else []) if _is_planned(entry)}


def planned_seconds(root: Path) -> dict[str, float | None]:
    """How long every stage is planned to take, as in `planned_entries`; None where its rate was not known."""
    return {key: entry.get("seconds_expected") for key, entry in planned_entries(root).items()}


def _is_planned(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("fingerprint"), str):
        return False
    times = [entry.get(name) for name in ("seconds_expected", "seconds_low", "seconds_high")]
    return all(isinstance(value, int | float) for value in times) or times[0] is None
