"""Checkpoints of an unfinished training. One is complete if its files match the digests recorded when it was saved."""

import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from eva_stages.core.decoding import decode_json
from eva_stages.core.durable import write_whole
from eva_stages.core.fingerprint import file_digest
from eva_stages.core.patches import keep_last_checkpoints
from eva_stages.solver.finite import non_finite_weight

WHOLE = "whole.json"
KEPT_CHECKPOINTS = 2
"""Checkpoints of an unfinished training."""


class CheckpointDigests(TrainerCallback):
    """Writes the digests of a checkpoint's files beside it, and deletes all but the last checkpoints."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        PartialState().wait_for_everyone()  # each process writes its own files
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            write_whole(folder / WHOLE, json.dumps(_digests(folder)))
            keep_last_checkpoints(args.output_dir, KEPT_CHECKPOINTS)


def last_complete_checkpoint(folder: Path) -> str | None:
    """The last checkpoint that is complete and finite. Later ones are moved aside, with a message."""
    for _ in range(len(list(folder.glob("checkpoint-*")))):
        last = get_last_checkpoint(str(folder))
        if last is None:
            return None
        problem = _problem(Path(last))
        if problem is None:
            return last
        print(f"{last} {problem}; using the previous checkpoint", flush=True)
        broken_folder = Path(last).with_name("broken-" + Path(last).name)
        shutil.rmtree(broken_folder, ignore_errors=True)
        Path(last).rename(broken_folder)
    return None


def _problem(folder: Path) -> str | None:
    """Why training cannot resume from a checkpoint; None if it can."""
    if not _is_complete(folder):
        return "is incomplete"
    weight = non_finite_weight(folder)
    return None if weight is None else f"has weights that are not finite ({weight})"


def _is_complete(folder: Path) -> bool:
    try:
        recorded_digests = decode_json((folder / WHOLE).read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return bool(_digests(folder) == recorded_digests)


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (WHOLE, f"{WHOLE}.partial"))
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}
