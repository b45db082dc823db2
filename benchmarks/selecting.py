"""Informativeness and selection of a large prompt set: time and peak memory, from files to files.

    python -m benchmarks.selecting                  1,000,000 prompts x 6 rewards

The steps run as in a stage's process; its start, which does not depend on the number of prompts, is not counted in the time. The peak
is that of the process, libraries included.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import large
from benchmarks.sides import compare, options, parse
from eva_stages.core.stage import Use

INFORM = Use("eva_stages.creator.informativeness:Informativeness", {"name": "inform", "metric": "reward_gap"})
SELECT = Use("eva_stages.creator.selection:Select", {"name": "select", "kind": "weighted", "fraction": 0.25, "seed": 1})


def steps(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Both steps over the rewards in `folder`."""
    inform = large.table_step(INFORM, folder / "inform/data", rewards=folder / "rewards")
    select = large.table_step(SELECT, folder / "select/data", inform=folder / "inform/data")
    figures = {name: inform[name] + select[name] for name in ("seconds", "cpu_seconds")}
    return {**figures, "inform_seconds": inform["seconds"], "select_seconds": select["seconds"], "peak_mib": select["peak_mib"]}


def main() -> None:
    arguments = parse(options(__doc__, prompts=1_000_000, n=6), {"steps": steps})
    with tempfile.TemporaryDirectory() as name:
        large.write(large.reward_tables(arguments.prompts, arguments.n), "rewards", Path(name) / "rewards")
        compare("benchmarks.selecting", ["steps"], arguments.rounds, "seconds", Path(name))


if __name__ == "__main__":
    main()
