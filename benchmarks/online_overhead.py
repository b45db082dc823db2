"""What online eva adds to a training step: an interval with buffer and evolving beside TRL's own trainer on the same prompts.

    python -m benchmarks.online_overhead

`eva` trains an interval of `lettercraft/online` with `online.lag` 2 after its warm-up, as the stage does. `bare` is TRL's trainer called
as its documentation shows it, with the same settings, reward, weights and, step for step, the same prompts. Both save a checkpoint in the
middle and at the end. Each runs in its own process below this one. Figures are milliseconds of a step, but for the first two: on the wall
clock, and of the processor, which a busy machine blurs less and which has the evolver's thread in it; `own` is the time on the wall clock
in which training waits for the curriculum, `saving` that for its state and journal. The sampled responses differ, and so do their tokens.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Dataset
from transformers import Trainer, TrainerCallback
from trl import RLOOTrainer

from benchmarks.sides import compare, options, parse
from eva_stages.checking.resolution import resolve
from eva_stages.core.manifests import content
from eva_stages.core.progress import Reporter
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import execute
from eva_stages.core.stage import FunctionStage, use_of
from eva_stages.core.tables import FILE
from eva_stages.creator.curriculum import Curriculum
from eva_stages.creator.online_journal import journal_files
from eva_stages.models.loading import find_checkpoint, load_tokenizer
from eva_stages.solver.fitting import chat_of, common_arguments, load_policy
from eva_stages.solver.interval_training import JOURNAL
from eva_stages.solver.job import TrainingJob
from eva_stages.solver.launching import training_job
from eva_stages.solver.online import MEAN_TOKENS, generation_arguments, reward_function, train
from eva_stages.solver.online_trainers import trainer_and_arguments
from pipelines.online_iteration import online_iterations

SIDES = ("eva", "bare")
GOAL = 1.05
WARM_STEPS = 2


class StepClock(TrainerCallback):
    """The times at which steps begin."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []
        self.lengths: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.times.append((time.perf_counter(), time.process_time()))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs and MEAN_TOKENS in logs:
            self.lengths.append(logs[MEAN_TOKENS])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.times.append((time.perf_counter(), time.process_time()))

    def figures(self) -> dict[str, float]:
        first, last, steps = self.times[WARM_STEPS], self.times[-1], len(self.times) - 1 - WARM_STEPS
        times = {"wall": 1000 * (last[0] - first[0]) / steps, "processor": 1000 * (last[1] - first[1]) / steps}
        return {**times, "tokens a response": sum(self.lengths[WARM_STEPS:]) / steps}


def interval(steps: int) -> FunctionStage:
    """The training of the first interval that evolves."""
    recipe = load_recipe(
        "lettercraft/online", ["iterations=1", f"online.interval={steps}", "online.lag=2", "solver.training.checkpoints_per_epoch=2"]
    )
    stage = online_iterations(recipe, resolve(recipe))[1].solver[-1]
    assert isinstance(stage, FunctionStage)
    return stage


def prepare(steps: int, folder: Path) -> None:
    """Train the warm-up, and the interval once for its prompts."""
    run = Run(folder / "run")
    run.create()
    with run.lock():
        execute(run, [interval(steps)], Reporter())


def job(arguments: argparse.Namespace, folder: Path, work: Path) -> TrainingJob:
    """The interval's job, as its stage gives it to the training process."""
    function = interval(arguments.steps).function
    policy = find_checkpoint("lettercraft-deep", None, "policy.model").path
    inputs = {"prompts": artifact(folder, "0-prompts"), "policy": artifact(folder, "0-train"), "reference": policy}
    settings = {name: value for name, value in function.arguments.items() if name != "section"}
    return training_job(work, inputs, work / "cache", "benchmark", function.runtime["runtime"], **settings)


def artifact(folder: Path, label: str) -> Path:
    return content(next((folder / "run").glob(f"stages/{label}-????????????")))


def eva(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    seconds = Counter[str]()
    clock = StepClock()
    for name in ("draw", "record", "save"):
        setattr(Curriculum, name, with_clock(getattr(Curriculum, name), seconds, name))
    plain_train = Trainer.train

    def train_with_clock(self: Trainer, *inputs: Any, **options_by_name: Any) -> Any:
        self.add_callback(clock)
        return plain_train(self, *inputs, **options_by_name)

    Trainer.train = train_with_clock
    with tempfile.TemporaryDirectory() as work:
        train(job(arguments, folder, Path(work)))
    own_seconds, save_seconds = seconds["draw"] + seconds["record"], seconds["save"]
    return {**clock.figures(), "own": 1000 * own_seconds / arguments.steps, "saving": 1000 * save_seconds / arguments.steps}


def with_clock(function: Callable[..., Any], seconds: Counter[str], name: str) -> Callable[..., Any]:
    @wraps(function)
    def call(*inputs: Any, **options_by_name: Any) -> Any:
        start = time.perf_counter()
        output = function(*inputs, **options_by_name)
        seconds[name] += time.perf_counter() - start
        return output

    return call


def bare(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as work:
        settings = job(arguments, folder, Path(work))
        on_policy, training = settings.on_policy, settings.training
        assert on_policy is not None
        tokenizer = load_tokenizer(str(settings.policy), padding_side="left")
        model = load_policy(settings)
        ends = model.generation_config.eos_token_id
        reward = use_of(on_policy.reward).build(settings.inputs)
        reward.load()
        _, _, config, loss_arguments = trainer_and_arguments(settings.loss, on_policy.sampling["temperature"], on_policy.min_gap)
        common_settings = common_arguments(settings, arguments.steps * training.batch_size, 1)
        clock = StepClock()
        trainer = RLOOTrainer(
            model=model,
            reward_funcs=reward_function(
                reward, chat_of(settings, tokenizer), ends, on_policy.keep_thoughts, on_policy.shown_system_prompt
            ),
            args=config(
                **{**common_settings, "num_train_epochs": 1, "save_total_limit": 2},
                **generation_arguments(settings.loss.runtime, on_policy.sampling, training.max_length, ends, loss_arguments),
                beta=settings.loss.beta,
                num_generations=on_policy.responses,
                shuffle_dataset=False,
            ),
            train_dataset=Dataset.from_list(trained_prompts(folder)),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        trainer.train()
    return clock.figures()


def trained_prompts(folder: Path) -> list[dict[str, Any]]:
    """The prompts of the interval, in the order in which it trained on them."""
    journal = artifact(folder, "1-train") / JOURNAL
    rows = {row["prompt_id"]: row for row in pq.read_table(artifact(folder, "0-prompts") / FILE).to_pylist()}
    evolutions, uses = (
        [row for _, path in journal_files(journal, name) for row in pq.read_table(path).to_pylist()] for name in ("evolutions", "uses")
    )
    rows |= {row["prompt_id"]: row for row in evolutions if row["fate"] == "inserted"}
    used_rows = [rows[use["prompt_id"]] for use in uses]
    return [{"prompt": row["messages"], "reference": row["reference"]} for row in used_rows]


def main() -> None:
    arguments = parse(options(__doc__, steps=24), {"eva": eva, "bare": bare})
    with tempfile.TemporaryDirectory() as scratch:
        prepare(arguments.steps, Path(scratch))
        medians = compare("benchmarks.online_overhead", SIDES, arguments.rounds, "processor", Path(scratch))
    sys.exit(medians["eva"] > GOAL * medians["bare"])


if __name__ == "__main__":
    main()
