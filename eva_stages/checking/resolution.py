"""The only code between a recipe and its stages that reads files, the Hub and the network, and that hashes.

Each model, file and function of the recipe is visited once; errors are collected, so that all of them are reported together.
"""

from typing import Any

from eva_stages.checking.recipe_references import FileReference, FunctionReference, ModelReference, references
from eva_stages.core.config.evaluation_config import benchmark_name
from eva_stages.core.config.prompts_config import FilePrompts, HubPrompts, LettercraftPrompts, ReasoningGymPrompts
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError, DataError
from eva_stages.core.homes import FileSource, find_file
from eva_stages.core.manifests import package_version
from eva_stages.core.named_functions import NamedFunction, resolve_function
from eva_stages.core.recipe_files import run_date
from eva_stages.core.resolved import Checkpoint, PromptSource, Resolved
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import Outside
from eva_stages.creator.hub_prompts import dataset_commit, prompt_source
from eva_stages.creator.prompt_loading import LeftOutRows, count_usable
from eva_stages.evaluation.benchmark_files import file_sources
from eva_stages.evaluation.judge_prompts import needs_system_prompts
from eva_stages.models.loading import find_checkpoint


def resolve(recipe: Recipe, run: Run | None = None, known_sources: dict[Any, Any] | None = None) -> Resolved:
    """Everything that a recipe names outside eva. What cannot be found is missing, and `errors` has its field and the reason.

    Args:
        run: where the run is to be. Without a date in the recipe, that of the day on which it began counts.
        known_sources: models and files that recipes resolved before have in common with this one; those of this recipe are added.
    """
    known_sources = {} if known_sources is None else known_sources
    errors: list[str] = []
    first_errors: dict[tuple[object, ...], tuple[str, list[str]]] = {}
    checkpoints: dict[tuple[str, str | None], Checkpoint] = {}
    files: dict[FileSource, Outside] = {}
    functions: dict[str, NamedFunction] = {}
    commit, prompts = None, None
    for reference in references(recipe):
        if reference[1:] in first_errors:  # not located a second time: the Hub's client retries for half a minute
            first_place, texts = first_errors[reference[1:]]
            errors += [reference.place + text.removeprefix(first_place) for text in texts]
            continue
        try:
            match reference:
                case ModelReference(place, model, revision) if (model, revision) not in checkpoints:
                    key = (model, revision)
                    checkpoints[key] = known_sources[key] if key in known_sources else find_checkpoint(model, revision, place)
                case FileReference(place, source, advice) if source not in files and _is_needed(source, files):
                    files[source] = known_sources[source] if source in known_sources else find_file(source, place, advice)
                case FunctionReference(place, choice) if choice not in functions:
                    functions[choice] = resolve_function(choice, place)
        except (ConfigError, DataError) as error:
            texts = error.faults if isinstance(error, ConfigError) else [f"{reference.place}: {error}"]
            first_errors[reference[1:]] = reference.place, texts
            errors += texts
    known_sources.update(checkpoints)
    known_sources.update(files)
    try:
        commit, prompts = _prompt_source(recipe, checkpoints, files)
    except ConfigError as error:
        errors += error.faults
    except DataError as error:
        errors.append(str(error))
    benchmarks = {
        benchmark_name(benchmark): {name: files[source] for name, source in file_sources(benchmark).items() if source in files}
        for benchmark in recipe.evaluation.benchmarks
    }
    date = recipe.runtime.date or (run_date(run.root) if run else None)
    tasks_version = package_version("reasoning-gym")
    return Resolved(checkpoints, files, benchmarks, functions, commit, prompts, date, tasks_version, tuple(dict.fromkeys(errors)))


def _is_needed(source: FileSource, files: dict[FileSource, Outside]) -> bool:
    """A file with system prompts is needed only where the settings file before it holds none."""
    return source.settings is None or (source.settings in files and needs_system_prompts(files[source.settings].path))


def _prompt_source(
    recipe: Recipe, checkpoints: dict[tuple[str, str | None], Checkpoint], files: dict[FileSource, Outside]
) -> tuple[str | None, PromptSource | None]:
    """The commit of the prompts' data set, and what can be used of it or of the prompts' file."""
    commit = dataset_commit(recipe.prompts.id, recipe.prompts.revision) if isinstance(recipe.prompts, HubPrompts) else None
    prompts, policy = recipe.prompts, checkpoints.get((recipe.policy.model, recipe.policy.revision))
    is_available = commit is not None or (isinstance(prompts, FilePrompts) and FileSource(prompts.path) in files)
    if isinstance(prompts, LettercraftPrompts | ReasoningGymPrompts) or policy is None or not is_available:
        return commit, None
    left_out_rows = LeftOutRows()
    usable = count_usable(prompt_source(prompts, commit), prompts.max_characters, str(policy.path), left_out_rows)
    left_out_count = sum(left_out_rows.counts[reason] for reason in left_out_rows.rows)
    return commit, PromptSource(usable, left_out_rows.counts["read"], left_out_count, left_out_rows.summary())
