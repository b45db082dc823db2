"""How the runs of a study share a machine: how many at a time, with which cores and accelerators each."""

import os
from collections.abc import Iterable

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.devices import cpu_cores, visible
from eva_stages.core.errors import ConfigError
from eva_stages.core.job_context import GPUS, THREADS
from eva_stages.core.ledger import visible_gpus
from eva_stages.solver.launch_file import read_launch_file

MOST_JOBS = 8
"""By default, where there are no GPUs: each job needs memory for its models."""


def job_environments(jobs: int | None, recipes: Iterable[Recipe]) -> list[dict[str, str]]:
    """What is added to the environment of each job, as many as run at a time.

    Args:
        jobs: None: as many as the GPUs allow, where each training has those of its launch file; without GPUs one per core, at most 8.

    Raises:
        ConfigError: if more jobs than the GPUs allow are to run trainings with several GPUs each.
    """
    gpus, cores = visible(os.environ.get(GPUS), len(visible_gpus())), cpu_cores()
    needed_gpus = max(read_launch_file(recipe.solver.training.runtime.launch).gpus_per_machine for recipe in recipes)
    most_jobs = max(1, len(gpus) // max(1, needed_gpus)) if gpus else min(cores, MOST_JOBS)
    jobs = jobs or most_jobs
    if jobs == 1:
        return [{}]
    if gpus and needed_gpus > 1 and jobs > most_jobs:
        raise ConfigError(
            [f"--jobs: is {jobs}; a training needs {needed_gpus} GPUs and {len(gpus)} are visible, so give at most {most_jobs}"]
        )
    threads = max(1, min(cores // jobs, int(os.environ.get(THREADS) or cores)))
    return [{THREADS: str(threads), **_gpus_of(job, jobs, gpus)} for job in range(jobs)]


def _gpus_of(job: int, jobs: int, gpus: tuple[str, ...]) -> dict[str, str]:
    """A job's own GPUs; one that it shares if there are more jobs than GPUs."""
    if not gpus:
        return {}
    count = len(gpus) // jobs
    own_gpus = gpus[job * count : (job + 1) * count] if count else (gpus[job % len(gpus)],)
    return {GPUS: ",".join(own_gpus)}
