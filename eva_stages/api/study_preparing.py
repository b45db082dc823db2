"""From a study to its runs, for every command that needs them: read, resolve, check and build all arms. All errors at once."""

import datetime
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from eva_stages.api.preparing import prepare
from eva_stages.checking.provider_checks import providers
from eva_stages.checking.study_checks import measure_of
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError
from eva_stages.core.resolved import Resolved
from eva_stages.core.rounds import stages_of
from eva_stages.core.run_folder import Run
from eva_stages.core.store import STORE, default_store, recorded_store
from eva_stages.core.study_files import LoadedStudy, load_study, varied_study
from eva_stages.core.study_record import Budget, StudyRecord, StudyRun, earlier_study
from eva_stages.planning.rates import Rates
from eva_stages.planning.study_plan import PlannedArm, iterations_within, study_plan, study_rates
from pipelines.ablation import ArmRun, arm_runs


class PreparedStudy(NamedTuple):
    """A study that can run."""

    record: StudyRecord
    runs: list[ArmRun]
    """In the order in which they are started."""
    notes: list[str]


def read_request(
    name: str, variations: list[str], overrides: list[str], base: str | None = None, measure: str | None = None, seeds: str | None = None
) -> LoadedStudy:
    """The study that a command line asks for: a file or packaged study, or with `--vary` a recipe."""
    changes: dict[str, Any] = {"base": base, "measure": measure, "seeds": _seeds(seeds)}
    changes = {field: value for field, value in changes.items() if value is not None}
    if not variations:
        return load_study(name, changes, overrides)
    if base is not None:
        raise ConfigError(["--base: with --vary the argument is the recipe; omit --base"])
    if seeds is None:
        raise ConfigError(["--seeds: is missing; --vary needs the number of seeds, as in --seeds 10"])
    return varied_study(name, variations, changes, overrides)


def _seeds(text: str | None) -> Any:
    """`10`, or a list as in `1,2,3`; other texts are returned as they are, and refused by the study."""
    if text is None:
        return None
    numbers = [part.strip() for part in text.split(",") if part.strip()]
    if not numbers or not all(number.isdecimal() for number in numbers):
        return text
    return [int(number) for number in numbers] if "," in text else int(text)


def prepare_study(
    loaded_study: LoadedStudy, folder: Path, command: str | None = None, keys: bool = True, online: bool = False
) -> PreparedStudy:
    """Everything that can be known before a stage runs, of all arms.

    Args:
        folder: of the study.
        command: that reruns it.
        keys, online: as for `prepare`.

    Raises:
        ConfigError: with everything that is missing or does not fit, in any arm.
    """
    study, date = loaded_study.study, _date(folder)
    recipes = {arm: _with_date(recipe, date) for arm, recipe in loaded_study.recipes.items()}
    known_sources: dict[Any, Any] = {}
    resolved: dict[str, Resolved] = {}
    stages: dict[str, set[str]] = {}
    arms_of_fault: dict[str, list[str]] = {}
    notes: list[str] = []
    for arm, recipe in recipes.items():
        try:
            resolved[arm], rounds, arm_notes = prepare(recipe, None, keys, online, known_sources)
        except ConfigError as error:
            for fault in error.faults:
                arms_of_fault.setdefault(fault, []).append(arm)
            continue
        notes += arm_notes
        stages[arm] = {stage.fingerprint for stage in stages_of(rounds)}
    faults = [fault if len(arms) == len(recipes) else f"arm {', '.join(arms)}: {fault}" for fault, arms in arms_of_fault.items()]
    for first, second in combinations(stages, 2):
        if stages[first] == stages[second]:
            faults.append(f"arms: {first} and {second} have the same stages, so that their difference is 0; change or remove one")
    measure = measure_of(study, recipes, faults)
    if faults:
        raise ConfigError(faults)
    if capped_models := dict.fromkeys(
        place for recipe in recipes.values() for place, model in providers(recipe) if model.runtime.max_cost_usd is not None
    ):
        notes.append(
            f"{', '.join(capped_models)}: max_cost_usd limits each stage (of judges: each run), not the study; `eva ablate --plan` shows "
            "what all runs cost"
        )
    if any(recipe.publish for recipe in loaded_study.recipes.values()):
        notes.append("a study pushes nothing; `publish` of the recipe is ignored")
    record = StudyRecord(
        name=loaded_study.name,
        question=study.question,
        paper=study.paper,
        base=study.base,
        set=study.set,
        measure=measure,
        seeds=loaded_study.seeds,
        arms=study.arms,
        contrasts=study.pairs,
        budget=Budget(iterations=study.most_iterations, generated_tokens=study.budget.generated_tokens if study.budget else None),
        runs=tuple(StudyRun(arm=arm, seed=seed, folder=f"{arm}/{seed}") for arm in study.arms for seed in loaded_study.seeds),
        command=command,
        date=date,
    )
    return PreparedStudy(record, arm_runs(study, recipes, resolved, loaded_study.seeds), list(dict.fromkeys(notes)))


def _with_date(recipe: Recipe, date: datetime.date) -> Recipe:
    """The recipe as a study runs it: with the study's date, unless it has its own, and without pushing."""
    runtime = recipe.runtime.model_copy(update={"date": recipe.runtime.date or date})
    return recipe.model_copy(update={"runtime": runtime, "publish": None})


def _date(folder: Path) -> datetime.date:
    """The day on which the study in a folder began, else today: a rerun on another day samples what the first day sampled."""
    study = earlier_study(folder)
    return (study and study.date) or datetime.date.today()


def study_store(folder: Path, arms: Mapping[str, Any]) -> Path:
    """The store of a study's runs: the one that they used before, or `.store` beside the study's folder, or in it."""
    used_stores = [store for arm in arms for run in sorted((folder / arm).glob("*")) if (store := recorded_store(run)) is not None]
    store = next((store for store in used_stores if store.is_dir()), None) or default_store(folder)
    return folder / STORE if store == folder else store


def planned_study(prepared_study: PreparedStudy, folder: Path, store: Path, given_rates: Rates) -> dict[str, Any]:
    """The plan of a study (see `study_plan`)."""
    record = prepared_study.record
    tokens = record.budget.generated_tokens
    arms = [_planned_arm(prepared_study, arm, folder, store, 1 if tokens else None) for arm in record.arms]
    rates = study_rates(arms, given_rates)
    if tokens is not None:
        counts = [iterations_within(_planned_arm(prepared_study, arm.name, folder, store, None), tokens, rates) for arm in arms]
        arms = [_planned_arm(prepared_study, arm.name, folder, store, count) for arm, count in zip(arms, counts, strict=True)]
    return study_plan(record, str(folder), arms, rates)


def _planned_arm(prepared_study: PreparedStudy, arm: str, folder: Path, store: Path, iterations: int | None) -> PlannedArm:
    """An arm with some iterations; None: those that a run has at most."""
    runs = sorted((run for run in prepared_study.runs if run.arm == arm), key=lambda run: prepared_study.record.seeds.index(run.seed))
    count = runs[0].recipe.iterations if iterations is None else iterations
    rounds = [run.rounds(count) for run in runs]
    recipe = runs[0].recipe.model_copy(update={"iterations": count})
    stages = [stages_of(own_rounds) for own_rounds in rounds]
    return PlannedArm(arm, recipe, runs[0].resolved, rounds[0], Run(folder / runs[0].label, store), stages)
