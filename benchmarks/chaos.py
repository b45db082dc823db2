"""Kills a run at random, again and again, until it is done, and compares what it made with an unbroken run.

python -m benchmarks.chaos --kills 100                                  a small Lettercraft run of all stages, from nothing
python -m benchmarks.chaos --kills 20 --recipe my.yaml --set seed=7     another recipe

A kill is a SIGKILL after an exponentially distributed time: of the whole process group, or every third time of one process in it alone
(eva itself, the fork server, a stage's process, one of its workers, or of several trainers one or their launcher). The same command then
goes on. When a run is done before all kills are spent, another begins. Every run must end with the unbroken run's digests, trained
weights within 1e-6, health figures within 0.1 %, every stage logged, nothing left in `work/`; no process may outlive its attempt, no
attempt may hang or end with a traceback.
"""

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil
from safetensors.numpy import load_file

from eva_stages.core.manifests import PIPELINE, read_manifest
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
ALONE = 1 / 3
GRACE_SECONDS = 15.0
STUCK_SECONDS = 600.0
TOLERANCE = 1e-6
ROUNDED = ("train", "health")
"""Stages whose outcome is weights, or measured on them: equal within rounding."""
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Kill:
    """Where a kill landed: in which stage (`start`: before any), and on which process (`all`: the whole group)."""

    stage: str
    victim: str


class Attempt:
    """One start of the command, in a process group of its own."""

    def __init__(self, command: list[str], run: Run) -> None:
        self._run, self._mark = run, uuid.uuid4().hex
        self._known = len(run.events())
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
        events = self._run.events()[self._known :]
        return str(events[-1]["stage"]) if events else "start"

    def kill_all(self) -> Kill | None:
        """Kill the whole process group; None if the attempt was over before."""
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
            kill, known = Kill(self.stage(), role(victim, main)), len(self._run.events())
            victim.kill()
        except psutil.NoSuchProcess:
            return None
        struck = time.monotonic()
        while not self.ends_within(0.2) and len(self._run.events()) == known:
            assert time.monotonic() - struck < STUCK_SECONDS, f"the run hangs after a kill of {kill.victim} in {kill.stage}"
        return kill

    def check(self) -> None:
        """Raises:
        AssertionError: if it did not end as a killed, a failed or a finished run does, or left processes behind.
        """
        deadline = time.monotonic() + GRACE_SECONDS
        while (orphans := self._alive()) and time.monotonic() < deadline:
            psutil.wait_procs(orphans, timeout=0.2)
        assert not orphans, f"outlived the attempt: {[' '.join(one.cmdline()) for one in orphans]}"
        said = self._log.read_text(encoding="utf-8")
        resumable = self.process.returncode == 1 and "resume with: " in said
        assert resumable or self.process.returncode in (0, -signal.SIGKILL), f"ended with {self.process.returncode}\n{said[-3000:]}"
        assert "Traceback" not in said, said[-3000:]

    def _alive(self) -> list[psutil.Process]:
        return [one for one in psutil.process_iter(["environ"]) if (one.info["environ"] or {}).get(MARK) == self._mark]


def role(process: psutil.Process, main: psutil.Process) -> str:
    """What a process of a run is there for."""
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


def torment(command: list[str], root: Path, kills: int, mean: float, rng: random.Random) -> tuple[list[Kill], int]:
    """Run the command until it is done, killed up to `kills` times on the way; returns the kills and the number of starts.

    Args:
        mean: seconds from a start, or from a kill that the attempt survived, to a kill.

    Raises:
        AssertionError: if an attempt hangs, leaves processes behind, or ends in another way than it should.
    """
    landed: list[Kill] = []
    starts = 0
    while True:
        starts += 1
        attempt = Attempt(command, Run(root))
        try:
            while not attempt.ends_within(rng.expovariate(1 / mean) if len(landed) < kills else STUCK_SECONDS):
                assert len(landed) < kills, f"an attempt that nobody kills takes longer than {STUCK_SECONDS:.0f} s"
                if kill := attempt.kill_one(rng.choice) if rng.random() < ALONE else attempt.kill_all():
                    landed.append(kill)
                    print(f"kill {len(landed)} in {kill.stage}: {kill.victim}", flush=True)
        finally:
            attempt.kill_all()
        attempt.check()
        if attempt.process.returncode == 0:
            return landed, starts


