"""Informativeness and selection of a large prompt set: time and peak memory, from files to files.

    python -m benchmarks.selecting                  1,000,000 prompts x 6 rewards

The steps run as in a stage's process; its start, which does not depend on the number of prompts, is not counted in the time. The peak
is the whole process's, libraries included.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from benchmarks import large
from eva_stages.core.stage import Use


def select(folder: Path) -> dict[str, float]:
    """Both steps over the rewards in `folder`."""
    started, busy, before = time.perf_counter(), time.process_time(), large.peak()
    inform = Use("eva_stages.creator.informativeness:Informativeness", {"name": "inform", "metric": "reward_gap"})
    large.table_step(inform, folder / "inform/data", rewards=folder / "rewards")
    informed = time.perf_counter()
    chosen = Use("eva_stages.creator.selection:Select", {"name": "select", "kind": "weighted", "fraction": 0.25, "seed": 1})
    large.table_step(chosen, folder / "select/data", inform=folder / "inform/data")
    ended = time.perf_counter()
    return {
        "seconds": ended - started,
        "cpu_seconds": time.process_time() - busy,
        "inform_seconds": informed - started,
        "select_seconds": ended - informed,
        "peak_mib": large.peak(),
        "libraries_mib": before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1_000_000)
    parser.add_argument("--n", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=["steps"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(select(arguments.folder)))
        return
    from benchmarks import common  # not above: the measured process is to hold no more than a stage's does

    with tempfile.TemporaryDirectory() as name:
        large.write(large.reward_tables(arguments.prompts, arguments.n), "rewards", Path(name) / "rewards")
        common.report("benchmarks.selecting", ["steps"], ["--folder", name], arguments.rounds, "seconds")


if __name__ == "__main__":
    main()
