"""The training of the creator, by the trainers of the solver. Without a pair the creator stays as it is."""

import shutil
from pathlib import Path
from typing import Any

from eva_stages.core.errors import StageError
from eva_stages.core.process import run_in_child
from eva_stages.core.runner import Context
from eva_stages.core.tables import count_rows
from eva_stages.solver.launching import train

SECTION = "creator.training"


def train_creator(context: Context, runtime: dict[str, Any], *, keeps_adapter: bool, **settings: Any) -> dict[str, Any]:
    """Train the creator on pairs of its evolutions; the arguments are those of `launching.train`.

    Raises:
        StageError: with the end of the training log, if the process fails.
    """
    if count_rows(context.inputs["pairs"]) == 0:
        context.task.note("warning: there is no pair of siblings of which one is known to be better, so the creator stays as it is")
        _keep(context, settings["training"]["adapter"] if keeps_adapter else None)
        return {"counts": {"pairs": 0, "steps": 0}, "training": {}}
    try:
        return train(context, runtime, keeps_adapter=keeps_adapter, section=SECTION, **settings)
    except StageError as error:  # the trainers, which solver and creator share, name the solver's fields
        raise StageError(str(error).replace("solver.training", SECTION)) from error


def _keep(context: Context, adapter: dict[str, Any] | None) -> None:
    """Write the present creator to the artifact; `adapter`: the settings of the adapter, where the creator is one."""
    target = context.work / "model"
    shutil.rmtree(target, ignore_errors=True)
    present: Path | None = context.inputs["policy"] if adapter is None else context.inputs.get("adapter")
    if present is not None:
        shutil.copytree(present, target, ignore=shutil.ignore_patterns("training_log.json"))
        return
    arguments = {"base": str(context.inputs["policy"]), "adapter": adapter, "folder": str(target)}
    run_in_child("eva_stages.solver.saving:write_new_adapter", arguments, context.work / "adapter.log", lambda: None)
