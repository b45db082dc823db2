"""Whether `eva plan --measure` foretells how long `eva run` takes: both as commands, one after the other, in a fresh folder.

python -m benchmarks.planning [RECIPE] [--set A.B=C]...

Prints the planned wall time with its interval, the actual one, their ratio, what measuring took, and the stages that were furthest off.
Exits with 1 if the plan is off by more than a quarter, or if measuring took more than a third of the run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MOST_OFF, MOST_MEASURING = 0.25, 1 / 3
SHOWN = 8


def eva(*arguments: str) -> tuple[float, str]:
    """Seconds and standard output of a command."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "cli.main", *arguments], stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - started, done.stdout


def furthest_off(stages: list[dict[str, Any]]) -> list[str]:
    ranked = sorted(stages, key=lambda entry: -abs(entry["seconds"] - entry["planned"]["seconds_expected"]))
    return [
        f"{entry['stage']}: planned {entry['planned']['seconds_expected']:.1f} s, took {entry['seconds']:.1f} s" for entry in ranked[:SHOWN]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", default="quickstart")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    arguments = parser.parse_args()
    settings = [word for one in arguments.settings for word in ("--set", one)]
    with tempfile.TemporaryDirectory() as folder:
        common = (arguments.recipe, "--run-dir", str(Path(folder) / "run"), *settings)
        measuring, planned = eva("plan", *common, "--measure", "--json")
        took, _ = eva("run", *common)
        _, status = eva("status", str(Path(folder) / "run"), "--json")
    low, expected, high = (json.loads(planned)["to_do"][f"wall_seconds_{name}"] for name in ("low", "expected", "high"))
    print(*furthest_off(json.loads(status)["stages"]), sep="\n")
    print(f"planned {expected:.1f} s ({low:.1f} - {high:.1f}), took {took:.1f} s; planned / actual: {expected / took:.3f}")
    print(f"measuring took {measuring:.1f} s; measuring / run: {measuring / took:.3f}")
    sys.exit(abs(expected / took - 1) > MOST_OFF or measuring / took > MOST_MEASURING)


if __name__ == "__main__":
    main()
