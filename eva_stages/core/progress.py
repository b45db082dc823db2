"""Progress of running stages: live bars on a terminal, plain lines elsewhere. Always on stderr."""

import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from eva_stages.core.redaction import redact
from eva_stages.core.terminal import Terminal

PLAIN_SECONDS = 10.0
"""Between two lines about a stage without a terminal."""
BEAT_SECONDS = 1.0
MONEY = "_usd"
"""How the names of amounts of money end."""


class Task:
    """The progress of one stage."""

    def __init__(self, console: Terminal, label: str, unit: str, bars: Progress | None) -> None:
        self._console, self.label, self._unit, self._bars = console, label, unit, bars
        self._id: TaskID | None = bars.add_task(label, total=None, detail="starting") if bars else None
        self._began = self._report_time = time.monotonic()
        self._tokens: float | None = None
        self.state = ""
        """The progress as text, without bars."""
        self.marks: list[tuple[float, float]] = []
        """(seconds since the start, units complete), ascending; the first when the work itself began."""

    def mark(self, units: float) -> None:
        """Record the time at which so many units were complete."""
        if not self.marks or units > self.marks[-1][1]:
            self.marks.append((time.monotonic() - self._began, units))

    def update(self, units: int, total: int, tokens: float = 0, detail: str = "") -> None:
        """Show `units` of `total`; rates count from the first mark, so that loading a model does not change them."""
        moment, rate, parts = time.monotonic(), 0.0, list[str]()
        if self.marks:
            first_seconds, first_units = self.marks[0]
            seconds = max(moment - self._began - first_seconds, 1e-9)
            rate = (units - first_units) / seconds
            self._tokens = tokens if self._tokens is None else self._tokens
            parts += [f"{rate:.1f} {self._unit}/s"] if rate else []
            parts += [f"{(tokens - self._tokens) / seconds:.0f} tokens/s"] if tokens > self._tokens else []
        text = "  ".join([*parts, *([detail] if detail else [])])
        if self._bars and self._id is not None:
            self._bars.update(self._id, completed=units, total=total, detail=text)
        else:
            remaining_time = f", {(total - units) / rate:.0f} s left" if rate else ""
            self.state = f"{units}/{total} {self._unit}  {text}{remaining_time}".rstrip()

    def beat(self) -> None:
        """Without bars, print the progress if nothing was printed about the stage for `PLAIN_SECONDS`."""
        moment = time.monotonic()
        if self._bars is None and moment - self._report_time > PLAIN_SECONDS:
            self._report_time = moment
            self.note(self.state or f"running for {duration(moment - self._began)}")

    def remove_bar(self) -> None:
        if self._bars and self._id is not None:
            self._bars.remove_task(self._id)

    def note(self, text: str) -> None:
        """Show a line that stays."""
        self._console.print(redact(f"{self.label}: {text}"), highlight=False, soft_wrap=True)


class Reporter:
    """Reports to the user which stages run, their progress and their results."""

    def __init__(self) -> None:
        self.console = Terminal(stderr=True)
        self._bars: Progress | None = None
        self._lock = threading.Lock()

    def log(self, text: str) -> None:
        """Report a routine event, as the start and the end of a stage."""
        self.say(text)

    def say(self, text: str) -> None:
        """Report what the user has to know."""
        self.console.print(redact(text), highlight=False, soft_wrap=True)

    @contextmanager
    def task(self, label: str, unit: str = "rows") -> Iterator[Task]:
        """Show a stage while the block runs. A terminal shows the bars of all stages that run at the time."""
        if not self.console.is_terminal:
            with _beating(Task(self.console, label, unit, None)) as task:
                yield task
            return
        with self._lock:
            if self._bars is None:
                self._bars = _bars(self.console)
                self._bars.start()
            bars = self._bars
            task = Task(self.console, label, unit, bars)
        try:
            yield task
        finally:
            with self._lock:
                task.remove_bar()
                if not bars.tasks:
                    bars.stop()
                    self._bars = None


def _bars(console: Terminal) -> Progress:
    columns = (
        TextColumn("{task.description:<24}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    return Progress(*columns, console=console, transient=True)


@contextmanager
def _beating(task: Task) -> Iterator[Task]:
    """Report a stage regularly while the block runs, also if the stage reports nothing."""
    end_event = threading.Event()

    def beat() -> None:
        while not end_event.wait(BEAT_SECONDS):
            task.beat()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield task
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
