"""The last event of each stage in a run's log, which says where a stage stands that is not complete."""

from collections.abc import Iterable
from typing import Any

from eva_stages.core.planned_stages import FOLDER_DIGITS

RUNNING_EVENTS = ("start", "resume", "waits")
"""Events after which a stage runs, as long as the run is locked."""


def stage_key(fingerprint: str | None) -> str:
    """The digits of a fingerprint that every record of a run has."""
    return (fingerprint or "")[:FOLDER_DIGITS]


def last_events(events: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The last event of each stage, by its `stage_key`."""
    return {stage_key(event.get("fingerprint")): event for event in events}
