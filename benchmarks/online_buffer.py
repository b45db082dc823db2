"""Memory and time of online training's curriculum without a model, while prompts pass through its buffer.

    python -m benchmarks.online_buffer                    100,000 evolutions, a checkpoint every 50 steps

A step draws its prompts, gets planted rewards, evolves a quarter of them four times by a function that writes random words, looks for near
duplicates of everything so far, and replaces the prompts of the lowest priority. Rows are printed at every tenth of the evolutions:
resident memory, its peak, and the seconds since the row before, per step and per saved checkpoint.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
from distilabel.pipeline import Pipeline

from benchmarks import random_words
from eva_stages.core.named_functions import FunctionCode
from eva_stages.core.rows import SCHEMAS, Message, prompt_row
from eva_stages.core.tables import write_rows
from eva_stages.creator.curriculum import Curriculum, StepPrompt
from eva_stages.creator.function_evolver import EvolveByFunction
from eva_stages.creator.step_evolving import StepEvolving

SIZE, RESPONSES, CHILDREN, SEEDS, BUFFER = 64, 8, 4, 1000, 4000
MEBIBYTE = 2**20


def write_seeds(folder: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [prompt_row([{"role": "user", "content": random_words.text(rng)}], "random") for _ in range(SEEDS)]
    write_rows([pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])], SCHEMAS["prompts"], folder)


def curriculum(seeds: Path, evolves: bool) -> Curriculum:
    """The warm-up, or an interval that evolves."""
    if not evolves:
        return Curriculum(str(seeds), seed=0, size=SIZE, metric="reward_max_minus_mean")
    with Pipeline(name="online"):
        function = FunctionCode.model_validate(f"{random_words.__file__}:evolve")
        evolver = EvolveByFunction(name="evolve", function=function, generations=CHILDREN, shape="siblings")
    return Curriculum(
        str(seeds),
        seed=0,
        size=SIZE,
        metric="reward_max_minus_mean",
        share=0.5,
        buffer={"size": BUFFER},
        selection={"kind": "weighted", "fraction": 0.25},
        evolving=StepEvolving(evolver, seed=0, near_duplicate=0.8),
        lag=0,
    )


def results(step: int, prompts: Sequence[StepPrompt]) -> list[dict[str, Any]]:
    """Planted responses of some 200 characters with random rewards."""
    rewards = np.random.default_rng(step).random((len(prompts), RESPONSES)).tolist()
    planted_columns = {
        "responses": ["a response of words " * 10] * RESPONSES,
        "finish_reasons": ["stop"] * RESPONSES,
        "token_counts": [50] * RESPONSES,
        "failures": [None] * RESPONSES,
    }
    return [{**planted_columns, "rewards": row} for row in rewards]


def fits(messages: Sequence[Message]) -> bool:
    return len(messages[-1]["content"]) < 4000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--save-every", type=int, default=50, help="steps")
    arguments = parser.parse_args()
    each_step = round(SIZE / 4) * CHILDREN
    steps = arguments.prompts // each_step
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_seeds(folder / "seeds")
        warm_up = curriculum(folder / "seeds", evolves=False)
        warm_up.begin(fits, None, folder / "journal-0", is_new=True)
        first = SEEDS // SIZE
        for step in range(1, first + 1):
            prompts = warm_up.draw(step)
            warm_up.record(step, prompts, results(step, prompts))
        warm_up.save(first, folder / "warm-up", folder / "journal-0", is_end=True)
        interval = curriculum(folder / "seeds", evolves=True)
        interval.begin(fits, folder / "warm-up", folder / "journal-1", is_new=True)
        process, peak = psutil.Process(), 0.0
        print(
            f"{'evolutions':>10}{'MiB':>8}{'peak MiB':>10}{'ms a step':>11}{'ms a save':>11}{'state MB':>10}{'journal MB':>12}", flush=True
        )
        step_seconds: list[float] = []
        save_seconds: list[float] = []
        for number in range(1, steps + 1):
            step, start = first + number, time.perf_counter()
            prompts = interval.draw(step)
            interval.record(step, prompts, results(step, prompts))
            step_seconds.append(time.perf_counter() - start)
            has_row = number * 10 // steps > (number - 1) * 10 // steps
            if number % arguments.save_every == 0 or has_row:
                start = time.perf_counter()
                interval.save(step, folder / "state", folder / "journal-1", is_end=False)
                save_seconds.append(time.perf_counter() - start)
            memory = process.memory_info().rss / MEBIBYTE
            peak = max(peak, memory)
            if has_row:
                times = [1000 * sum(seconds) / max(1, len(seconds)) for seconds in (step_seconds, save_seconds)]
                sizes = [sum(path.stat().st_size for path in (folder / part).iterdir()) / 1e6 for part in ("state", "journal-1")]
                figures = f"{memory:>8.0f}{peak:>10.0f}{times[0]:>11.1f}{times[1]:>11.1f}{sizes[0]:>10.1f}{sizes[1]:>12.1f}"
                print(f"{number * each_step:>10}{figures}", flush=True)
                step_seconds, save_seconds = [], []
        counts, _ = interval.close()
        print(counts)


if __name__ == "__main__":
    main()
