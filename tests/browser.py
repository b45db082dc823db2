"""Headless Chromium, controlled over its debugging pipe: what a page logs, requests from the network, draws and looks like.

Needs no driver package: the protocol is a sequence of JSON messages, each followed by a zero byte.
"""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)


class Page:
    """One page, and every event that the browser reported about it."""

    def __init__(self, reading: int, writing: int) -> None:
        self._from, self._to = os.fdopen(reading, "rb"), writing
        self._number = 0
        self._unread_bytes = b""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.on_page(f"{domain}.enable")

    def call(self, method: str, session: str | None = None, **arguments: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": arguments, **({"sessionId": session} if session else {})}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._next()
            if reply.get("id") == self._number:
                assert "error" not in reply, reply
                return reply["result"]

    def on_page(self, method: str, **arguments: Any) -> dict[str, Any]:
        return self.call(method, self._session, **arguments)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._unread_bytes:
            chunk = self._from.read1(1 << 20)
            assert chunk, "the browser has exited"
            self._unread_bytes += chunk
        text, _, self._unread_bytes = self._unread_bytes.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, url: str, width: int, dark: bool = False, scripts: bool = True) -> None:
        """Load a page at a width and wait until it is loaded."""
        self.on_page("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.on_page("Emulation.setEmulatedMedia", features=[scheme])
        self.on_page("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.events.clear()
        self.on_page("Page.navigate", url=url)
        while not self.of("Page.loadEventFired"):
            self._next()

    def of(self, *methods: str) -> list[dict[str, Any]]:
        return [event["params"] for event in self.events if event["method"] in methods]

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        outcome = self.on_page("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in outcome, outcome
        return outcome["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Save the complete page as PNG."""
        image = self.on_page("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(image["data"]))


@contextmanager
def browser() -> Iterator[Page]:
    assert CHROMIUM is not None
    command_reader, command_writer = os.pipe()
    reply_reader, reply_writer = os.pipe()

    def connect() -> None:  # the browser reads from descriptor 3 and writes to 4
        reading, writing = os.dup(command_reader), os.dup(reply_writer)
        os.dup2(reading, 3)
        os.dup2(writing, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=connect,
        )
        os.close(command_reader)
        os.close(reply_writer)
        try:
            yield Page(reply_reader, command_writer)
        finally:
            process.kill()
            process.wait()
            os.close(command_writer)
