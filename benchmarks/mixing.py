"""Mixing two large prompt sets and pairing the answers to one: time and peak memory, from files to files.

    python -m benchmarks.mixing                  1,000,000 prompts; 6 responses each

Each step runs as in a stage's process of its own; its start is not counted in the time. The peak is the whole process's, libraries
included.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import large
from eva_stages.core.stage import Use

STEPS = {
    "mix": (Use("eva_stages.creator.mixture:Mix", {"name": "mix", "evolved_share": 0.8, "seed": 1}), ("evolved", "prompts")),
    "pair": (Use("eva_stages.solver.pairing:MakePairs", {"name": "pair"}), ("prompts", "responses", "rewards")),
}


def step(name: str, folder: Path) -> dict[str, float]:
    use, sources = STEPS[name]
    started, busy, before = time.perf_counter(), time.process_time(), large.peak()
    counts = large.table_step(use, folder / name / "data", **{source: folder / source for source in sources})
    seconds, cpu = time.perf_counter() - started, time.process_time() - busy
    return {"seconds": seconds, "cpu_seconds": cpu, "peak_mib": large.peak(), "libraries_mib": before, **counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--side", choices=list(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(step(arguments.side, arguments.folder)))
        return
    from benchmarks import common  # not above: the measured process is to hold no more than a stage's does

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large.write(large.prompt_tables(arguments.prompts, near=0.0), "prompts", folder / "prompts")
        large.write(large.prompt_tables(arguments.prompts, seed=1, near=0.0), "prompts", folder / "evolved")
        large.write(large.response_tables(arguments.prompts), "responses", folder / "responses")
        large.write(large.reward_tables(arguments.prompts), "rewards", folder / "rewards")
        for side in STEPS:
            common.report("benchmarks.mixing", [side], [*sys.argv[1:], "--folder", name], arguments.rounds, "seconds")


if __name__ == "__main__":
    main()
