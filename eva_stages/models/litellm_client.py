"""Sending calls to a model through LiteLLM: each once, with a deadline, retries and a spending cap.

Before a try is sent, its worst-case cost is reserved in the journal. Its response is written to the journal before it is read, so that
no call is paid for twice; a try that may have been billed without a usable response counts with its worst case. Retries of LiteLLM and
its clients are disabled, because only this client honours Retry-After for every provider: the header delays all calls, and a delayed try
does not count as long as other calls succeed. A server that does not respond for long stops the stage.
"""

import asyncio
import json
import random
import time
from collections.abc import Callable
from typing import Any

import httpx

from eva_stages.core.calls import Entry, Journal, Reservation, call_key
from eva_stages.core.errors import StageError
from eva_stages.core.generating import COSTS
from eva_stages.core.patches import import_litellm, without_mcp
from eva_stages.core.redaction import secrets
from eva_stages.models.pacing import FIRST_WAIT, LONGEST_WAIT, Limits, Pacing
from eva_stages.models.provider_answers import raw_choices, read_choices, storable, with_tokens
from eva_stages.models.provider_errors import TOO_MANY_REQUESTS, Failure, failure
from eva_stages.models.spending import Charge, Prices, WorstCase, count_tokens
from eva_stages.models.wire import EXCHANGE, LARGEST_BODY, Exchange

CONNECT_SECONDS = 15.0
PREPARING_SECONDS = 60.0
"""Time that LiteLLM may take before it sends a request: the first call imports most of its modules."""
POLL_SECONDS = 0.1
ANSWER_BYTES, BYTES_PER_TOKEN = 1 << 20, 4096
"""Largest size of a response: its frame, and each token with its most likely alternatives."""


