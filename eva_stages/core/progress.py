"""Progress of running stages and of the whole run: live lines on a terminal, plain lines elsewhere. Always on stderr."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.live import Live

from eva_stages.core.logs import LogReader
from eva_stages.core.progress_lines import ProgressLines, StageLine
from eva_stages.core.redaction import redact
from eva_stages.core.run_progress import RunProgress
from eva_stages.core.stage import Stage
from eva_stages.core.terminal import Terminal, Verbosity, styled_line, verbosity

PLAIN_SECONDS = 10.0
"""Between two lines about a stage without a terminal."""
BEAT_SECONDS = 1.0
REFRESHES_PER_SECOND = 4
STARTING, RESUMING, LOADING, RUNNING, WAITING = "starting", "resuming", "loading", "running", "waiting"
MONEY = "_usd"
"""How the names of amounts of money end."""


class Task:
    """The progress of one stage.

    Attributes:
        phase: what the stage does until its own work begins, as in "loading"; a text of the stage is possible.
        expected_seconds: how long the stage is expected to take; None if nothing tells.
        poll: called once a second, also while the stage reports nothing.
        log: whose new lines are printed with `--verbose`.
        marks: (seconds since the start, units complete), ascending; the first when the work itself began.
    """

    def __init__(self, console: Terminal, label: str, unit: str, phase: str = RUNNING, expected_seconds: float | None = None) -> None:
        self._console, self.label, self._unit = console, label, unit
        self.phase, self.expected_seconds = phase, expected_seconds
        self.poll: Callable[[], None] = lambda: None
        self.log: LogReader | None = None
        self._began = self._report_time = time.monotonic()
        self._tokens: float | None = None
        self._units: tuple[int, int] | None = None
        self._rates: list[str] = []
        self._detail = ""
        self._rate = 0.0
        self._preparation: tuple[str, float, float] | None = None
        self.marks: list[tuple[float, float]] = []

    def mark(self, units: float) -> None:
        """Record the time at which so many units were complete."""
        if not self.marks or units > self.marks[-1][1]:
            self.marks.append((time.monotonic() - self._began, units))

    def update(self, units: int, total: int, tokens: float = 0, detail: str = "") -> None:
        """Report `units` of `total`; rates count from the first mark, so that loading a model does not change them."""
        self._units, self._detail, self._rates, self._rate = (units, total), detail, [], 0.0
        if self.marks:
            self.phase = WAITING if self.phase == WAITING else RUNNING
            first_seconds, first_units = self.marks[0]
            seconds = max(time.monotonic() - self._began - first_seconds, 1e-9)
            self._rate = (units - first_units) / seconds
            self._tokens = tokens if self._tokens is None else self._tokens
            self._rates += [f"{self._rate:.1f} {self._unit}/s"] if self._rate else []
            self._rates += [f"{(tokens - self._tokens) / seconds:.0f} tokens/s"] if tokens > self._tokens else []

    def prepare(self, work: str, units: int, total: int, unit: str) -> None:
        """Report work before the stage's own, which has other units, as in "reference 120/480 pairs"."""
        moment = time.monotonic()
        if self._preparation is None or self._preparation[0] != work:
            self._preparation = (work, moment, units)
        _, start, first_units = self._preparation
        rate = (units - first_units) / max(moment - start, 1e-9)
        self.phase = f"{work} {units:,}/{total:,} {unit}"
        self._rates = [f"{rate:.1f} {unit}/s", f"{duration((total - units) / rate)} left"] if rate else []

    @property
    def remaining_seconds(self) -> float | None:
        """Until the stage is complete: by its rate, or else as expected; None if nothing tells."""
        if self._units is not None and self._rate:
            return (self._units[1] - self._units[0]) / self._rate
        if self.expected_seconds is None:
            return None
        return max(0.0, self.expected_seconds - (time.monotonic() - self._began))

    def parts(self) -> list[str]:
        """The progress in parts, the most important ones first."""
        elapsed_time = duration(time.monotonic() - self._began)
        units = [] if self._units is None else [f"{self._units[0]:,}/{self._units[1]:,} {self._unit}"]
        details = [self._detail] if self._detail else []
        seconds = self.remaining_seconds
        remaining_time = [] if seconds is None else [f"{'' if self._rate else 'about '}{duration(seconds)} left"]
        if units and self._rate:
            waiting_state = [WAITING] if self.phase == WAITING else []
            return [*waiting_state, *units, *self._rates[:1], *remaining_time, *self._rates[1:], *details]
        if units and self.phase == RUNNING:
            return [*units, elapsed_time, *remaining_time, *details]
        if self._preparation is not None and self.phase not in (RUNNING, LOADING):
            return [self.phase, *self._rates]
        return [f"{self.phase} for {elapsed_time}", *units, *remaining_time, *details]

    @property
    def state(self) -> str:
        """The progress as text."""
        return ", ".join(self.parts())

    def beat(self, run_text: str = "") -> None:
        """Without live lines, print the progress if nothing was printed about the stage for `PLAIN_SECONDS`."""
        moment = time.monotonic()
        if moment - self._report_time > PLAIN_SECONDS:
            self._report_time = moment
            self.note(f"{self.state}{run_text}")

    def print_log(self) -> None:
        """Print the new lines of the stage's logs."""
        for line in self.log.new_lines() if self.log is not None else []:
            self.note(line)

    def note(self, text: str) -> None:
        """Show a line that stays."""
        self._console.print(styled_line(redact(f"{self.label}: {text}")), soft_wrap=not self._console.is_terminal)


