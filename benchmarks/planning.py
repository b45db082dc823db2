"""Whether `eva plan --measure` foretells how long `eva run` takes: both as commands, one after the other, in a fresh folder.

python -m benchmarks.planning [RECIPE] [--set A.B=C]... [--after]

Prints the planned wall time with its interval, the actual one, their ratio, what measuring took, and the stages that were furthest off.
On a machine that others use as well, `--after` measures once more after the run and prints that plan too: how far the two plans are apart
is what the machine did meanwhile. Exits with 1 if the plan is off by more than a quarter (with `--after`: the mean of the two), or if
measuring took more than half of the run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LARGEST_ERROR, LARGEST_MEASURING_SHARE = 0.25, 1 / 2
ROWS_SHOWN = 8


def eva(*arguments: str) -> tuple[float, str]:
    """Seconds and standard output of a command."""
    start = time.perf_counter()
    result = subprocess.run([sys.executable, "-m", "cli.main", *arguments], stdout=subprocess.PIPE, text=True, check=True, encoding="utf-8")
    return time.perf_counter() - start, result.stdout


def furthest_off(stages: list[dict[str, Any]]) -> list[str]:
    ranking = sorted(stages, key=lambda entry: -abs(entry["seconds"] - entry["planned"]["seconds_expected"]))
    return [
        f"{entry['stage']}: planned {entry['planned']['seconds_expected']:.1f} s, took {entry['seconds']:.1f} s"
        for entry in ranking[:ROWS_SHOWN]
    ]


def measure(folder: Path, recipe: str, settings: list[str]) -> tuple[float, dict[str, float]]:
    """Seconds that measuring took, and the planned wall seconds: low, expected, high."""
    took, document = eva("plan", recipe, "--run-dir", str(folder), "--store", str(folder), *settings, "--measure", "--json")
    todo = json.loads(document)["to_do"]
    return took, {name: todo[f"wall_seconds_{name}"] for name in ("low", "expected", "high")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="quickstart")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--after", action="store_true")
    arguments = parser.parse_args()
    settings = [word for setting in arguments.settings for word in ("--set", setting)]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        plans = [measure(run, arguments.recipe, settings)]
        took, _ = eva("run", arguments.recipe, "--run-dir", str(run), *settings)
        status = json.loads(eva("status", str(run), "--json")[1])
        if arguments.after:
            plans.append(measure(Path(folder) / "after", arguments.recipe, settings))
    print(*furthest_off(status["stages"]), sep="\n")
    for measuring, plan in plans:
        interval = f"{plan['low']:.1f} - {plan['high']:.1f}"
        print(f"planned {plan['expected']:.1f} s ({interval}), took {took:.1f} s; planned / actual: {plan['expected'] / took:.3f}")
        print(f"measuring took {measuring:.1f} s; measuring / run: {measuring / took:.3f}")
    ratio = sum(plan["expected"] for _, plan in plans) / len(plans) / took
    sys.exit(abs(ratio - 1) > LARGEST_ERROR or max(measuring for measuring, _ in plans) / took > LARGEST_MEASURING_SHARE)


if __name__ == "__main__":
    main()
