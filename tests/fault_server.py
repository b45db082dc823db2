"""A local server that speaks the chat-completions protocol and fails on demand."""

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

HANG_SECONDS = 8.0
Server = TypeVar("Server", bound=ThreadingHTTPServer)


@dataclass(frozen=True)
class Fault:
    """A reply that differs from a correct one: another status, headers, fields of the completion or of its choices, or another body."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    missing_fields: tuple[str, ...] = ()
    message: dict[str, Any] = field(default_factory=dict)
    choice: dict[str, Any] = field(default_factory=dict)
    body: bytes | None = None
    drip: bool = False
    """Whether to send one byte at a time for as long as the client listens."""
    reset_after_bytes: int | None = None
    """Number of bytes of the body after which the connection is reset."""


class ChatServer(ThreadingHTTPServer):
    """Replies to every request with a text that is a function of it; `faults` are used first, in order.

    A fault is ok, 429, 500, 400, 401, hang, cut, malformed, no_choices, fewer (one choice, whatever number was requested), or a `Fault`.
    """

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up, as at a time limit, is no error of the server."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.faults: list[str | Fault] = []
        self.requests: list[dict[str, Any]] = []
        self.completed_requests = 0
        self.reply: Callable[[dict[str, Any]], str] = lambda body: body["messages"][-1]["content"]
        self.signs_replies = True
        """Whether a text ends with the request's seed and its position among the choices."""
        self.logprobs: Callable[[dict[str, Any]], list[dict[str, Any]]] = lambda body: []
        self.working = self.most_working = 0
        self.awaited_requests = 1
        """Replies are delayed until this number of requests has been in progress at the same time."""
        self.guard = threading.Condition()
        self.closing = threading.Event()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer

    def log_message(self, *arguments: Any) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.guard:
            self.server.requests.append({**body, "time": time.monotonic(), "key": self.headers.get("Authorization")})
            fault = self.server.faults.pop(0) if self.server.faults else "ok"
            self.server.working += 1
            self.server.most_working = max(self.server.most_working, self.server.working)
            self.server.guard.notify_all()
            self.server.guard.wait_for(lambda: self.server.most_working >= self.server.awaited_requests, HANG_SECONDS)
        try:
            self._answer(fault, body)
        finally:
            with self.server.guard:
                self.server.working -= 1

    def _answer(self, fault: str | Fault, body: dict[str, Any]) -> None:
        if isinstance(fault, Fault):
            self._differ(fault, body)
        elif fault == "hang":
            self.server.closing.wait(HANG_SECONDS)
        elif fault == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault == "malformed":
            self._send(200, b'{"choices": [{"mess')
        elif fault.isdigit():
            headers = {"Retry-After": "1"} if fault == "429" else {}
            error = {"error": {"message": f"scripted {fault} for {self.headers.get('Authorization')}", "type": "x", "code": fault}}
            self._send(int(fault), json.dumps(error).encode(), headers)
        else:
            self._send(200, json.dumps(self._completion(fault, body)).encode())

    def _differ(self, fault: Fault, body: dict[str, Any]) -> None:
        answer = {**self._completion("ok", body), **fault.fields}
        for choice in answer["choices"] if isinstance(answer.get("choices"), list) else []:
            choice.update(fault.choice)
            choice["message"].update(fault.message)
        answer = {name: value for name, value in answer.items() if name not in fault.missing_fields}
        content = json.dumps(answer).encode() if fault.body is None else fault.body
        if not fault.drip and fault.reset_after_bytes is None:
            self._send(fault.status, content, fault.headers)
            return
        self._send(fault.status, content[: fault.reset_after_bytes or 0], {**fault.headers, "Content-Length": str(len(content))})
        try:
            while fault.drip and not self.server.closing.wait(0.02):
                self.wfile.write(b" ")
        except OSError:
            return
        self.connection.shutdown(socket.SHUT_RDWR)

    def _completion(self, fault: str, body: dict[str, Any]) -> dict[str, Any]:
        count = {"no_choices": 0, "fewer": 1}.get(fault, body.get("n") or 1)
        with self.server.guard:
            self.server.completed_requests += count > 0
        text = self.server.reply(body)
        ends = [f" [{body.get('seed')}.{k}]" if self.server.signs_replies else "" for k in range(count)]
        choices: list[dict[str, Any]] = [
            {"index": k, "finish_reason": "stop", "message": {"role": "assistant", "content": text + end}} for k, end in enumerate(ends)
        ]
        if body.get("logprobs"):
            for choice in choices:
                choice["logprobs"] = {"content": self.server.logprobs(body)}
        usage = {"prompt_tokens": 10, "completion_tokens": 5 * count, "total_tokens": 10 + 5 * count}
        return {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"], "choices": choices, "usage": usage}

    def _send(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Run the server until the block ends."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        if isinstance(server, ChatServer):
            server.closing.set()
        server.shutdown()
        server.server_close()


def chat_server() -> AbstractContextManager[ChatServer]:
    return serving(ChatServer())
