"""What LiteLLM sends and receives, seen at the one place through which its HTTP clients pass.

LiteLLM reports a cut connection as status 500, retries some requests by itself, follows redirects, and reads bodies of any size. A
spending cap needs to know what really happened: whether a request can have reached the server, which status came back, and that one
request was sent for one reservation. So the transports that LiteLLM creates are wrapped (`core/patches.py`). Providers that LiteLLM calls
through an SDK do not pass; their exchanges stay `seen=False` and count as paid whenever they could have been.
"""

import json
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache

import aiohttp
import httpcore
import httpx

from eva_stages.core.errors import EvaError
from eva_stages.core.patches import wrap_litellm_transports

UNPROCESSABLE = 422
LARGEST_BODY = 64 << 20
"""Bytes of any answer."""
Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


class WireError(EvaError, httpx.TransportError):
    """An exchange was stopped here: its answer is too long, or a second request was about to be sent for one reservation."""


@dataclass
class Exchange:
    """One call as HTTP saw it."""

    most_bytes: int = LARGEST_BODY
    """Bytes that the answer may have."""
    on_send: Callable[[], None] = lambda: None
    """Called when a request goes out, before which LiteLLM may import for seconds."""
    passed_here: bool = False
    """Whether the call passed here at all."""
    may_be_delivered: bool = False
    """Whether the request can have reached the server without an answer that was received whole."""
    status: int | None = None
    retry_after: str | None = None
    location: str | None = None
    body: bytes | None = None
    """The answer, once it has come whole."""
    problem: str | None = None
    """What cut the exchange short."""
    sent_fields: list[frozenset[str]] = field(default_factory=list)
    """The fields of every request that was sent: LiteLLM leaves out what a server refuses with status 422 and sends the rest again."""


EXCHANGE: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


@cache
def watch_transports() -> None:
    """Let every transport that LiteLLM creates from now on fill in the exchange of the task that uses it."""
    wrap_litellm_transports(_watch)


def _watch(handle: Handler) -> Handler:
    async def exchange_one(request: httpx.Request) -> httpx.Response:
        exchange = EXCHANGE.get()
        return await handle(request) if exchange is None else await _exchange(exchange, handle, request)

    return exchange_one


async def _exchange(exchange: Exchange, handle: Handler, request: httpx.Request) -> httpx.Response:
    if exchange.may_be_delivered or exchange.status not in (None, UNPROCESSABLE):
        raise WireError("one request may have been paid for already, so LiteLLM does not send it again by itself")
    exchange.passed_here = exchange.may_be_delivered = True
    exchange.on_send()
    exchange.status = exchange.body = exchange.retry_after = exchange.location = exchange.problem = None
    exchange.sent_fields.append(_fields(request.content))
    request.headers["Accept-Encoding"] = "identity"
    try:
        response = await handle(request)
        exchange.status, exchange.retry_after = response.status_code, response.headers.get("retry-after")
        exchange.location = response.headers.get("location")
        exchange.body = await _body(exchange, response)
    except Exception as error:
        exchange.may_be_delivered = not _never_connected(error)
        summary = "connection lost before the answer was complete" if exchange.may_be_delivered else "no connection"
        exchange.problem = exchange.problem or f"{summary}: {type(error).__name__}: {error}"
        raise
    exchange.may_be_delivered = exchange.status < 300
    dropped_headers = ("content-encoding", "content-length", "transfer-encoding", "location")  # without a location no client follows it
    headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in dropped_headers]
    return httpx.Response(exchange.status, headers=headers, content=exchange.body, request=request)


async def _body(exchange: Exchange, response: httpx.Response) -> bytes:
    """Raises:
    WireError: if it is longer than the exchange allows.
    """
    body = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > exchange.most_bytes:
                exchange.problem = f"the answer is longer than {exchange.most_bytes:,} bytes, which the request cannot need"
                raise WireError(exchange.problem)
    finally:
        await response.aclose()
    return bytes(body)


def _fields(content: bytes) -> frozenset[str]:
    try:
        return frozenset(json.loads(content))
    except (ValueError, TypeError):
        return frozenset()


def _never_connected(error: Exception) -> bool:
    """Whether no connection came about (a connection that is reset later looks alike but for its cause)."""
    if isinstance(error, httpx.ConnectTimeout):
        return True
    return isinstance(error.__cause__, aiohttp.ClientConnectorError | httpcore.ConnectError)
