"""The training entry, one for every optimiser: `accelerate launch -m eva_stages.solver.train JOB.json`.

A training of one process does not use that command: it is a child of the fork server, which has the libraries imported. The kind of the
job's loss selects the trainer, a function `f(job)` that is imported only then. It ends with `fitting.fit`, which resumes, saves and
reports in the same way for all trainers.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from eva_stages.core.config.solver_config import ON_POLICY_LOSSES
from eva_stages.core.devices import free_devices, take_devices
from eva_stages.core.errors import ConfigError, describe
from eva_stages.core.patches import single_process_environment
from eva_stages.core.process import print_trace
from eva_stages.core.process_ending import call_after_end
from eva_stages.core.stage import load_attribute
from eva_stages.solver.job import TrainingJob, read_job
from eva_stages.solver.machine import Marks, launcher

PAIRWISE = "eva_stages.solver.preference:train"
REFERENCE_FREE = "eva_stages.solver.experimental:train"
ON_POLICY = "eva_stages.solver.online:train"
WAITING_TIME = timedelta(hours=1)
"""How long training processes wait for each other. By default it is 10 minutes on GPUs, which is less than a reward or an evolver waits
for a provider that does not respond."""
NOT_PAIRWISE = {"simpo": REFERENCE_FREE, "orpo": REFERENCE_FREE, **dict.fromkeys(ON_POLICY_LOSSES, ON_POLICY)}
"""By kind of loss; every other loss is over pairs with a reference policy."""


def train_here(job_file: str, launch_file: str, environment: dict[str, str]) -> None:
    """Train in this process, as the only one, with additions to its environment."""
    use_this_process(launch_file, environment)
    try:
        train(job_file)
    finally:
        if tracker := sys.modules.get("wandb"):  # wandb waits for the interpreter to exit, which does not happen here
            tracker.finish()


def use_this_process(launch_file: str, environment: dict[str, str]) -> None:
    """Prepare this process to be the only one that trains, with additions to its environment."""
    os.environ.update({**single_process_environment(launch_file), **environment})
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # torch was imported before and does not read the variable again
    if not parse_flag_from_env("ACCELERATE_USE_CPU"):
        free_devices()
        take_devices(1)  # transformers would use all visible devices for DataParallel


def train_launched(job_file: str) -> None:
    """Train as one of the processes that a launcher has started. Any exception ends the process at once with exit code 1."""
    mark = Marks.own_mark(Path(job_file).parent)
    mark.touch()
    try:
        train(job_file)
    except BaseException as error:
        print_trace(error)
        cause = describe(error)
        print(cause if "Error" in cause else f"Error: {cause}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(1)
    mark.unlink()


def train(job_file: str) -> None:
    """Train with the trainer of the job's loss."""
    job = started_job(job_file)
    load_attribute(trainer_target(job.loss.kind))(job)


def started_job(job_file: str) -> TrainingJob:
    """Read a job, and decide on which devices this process works.

    Raises:
        ConfigError: if the launch file shards with FSDP and this process works on the CPU. accelerate would ignore that, and transformers
            would load the weights in the first process only.
    """
    job = read_job(Path(job_file))
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    if on_cpu and parse_flag_from_env("ACCELERATE_USE_FSDP"):
        launch = job.training.runtime.launch
        raise ConfigError([f"runtime.launch: {launch} shards with FSDP, which accelerate does on GPUs only; use cpu or cpu_2 on a CPU"])
    # the first PartialState decides for the process: without `cpu`, each process on a CPU would train alone
    PartialState(cpu=on_cpu, timeout=WAITING_TIME)
    return job


def trainer_target(kind: str) -> str:
    """The function that trains with a kind of loss, as "module:attr"."""
    return NOT_PAIRWISE.get(kind, PAIRWISE)


if __name__ == "__main__":
    # an orphan would continue to write the files of a rerun
    for pid in {launcher(), os.getppid()}:
        call_after_end(pid, lambda: os._exit(1))
    train_launched(sys.argv[1])
