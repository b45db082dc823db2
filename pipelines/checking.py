"""Everything a recipe points to, looked at before anything expensive starts; all faults at once."""

import json
import sys
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from eva_stages.core.config import (
    ArmoRMReward,
    EnsembleReward,
    FilePrompts,
    HubPrompts,
    LiteLLMModel,
    LLMJudgeReward,
    LocalReward,
    PairPreferenceReward,
    PairRMReward,
    Player,
    Recipe,
    Topics,
    TransformersModel,
    VerifierReward,
    VLLMGenerator,
    VLLMModel,
)
from eva_stages.core.errors import ConfigError, HubError
from eva_stages.core.stage import load_attribute
from eva_stages.creator.questions import find_questions
from eva_stages.models.choosing import OneReward, check_trust
from eva_stages.models.loading import resolve
from eva_stages.models.providers import provider_key


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
        lambda: _launch(recipe),
        lambda: _player(recipe.creator.evolve.generator, "creator.evolve.generator"),
        lambda: _benchmarks(recipe),
        lambda: _vllm(recipe),
        lambda: _curating(recipe),
        lambda: _mixing(recipe),
        lambda: _analysis(recipe),
    ]
    looks += [partial(_reward, config, place) for config, place in _rewards(recipe)]
    looks += [
        partial(_player, benchmark.judge, f"evaluation.benchmarks.{index}.judge")
        for index, benchmark in enumerate(recipe.evaluation.benchmarks)
    ]
    if isinstance(recipe.prompts, FilePrompts):
        looks.append(partial(_prompts, recipe.prompts))
    if isinstance(recipe.prompts, HubPrompts):
        looks.append(partial(_hub_prompts, recipe.prompts))
    if recipe.publish:
        looks.append(partial(_account, recipe.publish.to))
    return looks


def _prompts(prompts: FilePrompts) -> None:
    from eva_stages.creator.prompts import read_prompt_file

    read_prompt_file(Path(prompts.path).expanduser(), prompts.column, prompts.reference_column)


def _hub_prompts(prompts: HubPrompts) -> None:
    from eva_stages.creator.hub_prompts import dataset_commit, read_hub_prompts

    commit = dataset_commit(prompts.id, prompts.revision)
    read_hub_prompts(prompts.id, prompts.config, prompts.split, commit, prompts.column, prompts.reference_column)


def _account(namespace: str) -> None:
    from eva_stages.publishing.hub import Hub

    try:
        Hub(partial(print, file=sys.stderr)).check_account(namespace)
    except HubError as error:
        raise ConfigError([f"publish: {error}"]) from error


def _rewards(recipe: Recipe) -> list[tuple[OneReward, str]]:
    """Every reward of the recipe that scores by itself, with its place."""
    if isinstance(recipe.reward, EnsembleReward):
        return [(member.reward, f"reward.members.{index}.reward") for index, member in enumerate(recipe.reward.members)]
    return [(recipe.reward, "reward")]


def _reward(config: OneReward, place: str) -> None:
    match config:
        case LocalReward():
            if isinstance(config, ArmoRMReward):
                check_trust(config, place)
            resolve(config.model, config.revision, f"{place}.model")
        case VerifierReward():
            _verifier(config, place)
        case LLMJudgeReward():
            _player(config.judge, f"{place}.judge")


def _verifier(config: VerifierReward, place: str) -> None:
    from eva_stages.models.rewards import VERIFIERS

    try:
        load_attribute(VERIFIERS.get(config.function, config.function))
    except (ImportError, AttributeError) as error:
        raise ConfigError([f"{place}.function: {config.function} cannot be imported: {error}"]) from error


def _player(player: Player, place: str) -> None:
    match player:
        case TransformersModel() | VLLMModel():
            resolve(player.model, player.revision, f"{place}.model")
        case LiteLLMModel():
            provider_key(player.model, player.api_base, player.runtime.api_key_env, place)


def _vllm(recipe: Recipe) -> None:
    creator = recipe.creator
    critic = creator.evolve.feedback and creator.evolve.feedback.critic
    asked = [recipe.policy.generator, creator.evolve.generator, critic, creator.analysis and creator.analysis.scorer]
    if any(isinstance(one, VLLMGenerator) for one in asked) and find_spec("vllm") is None:
        raise ConfigError(["a generator is of kind vllm, which is not installed: pip install 'eva-align[vllm]', or take kind transformers"])


def _mixing(recipe: Recipe) -> None:
    replay, evolved = recipe.creator.replay, recipe.creator.mix.evolved_share
    if replay and evolved + replay.share > 1:
        raise ConfigError(
            [
                f"creator.replay.share: {replay.share} and creator.mix.evolved_share, {evolved}, are more than the whole; "
                f"give at most {1 - evolved:.3g}, or fewer evolved prompts"
            ]
        )
    feedback = recipe.creator.evolve.feedback
    if feedback and feedback.critic:
        _player(feedback.critic, "creator.evolve.feedback.critic")


def _analysis(recipe: Recipe) -> None:
    analysis = recipe.creator.analysis
    if recipe.creator.selection.topic_share and not (analysis and analysis.topics):
        raise ConfigError(["creator.selection.topic_share: balances topics, and there are none; give creator.analysis.topics, or 0"])
    if analysis and not analysis.scorer and not analysis.topics:
        raise ConfigError(["creator.analysis: has nothing to look for; give it a scorer, topics, or both"])
    if analysis and analysis.scorer:
        _player(analysis.scorer, "creator.analysis.scorer")
    if analysis and analysis.topics:
        _classifier(analysis.topics)


def _classifier(topics: Topics) -> None:
    place = "creator.analysis.topics"
    if len(set(topics.labels)) < len(topics.labels):
        raise ConfigError([f"{place}.labels: {', '.join(topics.labels)} names a topic twice"])
    folder = resolve(topics.model, topics.revision, f"{place}.model").path
    labels = list(json.loads((folder / "config.json").read_text()).get("label2id") or {})
    if not any(label.lower().startswith("entail") for label in labels):
        known = ", ".join(labels) or "none"
        raise ConfigError(
            [
                f"{place}.model: {topics.model} has the labels {known}; a zero-shot classifier is a model of natural-language "
                "inference and has one that begins with entail"
            ]
        )


def _curating(recipe: Recipe) -> None:
    curate = recipe.creator.curate
    for name in curate.decontaminate.against if curate.decontaminate else ():
        find_questions(name, "creator.curate.decontaminate.against")
    if curate.diversity:
        resolve(curate.diversity.model, curate.diversity.revision, "creator.curate.diversity.model")


def _benchmarks(recipe: Recipe) -> None:
    absolute = not isinstance(recipe.reward, EnsembleReward | PairRMReward | PairPreferenceReward)
    if recipe.evaluation.benchmarks and not absolute:
        raise ConfigError(
            [
                f"evaluation.benchmarks: lettercraft compares rewards between policies, and {recipe.reward.kind} rewards only compare "
                "responses of one stage; give a reward of another kind, or no benchmarks"
            ]
        )


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
