"""Where runs and studies are: a folder, or a name below `runs/` of the current folder."""

from pathlib import Path

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError
from eva_stages.core.run_folder import Run
from eva_stages.core.store import default_store
from eva_stages.core.study_record import STUDY_FILE

RUNS = Path("runs")


def run_of(recipe: Recipe, folder: Path | None, store: Path | None, store_name: str = "store") -> Run:
    """The run of a recipe in `folder`, or else in runs/NAME.

    Args:
        store: folder where runs share artifacts; None: the default of the folder.
        store_name: of the argument, for errors.

    Raises:
        ConfigError: if the folder or the store is a file.
    """
    root = folder if folder is not None else RUNS / recipe.name
    _check_folder("folder of the run", root)
    if store is not None:
        _check_folder(store_name, store)
    return Run(root, store if store is not None else default_store(root))


def existing_study(name: str) -> Path | None:
    """The folder of the study that the user names, by folder or by its name below `runs/`; None if it is not one."""
    return next((folder for folder in (Path(name), RUNS / name) if (folder / STUDY_FILE).is_file()), None)


def existing_run(name: str) -> Run:
    """The run that the user names, by folder or by its name below `runs/`.

    Raises:
        ConfigError: if there is no such run, with the names of those that exist.
    """
    for folder in (Path(name), RUNS / name):
        if (folder / "recipe.yaml").is_file():
            return Run(folder)
    if (study := existing_study(name)) is not None:
        runs = sorted(str(path.parent) for path in study.glob("*/*/recipe.yaml"))
        example = f"name one of its {len(runs)} runs, as in {runs[0]}" if runs else "it has no run yet"
        raise ConfigError([f"{name} is a study; {example}. `eva ablate` writes the study's report to {study / 'report.html'}"])
    names = sorted(path.parent.name for path in [*RUNS.glob("*/recipe.yaml"), *RUNS.glob("*/study.json")])
    raise ConfigError([f"{name} is not a run (it has no recipe.yaml); runs and studies in this directory: {', '.join(names) or 'none'}"])


def check_study_folder(folder: Path) -> None:
    """Raises:
    ConfigError: if it is a file, or the folder of a run.
    """
    _check_folder("folder of the study", folder)
    if (folder / "recipe.yaml").is_file():
        raise ConfigError([f"{folder} is the folder of a run; choose another one for the study with --study-dir"])


def _check_folder(name: str, path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise ConfigError([f"{name}: {path} is not a folder; choose another one"])
