"""When the next call to a provider may be sent, and when the stage stops because of the provider.

A server's Retry-After delays all calls, up to a limit in the recipe, with a notice. The stage stops if the server rejects the key or does
not respond for long.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from eva_stages.core.errors import StageError
from eva_stages.core.redaction import redact
from eva_stages.models.provider_errors import FORBIDDEN_STATUS, REFUSAL_STATUSES, Failure, retry_after

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
REPORTED_WAIT = 10.0
"""Longer waits, in seconds, are reported."""


@dataclass(frozen=True)
class Limits:
    """Limits on calls; see `LiteLLMGenerator`."""

    concurrency: int
    attempts: int
    timeout: float
    max_wait: float
    max_cost_usd: float | None
    requests_per_minute: float | None

    @property
    def patience(self) -> float:
        """Seconds that may pass without any response: twice the longest duration of a try."""
        return 2 * (self.timeout + self.max_wait)


class Pacing:
    """The pace of the calls to one model.

    Attributes:
        stopping: set when no further call may start.
        answers: number of calls with a response.
    """

    def __init__(self, model: str, key_name: str, limits: Limits, notify: Callable[[str, bool], None]) -> None:
        self._model, self._key_name, self._limits, self._notify = model, key_name, limits, notify
        self.stopping = asyncio.Event()
        self.answers = 0
        self._earliest = 0.0
        self._fruitless_since: float | None = None

    def record_answer(self) -> None:
        """Count a response."""
        self.answers, self._fruitless_since = self.answers + 1, None

    def record_failure(self, outcome: Failure, began: float) -> None:
        """Note a failed call that was sent at `began`.

        Raises:
            StageError: if the key or the model is rejected, or no call got a response for long.
        """
        if outcome.status in REFUSAL_STATUSES and not outcome.may_be_paid and not (outcome.status == FORBIDDEN_STATUS and self.answers):
            raise StageError(
                f"{self._model} rejected the request ({outcome.status}); check the model's name and {self._key_name}: {outcome.reason}"
            )
        if not outcome.can_retry:  # the server responds, but rejects this call
            self._fruitless_since = None
            return
        if self._fruitless_since is None:
            self._fruitless_since = began
        seconds = time.monotonic() - self._fruitless_since
        if seconds > self._limits.patience:
            raise StageError(f"no response from {self._model} for {seconds:.0f} s; the last error was: {outcome.reason}")

    def hold(self, outcome: Failure) -> float | None:
        """Delay all calls by the server's Retry-After; the seconds, or None without one."""
        wait = retry_after(outcome.retry_after, time.time(), self._limits.max_wait)
        if wait is None:
            return None
        hold_end = time.monotonic() + max(wait, FIRST_WAIT)
        if wait > REPORTED_WAIT and hold_end > self._earliest + REPORTED_WAIT:
            end = time.strftime("%H:%M:%S", time.localtime(time.time() + wait))
            header = redact(outcome.retry_after or "")[:40]
            self._notify(
                f"waiting until {end}: {self._model} responded with status {outcome.status} and Retry-After {header!r} "
                f"(at most runtime.max_wait, {self._limits.max_wait:g} s)",
                False,
            )
        self._earliest = max(self._earliest, hold_end)
        return wait

    async def turn(self) -> None:
        """Wait until the next request may be sent, by Retry-After and by the rate limit."""
        while (wait := self._earliest - time.monotonic()) > 0:
            await self.pause(wait)
        if self.stopping.is_set():
            raise asyncio.CancelledError
        if self._limits.requests_per_minute is not None:
            self._earliest = time.monotonic() + 60 / self._limits.requests_per_minute

    async def pause(self, seconds: float) -> None:
        """Raises:
        CancelledError: as soon as no further call may start.
        """
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return
        raise asyncio.CancelledError
