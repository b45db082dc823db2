"""Everything that `eva doctor` checks within two seconds."""

from pathlib import Path
from typing import Any

from eva_stages.core.config.recipe import Recipe
from eva_stages.doctor.device_findings import device_rows, read_gpus
from eva_stages.doctor.findings import document
from eva_stages.doctor.machine_findings import machine_rows
from eva_stages.doctor.package_findings import package_rows


def diagnose(recipe: Recipe | None, online: bool = False, runs: Path = Path("runs")) -> dict[str, Any]:
    """The document of all rows.

    Args:
        recipe: whose needs are checked too.
        online: connect to the servers of the recipe.
        runs: the folder where runs are written.
    """
    gpus = read_gpus()
    sections = {
        "Python and packages": list(package_rows()),
        "GPUs": list(device_rows(gpus)),
        "This machine": list(machine_rows(runs)),
    }
    if recipe is not None:
        from eva_stages.doctor.recipe_findings import recipe_rows

        sections[f"What the recipe {recipe.name} needs"] = list(recipe_rows(recipe, gpus, online))
    return document(sections)
