"""Observes what LiteLLM sends and receives, in the transports of its HTTP clients.

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
"""Most bytes of a response."""
DROPPED_HEADERS = ("content-encoding", "content-length", "transfer-encoding", "location")
"""Of a response; clients follow no redirect without a location."""
Handler = Callable[[httpx.Request], Awaitable[httpx.Response]]


class WireError(EvaError, httpx.TransportError):
    """A call was stopped: its response is too long, or LiteLLM attempted a second request for the same reservation."""


@dataclass
class Exchange:
    """A call as observed in HTTP."""

    most_bytes: int = LARGEST_BODY
    """Most bytes of the response."""
    on_send: Callable[[], None] = lambda: None
    """Called when a request is sent; LiteLLM may import modules for seconds before."""
    is_observed: bool = False
    """Whether the call was observed."""
    may_be_delivered: bool = False
    """Whether the request may have reached the server without a complete response."""
    status: int | None = None
    retry_after: str | None = None
    location: str | None = None
    body: bytes | None = None
    """The complete response."""
    problem: str | None = None
    """Why the exchange was interrupted."""
    sent_fields: list[frozenset[str]] = field(default_factory=list)
    """The fields of every request: LiteLLM drops fields that a server rejects with status 422 and sends the rest again."""


EXCHANGE: ContextVar[Exchange | None] = ContextVar("exchange", default=None)


@cache
def watch_transports() -> None:
    """Patch LiteLLM so that every transport it creates records the exchange of the task that uses it."""
    wrap_litellm_transports(_watch)


def _watch(handle: Handler) -> Handler:
    async def exchange_one(request: httpx.Request) -> httpx.Response:
        exchange = EXCHANGE.get()
        return await handle(request) if exchange is None else await _exchange(exchange, handle, request)

    return exchange_one


async def _exchange(exchange: Exchange, handle: Handler, request: httpx.Request) -> httpx.Response:
    if exchange.may_be_delivered or exchange.status not in (None, UNPROCESSABLE):
        raise WireError("the request may already have been billed, so LiteLLM must not repeat it")
    exchange.is_observed = exchange.may_be_delivered = True
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
        exchange.may_be_delivered = not _is_connection_failure(error)
        summary = "connection lost before the response was complete" if exchange.may_be_delivered else "no connection"
        exchange.problem = exchange.problem or f"{summary}: {type(error).__name__}: {error}"
        raise
    exchange.may_be_delivered = exchange.status < 300
    headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in DROPPED_HEADERS]
    return httpx.Response(exchange.status, headers=headers, content=exchange.body, request=request)


async def _body(exchange: Exchange, response: httpx.Response) -> bytes:
    """Raises:
    WireError: if the body is longer than the exchange allows.
    """
    body = bytearray()
    try:
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > exchange.most_bytes:
                exchange.problem = f"the response is longer than {exchange.most_bytes:,} bytes, more than the request can produce"
                raise WireError(exchange.problem)
    finally:
        await response.aclose()
    return bytes(body)


def _fields(content: bytes) -> frozenset[str]:
    try:
        return frozenset(json.loads(content))
    except (ValueError, TypeError):
        return frozenset()


def _is_connection_failure(error: Exception) -> bool:
    """Whether no connection was established (the error's cause distinguishes it from a later reset)."""
    if isinstance(error, httpx.ConnectTimeout):
        return True
    return isinstance(error.__cause__, aiohttp.ClientConnectorError | httpcore.ConnectError)
