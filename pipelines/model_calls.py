"""Deferred calls of generators and rewards, from the recipe's choices; their code is not imported."""

from collections.abc import Mapping
from typing import Any

from eva_stages.core.config.models_config import (
    Evolver,
    LiteLLMModel,
    PolicyModel,
    TransformersGenerator,
    TransformersModel,
    VLLMGenerator,
    VLLMModel,
)
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import LLMJudgeReward, LocalReward, OneReward, VerifierReward
from eva_stages.core.config.section import Section
from eva_stages.core.homes import FileSource
from eva_stages.core.manifests import artifact_name
from eva_stages.core.resolved import Checkpoint, Resolved
from eva_stages.core.stage import WORK, Input, Outside, Stage, Use
from eva_stages.models.loading import PACKAGED_POLICIES

Inputs = Mapping[str, Stage | Outside]


def policy_generator(recipe: Recipe, resolved: Resolved, model: Stage | Outside, **changes: Any) -> tuple[Use, Inputs]:
    """The policy's generator on a checkpoint, and the inputs it needs; `changes` replace sampling settings."""
    return _checkpoint_generator(recipe.policy.generator, resolved, "policy", model, changes)


def generator(
    config: Evolver,
    recipe: Recipe,
    resolved: Resolved,
    model: Stage | Outside,
    role: str,
    journal: str = WORK,
    trained_model: Stage | None = None,
) -> tuple[Use, Inputs]:
    """A generator of the recipe (`role`: evolver, judge, ...), and the inputs it needs.

    Args:
        model: the policy, for a generator of kind `policy`.
        journal: where paid calls are saved: with the attempt (`WORK`), or with the run, for all its stages (`RUN`).
        trained_model: the checkpoint to use in place of the recipe's own model.
    """
    match config:
        case PolicyModel():
            return policy_generator(recipe, resolved, model, **config.model_dump(mode="json", exclude={"kind"}))
        case TransformersModel() | VLLMModel():
            checkpoint = trained_model or resolved.checkpoint(config.model, config.revision)
            return _checkpoint_generator(config, resolved, role, checkpoint, {})
        case _:
            arguments, runtime = _settings(config)
            journals = {"journal": Input(journal), "attempt": Input(WORK)} if isinstance(config, LiteLLMModel) else {}
            return Use(config.target, arguments, {**runtime, **journals}), {}


def reward_model(config: OneReward, recipe: Recipe, resolved: Resolved, model: Stage | Outside) -> tuple[Use, Inputs]:
    """A reward of the recipe, and the checkpoints it needs."""
    if isinstance(config, LLMJudgeReward):
        judge, inputs = generator(config.judge, recipe, resolved, model, "judge")
        return Use(config.target, {"llm": judge, "rubric": config.rubric}), inputs
    if isinstance(config, VerifierReward):
        target = config.majority_target if config.missing_reference else config.target
        return Use(target, {"function": resolved.function(config.function)}), {}
    arguments, runtime = _settings(config)
    if not isinstance(config, LocalReward):
        return Use(config.target, arguments), {}
    checkpoint = resolved.checkpoint(arguments["model"], arguments.pop("revision"))
    date = date_of(resolved, checkpoint) if config.uses_chat_template else {}
    return Use(config.target, {**arguments, **date, "model": Input("reward")}, runtime), {"reward": checkpoint}


def date_of(resolved: Resolved, model: Stage | Outside) -> dict[str, str]:
    """The run's date as an argument, if the model's chat template shows a date. Training does not change the template."""
    while isinstance(model, Stage):
        model = model.inputs["policy"]
    return {"date": resolved.date.isoformat()} if resolved.date and isinstance(model, Checkpoint) and model.shows_date else {}


def _checkpoint_generator(
    config: TransformersGenerator | VLLMGenerator, resolved: Resolved, name: str, model: Stage | Outside, changes: Mapping[str, Any]
) -> tuple[Use, Inputs]:
    """A generator on a checkpoint, which is the input `name` of its stage."""
    arguments, runtime = _settings(config)
    arguments.pop("revision", None)
    settings = {**arguments, **changes, **date_of(resolved, model), "model": Input(name), "label": _label(model)}
    inputs: dict[str, Stage | Outside] = {name: model}
    if lora := settings.pop("lora", None):
        inputs[f"{name}_lora"] = resolved.file(FileSource(lora, folder=True))
        settings["lora"] = Input(f"{name}_lora")
    return Use(config.target, settings, runtime), inputs


def _label(model: Stage | Outside) -> str:
    """What rows call a model: a stage's folder, a Hub id, or of a folder, which may have any name, the start of its digest."""
    if isinstance(model, Outside) and model.name not in PACKAGED_POLICIES and "/" not in model.name:
        return model.digest[:12]
    return artifact_name(model)


def _settings(config: Section) -> tuple[dict[str, Any], dict[str, Any]]:
    """A choice's meaning and its runtime knobs."""
    plain = config.model_dump(mode="json", exclude={"kind"})
    runtime = plain.pop("runtime", {})
    return plain, runtime
