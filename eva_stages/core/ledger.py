"""The ledger: what every stage took, held against what was planned for it.

What a stage took stands in its manifest, beside its identity and its digest and part of neither; attempts that did not finish it stand
in the run's events. What was planned is put down when a run starts, stage by stage: a stage's plan is the last one before it was made.
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
from eva_stages.core.event_log import now
from eva_stages.core.ourfiles import read_json, rebuilt
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import Stage, uses

PLANNED = "plan.json"
SUMMED = ("seconds", "earlier_attempts", "earlier_seconds", "input_tokens", "output_tokens", "gpu_seconds", "bytes", "usd")


@dataclass(frozen=True)
class Attempts:
    """The attempts before the one that finished a stage."""

    count: int = 0
    seconds: float = 0.0
    """Their time, as far as it is recorded."""
    reused: bool = False
    """Another run of the store computed the stage, and paid for it."""


def pace(marks: Sequence[tuple[float, float]]) -> dict[str, float] | None:
    """How fast a stage's work went, apart from its start and its end; None where it was not followed or was over at once.

    Args:
        marks: (seconds, units done), ascending; units are rows, of training optimiser steps.

    Returns:
        units between the first mark and the last; total at the last one, with what an earlier attempt had done; seconds_per_unit; fastest
        and slowest: the same between two marks.
    """
    if len(marks) < 2:
        return None
    steps = [((later - earlier) / (more - fewer)) for (earlier, fewer), (later, more) in pairwise(marks)]
    units = marks[-1][1] - marks[0][1]
    figures = {"seconds_per_unit": (marks[-1][0] - marks[0][0]) / units, "fastest": min(steps), "slowest": max(steps)}
    return {"units": units, "total": marks[-1][1], **{name: round(value, 9) for name, value in figures.items()}}


def devices(stage: Stage) -> dict[str, Any]:
    """The accelerators that a stage's models are told to take: their number, and the names of those that are visible."""
    visible = visible_gpus()
    knobs = [known for use in uses(stage) for known in (use.runtime, use.runtime.get("runtime")) if isinstance(known, Mapping)]
    count = min(len(visible), max((_wanted(known, len(visible)) for known in knobs), default=0))
    return {"count": count, "names": sorted(set(visible)) if count else []}


def _wanted(runtime: Mapping[str, Any], visible: int) -> int:
    device = runtime.get("device", "auto" if "tensor_parallel" in runtime else "cpu")
    if device in ("cpu", "mps"):
        return 0
    if device == "balanced" or ("replicas" in runtime and runtime["replicas"] is None and not device.startswith("cuda:")):
        return visible  # chosen to take all
    return int((runtime.get("replicas") or 1) * (runtime.get("tensor_parallel") or 1))


def taken(count: int) -> dict[str, Any]:
    """The accelerators that a stage's steps took, as in `devices`."""
    return {"count": count, "names": sorted(set(visible_gpus())) if count else []}


@cache
def visible_gpus() -> tuple[str, ...]:
    """Names of the NVIDIA GPUs that this process may use; none where there is no driver."""
    command = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8", errors="replace").stdout
    except (OSError, subprocess.CalledProcessError):
        return ()
    found = [[part.strip() for part in line.split(",", 2)] for line in listed.splitlines()]
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    chosen = None if allowed is None else {part.strip() for part in allowed.split(",")}
    return tuple(name for index, uuid, name in found if chosen is None or chosen & {index, uuid})


