"""What happened in a run and when: one JSON object per line of `events.jsonl`, read back without lines that a kill cut off."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from eva_stages.core.decoding import decode_json
from eva_stages.core.ourfiles import notice, read_content
from eva_stages.core.redaction import redact_data

EVENTS = "events.jsonl"


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def add_event(root: Path, kind: str, **facts: Any) -> None:
    """Append an event to the log of the run in `root`."""
    line = json.dumps({"time": utc_now(), "event": kind, **redact_data(facts)}, ensure_ascii=False)
    with (root / EVENTS).open("ab+") as stream:
        if stream.tell():
            stream.seek(-1, os.SEEK_END)
            line = line if stream.read(1) == b"\n" else f"\n{line}"  # a full disk cut the last line off
        stream.write(f"{line}\n".encode(errors="replace"))
        stream.flush()
        os.fsync(stream.fileno())


def read_events(root: Path) -> list[dict[str, Any]]:
    """The events of the run in `root`, in order, without lines that a kill or a full disk has cut off, or that are no events."""
    path = root / EVENTS
    lines = read_content(path).split(b"\n") if path.is_file() else []
    events = [_event(line) for line in lines if line.strip()]
    unreadable = sum(event is None for event in events[:-1])
    if unreadable:
        notice(f"{path}: {unreadable} lines are not events and were ignored")
    return [event for event in events if event is not None]


def _event(line: bytes) -> dict[str, Any] | None:
    """An event from a line of the log; None if the line is no event, for example because a kill cut it off."""
    try:
        event = decode_json(line)
        datetime.fromisoformat(event["time"])
        is_known = isinstance(event["event"], str)
        texts = all(isinstance(event.get(name, ""), str) for name in ("stage", "fingerprint", "cause"))
        seconds = isinstance(event.get("seconds", 0), int | float)
        datetime.fromisoformat(event.get("last_sign", event["time"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return event if is_known and texts and seconds else None
