"""Kills an online run at random until it has finished, and compares what it leaves with an uninterrupted run.

python -m benchmarks.online_chaos --kills 50               the command
python -m benchmarks.online_chaos --kills 50 --trainer     the trainings alone, in this process, where a start takes a second

A small `lettercraft/online` with synchronous evolving. A kill is a SIGKILL at a random time of training: by turns of the process group, of
any process, of the process that trains, and of that process in the middle of a call of the evolver. The same command then resumes. Beside
what `benchmarks.chaos` compares, every interval must have the journal, the buffer, the seen prompts and the positions of the uninterrupted
one, row by row.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq

from benchmarks.chaos import GRACE_SECONDS, Attempt, Kill, command, labels, seconds_of, torment
from benchmarks.mortal_evolver import ORDER
from benchmarks.run_differences import differences
from eva_stages.checking.resolution import resolve
from eva_stages.core.errors import StageError
from eva_stages.core.progress import Reporter
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import execute
from eva_stages.creator.curriculum import BUFFER, STATE
from eva_stages.creator.online_journal import JOURNAL
from eva_stages.creator.seen_prompts import FILE as SEEN_FILE
from eva_stages.solver.interval_training import STATE as CURRICULUM
from eva_stages.solver.interval_training import TRAINER
from pipelines.online_iteration import online_iterations

RECIPE = "lettercraft/online"
SMALL = {
    "prompts.size": 64,
    "iterations": 2,
    "policy.generator.max_new_tokens": 32,
    "online.interval": 8,
    "online.buffer.size": 40,
    "creator.evolve.generations": 2,
    "creator.evolve.generator": {"kind": "function", "function": f"{Path(__file__).parent}/mortal_evolver.py:evolve"},
    "trust_code": True,
    "solver.responses": 4,
    "solver.training.batch_size": 32,
    "solver.training.runtime.micro_batch_size": 32,
    "solver.training.checkpoints_per_epoch": 4,
    "evaluation.benchmarks": [],
    "health.answers": 0,
}
"""Changes to the recipe: 24 steps of 8 prompts, a checkpoint every second step."""
KINDS = ("all", "one", "trainer", "evolver")
MEAN_SECONDS = 4.0
"""From the start of a training to a kill."""


def striker(order: Path) -> Callable[[Attempt, random.Random], Kill | None]:
    """Kills of all kinds by turns; `order`: the file that `mortal_evolver` reads."""
    count = 0

    def strike(attempt: Attempt, rng: random.Random) -> Kill | None:
        nonlocal count
        kill = kill_of_kind(KINDS[count % len(KINDS)], attempt, rng, order)
        count += kill is not None
        return kill

    return strike


def kill_of_kind(kind: str, attempt: Attempt, rng: random.Random, order: Path) -> Kill | None:
    """A kill; None if the attempt ended before."""
    while not (stage := training(attempt)):
        if attempt.ends_within(0.1):
            return None
    if attempt.ends_within(rng.expovariate(1 / MEAN_SECONDS)) or training(attempt) != stage:
        return None
    if kind == "all":
        return attempt.kill_all() and Kill(stage, "all")
    if kind == "one":
        return attempt.kill_one(rng.choice)
    if kind == "trainer":
        return attempt.kill_one(trainer) and Kill(stage, "trainer")
    order.touch()
    while order.exists():
        if attempt.ends_within(0.05) or training(attempt) != stage:
            order.unlink(missing_ok=True)
            return None
    attempt.ends_within(GRACE_SECONDS)
    return Kill(stage, "call of the evolver")


def training(attempt: Attempt) -> str | None:
    """The training that is running."""
    return next((label for label in attempt.running() if label.endswith("-train")), None)


def trainer(family: list[psutil.Process]) -> psutil.Process:
    """The process that trains: it takes the most memory."""
    return max(family, key=lambda process: process.memory_info().rss)


def interval_differences(root: Path, reference: Path, labels: Iterable[str]) -> list[str]:
    """Sentences about how what the intervals leave, beside weights, differs from that of an uninterrupted run."""
    faults = []
    for label in labels:
        if not label.endswith("-train"):
            continue
        first, second = (next(run.glob(f"stages/{label}-????????????")) / "model" for run in (root, reference))
        names = [{path.relative_to(model).as_posix() for path in files_of(model)} for model in (first, second)]
        faults += [f"{label}: has {sorted(names[0])} and not {sorted(names[1])}"] if names[0] != names[1] else []
        faults += [f"{label}: {name} differs" for name in sorted(names[0] & names[1]) if content(first / name) != content(second / name)]
    return faults


def files_of(model: Path) -> Iterable[Path]:
    state = model / TRAINER / CURRICULUM
    return [*(model / JOURNAL).glob("*"), *(path for name in (STATE, BUFFER, SEEN_FILE) if (path := state / name).exists())]


def content(file: Path) -> object:
    """What a file says."""
    if file.suffix == ".parquet":
        return pq.read_table(file).to_pylist()
    if file.suffix == ".json":
        return json.loads(file.read_text(encoding="utf-8"))
    with np.load(file) as arrays:
        return {name: arrays[name].tolist() for name in arrays.files}


def repeated_rows(root: Path, labels: Iterable[str]) -> list[str]:
    """Sentences about steps that the journals lack or have twice, and about draws without their evolutions."""
    faults = []
    uses: Counter[int] = Counter()
    evolutions: Counter[tuple[int, str]] = Counter()
    draws: Counter[tuple[int, str]] = Counter()
    children = SMALL["creator.evolve.generations"]
    for label in labels:
        if label.endswith("-train"):
            journal = next(root.glob(f"stages/{label}-????????????")) / "model" / JOURNAL
            uses.update(row["step"] for row in rows_of(journal, "uses"))
            draws.update((row["step"], row["prompt_id"]) for row in rows_of(journal, "selections"))
            evolutions.update((row["step"], row["parent_id"]) for row in rows_of(journal, "evolutions"))
    if sorted(uses) != list(range(1, len(uses) + 1)) or len(set(uses.values())) > 1:
        faults.append(f"prompts of the steps: {dict(uses)}")
    if set(draws.values()) - {1} or evolutions != Counter(dict.fromkeys(draws, children)):
        faults.append("draws and evolutions do not belong together")
    return faults


def rows_of(journal: Path, table: str) -> list[dict[str, object]]:
    return [row for path in journal.glob(f"{table}-*.parquet") for row in pq.read_table(path).to_pylist()]


def changes(lag: int) -> list[str]:
    return [f"{name}={json.dumps(value)}" for name, value in {**SMALL, "online.lag": lag}.items()]


def train_here(root: Path, lag: int, kills: int, rng: random.Random, order: Path) -> tuple[list[Kill], int]:
    """Run all trainings in children of this process, killed up to `kills` times; returns the kills and the number of starts."""
    recipe = load_recipe(RECIPE, changes(lag))
    training = online_iterations(recipe, resolve(recipe))[-1].solver[-1]
    run, kills_so_far, starts = Run(root), list[Kill](), 0
    run.create()
    while True:
        starts += 1
        end_event = threading.Event()
        victim = ("trainer", "call of the evolver")[starts % 2]
        killer = threading.Thread(target=kill_child, args=(victim, rng.expovariate(1 / MEAN_SECONDS), order, end_event))
        if len(kills_so_far) < kills:
            killer.start()
        try:
            with run.lock():
                execute(run, [training], Reporter())
            return kills_so_far, starts
        except StageError as error:
            assert "was killed by signal 9" in str(error), error
            kills_so_far.append(Kill(str(run.events()[-1]["stage"]), victim))
        finally:
            end_event.set()
            if killer.ident:
                killer.join()
            order.unlink(missing_ok=True)


def kill_child(victim: str, seconds: float, order: Path, end_event: threading.Event) -> None:
    """Kill the process that trains after these seconds, or have it killed in the next call of the evolver."""
    if end_event.wait(seconds):
        return
    if victim == "trainer":
        for process in psutil.Process().children(recursive=True):
            if len(process.parents()) > len(psutil.Process().parents()) + 2:  # neither the fork server nor its resource tracker
                process.kill()
    else:
        order.touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trainer", action="store_true")
    parser.add_argument("--lag", type=int, default=0, help="with a lag, what was late may differ: nothing may be lost or there twice")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    all_kills: list[Kill] = []
    faults: list[str] = []
    starts = runs = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        order, reference = folder / "order", folder / "unbroken"
        os.environ[ORDER] = str(order)
        strike = striker(order)

        def train_until_done(root: Path, kills: int) -> tuple[list[Kill], int]:
            if arguments.trainer:
                return train_here(root, arguments.lag, kills, rng, order)
            words = command(RECIPE, root, changes(arguments.lag))
            return torment(words, root, kills, MEAN_SECONDS / 40, rng, strike=strike)

        train_until_done(reference, 0)
        expected_labels = labels(reference)
        start = time.monotonic()
        print(f"uninterrupted: {seconds_of(reference):.0f} s", flush=True)
        while len(all_kills) < arguments.kills:
            runs += 1
            root = folder / f"run-{runs}"
            kills, tries = train_until_done(root, arguments.kills - len(all_kills))
            all_kills, starts = all_kills + kills, starts + tries
            run_faults = repeated_rows(root, expected_labels)
            if not arguments.lag:
                run_faults += differences(root, reference, expected_labels) + interval_differences(root, reference, expected_labels)
            faults += run_faults
            outcome = f"{len(kills)} kills, {tries} starts, {len(run_faults)} differences, {time.monotonic() - start:.0f} s so far"
            print(f"run {runs}: {outcome}", flush=True)
    for title, counts in (("stage", Counter(kill.stage for kill in all_kills)), ("process", Counter(kill.victim for kill in all_kills))):
        print(f"kills by {title}: " + ", ".join(f"{name} {count}" for name, count in counts.most_common()))
    print(f"{len(all_kills)} kills in {runs} runs of {len(expected_labels)} stages, {starts} starts")
    print("\n".join(faults) or ("nothing lost, and nothing twice" if arguments.lag else "everything equals the uninterrupted run"))
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
