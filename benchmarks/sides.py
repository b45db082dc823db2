"""What benchmarks with several sides share: each side runs in its own process below the script, they take turns, and medians are compared.

Nothing heavy is imported here: a measured process should use no more memory than a stage's process.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

Side = Callable[[argparse.Namespace, Path], Mapping[str, float]]
"""From the options and a folder to figures by name."""


def options(document: str | None, **defaults: int | bool) -> argparse.ArgumentParser:
    """A parser with an option per default; `document` is the benchmark's docstring."""
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        kind = {"action": "store_true"} if isinstance(default, bool) else {"type": int, "default": default}
        parser.add_argument(f"--{name.replace('_', '-')}", **kind)  # type: ignore[arg-type]
    return parser


def parse(parser: argparse.ArgumentParser, sides: Mapping[str, Side]) -> argparse.Namespace:
    """The options of a comparison. In the process of a side this runs it, prints its figures as JSON and exits."""
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=list(sides), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side is None:
        return arguments
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(sides[arguments.side](arguments, arguments.folder or Path(scratch))))
    sys.exit(0)


def measure(module: str, side: str, arguments: Sequence[str]) -> dict[str, float]:
    """Run one side of a benchmark in its own process and return its figures, the last line that is JSON."""
    result = subprocess.run(
        [sys.executable, "-m", module, *arguments, "--side", side], stdout=subprocess.PIPE, text=True, check=True, encoding="utf-8"
    )
    line = next(line for line in reversed(result.stdout.splitlines()) if line.startswith("{"))  # engines print as well
    figures: dict[str, float] = json.loads(line)
    return figures


def compare(module: str, sides: Sequence[str], rounds: int, figure: str, folder: Path | None = None) -> dict[str, float]:
    """Let the sides take turns with this command's options; print every figure, the medians and their ratios to the first side.

    Args:
        figure: the name of the figure that is compared.
        folder: of the input, where the sides share it.

    Returns:
        The medians.
    """
    arguments = [*sys.argv[1:], *(["--folder", str(folder)] if folder else [])]
    values: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in sides:
            figures = measure(module, side, arguments)
            values[side].append(figures[figure])
            print(f"round {number + 1} {side}: " + ", ".join(f"{name} {value:,.4g}" for name, value in figures.items()), flush=True)
    medians = {side: statistics.median(values[side]) for side in sides}
    for side in sides[1:]:
        print(f"{sides[0]} / {side}: {medians[sides[0]] / medians[side]:.3f} ({figure}, median of {rounds})")
    return medians


@contextmanager
def clock(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the wall seconds of the block to `seconds`."""
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
