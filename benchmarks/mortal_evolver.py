"""An evolver of Lettercraft for `benchmarks.online_chaos`: its process is killed in the middle of a call when a file says so."""

import contextlib
import os
import signal
from pathlib import Path

import numpy as np

from eva_stages.lettercraft.language import parse
from eva_stages.lettercraft.mutations import deep_mutation

ORDER = "EVA_CHAOS_ORDER"
"""Variable with the name of a file. While the file exists, the next call deletes it and kills its process."""

KINDS = ("add one more constraints", "depth and breadth", "simple thinking processes", "another word")


def evolve(text: str, reference: str | None, rng: np.random.Generator) -> tuple[str, str | None, str] | None:
    if order := os.environ.get(ORDER):
        with contextlib.suppress(FileNotFoundError):
            Path(order).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    instruction = parse(text)
    if instruction is None:
        return None
    kind = str(rng.choice(KINDS))
    return str(deep_mutation(kind, instruction, rng)), None, kind
