"""Measure the rates of a recipe's stages on this machine, at a size that takes a fraction of the run.

The recipe itself runs with a few batches of prompts, the base round and one iteration, by the same runner, in a temporary folder. Stages
that call a provider, and stages that depend on them, are left out: measuring spends no money. Public benchmarks are left out too,
because the number of their questions is fixed. How response lengths change in later iterations is not measured.
"""

import math
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from eva_stages.core.config.evaluation_config import Lettercraft
from eva_stages.core.config.models_config import LiteLLMModel
from eva_stages.core.config.recipe import Limits, Recipe
from eva_stages.core.devices import cpu_cores
from eva_stages.core.errors import ConfigError, StageError
from eva_stages.core.ledger import visible_gpus
from eva_stages.core.process import run_in_child
from eva_stages.core.progress import Reporter
from eva_stages.core.resolved import Resolved
from eva_stages.core.rounds import Iteration
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import execute
from eva_stages.core.stage import Stage, closure, uses
from eva_stages.planning.rates import Rates, done_rates
from eva_stages.planning.sizes import prompt_count, sizes

FOLDER = "measuring-"
"""Prefix of the temporary folders; the folder of a failed or killed measurement stays until the next one."""
BATCHES = 2
"""Parts of a row stage that are timed; their difference gives the interval."""
STEPS = 3
"""Optimiser steps of an epoch if every prompt gives a pair."""


def measured_rates(small: Recipe, resolved: Resolved, rounds: list[Iteration], root: Path, reporter: Reporter) -> Rates:
    """Rates of the recipe's stages on this machine at its present load.

    Args:
        small: the recipe at the measured size, see `reduced_recipe`.
        rounds: its iterations.
        root: folder of the run; the temporary folder is below it, on the same disk.

    Raises:
        ConfigError: if every stage calls a provider or depends on one that does.
        StageError: if a stage fails.
    """
    start_up = time.time() - psutil.Process().create_time()
    stages = free_stages([stage for iteration in rounds for stage in iteration.stages])
    if not stages:
        raise ConfigError(["--measure: every stage calls a provider or depends on one that does; give a table with --rates FILE"])
    root.mkdir(parents=True, exist_ok=True)
    for folder in root.glob(f"{FOLDER}*"):
        if Run(folder).holder() is None:
            shutil.rmtree(folder, ignore_errors=True)
    run = Run(Path(tempfile.mkdtemp(prefix=FOLDER, dir=root)))
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, run.root, ignore_errors=True)
        run.create()
        try:
            with run.lock():
                clock = time.monotonic()
                run_in_child("builtins:dict", {}, run.work / "start.log", lambda: None)  # imports the libraries once for all stages
                start = time.monotonic() - clock
                execute(run, stages, reporter)
                wall = time.monotonic() - clock - start
        except StageError:
            ending.pop_all()  # keep the folder: it has the log that the error names
            raise
        stage_seconds = sum(run.manifest(stage)["seconds"] for stage in stages)
        units = {fingerprint: size.units for fingerprint, size in sizes(small, rounds, prompt_count(small, resolved, rounds, run)).items()}
        rates = done_rates(run, stages, units)
    seconds_between = max(0.0, wall - stage_seconds) / len(stages)
    return rates.model_copy(update={"machine": machine(), "start_seconds": start_up + start, "between_seconds": seconds_between})


def reduced_recipe(recipe: Recipe) -> Recipe:
    """The recipe at the measured size, with unchanged batch sizes and without limits that stop it."""
    training = recipe.solver.training
    prompts = max(BATCHES * recipe.runtime.rows_per_part, math.ceil(STEPS * training.batch_size / training.epochs))
    questions = BATCHES * recipe.runtime.rows_per_part
    benchmarks = tuple(
        benchmark.model_copy(update={"prompts": min(benchmark.prompts, questions)})
        for benchmark in recipe.evaluation.benchmarks
        if isinstance(benchmark, Lettercraft)
    )
    changes: dict[str, Any] = {
        "iterations": min(recipe.iterations, 1),
        "prompts": recipe.prompts.model_copy(update={"size": min(recipe.prompts.size or prompts, prompts)}),
        "solver": recipe.solver.model_copy(update={"training": training.model_copy(update={"checkpoints_per_epoch": 1})}),
        "online": recipe.online and recipe.online.model_copy(update={"interval": min(recipe.online.interval, STEPS)}),
        "evaluation": recipe.evaluation.model_copy(update={"benchmarks": benchmarks}),
        "limits": Limits.model_validate(dict.fromkeys(Limits.model_fields, 1)),
        "health": recipe.health.model_copy(update={"stop": ()}),
        "publish": None,
    }
    return recipe.model_copy(update=changes)


def calls_provider(stage: Stage) -> bool:
    """Whether a stage may cost money."""
    return any(use.target == LiteLLMModel.target for use in uses(stage))


def free_stages(stages: list[Stage]) -> list[Stage]:
    """The stages, with their inputs, that neither cost money nor depend on a stage that does."""
    paid_stages: set[str] = set()
    for stage in closure(stages):
        if calls_provider(stage) or any(upstream.fingerprint in paid_stages for upstream in stage.inputs.values()):
            paid_stages.add(stage.fingerprint)
    return [stage for stage in closure(stages) if stage.fingerprint not in paid_stages]


def machine() -> str:
    """A short description of this machine."""
    gpus = visible_gpus()
    gpu_counts = [f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)]
    return ", ".join([f"{cpu_cores()} CPU cores", *gpu_counts])
