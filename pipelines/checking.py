"""Everything a recipe points to, looked at before anything expensive starts; all faults at once."""

from collections.abc import Callable
from pathlib import Path

from eva_stages.core.config import FilePrompts, Lettercraft, Player, Recipe, TransformersModel, VerifierReward
from eva_stages.core.errors import ConfigError
from eva_stages.core.stage import load_attribute
from eva_stages.models.choosing import reward_model
from eva_stages.models.loading import resolve


def check(recipe: Recipe) -> None:
    """Raises:
    ConfigError: with every model, file, function and launch file that is missing or does not fit.
    """
    faults: list[str] = []
    for look in _looks(recipe):
        try:
            look()
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)


def _looks(recipe: Recipe) -> list[Callable[[], object]]:
    looks: list[Callable[[], object]] = [
        lambda: resolve(recipe.policy.model, recipe.policy.revision, "policy.model"),
        lambda: reward_model(recipe.reward),
        lambda: _launch(recipe),
        lambda: _player(recipe.creator.evolve.generator, "creator.evolve.generator"),
    ]
    looks += [_judge(benchmark, index) for index, benchmark in enumerate(recipe.evaluation.benchmarks)]
    if isinstance(recipe.prompts, FilePrompts):
        looks.append(lambda: _prompts(recipe.prompts))
    if isinstance(recipe.reward, VerifierReward):
        looks.append(lambda: _verifier(recipe.reward))
    return looks


def _prompts(prompts: object) -> None:
    from eva_stages.creator.prompts import read_prompt_file

    assert isinstance(prompts, FilePrompts)
    read_prompt_file(Path(prompts.path).expanduser(), prompts.column)


def _verifier(reward: object) -> None:
    assert isinstance(reward, VerifierReward)
    try:
        load_attribute(reward.function)
    except (ImportError, AttributeError) as error:
        raise ConfigError([f"reward.function: {reward.function} cannot be imported: {error}"]) from error


def _player(player: Player, place: str) -> None:
    if isinstance(player, TransformersModel):
        resolve(player.model, player.revision, f"{place}.model")


def _judge(benchmark: Lettercraft, index: int) -> Callable[[], None]:
    return lambda: _player(benchmark.judge, f"evaluation.benchmarks.{index}.judge")


def _launch(recipe: Recipe) -> None:
    from eva_stages.solver.launching import launch_file, process_count

    training = recipe.solver.training
    processes = process_count(launch_file(training.runtime.launch))
    micro = min(training.runtime.micro_batch_size, max(1, training.batch_size // processes))
    if training.batch_size % (micro * processes):
        raise ConfigError(
            [
                f"solver.training.batch_size: {training.batch_size} pairs cannot be made of micro batches of {micro} on {processes} "
                f"processes; give a multiple of {micro * processes}"
            ]
        )
