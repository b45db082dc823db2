"""Near-duplicate removal: the curate step, against an index of `datasketch` objects, which is what one would write first.

    python -m benchmarks.curating                                1,000,000 short prompts through the step: time and peak memory
    python -m benchmarks.curating --prompts 20000 --compare      both ways on the same prompts, and their ratio

Every fifth prompt is an earlier one with a word replaced. The step runs as in a stage's process, from files to files; its start is not
counted in the time. The other way holds the texts already, and writes nothing. Both keep the same prompts.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import large
from eva_stages.core.stage import Use
from eva_stages.core.tables import count_rows, read_table

THRESHOLD = 0.8


def step(folder: Path) -> dict[str, float]:
    """`Curate` over the evolutions in `folder`."""
    started, busy, before = time.perf_counter(), time.process_time(), large.peak()
    curate = Use("eva_stages.creator.curation:Curate", {"name": "curate", "near_duplicate": THRESHOLD})
    counts = large.table_step(curate, folder / "curate/data", evolutions=folder / "evolutions")
    return _figures(counts["evolved"], counts["kept"], started, busy, before)


def index(folder: Path) -> dict[str, float]:
    """The same rule with one sketch object per text and one dict per band."""
    from datasketch import MinHash, MinHashLSH

    from eva_stages.creator.curation import prompt_text
    from eva_stages.creator.sketching import PERMUTATIONS, SHINGLE

    texts = [prompt_text(messages).lower() for messages in read_table(folder / "evolutions")["messages"].to_pylist()]
    started, busy, before = time.perf_counter(), time.process_time(), large.peak()
    known: dict[int, MinHash] = {}
    lsh = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    for number, text in enumerate(texts):
        sketch = MinHash(num_perm=PERMUTATIONS, seed=1)
        sketch.update_batch({text[start : start + SHINGLE].encode() for start in range(max(1, len(text) - SHINGLE + 1))})
        if not any(known[near].jaccard(sketch) >= THRESHOLD for near in lsh.query(sketch)):
            lsh.insert(number, sketch)
            known[number] = sketch
    return _figures(len(texts), len(known), started, busy, before)


def _figures(prompts: int, kept: int, started: float, busy: float, before: float) -> dict[str, float]:
    seconds, cpu = time.perf_counter() - started, time.process_time() - busy
    figures = {"prompts_per_second": prompts / seconds, "seconds": seconds, "cpu_seconds": cpu, "kept": kept}
    return {**figures, "peak_mib": large.peak(), "libraries_mib": before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=1_000_000)
    parser.add_argument("--compare", action="store_true", help="also with datasketch's index")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--side", choices=("step", "index"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps({"step": step, "index": index}[arguments.side](arguments.folder)))
        return
    from benchmarks import common  # not above: the measured process is to hold no more than a stage's does

    with tempfile.TemporaryDirectory() as name:
        evolutions = large.prompt_tables(arguments.prompts, rejected=0.0)
        large.write(evolutions, "evolutions", Path(name) / "evolutions")
        print(f"{count_rows(Path(name) / 'evolutions'):,} prompts", flush=True)
        sides = ["step", "index"] if arguments.compare else ["step"]
        common.report("benchmarks.curating", sides, [*sys.argv[1:], "--folder", name], arguments.rounds, "prompts_per_second")


if __name__ == "__main__":
    main()
