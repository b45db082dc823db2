"""Timing a recipe's stages on this machine, at a size that takes a fraction of the run.

The recipe itself is run, with a few batches of prompts, the base round and one iteration, by the same runner, in a folder that is thrown
away. Whatever calls a provider, and whatever needs what such a stage makes, is left out: measuring spends no money. Public benchmarks are
left out too, because their questions cannot be made fewer. Not seen at this size: what later iterations do to the lengths of answers.
"""

import math
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from eva_stages.core.config.evaluation_config import Lettercraft
from eva_stages.core.config.recipe import Limits, Recipe
from eva_stages.core.errors import ConfigError, StageError
from eva_stages.core.ledger import visible_gpus
from eva_stages.core.process import run_in_child
from eva_stages.core.progress import Reporter
from eva_stages.core.resolved import Resolved
from eva_stages.core.rounds import Iteration
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import execute
from eva_stages.core.stage import Stage, closure, uses
from eva_stages.models.targets import GENERATORS
from eva_stages.planning.rates import Rates, done_rates
from eva_stages.planning.sizes import prompt_count, sizes

FOLDER = "measuring-"
"""How the names of folders begin in which is measured; those of a failed or killed measuring stay until the next."""
BATCHES = 2
"""Parts of a row stage that are timed; between them lies what the interval is made of."""
STEPS = 3
"""Optimiser steps of an epoch, if every prompt gave a pair."""


def measured_rates(small: Recipe, resolved: Resolved, rounds: list[Iteration], root: Path, reporter: Reporter) -> Rates:
    """Rates of the recipe's stages, in seconds as they pass on this machine now.

    Args:
        small: the recipe at the size that is timed, see `reduced`.
        rounds: its iterations.
        root: folder of the run, below which the measuring takes place, on the same disk.

    Raises:
        ConfigError: if every stage calls a provider or needs one that does.
        StageError: if a stage fails.
    """
    begun = time.time() - psutil.Process().create_time()
    chosen = free_stages([stage for one in rounds for stage in one.stages])
    if not chosen:
        raise ConfigError(["--measure: no stage of this recipe can be timed without calling a provider; give a table with --rates"])
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(f"{FOLDER}*"):
        if Run(left).holder() is None:
            shutil.rmtree(left, ignore_errors=True)
    run = Run(Path(tempfile.mkdtemp(prefix=FOLDER, dir=root)))
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, run.root, ignore_errors=True)
        run.create()
        try:
            with run.lock():
                clock = time.monotonic()
                run_in_child("builtins:dict", {}, run.work / "start.log", lambda: None)  # libraries are imported once for all stages
                start = time.monotonic() - clock
                execute(run, chosen, reporter)
                wall = time.monotonic() - clock - start
        except StageError:
            ending.pop_all()  # the log that it names is in the folder
            raise
        own = sum(run.manifest(stage)["seconds"] for stage in chosen)
        units = {fingerprint: size.units for fingerprint, size in sizes(small, rounds, prompt_count(small, resolved, rounds, run)).items()}
        found = done_rates(run, chosen, units)
    between = max(0.0, wall - own) / len(chosen)
    return found.model_copy(update={"machine": machine(), "start_seconds": begun + start, "between_seconds": between})


def reduced(recipe: Recipe) -> Recipe:
    """The recipe at the size that is timed. Its batches are as large as ever; its limits do not stop it."""
    training = recipe.solver.training
    prompts = max(BATCHES * recipe.runtime.rows_per_part, math.ceil(STEPS * training.batch_size / training.epochs))
    questions = BATCHES * recipe.runtime.rows_per_part
    kept = tuple(
        one.model_copy(update={"prompts": min(one.prompts, questions)})
        for one in recipe.evaluation.benchmarks
        if isinstance(one, Lettercraft)
    )
    changes: dict[str, Any] = {
        "iterations": min(recipe.iterations, 1),
        "prompts": recipe.prompts.model_copy(update={"size": min(recipe.prompts.size or prompts, prompts)}),
        "solver": recipe.solver.model_copy(update={"training": training.model_copy(update={"checkpoints_per_epoch": 1})}),
        "evaluation": recipe.evaluation.model_copy(update={"benchmarks": kept}),
        "limits": Limits.model_validate(dict.fromkeys(Limits.model_fields, 1)),
        "health": recipe.health.model_copy(update={"stop": ()}),
        "publish": None,
    }
    return recipe.model_copy(update=changes)


def calls_provider(stage: Stage) -> bool:
    """Whether a stage may cost money."""
    return any(use.target == GENERATORS["litellm"] for use in uses(stage))


def free_stages(stages: list[Stage]) -> list[Stage]:
    """The stages, and what they need, that neither cost money nor need what such a stage makes."""
    paid: set[str] = set()
    for stage in closure(stages):
        if calls_provider(stage) or any(upstream.fingerprint in paid for upstream in stage.inputs.values()):
            paid.add(stage.fingerprint)
    return [stage for stage in closure(stages) if stage.fingerprint not in paid]


def machine() -> str:
    """What was measured on, in a few words."""
    gpus = visible_gpus()
    counted = [f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)]
    return ", ".join([f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} CPU cores", *counted])
