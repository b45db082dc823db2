"""Any provider through LiteLLM, with concurrency, retries, a journal and a spending cap.

Every finished call is in a journal before it is used, so a killed stage pays for no call twice. A response that fails after all tries is
null with its reason. The spending cap is strict: the worst-case cost of a call is reserved before it is sent. Calls are sent by
`litellm_client`, priced by `spending`, and observed on the wire by `wire`.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr

from eva_stages.core.call_file import CALLS
from eva_stages.core.calls import Journal
from eva_stages.core.errors import StageError
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.generating import COSTS, GeneratorOutput, SeededLLM
from eva_stages.core.notices import write_notice
from eva_stages.core.patches import end_litellm_tasks, import_litellm
from eva_stages.core.rows import Message
from eva_stages.models.conversation import with_system_prompt
from eva_stages.models.litellm_client import Client
from eva_stages.models.pacing import Limits
from eva_stages.models.providers import dropped_settings, provider_key
from eva_stages.models.spending import Prices
from eva_stages.models.wire import watch_transports

SCHEMA = "response_format"


class LiteLLMGenerator(SeededLLM):
    """A model behind a provider's API or an OpenAI-compatible server.

    Attributes:
        model: LiteLLM's name.
        api_base: address of an OpenAI-compatible server.
        concurrency, attempts, timeout: simultaneous requests, tries per request, total seconds per try.
        max_wait: longest Retry-After that is honoured, in seconds.
        api_key_env: environment variable with the key; null = the provider's usual variable.
        price: US dollars per million tokens, `input` and `output`; null = LiteLLM's price list.
        max_cost_usd: cap for everything in the journal.
        requests_per_minute: limit for requests, retries included, which are spread evenly.
        journal: folder for the journal of finished calls; null = in memory.
        attempt: folder of the stage's attempt, which pays for the calls and gets notices; null = notices go to the log.
        cache: file with finished calls of all runs, which is read and extended; null = none.
        extra: further fields of every request, such as `tools`, `logprobs`, or a schema of the reply as `response_format`.
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
    max_wait: float = 300.0
    api_key_env: str | None = None
    price: dict[str, float] | None = None
    max_cost_usd: float | None = None
    requests_per_minute: float | None = None
    journal: str | None = None
    attempt: str | None = None
    cache: str | None = None
    extra: dict[str, Any] = Field(default_factory=dict)

    _takes: frozenset[str] = PrivateAttr(frozenset())
    _calls: Journal | None = PrivateAttr(None)
    _client: Client | None = PrivateAttr(None)
    _loop: asyncio.AbstractEventLoop | None = PrivateAttr(None)
    _settings_checked: bool = PrivateAttr(False)
    _refuses_schemas: bool = PrivateAttr(False)
    _notices: set[str] = PrivateAttr(default_factory=set)

    @property
    def model_name(self) -> str:
        return self.model

    def load(self) -> None:
        super().load()
        key = provider_key(self.model, self.api_base, self.api_key_env, self.model)
        litellm = import_litellm()
        litellm.telemetry, litellm.drop_params = False, True
        watch_transports()
        self._takes = frozenset(litellm.get_supported_openai_params(self.model) or ())
        prices = Prices(self.model, self.price)
        if self.max_cost_usd is not None and prices.rates is None:
            raise StageError(
                f"max_cost_usd cannot be enforced: LiteLLM has no price for {self.model}; give runtime.price (USD per million tokens)"
            )
        self._calls = Journal(
            Path(self.journal) / CALLS if self.journal else None,
            Path(self.cache).expanduser() if self.cache else None,
            Path(self.attempt).name if self.attempt else None,
        )
        limits = Limits(self.concurrency, self.attempts, self.timeout, self.max_wait, self.max_cost_usd, self.requests_per_minute)
        variable = self.api_key_env or "the provider's key variable"
        self._client = Client(self.model, key, variable, limits, prices, self._calls, self._notify)
        self._loop = asyncio.new_event_loop()

    def unload(self) -> None:
        """Close what `load` opened, which is nothing if it failed."""
        if self._calls is not None:
            self._calls.close()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.run_until_complete(end_litellm_tasks())
            self._loop.close()

    def generate(self, inputs: list[list[Message]], num_generations: int = 1, seeds: Sequence[int] | None = None) -> list[GeneratorOutput]:
        assert self._loop is not None, "load() comes first"
        streams = seeds if seeds is not None else [random.getrandbits(62) for _ in inputs]
        conversations = [with_system_prompt(messages, self.system_prompt) for messages in inputs]
        return self._loop.run_until_complete(self._all(conversations, num_generations, streams))

    async def _all(self, conversations: list[list[Message]], n: int, seeds: Sequence[int]) -> list[GeneratorOutput]:
        assert self._client is not None
        self._client.begin()
        if conversations and not self._settings_checked:
            self._settings_checked = True
            if dropped_names := dropped_settings(self.model, self._request(conversations[0], n, 0)):
                self._notify(f"{self.model} does not support {', '.join(dropped_names)}; calls are sent without", True)
        tasks = [asyncio.ensure_future(self._prompt(messages, n, seed)) for messages, seed in zip(conversations, seeds, strict=True)]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:  # active calls are paid for and finish in the journal; the others do not start
                task.cancel()
            await self._client.finish()
            await asyncio.gather(*tasks, return_exceptions=True)
            raise

    async def _prompt(self, messages: list[Message], n: int, seed: int) -> GeneratorOutput:
        """n responses to a conversation: in one request if the provider supports it, else in one request per response."""
        assert self._client is not None
        choices: list[dict[str, Any]] = []
        costs = dict.fromkeys(COSTS, 0.0)
        reason = ""
        while len(choices) < n and not reason:
            missing_count = n - len(choices) if "n" in self._takes else 1
            answer = await self._answer(self._request(messages, missing_count, derive_seed(seed, len(choices)) % 2**31))
            reason = answer.get("failure", "")
            choices += answer.get("choices", [])[:missing_count]
            for name in costs:
                costs[name] += answer.get(name, 0)
        null_count = n - len(choices)
        counts = [choice["tokens"] for choice in choices] + [0] * null_count
        input_tokens = int(costs.pop("input_tokens"))
        shared_costs = {name: [cost / n] * n for name, cost in costs.items() if cost}
        result: GeneratorOutput = {
            "generations": [choice["text"] for choice in choices] + [None] * null_count,
            "finish_reasons": [choice["reason"] for choice in choices] + [reason] * null_count,
            "statistics": {"input_tokens": [input_tokens] * n, "output_tokens": counts, **shared_costs},
        }
        if self.extra.get("logprobs"):
            result["logprobs"] = [choice["logprobs"] for choice in choices] + [None] * null_count
        return result

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The response to a request; without its schema where the provider refuses a request with one, which is not paid for."""
        assert self._client is not None
        plain_request = {name: value for name, value in request.items() if name != SCHEMA}
        if self._refuses_schemas:
            return await self._client.call(plain_request)
        answer = await self._client.call(request)
        if SCHEMA not in request or not answer.get("failure", "").startswith("refused: "):
            return answer
        plain_answer = await self._client.call(plain_request)
        if "failure" not in plain_answer:
            self._refuses_schemas = True
            self._notify(f"{self.model} refuses {SCHEMA} ({answer['failure'].removeprefix('refused: ')}); calls are sent without", True)
        return plain_answer

    def _request(self, messages: list[Message], n: int, seed: int) -> dict[str, Any]:
        settings: dict[str, Any] = {"model": self.model, "messages": messages, "max_tokens": self.max_new_tokens}
        settings |= {"temperature": self.temperature, "top_p": self.top_p, "api_base": self.api_base}
        settings |= {"n": n} if n > 1 else {}
        settings |= {"stop": self.stop} if self.stop else {}
        return settings | self.extra | {"seed": seed}

    def _notify(self, text: str, lasting: bool) -> None:
        if text in self._notices:
            return
        self._notices.add(text)
        if self.attempt is not None:
            write_notice(Path(self.attempt), text, lasting)
        else:
            logging.getLogger(__name__).warning(text)