class Reporter:
    """Reports to the user how far the run is, which stages run, their progress and their results."""

    def __init__(self) -> None:
        self.console = Terminal(stderr=True)
        self._tasks: list[Task] = []
        self._run: RunProgress | None = None
        self._live: Live | None = None
        self._live_users = 0
        self._lock = threading.Lock()

    def log(self, text: str) -> None:
        """Report a routine event, as the start and the end of a stage."""
        if verbosity() > Verbosity.QUIET:
            self.say(text)

    def log_start(self, text: str) -> None:
        """Report the start of a stage, which live lines show by themselves."""
        if self._live is None or verbosity() == Verbosity.VERBOSE:
            self.log(text)

    def say(self, text: str) -> None:
        """Report what the user has to know."""
        self.console.print(styled_line(redact(text)), soft_wrap=not self.console.is_terminal)

    @contextmanager
    def run(self, stages: Sequence[Stage], planned_seconds: Mapping[str, float | None]) -> Iterator[None]:
        """Show how far these stages are while the block runs; inside another such block nothing more.

        Args:
            planned_seconds: see `RunProgress`.
        """
        if self._run is not None:
            yield
            return
        self._run = RunProgress(stages, planned_seconds)
        try:
            with self._live_lines():
                yield
        finally:
            self._run = None

    def complete(self, stage: Stage, seconds: float, computed_seconds: float) -> None:
        """Count a complete stage (see `RunProgress.complete`)."""
        if self._run is not None:
            self._run.complete(stage, seconds, computed_seconds)

    def expected_seconds(self, stage: Stage) -> float | None:
        return None if self._run is None else self._run.expected_seconds(stage)

    @contextmanager
    def task(self, label: str, unit: str = "rows", phase: str = RUNNING, expected_seconds: float | None = None) -> Iterator[Task]:
        """Show a stage while the block runs. A terminal shows all stages that run at the time."""
        task = Task(self.console, label, unit, phase, expected_seconds)
        with self._live_lines(), _beating(lambda: self._beat(task)):
            with self._lock:
                self._tasks.append(task)
            try:
                yield task
            finally:
                with self._lock:
                    self._tasks.remove(task)
        if verbosity() == Verbosity.VERBOSE:
            task.print_log()

    def _beat(self, task: Task) -> None:
        task.poll()
        if verbosity() == Verbosity.VERBOSE:
            task.print_log()
        if not self.console.is_terminal and verbosity() > Verbosity.QUIET:
            lines = self._lines()
            task.beat(f"; stages {lines.done_count} of {lines.total}, {lines.time_text}" if lines.total else "")

    @contextmanager
    def _live_lines(self) -> Iterator[None]:
        """Show live lines on a terminal while this block or another one runs."""
        if not self.console.is_terminal or verbosity() == Verbosity.QUIET:
            yield
            return
        with self._lock:
            self._live_users += 1
            if self._live is None:
                self._live = Live(
                    console=self.console,
                    get_renderable=self._lines,
                    transient=True,
                    refresh_per_second=REFRESHES_PER_SECOND,
                    redirect_stdout=False,
                )
                self._live.start()
        try:
            yield
        finally:
            with self._lock:
                self._live_users -= 1
                if self._live_users == 0 and self._live is not None:
                    self._live.stop()
                    self._live = None

    def _lines(self) -> ProgressLines:
        tasks, run = list(self._tasks), self._run
        stages = [StageLine(task.label, task.parts()) for task in tasks]
        if run is None:
            return ProgressLines(0, 0, "", stages)
        seconds, unknown_count = run.remaining({task.label: task.remaining_seconds for task in tasks})
        time_text = duration(run.elapsed_seconds)
        if run.done_count < run.total:
            known_text = f"{'more than' if unknown_count else 'about'} {duration(seconds)} left"
            time_text += f", {known_text if seconds or not unknown_count else 'time left not known yet'}"
        return ProgressLines(run.done_count, run.total, time_text, stages)


@contextmanager
def _beating(beat: Callable[[], None]) -> Iterator[None]:
    """Call `beat` regularly while the block runs."""
    end_event = threading.Event()

    def repeat() -> None:
        while not end_event.wait(BEAT_SECONDS):
            beat()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end_event.set()
        thread.join()


def facts(numbers: Mapping[str, float]) -> str:
    """Counts as one readable line, money in dollars and cents."""
    return ", ".join(_fact(name, value) for name, value in numbers.items() if value)


def _fact(name: str, value: float) -> str:
    if name.endswith(MONEY):
        return f"{name.removesuffix(MONEY).replace('_', ' ')} USD {dollars(value)}"
    return f"{name.replace('_', ' ')} {value:,.0f}"


def dollars(amount: float) -> str:
    """Money with cents, and with more digits where there is less than a cent: 0.68, 1,200.00, 0.0004."""
    return f"{amount:,.2f}" if amount == 0 or abs(amount) >= 0.01 else f"{amount:.2g}"


UNITS_OF_TIME = (
    (10, 1, ".1f", "s"),
    (120, 1, ".0f", "s"),
    (600, 60, ".1f", "min"),
    (7200, 60, ".0f", "min"),
    (math.inf, 3600, ",.1f", "h"),
)
"""(upper limit in seconds, divisor, format, unit)."""


def duration(seconds: float) -> str:
    """A duration for people: 4.8 s, 48 s, 4.8 min, 48 min, 4.8 h."""
    return span(seconds, seconds)


def span(low: float, high: float) -> str:
    """Two durations in the same unit: 4.8-5.2 min; a single one if both have the same text."""
    divisor, form, unit = next((divisor, form, unit) for limit, divisor, form, unit in UNITS_OF_TIME if high < limit)
    texts = dict.fromkeys(f"{seconds / divisor:{form}}" for seconds in (low, high))
    return f"{'-'.join(texts)} {unit}"
