"""Kills a run at random until it has finished, and compares its artifacts with those of an uninterrupted run.

python -m benchmarks.chaos --kills 100                                  a small Lettercraft run of all stages, from nothing
python -m benchmarks.chaos --kills 20 --recipe my.yaml --set seed=7     another recipe

A kill is a SIGKILL after an exponentially distributed time: of the process group, or every third time of a single process in it (eva,
the fork server, a stage's process, one of its workers, a trainer or the trainers' launcher). The same command then resumes. When a run
finishes before all kills are used, another one starts. Every run must end with the uninterrupted run's digests, trained weights within
1e-6, health figures within 0.1 %, every stage logged and nothing left in `work/`. No process may outlive its attempt, and no attempt may
hang or end with a traceback.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from benchmarks.run_differences import differences
from eva_stages.core.run_folder import Run

SMALL = {
    "prompts.size": 40,
    "iterations": 1,
    "creator.responses": 4,
    "solver.responses": 4,
    "solver.training.batch_size": 8,
    "solver.training.epochs": 1,
    "solver.training.checkpoints_per_epoch": 8,
    "solver.training.runtime.micro_batch_size": 8,
    "evaluation.benchmarks.0.prompts": 24,
    "evaluation.benchmarks.0.samples": 2,
    "runtime.rows_per_part": 8,
}
"""Changes to the quickstart: all of its stages, each as short as it can be and still be cut in two."""
MARK = "EVA_CHAOS"
"""Variable in the environment of every process of an attempt, to find them by when they have lost their parents."""
ALONE_SHARE = 1 / 3
GRACE_SECONDS = 60.0
"""A fork server whose parent is killed while it imports ends after that, which takes long on a busy machine."""
STUCK_SECONDS = 600.0
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Kill:
    """Where a kill landed: in which stage (`start`: before any), and on which process (`all`: the process group)."""

    stage: str
    victim: str


class Attempt:
    """One start of the command, in a new process group."""

    def __init__(self, command: list[str], run: Run) -> None:
        self._run, self._mark = run, uuid.uuid4().hex
        self._event_count = len(run.events())
        self._log = run.root.with_suffix(".log")
        environment = {**os.environ, MARK: self._mark}
        with self._log.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True
            )

    def ends_within(self, seconds: float | None) -> bool:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stage(self) -> str:
        """The stage that the attempt is at."""
        events = self._run.events()[self._event_count :]
        return str(events[-1]["stage"]) if events else "start"

    def running(self) -> list[str]:
        """The stages that the attempt has started and not finished."""
        events = self._run.events()[self._event_count :]
        done_stages = {event["stage"] for event in events if event["event"] == "done"}
        return [event["stage"] for event in events if event["event"] in ("start", "resume") and event["stage"] not in done_stages]

    def kill_all(self) -> Kill | None:
        """Kill the process group; None if the attempt was over before."""
        if self.process.poll() is not None:
            return None
        kill = Kill(self.stage(), "all")
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return kill

    def kill_one(self, choose: Callable[[list[psutil.Process]], psutil.Process]) -> Kill | None:
        """Kill one of the attempt's processes, eva itself being the first of them; None if it was gone before.

        Raises:
            AssertionError: if the attempt neither ends nor gets on.
        """
        try:
            main = psutil.Process(self.process.pid)
            victim = choose([main, *main.children(recursive=True)])
            kill, event_count = Kill(self.stage(), role(victim, main)), len(self._run.events())
            victim.kill()
        except psutil.NoSuchProcess:
            return None
        kill_time = time.monotonic()
        while not self.ends_within(0.2) and len(self._run.events()) == event_count:
            assert time.monotonic() - kill_time < STUCK_SECONDS, f"the run hangs after a kill of {kill.victim} in {kill.stage}"
        return kill

    def check(self) -> None:
        """Raises:
        AssertionError: if it did not end as a killed, a failed or a finished run does, or left processes behind.
        """
        deadline = time.monotonic() + GRACE_SECONDS
        while (orphans := self._alive()) and time.monotonic() < deadline:
            psutil.wait_procs(orphans, timeout=0.2)
        assert not orphans, f"outlived the attempt: {[' '.join(process.cmdline()) for process in orphans]}"
        log_text = self._log.read_text(encoding="utf-8")
        resumable = self.process.returncode == 1 and "resume with: " in log_text
        assert resumable or self.process.returncode in (0, -signal.SIGKILL), f"ended with {self.process.returncode}\n{log_text[-3000:]}"
        assert "Traceback" not in log_text, log_text[-3000:]

    def _alive(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter(["environ"]) if (process.info["environ"] or {}).get(MARK) == self._mark]


def role(process: psutil.Process, main: psutil.Process) -> str:
    """The purpose of a process of a run."""
    words = " ".join(process.cmdline())
    for part, name in (
        ("resource_tracker", "resource tracker"),
        ("commands.launch", "launcher"),
        ("eva_stages.solver.train", "trainer"),
    ):
        if part in words:
            return name
    depth = process.parents().index(main) + 1 if process != main else 0
    return ("eva", "fork server", "stage")[depth] if depth < 3 else "worker"


def strike(attempt: Attempt, rng: random.Random) -> Kill | None:
    """Kill the process group, or every third time a single process."""
    return attempt.kill_one(rng.choice) if rng.random() < ALONE_SHARE else attempt.kill_all()


def torment(
    command: list[str],
    root: Path,
    kills: int,
    mean: float,
    rng: random.Random,
    run: Run | None = None,
    strike: Callable[[Attempt, random.Random], Kill | None] = strike,
) -> tuple[list[Kill], int]:
    """Run the command until it is done, killed up to `kills` times on the way; returns the kills and the number of starts.

    Args:
        mean: seconds from a start, or from a kill that the attempt survived, to a kill.
        run: whose events show what the command does; default: that of the folder `root`.
        strike: kills; None if there was nothing to kill.

    Raises:
        AssertionError: if an attempt hangs, leaves processes behind, or ends in another way than it should.
    """
    kills_so_far: list[Kill] = []
    starts = 0
    while True:
        starts += 1
        attempt = Attempt(command, run or Run(root))
        try:
            while not attempt.ends_within(rng.expovariate(1 / mean) if len(kills_so_far) < kills else STUCK_SECONDS):
                assert len(kills_so_far) < kills, f"an attempt without a kill takes longer than {STUCK_SECONDS:.0f} s"
                if kill := strike(attempt, rng):
                    kills_so_far.append(kill)
                    print(f"kill {len(kills_so_far)} in {kill.stage}: {kill.victim}", flush=True)
        finally:
            attempt.kill_all()
        attempt.check()
        if attempt.process.returncode == 0:
            return kills_so_far, starts


def command(recipe: str, root: Path, overrides: list[str]) -> list[str]:
    settings = [word for change in overrides for word in ("--set", change)]
    store_option = ["--store", str(root)]  # every run computes everything itself
    return command_of_python("run", recipe, "--run-dir", str(root), *store_option, *settings)


def command_of_python(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cli.main", *arguments]


def run_to_end(command: list[str]) -> None:
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)


def labels(root: Path) -> list[str]:
    return [event["stage"] for event in Run(root).events() if event["event"] == "done"]


def seconds_of(root: Path) -> float:
    """From the first event of an uninterrupted run to its last."""
    first, *_, last = (datetime.fromisoformat(event["time"]) for event in Run(root).events())
    return (last - first).total_seconds()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--mean", type=float, help="mean seconds to a kill; default: an eighth of the uninterrupted run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", help="default: a small quickstart")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="A.B=C")
    parser.add_argument("--unbroken", type=Path, help="reference run; computed in this folder if it does not exist")
    arguments = parser.parse_args()
    small = [] if arguments.recipe else [f"{name}={json.dumps(value)}" for name, value in SMALL.items()]
    recipe, overrides = arguments.recipe or "quickstart", [*small, *arguments.overrides]
    rng = random.Random(arguments.seed)
    all_kills: list[Kill] = []
    starts = runs = 0
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        reference = (arguments.unbroken or folder / "unbroken").resolve()
        if not reference.exists():
            run_to_end(command(recipe, reference, overrides))
        reference_seconds, expected_labels = seconds_of(reference), labels(reference)
        mean = arguments.mean or reference_seconds / 8
        start = time.monotonic()
        while len(all_kills) < arguments.kills:
            runs += 1
            root = folder / f"run-{runs}"
            kills, tries = torment(command(recipe, root, overrides), root, arguments.kills - len(all_kills), mean, rng)
            all_kills, starts = all_kills + kills, starts + tries
            faults += differences(root, reference, expected_labels)
            print(f"run {runs}: {len(kills)} kills, {tries} starts, {time.monotonic() - start:.0f} s so far", flush=True)
        seconds = time.monotonic() - start
    for title, counts in (("stage", Counter(kill.stage for kill in all_kills)), ("process", Counter(kill.victim for kill in all_kills))):
        order = ["start", *expected_labels] if title == "stage" else [name for name, _ in counts.most_common()]
        print(f"kills by {title}: " + ", ".join(f"{name} {counts[name]}" for name in order if counts[name]))
    lost_seconds = seconds - runs * reference_seconds
    print(
        f"{len(all_kills)} kills in {runs} runs of {len(expected_labels)} stages, {starts} starts: {seconds:.0f} s, "
        f"uninterrupted {runs} x {reference_seconds:.0f} s, lost {lost_seconds:.0f} s, {lost_seconds / max(1, len(all_kills)):.1f} s a kill"
    )
    print("\n".join(faults) or "every artifact equals the uninterrupted run's, and no process outlived its attempt")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
