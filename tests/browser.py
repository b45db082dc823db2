"""Chromium without a window, spoken to over its own debugging pipe: what a page logs, asks the network for, draws and looks like.

No driver package: the protocol is JSON, one message after another with a zero byte behind each.
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
    """One page, and every event the browser told about it."""

    def __init__(self, reading: int, writing: int) -> None:
        self._from, self._to = os.fdopen(reading, "rb"), writing
        self._number = 0
        self._left = b""
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
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def on_page(self, method: str, **arguments: Any) -> dict[str, Any]:
        return self.call(method, self._session, **arguments)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            more = self._from.read1(1 << 20)
            assert more, "the browser is gone"
            self._left += more
        text, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, url: str, width: int, dark: bool = False, scripts: bool = True) -> None:
        """Load a page at a width and wait until it has loaded."""
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
        """What a JavaScript expression comes to in the page."""
        done = self.on_page("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        shot = self.on_page("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser() -> Iterator[Page]:
    assert CHROMIUM is not None
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()

    def connect() -> None:  # the browser reads from descriptor 3 and writes to 4
        reading, writing = os.dup(to_read), os.dup(from_write)
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
        os.close(to_read)
        os.close(from_write)
        try:
            yield Page(from_read, to_write)
        finally:
            process.kill()
            process.wait()
            os.close(to_write)
