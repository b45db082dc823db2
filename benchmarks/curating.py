"""Near-duplicate removal: the curate step, against an index of `datasketch` objects, the obvious implementation.

    python -m benchmarks.curating                                1,000,000 short prompts through the step: time and peak memory
    python -m benchmarks.curating --prompts 20000 --compare      both ways on the same prompts, and their ratio

Every fifth prompt is an earlier one with a word replaced. The step runs as in a stage's process, from files to files; its start is not
counted in the time. The other way has the texts in memory already, and writes nothing. Both keep the same prompts.
"""

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks import large
from benchmarks.sides import compare, options, parse
from eva_stages.core.stage import Use
from eva_stages.core.tables import count_rows, read_table

THRESHOLD = 0.8


def step(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """`Curate` over the evolutions in `folder`."""
    curate = Use("eva_stages.creator.curation:Curate", {"name": "curate", "near_duplicate": THRESHOLD})
    figures = large.table_step(curate, folder / "curate/data", evolutions=folder / "evolutions")
    return {"prompts_per_second": figures["evolved"] / figures["seconds"], **figures}


def index(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The same rule with one sketch object per text and one dict per band."""
    from datasketch import MinHash, MinHashLSH

    from eva_stages.creator.curation import prompt_text
    from eva_stages.creator.sketching import PERMUTATIONS, SHINGLE

    texts = [prompt_text(messages).lower() for messages in read_table(folder / "evolutions")["messages"].to_pylist()]
    start_time = time.perf_counter()
    sketches: dict[int, MinHash] = {}
    lsh = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    for number, text in enumerate(texts):
        sketch = MinHash(num_perm=PERMUTATIONS, seed=1)
        sketch.update_batch({text[start : start + SHINGLE].encode() for start in range(max(1, len(text) - SHINGLE + 1))})
        if not any(sketches[near].jaccard(sketch) >= THRESHOLD for near in lsh.query(sketch)):
            lsh.insert(number, sketch)
            sketches[number] = sketch
    seconds = time.perf_counter() - start_time
    return {"prompts_per_second": len(texts) / seconds, "seconds": seconds, "kept": len(sketches), "peak_mib": large.peak()}


def main() -> None:
    arguments = parse(options(__doc__, prompts=1_000_000, compare=False), {"step": step, "index": index})
    with tempfile.TemporaryDirectory() as name:
        evolutions = large.prompt_tables(arguments.prompts, rejected=0.0)
        large.write(evolutions, "evolutions", Path(name) / "evolutions")
        print(f"{count_rows(Path(name) / 'evolutions'):,} prompts", flush=True)
        sides = ["step", "index"] if arguments.compare else ["step"]
        compare("benchmarks.curating", sides, arguments.rounds, "prompts_per_second", Path(name))


if __name__ == "__main__":
    main()
