"""Large prompt sets: informativeness and selection, mixing two sets, and pairing answers; time and peak memory, from files to files.

    python -m benchmarks.mixing                  1,000,000 prompts; 6 responses and rewards each

Each step runs in a separate process, as in a stage; its start is not counted in the time. The peak is that of the process, libraries
included.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import large
from benchmarks.sides import compare, options, parse
from eva_stages.core.stage import Use

STEPS = {
    "inform": (Use("eva_stages.creator.informativeness:Informativeness", {"name": "inform", "metric": "reward_gap"}), ("rewards",)),
    "select": (
        Use("eva_stages.creator.selection:Select", {"name": "select", "kind": "weighted", "fraction": 0.25, "seed": 1}),
        ("inform/data",),
    ),
    "mix": (Use("eva_stages.creator.mixture:Mix", {"name": "mix", "evolved_share": 0.8, "seed": 1}), ("evolved", "prompts")),
    "pair": (Use("eva_stages.solver.pairing:MakePairs", {"name": "pair"}), ("prompts", "responses", "rewards")),
}


def step(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    use, sources = STEPS[arguments.side]
    return large.table_step(use, folder / arguments.side / "data", **{source: folder / source for source in sources})


def main() -> None:
    arguments = parse(options(__doc__, prompts=1_000_000), dict.fromkeys(STEPS, step))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large.write(large.prompt_tables(arguments.prompts, near=0.0), "prompts", folder / "prompts")
        large.write(large.prompt_tables(arguments.prompts, seed=1, near=0.0), "prompts", folder / "evolved")
        large.write(large.response_tables(arguments.prompts), "responses", folder / "responses")
        large.write(large.reward_tables(arguments.prompts), "rewards", folder / "rewards")
        for side in STEPS:
            compare("benchmarks.mixing", [side], arguments.rounds, "seconds", folder)


if __name__ == "__main__":
    main()