def differences(root: Path, unbroken: Path, labels: Iterable[str]) -> list[str]:
    """How the stages of a run differ from those of an unbroken one, in words; empty if they do not."""
    logged = {event["stage"] for event in Run(root).events() if event["event"] == "done"}
    found = [f"left in work/: {path.name}" for path in (root / "work").iterdir()]
    for label in labels:
        folders = [next(run.glob(f"stages/{label}-????????????"), None) for run in (root, unbroken)]
        if None in folders:
            found.append(f"{label} is not there")
            continue
        mine, other = (read_manifest(folder) for folder in folders if folder)
        names = ("fingerprint", "rows", "counts", *(() if mine["stage"] in ROUNDED else ("digest",)))
        found += [f"{label}: {name} {mine[name]} is not {other[name]}" for name in names if mine[name] != other[name]]
        figures = [made.get("figures") or {} for made in (mine, other)]
        if figures[0].keys() != figures[1].keys() or not all(close(value, figures[1][name]) for name, value in figures[0].items()):
            found.append(f"{label}: figures {figures[0]} are not {figures[1]}")
        found += [f"{label} is not logged as done"] if label not in logged else []
        if len({(folder / PIPELINE).is_file() for folder in folders if folder}) > 1:
            found.append(f"{label}: one has a {PIPELINE} and the other has none")
        weights = [folder / "model" / "model.safetensors" for folder in folders if folder]
        if weights[0].is_file() and (distance := largest_difference(*weights)) > TOLERANCE:
            found.append(f"{label}: weights differ by {distance:.2g}")
    return found


def close(one: float | None, other: float | None) -> bool:
    return one == other or (one is not None and other is not None and math.isclose(one, other, rel_tol=1e-3, abs_tol=TOLERANCE))


def largest_difference(one: Path, other: Path) -> float:
    """Between any two weights of the same name and place."""
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    return max(float(abs(first[name] - second[name]).max()) for name in first)


def command(recipe: str, root: Path, overrides: list[str]) -> list[str]:
    settings = [word for change in overrides for word in ("--set", change)]
    alone = ["--store", str(root)]  # every run computes everything itself
    return [sys.executable, "-m", "cli.main", "run", recipe, "--run-dir", str(root), *alone, *settings]


def labels(root: Path) -> list[str]:
    return [event["stage"] for event in Run(root).events() if event["event"] == "done"]


def seconds_of(root: Path) -> float:
    """From the first event of an unbroken run to its last."""
    first, *_, last = (datetime.fromisoformat(event["time"]) for event in Run(root).events())
    return (last - first).total_seconds()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--mean", type=float, help="seconds to a kill, on average; default: an eighth of what the unbroken run takes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", help="default: a small quickstart")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="A.B=C")
    parser.add_argument("--unbroken", type=Path, help="run to compare with, kept there; made where there is none")
    arguments = parser.parse_args()
    small = [] if arguments.recipe else [f"{name}={json.dumps(value)}" for name, value in SMALL.items()]
    recipe, overrides = arguments.recipe or "quickstart", [*small, *arguments.overrides]
    rng = random.Random(arguments.seed)
    landed: list[Kill] = []
    starts = runs = 0
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        unbroken = (arguments.unbroken or folder / "unbroken").resolve()
        if not unbroken.exists():
            subprocess.run(command(recipe, unbroken, overrides), cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        alone, expected = seconds_of(unbroken), labels(unbroken)
        mean = arguments.mean or alone / 8
        begun = time.monotonic()
        while len(landed) < arguments.kills:
            runs += 1
            root = folder / f"run-{runs}"
            kills, tries = torment(command(recipe, root, overrides), root, arguments.kills - len(landed), mean, rng)
            landed, starts = landed + kills, starts + tries
            faults += differences(root, unbroken, expected)
            print(f"run {runs}: {len(kills)} kills, {tries} starts, {time.monotonic() - begun:.0f} s so far", flush=True)
        seconds = time.monotonic() - begun
    for what, counts in (("stage", Counter(kill.stage for kill in landed)), ("process", Counter(kill.victim for kill in landed))):
        order = ["start", *expected] if what == "stage" else [name for name, _ in counts.most_common()]
        print(f"kills by {what}: " + ", ".join(f"{name} {counts[name]}" for name in order if counts[name]))
    lost = seconds - runs * alone
    print(
        f"{len(landed)} kills in {runs} runs of {len(expected)} stages, {starts} starts: {seconds:.0f} s, unbroken {runs} x {alone:.0f} s, "
        f"lost {lost:.0f} s, {lost / max(1, len(landed)):.1f} s a kill"
    )
    print("\n".join(faults) or "every artifact is the unbroken run's, and no process outlived its attempt")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
