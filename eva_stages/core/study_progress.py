"""Progress of a study: a live table on a terminal, elsewhere a line for each run. Always on stderr."""

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

from rich.live import Live
from rich.table import Table

from eva_stages.core.harmless import visible
from eva_stages.core.progress import RUNNING, Reporter, Task, dollars, duration
from eva_stages.core.redaction import redact
from eva_stages.core.run_progress import MOST_OVERHEAD
from eva_stages.core.stage import Stage
from eva_stages.core.terminal import Terminal, Verbosity, styled_line, verbosity

PLAIN_SECONDS = 60.0
"""Without a terminal: between two lines, if no run ends."""
REFRESHES_PER_SECOND = 2
_FIGURE = re.compile(r"\d[\d.,:]*")


class RunInProgress(Protocol):
    @property
    def label(self) -> str: ...
    @property
    def stages(self) -> Sequence[Stage]: ...


class StudyReporter:
    """Reports which runs of a study run, their progress and their results.

    Args:
        labels: of all runs: the arm, a slash, the seed.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        self.console = Terminal(stderr=True)
        self._labels = labels
        self._began = self._report_time = time.monotonic()
        self._begin_times: dict[str, float] = {}
        self._tasks: dict[str, Task] = {}
        self._causes: dict[str, str | None] = {}
        self._seconds: dict[str, list[float]] = {}
        """Of the complete stages, by name."""
        self._counted_stages: set[str] = set()
        self._computed_seconds = 0.0
        self._usd = 0.0
        self._reported_messages: Counter[str] = Counter()
        """Without their figures."""
        self._first_texts: dict[str, str] = {}
        self._lock = threading.Lock()
        self._remaining_text = ""

    def say(self, text: str) -> None:
        """Show a line that stays."""
        self._report_time = time.monotonic()
        self.console.print(styled_line(redact(text)), soft_wrap=not self.console.is_terminal)

    def of_run(self, label: str) -> "RunReporter":
        self._begin_times.setdefault(label, time.monotonic())
        return RunReporter(self, label)

    def say_once(self, label: str, text: str) -> None:
        """Show what a run reports, unless another run has reported the same, with the same or other figures."""
        message = _FIGURE.sub("#", text)
        with self._lock:
            self._reported_messages[message] += 1
            is_new = message not in self._first_texts
            self._first_texts.setdefault(message, text)
        if is_new:
            self.say(f"{label}: {text}")

    def report_lock(self, stage: Stage, holder: str) -> None:
        self.say_once("study", f"{stage.label} is computed by {holder}; its artifact will be reused")

    def show_task(self, label: str, task: Task | None) -> None:
        """Show which stage a run is at; None: at none."""
        if task is None:
            self._tasks.pop(label, None)
        else:
            self._tasks[label] = task

    def count(self, stage: Stage, manifest: Mapping[str, Any]) -> None:
        """Count a complete stage, once if runs share it."""
        with self._lock:
            if stage.fingerprint not in self._counted_stages:
                self._counted_stages.add(stage.fingerprint)
                self._seconds.setdefault(stage.name, []).append(manifest["seconds"])
                self._usd += manifest["counts"].get("cost_usd", 0.0)

    def add_seconds(self, seconds: float) -> None:
        """Add the time of a stage that was computed now."""
        with self._lock:
            self._computed_seconds += seconds

    def end_run(self, label: str, cause: str | None) -> None:
        """Report a run as done, or with the cause of its failure."""
        self._causes[label] = cause
        self._tasks.pop(label, None)
        seconds = time.monotonic() - self._begin_times.get(label, time.monotonic())
        result = f"done in {duration(seconds)}" if cause is None else f"failed: {cause}"
        if cause is not None or verbosity() > Verbosity.QUIET:
            self.say(f"{label}: {result}; {self._sums()}")

    def show(self, idle_runs: Sequence[RunInProgress], running_runs: Sequence[RunInProgress], threads: int) -> None:
        """Show what remains; called again and again."""
        remaining_stages = {
            stage.fingerprint: stage.name
            for run in (*idle_runs, *running_runs)
            for stage in run.stages
            if stage.fingerprint not in self._counted_stages
        }
        self._remaining_text = self._remaining_time(list(remaining_stages.values()), threads)
        if verbosity() > Verbosity.QUIET and not self.console.is_terminal and time.monotonic() - self._report_time > PLAIN_SECONDS:
            states = [f"{label} {task.label} {task.state}" for label, task in list(self._tasks.items())]
            self.say(f"running: {', '.join(states) or 'none'}; {self._sums()}")

    def _remaining_time(self, names: Sequence[str], threads: int) -> str:
        """The remaining stages take as long as those of their name did, with as much time between them; empty if a name is new."""
        if not names or not self._computed_seconds or any(name not in self._seconds for name in names):
            return ""
        seconds = sum(sum(self._seconds[name]) / len(self._seconds[name]) for name in names)
        overhead = (time.monotonic() - self._began) / self._computed_seconds
        return f", about {duration(seconds * min(MOST_OVERHEAD, max(overhead, 1 / threads)))} left"

    def _sums(self) -> str:
        failures = sum(cause is not None for cause in self._causes.values())
        parts = [f"{len(self._causes) - failures} of {len(self._labels)} runs done", *([f"{failures} failed"] if failures else [])]
        cost = f", USD {dollars(self._usd)} so far" if self._usd else ""
        return f"{', '.join(parts)}, {duration(time.monotonic() - self._began)}{self._remaining_text}{cost}"

    @contextmanager
    def live(self) -> Iterator[None]:
        """On a terminal: show the table while the block runs."""
        live = Live(console=self.console, get_renderable=self._table, transient=True, refresh_per_second=REFRESHES_PER_SECOND)
        try:
            with live if self.console.is_terminal and verbosity() > Verbosity.QUIET else nullcontext():
                yield
        finally:
            for message, count in self._reported_messages.items():
                if count > 1:
                    self.say(f"reported {count} times, with these or other figures: {self._first_texts[message]}")

    def _table(self) -> Table:
        """A row for each arm: its runs that are done and failed, and where its running ones are."""
        table = Table(title=self._sums(), title_justify="left", box=None, pad_edge=False)
        for heading in ("arm", "done", "failed", "running"):
            table.add_column(heading, overflow="fold")
        tasks = list(self._tasks.items())
        for arm in dict.fromkeys(label.partition("/")[0] for label in self._labels):
            seeds = [label for label in self._labels if label.partition("/")[0] == arm]
            done_count = sum(label in self._causes and self._causes[label] is None for label in seeds)
            failures = [label.partition("/")[2] for label in seeds if self._causes.get(label)]
            states = [f"{label.partition('/')[2]}: {task.label} {task.state}".rstrip() for label, task in tasks if label in seeds]
            cells = (arm, f"{done_count} of {len(seeds)}", ", ".join(failures), "\n".join(states))
            table.add_row(*(visible(redact(cell)) for cell in cells))
        return table


class RunReporter(Reporter):
    """Reports for one run of a study; the table or the line of the run takes the place of routine events."""

    def __init__(self, study: StudyReporter, label: str) -> None:
        super().__init__()
        self._study, self._label = study, label

    def log(self, text: str) -> None:
        return

    def say(self, text: str) -> None:
        self._study.say_once(self._label, text)

    @contextmanager
    def task(self, label: str, unit: str = "rows", phase: str = RUNNING, expected_seconds: float | None = None) -> Iterator[Task]:
        task = _StudyTask(self._study, self._label, label, unit, phase, expected_seconds)
        self._study.show_task(self._label, task)
        start = time.monotonic()
        try:
            yield task
            self._study.add_seconds(time.monotonic() - start)
        finally:
            self._study.show_task(self._label, None)


class _StudyTask(Task):
    def __init__(self, study: StudyReporter, run: str, label: str, unit: str, phase: str, expected_seconds: float | None) -> None:
        super().__init__(study.console, label, unit, phase, expected_seconds)
        self._study, self._run = study, run

    def note(self, text: str) -> None:
        self._study.say_once(self._run, f"{self.label}: {text}")
