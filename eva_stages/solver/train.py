"""The training entry, one for every optimiser: `accelerate launch -m eva_stages.solver.train JOB.json`.

A training of one process skips that start: it is a child of the fork server, where the libraries are imported already. The job's
`kind` names the loss; the code behind it is imported only then. A trainer is a function `f(job)` that ends with `fitting.fit`, which
resumes, saves and reports in the same way for all of them.
"""

import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from eva_stages.core.devices import free_devices, take_devices
from eva_stages.core.errors import describe
from eva_stages.core.patches import single_process_environment
from eva_stages.core.process import print_trace, when_gone
from eva_stages.core.stage import load_attribute
from eva_stages.solver.job import read_job
from eva_stages.solver.machine import Marks, launcher

PAIRWISE = "eva_stages.solver.preference:train"
REFERENCE_FREE = "eva_stages.solver.experimental:train"
NOT_PAIRWISE = {"simpo": REFERENCE_FREE, "orpo": REFERENCE_FREE, "rloo": "eva_stages.solver.online:train"}
"""By the loss's kind; every other loss is one of pairs with a reference policy."""


def train_here(job_file: str, launch_file: str, environment: dict[str, str]) -> None:
    """Train in this process, as the only one, with what is added to the environment."""
    os.environ.update({**single_process_environment(launch_file), **environment})
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # torch, already imported, does not look again
    if not parse_flag_from_env("ACCELERATE_USE_CPU"):
        free_devices()
        take_devices(1)  # transformers would take all that it sees, for DataParallel
    try:
        train(job_file)
    finally:
        if tracker := sys.modules.get("wandb"):  # which waits for the end of the interpreter, and that does not come here
            tracker.finish()


def train_launched(job_file: str) -> None:
    """Train as one of the processes that a launcher has started. Whatever training raises is exit code 1, at once."""
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
    job = read_job(Path(job_file))
    # whoever asks first settles it for the process: without the word, processes on CPUs would each train alone
    PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())
    load_attribute(trainer_target(job.loss.kind))(job)


def trainer_target(kind: str) -> str:
    """The function that trains with a kind of loss, as "module:attr"."""
    return NOT_PAIRWISE.get(kind, PAIRWISE)


if __name__ == "__main__":
    # an orphan would go on writing where a rerun starts to write
    for pid in {launcher(), os.getppid()}:
        when_gone(pid, lambda: os._exit(1))
    train_launched(sys.argv[1])
