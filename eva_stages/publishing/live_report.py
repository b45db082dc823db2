"""The report of a run while the run goes: its status as it is now, and the report of the stages that are complete. Writes nothing."""

import hashlib
import threading
import time
from typing import Any

from eva_stages.core.redaction import hide_in_data
from eva_stages.core.run_folder import Run
from eva_stages.publishing.report.page import live_page, privacy_of
from eva_stages.publishing.report.page_html import status_html
from eva_stages.views.history import History, read_history
from eva_stages.views.run_status import Watch

REST = 10.0
"""Drawing again waits this many times as long as it took, so that it leaves the processor to the run."""

UNDRAWN_VERSION = "undrawn"
DRAWING_TEXT = "The report is being drawn."


class LiveReport:
    """The pages of a live report. Threads may call it at the same time; one at a time draws."""

    def __init__(self, run: Run, rest: float = REST) -> None:
        self._run, self._rest = run, rest
        self._watch = Watch(run)
        self._watching, self._drawing = threading.Lock(), threading.Lock()
        self._page, self._version = "", ""
        self._rest_end = 0.0

    def status(self) -> tuple[str, str]:
        """The status as HTML, and the version of the report that the reader should see."""
        history = self._history()
        is_resting = self._version and time.monotonic() < self._rest_end
        return self._status_html(history), self._version if is_resting else version_of(history)

    def page(self) -> tuple[str, str]:
        """The page that was drawn last, without waiting: at first one with the status alone."""
        if self._version:
            return self._page, self._version
        history = self._history()
        return live_page(history, UNDRAWN_VERSION, self._status_html(history), DRAWING_TEXT), UNDRAWN_VERSION

    def report(self) -> tuple[str, str]:
        """The page with the report of the complete stages; it is drawn again if stages were completed since."""
        with self._drawing:
            history = self._history()
            version = version_of(history)
            if version != self._version and (not self._version or time.monotonic() >= self._rest_end):
                start = time.monotonic()
                self._page, self._version = live_page(history, version, self._status_html(history)), version
                self._rest_end = time.monotonic() + self._rest * (time.monotonic() - start)
            return self._page, self._version

    def _status_html(self, history: History) -> str:
        with self._watching:
            return status_html(hide_in_data(self._watch.document()), privacy_of([history]))

    def _history(self) -> History:
        return read_history(self._run, skip_damaged=True)


def version_of(history: History) -> str:
    """Changes with what the report shows."""
    names: list[Any] = [artifact.folder.name for artifact in history.artifacts]
    return hashlib.sha256("\n".join([*names, str(len(history.stages))]).encode()).hexdigest()[:12]
