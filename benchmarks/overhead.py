"""What the pipeline costs around the engines: one quickstart iteration, and where its wall time goes.

    python -m benchmarks.overhead                  2,000 prompts of Lettercraft

An engine is what generates, scores or trains: the work of a row stage's step, the reference's pass over the pairs, and the training
loop. Everything else counts as overhead: starting processes and distilabel, loading models, the steps on tables, writing and merging
rows, committing. The stages are those of `eva run quickstart` for iteration 1, from the seed prompts on, with a clock around each step.
Importing the libraries, which a command does once for all its iterations, is reported separately.
"""

import argparse
import json
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

from eva_stages.core.process import run_in_child
from eva_stages.core.progress import Reporter
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import Context, execute
from eva_stages.core.stage import FunctionStage, Outside, RowStage, Stage, Use, load_attribute

RUNTIME = re.compile(r"'train_runtime': '?([\d.]+)")


def clocked_step(step: str, label: str, clock: str, settings: dict[str, Any], **step_settings: Any) -> Any:
    """The step, with a clock around its loading and its work. Called in the stage's process, whose workers inherit the clocks."""
    kind = load_attribute(step)

    def note(action: str, start: float) -> None:
        _note(Path(clock), label, action, time.perf_counter() - start)

    plain_load, plain_process = kind.load, kind.process

    @wraps(plain_load)
    def load(self: Any) -> None:
        start = time.perf_counter()
        plain_load(self)
        note("load", start)

    @wraps(plain_process)
    def process(self: Any, *inputs: Any) -> Iterator[Any]:
        start = time.perf_counter()
        for output in plain_process(self, *inputs):
            note("process", start)
            yield output
            start = time.perf_counter()

    kind.load, kind.process = load, process
    return kind(**settings, **step_settings)


def clocked_training(context: Context, train: dict[str, Any], label: str, clock: str) -> dict[str, Any]:
    """Training, with the time that the reference's pass took and, by its own log, the loop."""
    facts: dict[str, Any] = load_attribute("eva_stages.solver.launching:train")(context, **train)
    runtimes = RUNTIME.findall((context.work / "training.log").read_text(encoding="utf-8"))
    _note(Path(clock), label, "process", float(runtimes[-1]) + facts["reference_seconds"])
    return facts


def _note(clock: Path, label: str, action: str, seconds: float) -> None:
    with clock.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps([label, action, seconds]) + "\n")


def clock_stage(stage: Stage | Outside, clock: Path, clocked_stages: dict[int, Stage]) -> Any:
    """The same stage, and the same stages before it, with clocks."""
    if isinstance(stage, Outside):
        return stage
    if id(stage) not in clocked_stages:
        inputs = {name: clock_stage(source, clock, clocked_stages) for name, source in stage.inputs.items()}
        runtime = {"label": stage.label, "clock": str(clock)}
        copy = replace(stage, inputs=inputs)
        if isinstance(copy, RowStage):
            copy = replace(copy, steps=tuple(_clocked_use(use, runtime) for use in copy.steps))
        elif isinstance(copy, FunctionStage) and copy.name == "train":
            train_settings = {"train": {**copy.function.arguments, **copy.function.runtime}}
            copy = replace(copy, function=Use("benchmarks.overhead:clocked_training", train_settings, runtime))
        clocked_stages[id(stage)] = copy
    return clocked_stages[id(stage)]


def _clocked_use(use: Use, runtime: dict[str, str]) -> Use:
    settings = {"step": use.target, "settings": {**use.arguments, **use.runtime}}
    return Use("benchmarks.overhead:clocked_step", settings, runtime)


class Watch(Reporter):
    """Notes when each stage starts and is done."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: dict[str, list[float]] = defaultdict(list)

    def log_start(self, text: str) -> None:
        self.log(text)

    def say(self, text: str) -> None:
        super().say(text)
        self.moments[text.partition(":")[0]].append(time.perf_counter())


def measure(prompts: int, folder: Path, settings: list[str]) -> None:
    from eva_stages.checking.resolution import resolve
    from eva_stages.core.recipe_files import load_recipe
    from eva_stages.models.loading import find_checkpoint
    from pipelines.creator import creator_stages
    from pipelines.prompt_stages import prompts_stage
    from pipelines.solver import solver_stages

    recipe = load_recipe("quickstart", [f"prompts.size={prompts}", *settings])
    base = find_checkpoint(recipe.policy.model, recipe.policy.revision, "policy.model")
    resolved = resolve(recipe)
    seeds = prompts_stage(recipe, resolved)
    mix_stage = creator_stages(recipe, resolved, 1, seeds, (), base)[-1]
    train_stage = solver_stages(recipe, resolved, 1, mix_stage, base, base, ())[-1]
    run, watch, clock = Run(folder / "run"), Watch(), folder / "clock"
    run.create()
    with run.lock():
        began = time.perf_counter()
        run_in_child("builtins:dict", {}, folder / "start.log", lambda: None)
        start_time = time.perf_counter()
        execute(run, [clock_stage(train_stage, clock, {})], watch)
        end_time = time.perf_counter()
    notes = [json.loads(line) for line in clock.read_text(encoding="utf-8").splitlines()]
    report(run, watch, notes, total=end_time - start_time, start=start_time - began)


def report(run: Run, watch: Watch, notes: list[tuple[str, str, float]], total: float, start: float) -> None:
    """Print the table and the shares, without and with the imports of the command's start."""
    seconds_by_action: dict[tuple[str, str], float] = defaultdict(float)
    for label, action, seconds in notes:
        seconds_by_action[label, action] += seconds
    stage_seconds = {event["stage"]: event["seconds"] for event in run.events() if event["event"] == "done"}
    print(f"{'stage':<20}{'wall s':>9}{'engine':>9}{'loading':>9}{'pipeline':>10}{'commit':>9}   share outside the engine")
    sums = [0.0] * 5
    for label, seconds in stage_seconds.items():
        wall = watch.moments[label][-1] - watch.moments[label][0]
        engine, loading = seconds_by_action[label, "process"], seconds_by_action[label, "load"]
        figures = [wall, engine, loading, seconds - engine - loading, wall - seconds]
        sums = [a + b for a, b in zip(sums, figures, strict=True)]
        print(_line(label, figures))
    print(_line("all", sums))
    print(f"{total:.1f} s in all, of which {1 - sums[1] / total:.1%} outside generation, scoring and training")
    print(f"with {start:.1f} s of imports, once per command: {1 - sums[1] / (total + start):.1%}")


def _line(label: str, figures: list[float]) -> str:
    wall, engine, loading, pipeline, commit = figures
    return f"{label:<20}{wall:>9.2f}{engine:>9.2f}{loading:>9.2f}{pipeline:>10.2f}{commit:>9.2f}   {1 - engine / wall:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--set", dest="settings", action="append", default=[], help="as for `eva run`")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measure(arguments.prompts, Path(name), arguments.settings)


if __name__ == "__main__":
    main()
