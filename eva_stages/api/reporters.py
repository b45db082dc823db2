"""What reports the progress of a run or a study that Python code started: the command's bars, a function, or nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from eva_stages.core.progress import RUNNING, Reporter, Task
from eva_stages.core.redaction import redact
from eva_stages.core.stage import Stage
from eva_stages.core.study_progress import StudyReporter
from eva_stages.core.terminal import notes_to, warn


@dataclass(frozen=True)
class Progress:
    """What is reported of a run: how far a stage is, or a message."""

    stage: str | None = None
    """As in 1-evolve; in a study with arm and seed in front; None: the message is about the run."""
    units: int | None = None
    total: int | None = None
    """Complete units of the stage, and all; None: not known yet."""
    unit: str | None = None
    """rows or steps."""
    message: str | None = None


Receiver = Callable[[Progress], None]


@contextmanager
def reporter_of(progress: bool | Receiver) -> Iterator[Reporter]:
    """The reporter that `progress` asks for; notes go where its messages go."""
    reporter = Reporter() if progress is True else FunctionReporter(progress or _quiet)
    with notes_to(reporter.say):
        yield reporter


class FunctionReporter(Reporter):
    """Gives progress and messages to a function."""

    def __init__(self, receiver: Receiver) -> None:
        super().__init__()
        self._receiver = receiver

    def log(self, text: str) -> None:
        self._receiver(Progress(message=redact(text)))

    def say(self, text: str) -> None:
        """A message that the user has to know; without a function, it is a Python warning."""
        if self._receiver is _quiet:
            warn(redact(text))
        else:
            self.log(text)

    @contextmanager
    def run(self, stages: Sequence[Stage], planned_seconds: Mapping[str, float | None]) -> Iterator[None]:
        yield

    @contextmanager
    def task(self, label: str, unit: str = "rows", phase: str = RUNNING, expected_seconds: float | None = None) -> Iterator[Task]:
        yield FunctionTask(self, self._receiver, label, unit, phase)


class FunctionTask(Task):
    """The progress of one stage, given to a function."""

    def __init__(self, reporter: Reporter, receiver: Receiver, label: str, unit: str, phase: str) -> None:
        super().__init__(reporter.console, label, unit, phase)
        self._reporter, self._receiver, self._given_unit = reporter, receiver, unit

    def update(self, units: int, total: int, tokens: float = 0, detail: str = "") -> None:
        super().update(units, total, tokens, detail)
        self._receiver(Progress(self.label, units, total, self._given_unit))

    def note(self, text: str) -> None:
        self._reporter.say(f"{self.label}: {text}")


class FunctionStudyReporter(StudyReporter):
    """Gives the progress of a study to a function: its messages, and which stage a run is at."""

    def __init__(self, labels: Sequence[str], receiver: Receiver) -> None:
        super().__init__(labels)
        self._receiver = receiver

    def say(self, text: str) -> None:
        self._receiver(Progress(message=redact(text)))

    def show_task(self, label: str, task: Task | None) -> None:
        super().show_task(label, task)
        if task is not None:
            self._receiver(Progress(f"{label}/{task.label}"))

    @contextmanager
    def live(self) -> Iterator[None]:
        yield


StudyReporterFor = Callable[[Sequence[str]], StudyReporter]


@contextmanager
def study_reporter_of(progress: bool | Receiver) -> Iterator[StudyReporterFor]:
    """From the labels of a study's runs to the reporter that `progress` asks for; notes go where its messages go."""
    if progress is True:
        yield StudyReporter
        return
    receiver = progress or _quiet
    with notes_to(warn if receiver is _quiet else lambda text: receiver(Progress(message=text))):
        yield lambda labels: FunctionStudyReporter(labels, receiver)


def _quiet(progress: Progress) -> None:
    """Drop routine progress."""
