"""The training entry, run by `accelerate launch -m eva_stages.solver.training JOB.json`: one for every optimiser.

The job's `kind` names the loss; the code behind it is imported only then. A trainer is a function `f(job)` that ends with
`fitting.fit`, which resumes, saves and reports in the same way for all of them.
"""

import contextlib
import json
import os
import sys
import threading
from pathlib import Path
from typing import get_args

import psutil
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from eva_stages.core.config.solver import OtherDPO
from eva_stages.core.stage import load_attribute
from eva_stages.solver.machine import LAUNCHER

PAIRWISE = "eva_stages.solver.preference:train"
REFERENCE_FREE = "eva_stages.solver.experimental:train"
OTHERS = get_args(OtherDPO.model_fields["kind"].annotation)
TRAINERS = {
    **dict.fromkeys(("dpo", "ipo", "sppo", *OTHERS), PAIRWISE),
    **dict.fromkeys(("simpo", "orpo"), REFERENCE_FREE),
    "rloo": "eva_stages.solver.online:train",
}


def die_with(pid: int) -> None:
    """End this process when the one that launched it on this machine ends: an orphan would go on writing where a rerun starts to write."""

    def wait() -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).wait()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def main(job_file: str) -> None:
    job = json.loads(Path(job_file).read_text())
    if launcher := os.environ.get(LAUNCHER):
        die_with(int(launcher))
    die_with(os.getppid())
    # whoever asks first settles it for the process: without the word, processes on CPUs would each train alone
    PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())
    load_attribute(TRAINERS[job["kind"]])(job)


if __name__ == "__main__":
    main(sys.argv[1])
