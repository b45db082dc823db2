"""Any provider through LiteLLM: concurrent, retried, journalled and capped.

Every finished call is in a journal before it is used, so a killed stage pays for nothing twice. What a provider does not give after
all tries is null with its reason. A spending cap holds strictly: the worst cost of a call is set aside before it is sent. Retries are
ours alone (LiteLLM's and its clients' are off), because only here is a Retry-After header honoured for every provider: it holds all
calls back, and being told to wait uses up no try as long as other calls get through.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import Field, PrivateAttr

from eva_stages.core.calls import CALLS, Journal, call_key
from eva_stages.core.errors import StageError
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.generating import Generated, SeededLLM
from eva_stages.core.redaction import hide, redact
from eva_stages.core.rows import Message
from eva_stages.models.batching import with_system_prompt
from eva_stages.models.providers import provider_key, token_rates

RETRIED = {408, 409, 429}
REFUSED = {401, 403, 404}
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
TOO_MANY = 429
LONGEST_CAUSE = 300


class LiteLLMGenerator(SeededLLM):
    """A model behind a provider's API or an OpenAI-compatible server.

    Attributes:
        model: LiteLLM's name.
        api_base: address of an OpenAI-compatible server.
        concurrency, attempts, timeout: requests at once, tries per request, seconds per try.
        api_key_env: environment variable with the key; null = the provider's usual one.
        price: US dollars per million tokens, `input` and `output`; null = LiteLLM's price list.
        max_cost_usd: cap for everything in the journal.
        requests_per_minute: requests, tries included, are spread over time to stay below this.
        journal: folder for the journal of finished calls; null = in memory.
        cache: file with finished calls of all runs, read and added to; null = none.
        extra: further fields of every request, such as `tools` or `logprobs`.
    """

    model: str
    api_base: str | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    stop: list[str] = Field(default_factory=list)
    system_prompt: str | None = None
    concurrency: int = 16
    attempts: int = 6
    timeout: float = 120.0
    api_key_env: str | None = None
    price: dict[str, float] | None = None
    max_cost_usd: float | None = None
    requests_per_minute: float | None = None
    journal: str | None = None
    cache: str | None = None
    extra: dict[str, Any] = Field(default_factory=dict)

    _key: str | None = PrivateAttr(None)
    _rates: tuple[float, float] | None = PrivateAttr(None)
    _takes: frozenset[str] = PrivateAttr(frozenset())
    _calls: Journal = PrivateAttr()
    _loop: asyncio.AbstractEventLoop = PrivateAttr()
    _reserved: list[float] = PrivateAttr(default_factory=list)
    _unsettled: asyncio.Semaphore = PrivateAttr()
    _underway: dict[str, asyncio.Lock] = PrivateAttr(default_factory=dict)
    _next: float = PrivateAttr(0.0)
    _answered: int = PrivateAttr(0)

    @property
    def model_name(self) -> str:
        return self.model

    def load(self) -> None:
        super().load()
        self._key = provider_key(self.model, self.api_base, self.api_key_env, self.model)
        import litellm

        litellm.suppress_debug_info, litellm.telemetry, litellm.drop_params = True, False, True
        self._takes = frozenset(litellm.get_supported_openai_params(self.model) or ())
        self._rates = token_rates(self.model, self.price)
        if self.max_cost_usd is not None and self._rates is None:
            raise StageError(
                f"max_cost_usd cannot hold: LiteLLM knows no price of {self.model}; give runtime.price (USD per million tokens)"
            )
        self._calls = Journal(Path(self.journal) / CALLS if self.journal else None, Path(self.cache).expanduser() if self.cache else None)
        self._loop = asyncio.new_event_loop()

    def unload(self) -> None:
        self._calls.close()
        self._loop.close()

    def generate(self, inputs: list[list[Message]], num_generations: int = 1, seeds: Sequence[int] | None = None) -> list[Generated]:
        streams = seeds if seeds is not None else [random.getrandbits(62) for _ in inputs]
        conversations = [with_system_prompt(messages, self.system_prompt) for messages in inputs]
        return self._loop.run_until_complete(self._all(conversations, num_generations, streams))

    # --- all prompts of a call

    async def _all(self, conversations: list[list[Message]], n: int, seeds: Sequence[int]) -> list[Generated]:
        gate, budget = asyncio.Semaphore(self.concurrency), asyncio.Condition()
        # answers on their way to disk are lost with a kill, so they may be no more than the requests under way
        self._unsettled = asyncio.Semaphore(2 * self.concurrency)
        tasks = [
            asyncio.ensure_future(self._prompt(messages, n, seed, gate, budget))
            for messages, seed in zip(conversations, seeds, strict=True)
        ]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            await self._finish(tasks)
            raise

    async def _finish(self, tasks: Sequence["asyncio.Future[Generated]"]) -> None:
        """Calls under way are paid for: let them come home to the journal. Those that have not begun do not begin."""
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._calls.settle()

    async def _prompt(self, messages: list[Message], n: int, seed: int, gate: asyncio.Semaphore, budget: asyncio.Condition) -> Generated:
        """n responses to a conversation: in one request where the provider can, else one by one, until there are n."""
        choices: list[dict[str, Any]] = []
        usage = {"input_tokens": 0, "cost_usd": 0.0, "unpriced_calls": 0}
        reason = ""
        while len(choices) < n and not reason:
            wanted = n - len(choices) if "n" in self._takes else 1
            answer = await self._call(self._request(messages, wanted, derive_seed(seed, len(choices)) % 2**31), gate, budget)
            reason = answer.get("failure", "")
            choices += answer.get("choices", [])[:wanted]
            for name in usage:
                usage[name] += answer.get(name, 0)
        missing = n - len(choices)
        counts = [choice["tokens"] for choice in choices] + [0] * missing
        made: Generated = {
            "generations": [choice["text"] for choice in choices] + [None] * missing,
            "finish_reasons": [choice["reason"] for choice in choices] + [reason] * missing,
            "statistics": {"input_tokens": [usage["input_tokens"]] * n, "output_tokens": counts, **_shared(usage, n)},
        }
        if self.extra.get("logprobs"):
            made["logprobs"] = [choice["logprobs"] for choice in choices] + [None] * missing
        return made

    def _request(self, messages: list[Message], n: int, seed: int) -> dict[str, Any]:
        settings: dict[str, Any] = {"model": self.model, "messages": messages, "max_tokens": self.max_new_tokens}
        settings |= {"temperature": self.temperature, "top_p": self.top_p, "api_base": self.api_base}
        settings |= {"n": n} if n > 1 else {}
        settings |= {"stop": self.stop} if self.stop else {}
        return settings | self.extra | {"seed": seed}

    # --- one call

    async def _call(self, request: dict[str, Any], gate: asyncio.Semaphore, budget: asyncio.Condition) -> dict[str, Any]:
        """The answer from the journal or the provider, or `{"failure": reason}`. Of equal calls one is made."""
        key = call_key(request)
        async with self._underway.setdefault(key, asyncio.Lock()):
            known = self._calls.find(key)
            return dict(known) if known is not None else await self._new_call(key, request, gate, budget)

    async def _new_call(self, key: str, request: dict[str, Any], gate: asyncio.Semaphore, budget: asyncio.Condition) -> dict[str, Any]:
        async with self._unsettled:
            answer, kept = await self._sent(key, request, gate, budget)
            if kept is not None:  # the place among the requests under way is another's meanwhile
                await kept
        return answer

    async def _sent(
        self, key: str, request: dict[str, Any], gate: asyncio.Semaphore, budget: asyncio.Condition
    ) -> tuple[dict[str, Any], "asyncio.Future[None] | None"]:
        async with gate:
            reserved = await self._reserve(request, budget)
            # a call that was sent is paid for, so cancelling waits until it has come home
            task = asyncio.ensure_future(self._attempts(key, request))
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                await asyncio.gather(task, return_exceptions=True)
                raise
            finally:
                async with budget:
                    self._reserved.remove(reserved)
                    budget.notify_all()

    async def _attempts(self, key: str, request: dict[str, Any]) -> tuple[dict[str, Any], "asyncio.Future[None] | None"]:
        """An answer on its way into the journal, or a failure."""
        failure, tries, answered = "", 0, self._answered
        while tries < self.attempts:
            tries += 1
            await self._turn()
            try:
                answer = await self._send(request)
            except Exception as error:  # LiteLLM's errors have no common class of their own
                code, failure = _status(error), self._words(error)
                if code in REFUSED:
                    name = self.api_key_env or "the provider's key variable"
                    raise StageError(f"{self.model} refused the request ({code}); check the model's name and {name}: {failure}") from None
                if code is not None and code not in RETRIED and code < 500:
                    return {"failure": f"refused: {failure}"}, None
                tries -= code == TOO_MANY and self._answered > answered
                answered = self._answered
                wait = _retry_after(error)
            else:
                self._answered += 1
                if answer["choices"]:
                    return answer, self._calls.keep(key, answer, answer["cost_usd"])
                self._calls.keep(f"{key}-{uuid4()}", answer, answer["cost_usd"])  # it is paid for, but of no use
                failure, wait = "no choices in the answer", None
            if wait is not None:
                self._next = max(self._next, time.monotonic() + wait)
            elif tries < self.attempts:
                await asyncio.sleep(min(LONGEST_WAIT, FIRST_WAIT * 2 ** max(0, tries - 1)) * random.uniform(0.5, 1.0))
        return {"failure": f"gave up after {self.attempts} tries: {failure}"}, None

    async def _turn(self) -> None:
        """Wait until the next request may be sent: not before a server's Retry-After, nor faster than the rate allows."""
        while (wait := self._next - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        if self.requests_per_minute is not None:
            self._next = time.monotonic() + 60 / self.requests_per_minute

    async def _send(self, request: dict[str, Any]) -> dict[str, Any]:
        import litellm

        key = {"api_key": self._key} if self._key else {}
        # with tools LiteLLM looks for servers of the Model Context Protocol, which takes a package that nothing else needs
        plain = {"_skip_mcp_handler": True} if "tools" in request else {}
        response: Any = await litellm.acompletion(**request, **key, **plain, timeout=self.timeout, max_retries=0, num_retries=0)
        usage = response.usage
        choices = [choice for choice in response.choices or [] if _text(choice.message) is not None]
        each = usage.completion_tokens // max(1, len(choices))
        counts = [each] * (len(choices) - 1) + [usage.completion_tokens - each * (len(choices) - 1)]
        cost = self._cost(usage.prompt_tokens, usage.completion_tokens)
        return {
            "choices": [
                {"text": hide(_text(choice.message) or ""), "reason": choice.finish_reason, "tokens": count} | self._logprobs(choice)
                for choice, count in zip(choices, counts, strict=False)
            ],
            "input_tokens": usage.prompt_tokens,
            "cost_usd": cost or 0.0,
            "unpriced_calls": int(cost is None),
        }

    def _logprobs(self, choice: Any) -> dict[str, Any]:
        if not self.extra.get("logprobs"):
            return {}
        told = choice.model_dump().get("logprobs")
        return {"logprobs": told["content"] if told else None}

    def _words(self, error: Exception) -> str:
        return redact(f"{type(error).__name__}: {' '.join(str(error).split())}")[:LONGEST_CAUSE]

    # --- money

    def _cost(self, input_tokens: int, output_tokens: int) -> float | None:
        return None if self._rates is None else input_tokens * self._rates[0] + output_tokens * self._rates[1]

    async def _reserve(self, request: dict[str, Any], budget: asyncio.Condition) -> float:
        """Set the most that a call can cost aside; waits for calls under way if only they stand between it and the cap."""
        if self.max_cost_usd is None:
            self._reserved.append(0.0)
            return 0.0
        import litellm

        tokens = litellm.token_counter(model=self.model, messages=request["messages"])
        worst = self._cost(tokens, self.max_new_tokens * request.get("n", 1)) or 0.0
        async with budget:
            while self._calls.spent() + sum(self._reserved) + worst > self.max_cost_usd:
                if not self._reserved:
                    raise StageError(
                        f"spending cap reached: {self._calls.spent():.4f} of {self.max_cost_usd:g} USD spent on {self.model}, and the next "
                        f"call may cost {worst:.4f}; raise runtime.max_cost_usd and run again. All answers paid for are kept"
                    )
                await budget.wait()
            self._reserved.append(worst)
        return worst


def _text(message: Any) -> str | None:
    """What a message says, or the arguments of the function that it calls."""
    calls = message.tool_calls or []
    return calls[0].function.arguments if calls and message.content is None else message.content


def _shared(usage: dict[str, float], n: int) -> dict[str, list[float]]:
    """A prompt's costs as one figure per response, which sum to the whole."""
    return {name: [usage[name] / n] * n for name in ("cost_usd", "unpriced_calls") if usage[name]}


def _status(error: Exception) -> int | None:
    """The HTTP status that LiteLLM gives every failure of a call (a cut connection counts as 500, a time-out as 408)."""
    code: Any = error.__dict__.get("status_code")
    return code if isinstance(code, int) else None


def _retry_after(error: Exception) -> float | None:
    """Seconds that the server asks to wait: the Retry-After header as a number or a date."""
    headers: Any = error.__dict__.get("litellm_response_headers")
    value = headers.get("retry-after") if headers is not None else None
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
