"""How long reports and lineages of large runs take, and how large a report is.

python -m benchmarks.reporting                  a report of 10,000 prompts x 6 responses x 3 iterations
python -m benchmarks.reporting --lineage        1,000 random ids of a run of 100,000 prompts
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.synthetic_run import SyntheticRun
from eva_stages.core.run_folder import Run
from eva_stages.views.history import read_history
from eva_stages.views.prompt_lineage import Lineage


def report(folder: Path) -> None:
    root = SyntheticRun(folder / "large", prompts=10_000, words=200).write()
    start = time.monotonic()
    from eva_stages.publishing.report.page import write_report

    path = write_report([read_history(Run(root))])
    print(f"report: {time.monotonic() - start:.1f} s, {path.stat().st_size / 2**20:.2f} MiB, plots in {path.with_suffix('')}")


def lineage(folder: Path) -> None:
    root = SyntheticRun(folder / "wide", prompts=100_000, iterations=3, words=100).write()
    lookup = Lineage(read_history(Run(root)))
    ids = lookup.ids
    chosen = np.random.default_rng(1).choice(len(ids), 1000, replace=False)
    seconds, steps = [], []
    for place in chosen.tolist():
        start = time.monotonic()
        document = lookup.trace(ids[place].as_py())
        seconds.append(time.monotonic() - start)
        steps.append(len(document["lineage"]))
    low, high = np.percentile(seconds, [50, 99])
    print(
        f"lineage: first {seconds[0]:.2f} s, median {low:.3f} s, 99 % {high:.3f} s, longest {max(seconds):.3f} s, up to {max(steps)} steps"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lineage", action="store_true", help="measure lineages instead")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (lineage if arguments.lineage else report)(Path(folder))


if __name__ == "__main__":
    main()
