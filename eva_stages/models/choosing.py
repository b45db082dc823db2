"""From a choice in the recipe to the code behind it, without importing that code."""

from collections.abc import Mapping
from typing import Any

from eva_stages.core.config import Player, Policy, PolicyPlayer, Reward, Section, TransformersModel
from eva_stages.core.stage import Input, Outside, Stage, Use
from eva_stages.core.store import artifact_name
from eva_stages.models.loading import resolve

GENERATORS = {
    "transformers": "eva_stages.models.transformers_generator:TransformersGenerator",
    "vllm": "eva_stages.models.vllm_generator:VLLMGenerator",
    "microworld": "eva_stages.microworld.player:LettercraftPlayer",
}
REWARDS = {
    "microworld": "eva_stages.models.rewards:MicroworldReward",
    "sequence_classifier": "eva_stages.models.rewards:SequenceClassifierReward",
    "verifier": "eva_stages.models.rewards:VerifierReward",
}

Inputs = Mapping[str, Stage | Outside]


def policy_generator(policy: Policy, model: Stage | Outside, **changes: float) -> tuple[Use, Inputs]:
    """The policy's generator over a checkpoint, and the input it brings; `changes` replace sampling settings."""
    return _over(policy.generator, "policy", model, changes)


def player(config: Player, policy: Policy, model: Stage | Outside, role: str) -> tuple[Use, Inputs]:
    """A generator of the recipe's choice (`role`: evolver, judge), and the inputs it brings."""
    match config:
        case PolicyPlayer():
            return policy_generator(policy, model, **config.model_dump(exclude={"kind"}))
        case TransformersModel():
            return _over(config, role, resolve(config.model, config.revision, role), {})
        case _:
            return Use(GENERATORS[config.kind], config.model_dump(exclude={"kind"})), {}


def reward_model(config: Reward) -> tuple[Use, Inputs]:
    """The recipe's reward, and the checkpoint it brings."""
    arguments, runtime = _settings(config)
    if "model" not in arguments:
        return Use(REWARDS[config.kind], arguments), {}
    outside = resolve(str(arguments["model"]), arguments.pop("revision"), "reward.model")
    return Use(REWARDS[config.kind], {**arguments, "model": Input("reward")}, runtime), {"reward": outside}


def _over(config: Section, name: str, model: Stage | Outside, changes: Mapping[str, float]) -> tuple[Use, Inputs]:
    arguments, runtime = _settings(config)
    arguments.pop("revision", None)
    settings = {**arguments, **changes, "model": Input(name), "label": artifact_name(model)}
    return Use(GENERATORS[str(config.model_dump()["kind"])], settings, runtime), {name: model}


def _settings(config: Section) -> tuple[dict[str, Any], dict[str, Any]]:
    """A choice's meaning and its runtime knobs."""
    plain = config.model_dump(mode="json", exclude={"kind"})
    runtime = plain.pop("runtime", {})
    return plain, runtime
