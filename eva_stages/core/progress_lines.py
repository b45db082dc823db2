"""Progress on a terminal of any width: a line for the run, with a bar, and a line for each stage that runs."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from eva_stages.core.terminal import state_style

GAP = "  "
LEAST_BAR, MOST_BAR = 8, 40


class StageLine(NamedTuple):
    """A stage in parts, the most important ones first."""

    label: str
    parts: Sequence[str]


class ProgressLines(NamedTuple):
    """What is shown of a run: how many of its stages are complete, its time, and its running stages."""

    done_count: int
    total: int
    """0: there are stages, and no run."""
    time_text: str
    """Its last part is the most important one: a narrow terminal shows that one alone."""
    stages: Sequence[StageLine]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        if self.total:
            head = f"stages {self.done_count} of {self.total}"
            room = options.max_width - len(head) - len(self.time_text) - 2 * len(GAP)
            if room < LEAST_BAR:
                yield _text_line(StageLine(head, self.time_text.split(", ")[-1:]), cell_len(head), options.max_width)
            else:
                line = Table.grid(padding=(0, 2, 0, 0))
                bar = ProgressBar(self.total, self.done_count, width=min(room, MOST_BAR))
                line.add_row(Text(head, style="bold", no_wrap=True), bar, Text(self.time_text, no_wrap=True))
                yield line
        label_width = max((cell_len(stage.label) for stage in self.stages), default=0)
        for stage in self.stages:
            yield _text_line(stage, label_width, options.max_width)


def _text_line(stage: StageLine, label_width: int, room: int) -> Text:
    """A stage on one line: parts that do not fit are left out, the last ones first; the first one is cut."""
    line = Text(set_cell_size(stage.label, min(label_width, room)), no_wrap=True)
    for place, part in enumerate(stage.parts):
        width = room - line.cell_len - len(GAP)
        if width < cell_len(part) and place > 0:
            break
        line.append(GAP).append(part if cell_len(part) <= width else set_cell_size(part, max(width, 0)), style=state_style(part))
    return line
