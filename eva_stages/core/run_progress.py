"""How far all stages of a command are, and how long the rest takes."""

import time
from collections.abc import Mapping, Sequence

from eva_stages.core.stage import Stage

MOST_OVERHEAD, LEAST_OVERHEAD = 2.0, 0.5
"""Limits of the time that passes per second of a stage: between stages there is other work, and stages may overlap."""


class RunProgress:
    """The stages of a command, those that are complete, and the remaining time.

    A stage takes as long as its plan says, or else as the stages of the same name took.

    Args:
        planned_seconds: by the first twelve digits of the fingerprint, as in a run's plan.
    """

    def __init__(self, stages: Sequence[Stage], planned_seconds: Mapping[str, float | None]) -> None:
        self._began = time.monotonic()
        self._open_stages = {stage.fingerprint: stage for stage in stages}
        self._planned_seconds = planned_seconds
        self._seconds_of_name: dict[str, list[float]] = {}
        self._computed_seconds = 0.0
        self.total = len(self._open_stages)

    @property
    def done_count(self) -> int:
        return self.total - len(self._open_stages)

    def complete(self, stage: Stage, seconds: float, computed_seconds: float) -> None:
        """Count a complete stage.

        Args:
            seconds: that it took when it was computed.
            computed_seconds: the part of them that passed now.
        """
        if self._open_stages.pop(stage.fingerprint, None) is None:
            return
        self._seconds_of_name.setdefault(stage.name, []).append(seconds)
        self._computed_seconds += computed_seconds

    def expected_seconds(self, stage: Stage) -> float | None:
        """How long a stage is expected to take; None where neither its plan nor another stage of its name tells."""
        planned_time = self._planned_seconds.get(stage.fingerprint[:12])
        known_seconds = self._seconds_of_name.get(stage.name)
        return sum(known_seconds) / len(known_seconds) if planned_time is None and known_seconds else planned_time

    @property
    def elapsed_seconds(self) -> float:
        """Seconds since the command began with its stages."""
        return time.monotonic() - self._began

    def remaining(self, running: Mapping[str, float | None]) -> tuple[float, int]:
        """Seconds until all stages are complete, as far as they are known, and of how many stages they are not known.

        Args:
            running: what is left of the running stages in seconds, by label.
        """
        known_seconds = [running.get(stage.label, self.expected_seconds(stage)) for stage in list(self._open_stages.values())]
        seconds = sum(seconds for seconds in known_seconds if seconds is not None)
        overhead = 1.0
        if self._computed_seconds > self.elapsed_seconds / 2:
            overhead = min(MOST_OVERHEAD, max(LEAST_OVERHEAD, self.elapsed_seconds / self._computed_seconds))
        return seconds * overhead, sum(seconds is None for seconds in known_seconds)