def tree_bytes(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def last_sign(work: Path) -> str:
    """When something was last written in the folder of an attempt."""
    newest = max(path.lstat().st_mtime for path in (work, *work.rglob("*")))
    return datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds")


def earlier_attempts(events: Iterable[Mapping[str, Any]]) -> dict[str, Attempts]:
    """Of every stage, by fingerprint, this run's attempts that did not complete it. A killed one lasted until its last sign of life."""
    found: dict[str, Attempts] = {}
    begun: dict[str, str] = {}
    for event in events:
        fingerprint, kind = event.get("fingerprint"), event.get("event")
        if fingerprint is None:
            continue
        if kind in ("start", "resume"):
            if fingerprint in begun:
                found[fingerprint] = _with(found.get(fingerprint, Attempts()), _between(begun[fingerprint], event.get("last_sign")))
            begun[fingerprint] = event["time"]
        elif kind in ("interrupted", "failed") and fingerprint in begun:
            found[fingerprint] = _with(found.get(fingerprint, Attempts()), event.get("seconds"))
            del begun[fingerprint]
        elif kind in ("done", "reused"):
            if begun.pop(fingerprint, None) and kind == "reused":  # killed, and completed by another run
                found[fingerprint] = _with(found.get(fingerprint, Attempts()), None)
            if kind == "reused" or fingerprint in found:
                found[fingerprint] = replace(found.get(fingerprint, Attempts()), reused=kind == "reused")
    return found


def _with(known: Attempts, seconds: float | None) -> Attempts:
    return replace(known, count=known.count + 1, seconds=round(known.seconds + (seconds or 0.0), 3))


def _between(start: str, end: str | None) -> float | None:
    """Seconds between two times; None if one is missing, or the clock was turned back between them."""
    if end is None:
        return None
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
    return seconds if seconds >= 0 else None


def actual(manifest: Mapping[str, Any], attempts: Attempts) -> dict[str, Any]:
    """What a finished stage took. `seconds` are the last attempt's; null is what is not counted."""
    counts, used = manifest["counts"], manifest.get("devices")
    gpus = used["count"] if used else None
    return {
        "rows": manifest["rows"],
        "reused": attempts.reused,
        "seconds": manifest["seconds"],
        "earlier_attempts": attempts.count,
        "earlier_seconds": attempts.seconds,
        "input_tokens": counts.get("input_tokens"),
        "output_tokens": counts.get("output_tokens"),
        "gpus": gpus,
        "gpu_names": used["names"] if used else None,
        "gpu_seconds": None if gpus is None else round(gpus * (manifest["seconds"] + attempts.seconds), 3),
        "bytes": manifest.get("bytes"),
        "usd": counts.get("cost_usd", 0.0),
    }


def read_ledger(run: Run, manifests: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of every finished stage what it took (see `actual`), and as `planned` what was expected; null where nothing was put down."""
    attempts, planned = earlier_attempts(run.events()), planned_entries(run.root)
    return [
        {
            "stage": f"{one['iteration']}-{one['stage']}",
            "iteration": one["iteration"],
            **actual(one, attempts.get(one["fingerprint"], Attempts())),
            "planned": planned.get(one["fingerprint"][:12]),
        }
        for one in manifests
    ]


def sums(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a run's complete stages took together, without those that another run computed and paid for (`reused_stages`).

    Planned and compared figures are of the stages that had a time planned.
    """
    paid = [entry for entry in entries if not entry["reused"]]
    timed = [entry for entry in paid if entry["planned"] and entry["planned"].get("seconds_expected") is not None]
    return {
        "stages": len(entries),
        "reused_stages": len(entries) - len(paid),
        **{name: _sum(entry[name] for entry in paid) for name in SUMMED},
        "compared_stages": len(timed),
        "compared_seconds": _sum(entry["seconds"] for entry in timed),
        **{
            f"planned_{name}": _sum(entry["planned"][name] for entry in timed)
            for name in ("seconds_expected", "seconds_low", "seconds_high")
        },
    }


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known), 6) if known else None


def put_down(run: Run, entries: Iterable[Mapping[str, Any]]) -> None:
    """Keep the plan of the stages that are to do now; those that are done keep the plan they were made under."""
    planned = {**planned_entries(run.root), **{entry["fingerprint"]: dict(entry) for entry in entries if entry["state"] == "to do"}}
    write_whole(run.root / PLANNED, json.dumps({"time": now(), "stages": list(planned.values())}, indent=1) + "\n")


def planned_entries(root: Path) -> dict[str, dict[str, Any]]:
    """What was planned for every stage, by the first twelve digits of its fingerprint; empty where nothing was put down."""
    path = root / PLANNED
    if not path.is_file():
        return {}
    nothing: dict[str, Any] = {}
    document = rebuilt(lambda: read_json(path, dict), nothing, "no stage is compared with its plan; `eva run` writes the file again")
    entries = document.get("stages")
    return {entry["fingerprint"]: entry for entry in (entries if isinstance(entries, list) else []) if _is_planned(entry)}


def _is_planned(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("fingerprint"), str):
        return False
    times = [entry.get(name) for name in ("seconds_expected", "seconds_low", "seconds_high")]
    return all(isinstance(value, int | float) for value in times) or times[0] is None