class Client:
    """Calls to one model, in one event loop.

    Args:
        key: API key; None = LiteLLM reads the provider's usual variable.
        key_name: name of the key's variable, for errors.
        notify: reports a notice; its second argument is whether the notice is permanent.
    """

    def __init__(
        self,
        model: str,
        key: str | None,
        key_name: str,
        limits: Limits,
        prices: Prices,
        journal: Journal,
        notify: Callable[[str, bool], None],
    ) -> None:
        self._model, self._key = model, key
        self._limits, self._prices, self._journal = limits, prices, journal
        self._notify = notify
        self._underway: dict[str, asyncio.Lock] = {}
        self._used_keys: set[str] = set()
        self._tasks: set[asyncio.Task[dict[str, Any]]] = set()
        self._gate = asyncio.Semaphore(limits.concurrency)
        # a kill loses responses that are being written, so their number is limited like that of the requests
        self._unsettled_slots = asyncio.Semaphore(2 * limits.concurrency)
        self._pacing = Pacing(model, key_name, limits, notify)

    async def call(self, request: dict[str, Any]) -> dict[str, Any]:
        """The response from the journal or the provider: `choices` or a `failure`, and its costs. Equal calls are sent once."""
        key = call_key(request)
        async with self._underway.setdefault(key, asyncio.Lock()):
            entry = self._journal.find(key)
            if entry is not None:
                return self._journal_answer(key, entry, request)
            async with self._unsettled_slots:
                return await self._call_shielded(key, request)

    def begin(self) -> None:
        """Allow calls after `finish`."""
        self._pacing.stopping.clear()

    async def finish(self) -> None:
        """Start no further call or retry, and wait until the active calls are in the journal."""
        self._pacing.stopping.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._journal.flush()

    async def _call_shielded(self, key: str, request: dict[str, Any]) -> dict[str, Any]:
        """Cancellation waits until a call that was sent is in the journal, because it is paid for."""
        task = asyncio.ensure_future(self._call_provider(key, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._pacing.stopping.set()
            await asyncio.gather(task, return_exceptions=True)
            raise

    async def _call_provider(self, key: str, request: dict[str, Any]) -> dict[str, Any]:
        costs: dict[str, Any] = dict.fromkeys(COSTS, 0)
        async with self._gate:
            raw, settlement = await self._attempts(key, request, costs)
        if settlement is None:
            return {"failure": raw, **costs}
        await settlement  # outside of the gate, so that another request can start meanwhile
        self._used_keys.add(key)
        return self._read(raw, request, costs)

    async def _attempts(self, key: str, request: dict[str, Any], costs: dict[str, Any]) -> tuple[Any, "asyncio.Future[None] | None"]:
        """A raw response with the future of its journal entry, or (reason of the failure, None). Adds to `costs`."""
        tries, reason, answers_before = 0, "", self._pacing.answers
        while tries < self._limits.attempts:
            tries += 1
            worst = self._prices.worst_case(request)
            await self._pacing.turn()
            reservation = await self._reserve(worst.usd)
            began = time.monotonic()
            outcome = await self._send(request)
            if not isinstance(outcome, Failure):
                charge = self._charge(outcome.get("usage"), request, worst)
                _add(costs, charge, self._prices.rates is None)
                self._pacing.record_answer()
                if raw_choices(outcome):
                    raw = {"response": outcome, "input_tokens": charge.input_tokens, "output_tokens": charge.output_tokens}
                    return raw, self._settle(reservation, key, raw, charge)
                await self._settle(reservation, None, {"response": outcome}, charge)  # paid for, but unusable
                reason, wait = "no choices in the response", None
            else:
                reason = outcome.reason
                lost_charge = Charge(worst.usd if outcome.may_be_paid else 0.0, outcome.may_be_paid, 0, None)
                _add(costs, lost_charge, outcome.may_be_paid and self._prices.rates is None)
                await self._settle(reservation, None, {"failure": reason}, lost_charge)
                self._pacing.record_failure(outcome, began)
                if not outcome.can_retry:
                    return f"refused: {reason}", None
                tries -= outcome.status == TOO_MANY_REQUESTS and self._pacing.answers > answers_before
                answers_before, wait = self._pacing.answers, self._pacing.hold(outcome)
            if wait is None and tries < self._limits.attempts:
                await self._pacing.pause(min(LONGEST_WAIT, FIRST_WAIT * 2 ** max(0, tries - 1)) * random.uniform(0.5, 1.0))
        return f"gave up after {self._limits.attempts} tries: {reason}", None

    async def _reserve(self, usd: float) -> Reservation:
        """Reserve the worst-case cost of a call; waits for active calls if their reservations alone exceed the cap.

        Raises:
            StageError: if the cap is reached, or other processes do not finish their calls.
        """
        cap, began = self._limits.max_cost_usd, time.monotonic()
        while (reservation := await self._journal.reserve(usd, cap)).key is None:
            spent_text = f"{reservation.total_usd:.4f} of {cap:g} USD spent on {self._model}"
            if not reservation.waiting:
                raise StageError(
                    f"spending cap reached: {spent_text}, and the next call may cost {usd:.4f}; raise runtime.max_cost_usd and run again. "
                    "All paid responses are saved"
                )
            if time.monotonic() - began > self._limits.patience:
                raise StageError(f"{spent_text} or reserved, and calls of other processes that share the journal do not finish")
            await self._pacing.pause(POLL_SECONDS)
        return reservation

    def _settle(self, reservation: Reservation, key: str | None, answer: Any, charge: Charge) -> "asyncio.Future[None]":
        return self._journal.settle(reservation, key, answer, charge.usd, charge.is_estimate, self._limits.max_cost_usd)

    async def _send(self, request: dict[str, Any]) -> dict[str, Any] | Failure:
        """One try: the raw response without credentials and lone surrogates, or a failure."""
        litellm = import_litellm()
        key = {"api_key": self._key} if self._key else {}
        limit = ANSWER_BYTES + BYTES_PER_TOKEN * request["max_tokens"] * request.get("n", 1)
        exchange = Exchange(min(limit, LARGEST_BODY))
        EXCHANGE.set(exchange)
        timeout = httpx.Timeout(self._limits.timeout, connect=min(self._limits.timeout, CONNECT_SECONDS))
        try:
            async with asyncio.timeout(PREPARING_SECONDS + self._limits.timeout) as deadline:
                exchange.on_send = lambda: deadline.reschedule(asyncio.get_running_loop().time() + self._limits.timeout)
                response: Any = await litellm.acompletion(**without_mcp(request), **key, timeout=timeout, max_retries=0, num_retries=0)
            raw = _storable(response.model_dump(warnings=False))
        except Exception as error:  # LiteLLM's errors have no common base class
            answer = _readable_body(exchange)
            if answer is None:
                return failure(error, exchange, self._limits.timeout)
            raw = answer
        self._report_dropped(exchange)
        return raw

    def _report_dropped(self, exchange: Exchange) -> None:
        if len(exchange.sent_fields) > 1 and (dropped_fields := exchange.sent_fields[0] - exchange.sent_fields[-1]):
            self._notify(f"{self._model} rejects {', '.join(sorted(dropped_fields))}; calls are sent without", True)

    # --- cost and content of a response

    def _charge(self, usage: Any, request: dict[str, Any], worst: WorstCase) -> Charge:
        charge = self._prices.charge(usage, request, worst)
        if charge.is_implausible:
            self._notify(f"{self._model} reports more tokens than a call can use; such calls are counted at their worst case", True)
        return charge

    def _journal_answer(self, key: str, entry: Entry, request: dict[str, Any]) -> dict[str, Any]:
        """A response that is already paid for: by this stage (counted once), or by other stages and runs."""
        answer = entry.answer
        costs: dict[str, Any] = dict.fromkeys(COSTS, 0)
        if entry.is_own_payment and key not in self._used_keys:
            costs |= {"cost_usd": entry.usd, "estimated_calls": int(entry.is_estimate and entry.usd > 0)}
            costs["estimated_usd"] = entry.usd if entry.is_estimate else 0
            costs["unpriced_calls"] = int(self._prices.rates is None)
        else:
            costs |= {"reused_calls": 1, "reused_usd": entry.usd}
        self._used_keys.add(key)
        costs["input_tokens"] = answer.get("input_tokens", 0)
        if "response" in answer:
            return self._read(answer, request, costs)
        return {"choices": answer.get("choices", []), **costs}  # written by eva 0.1

    def _read(self, raw: dict[str, Any], request: dict[str, Any], costs: dict[str, Any]) -> dict[str, Any]:
        """Raises:
        StageError: if the response cannot be read; it is in the journal and is not paid for again.
        """
        try:
            choices = read_choices(raw["response"], bool(request.get("logprobs")))
            choices_with_tokens = with_tokens(choices, raw["output_tokens"], lambda text: count_tokens(self._model, text=text))
        except Exception as error:
            raise StageError(
                f"a response of {self._model} cannot be read ({type(error).__name__}: {error}); it is saved in the journal"
            ) from error
        return {"choices": choices_with_tokens, **costs}


def _add(costs: dict[str, Any], charge: Charge, has_no_price: bool) -> None:
    costs["cost_usd"] += charge.usd
    costs["estimated_calls"] += int(charge.is_estimate and charge.usd > 0)
    costs["estimated_usd"] += charge.usd if charge.is_estimate else 0
    costs["unpriced_calls"] += int(has_no_price)
    costs["input_tokens"] += charge.input_tokens


def _storable(answer: Any) -> dict[str, Any]:
    raw: dict[str, Any] = storable(answer, secrets().hide)
    return raw


def _readable_body(exchange: Exchange) -> dict[str, Any] | None:
    """A complete response in OpenAI's format that LiteLLM could not read."""
    if exchange.body is None or exchange.status is None or not 200 <= exchange.status < 300:
        return None
    try:
        answer = json.loads(exchange.body.decode("utf-8", "replace"))
        return _storable(answer) if raw_choices(answer) else None
    except (ValueError, RecursionError):
        return None
