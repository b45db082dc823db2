"""From a choice in the recipe to the code behind it, without importing that code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eva_stages.core.config.models_config import LiteLLMModel, Player, PolicyPlayer, TransformersModel, VLLMModel
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import (
    ArmoRMReward,
    LLMJudgeReward,
    LocalReward,
    PairPreferenceReward,
    PairwiseReward,
    PointwiseReward,
    SequenceClassifierReward,
    VerifierReward,
)
from eva_stages.core.config.section import Section
from eva_stages.core.errors import ConfigError
from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.manifests import artifact_name
from eva_stages.core.named_functions import chosen_function
from eva_stages.core.stage import WORK, Input, Outside, Stage, Use
from eva_stages.models.conversation import has_date
from eva_stages.models.loading import LETTERCRAFT, resolve

GENERATORS = {
    "transformers": "eva_stages.models.transformers_generator:TransformersGenerator",
    "vllm": "eva_stages.models.vllm_generator:VLLMGenerator",
    "litellm": "eva_stages.models.litellm_generator:LiteLLMGenerator",
    "lettercraft": "eva_stages.lettercraft.player:LettercraftLLM",
}
REWARDS = {
    "lettercraft": "eva_stages.models.rewards:LettercraftReward",
    "verifier": "eva_stages.models.rewards:VerifierReward",
    "llm_judge": "eva_stages.models.rewards:LLMJudgeReward",
    "sequence_classifier": "eva_stages.models.reward_models:SequenceClassifierReward",
    "armorm": "eva_stages.models.reward_models:ArmoRMReward",
    "lettercraft_judge": "eva_stages.models.pairwise:LettercraftJudgeReward",
    "pairrm": "eva_stages.models.pairwise:PairRMReward",
    "pair_preference": "eva_stages.models.pairwise:PairPreferenceReward",
}
ROWS = {
    "armorm": "objective_rewards",
    "lettercraft_judge": "pairwise_rewards",
    "pairrm": "pairwise_rewards",
    "pair_preference": "pairwise_rewards",
}

RENDERED = (SequenceClassifierReward, ArmoRMReward, PairPreferenceReward)
"""Rewards that read conversations by a chat template of their own."""

Inputs = Mapping[str, Stage | Outside]
OneReward = PointwiseReward | PairwiseReward


def policy_generator(recipe: Recipe, model: Stage | Outside, **changes: Any) -> tuple[Use, Inputs]:
    """The policy's generator over a checkpoint, and the input it brings; `changes` replace sampling settings."""
    return _over(recipe.policy.generator, "policy", model, {**changes, **date_of(recipe, model)})


def player(config: Player, recipe: Recipe, model: Stage | Outside, role: str, journal: str = WORK) -> tuple[Use, Inputs]:
    """A generator of the recipe's choice (`role`: evolver, judge, ...), and the inputs it brings.

    Args:
        journal: where paid calls are kept: with the attempt (`WORK`), or with the run, for all its stages (`RUN`).
    """
    match config:
        case PolicyPlayer():
            return policy_generator(recipe, model, **config.model_dump(mode="json", exclude={"kind"}))
        case TransformersModel() | VLLMModel():
            outside = resolve(config.model, config.revision, role)
            return _over(config, role, outside, date_of(recipe, outside))
        case _:
            arguments, runtime = _settings(config)
            kept = {"journal": Input(journal), "attempt": Input(WORK)} if isinstance(config, LiteLLMModel) else {}
            return Use(GENERATORS[config.kind], arguments, {**runtime, **kept}), {}


def reward_model(config: OneReward, recipe: Recipe, model: Stage | Outside, place: str = "reward") -> tuple[Use, Inputs]:
    """A reward of the recipe's choice, and the checkpoints it brings."""
    if isinstance(config, LLMJudgeReward):
        judge, needed = player(config.judge, recipe, model, "judge")
        return Use(REWARDS[config.kind], {"llm": judge, "rubric": config.rubric}), needed
    if isinstance(config, VerifierReward):
        return Use(REWARDS[config.kind], {"function": chosen_function(config.function, f"{place}.function")}), {}
    arguments, runtime = _settings(config)
    if not isinstance(config, LocalReward):
        return Use(REWARDS[config.kind], arguments), {}
    outside = resolve(str(arguments["model"]), arguments.pop("revision"), f"{place}.model")
    dated = date_of(recipe, outside) if isinstance(config, RENDERED) else {}
    return Use(REWARDS[config.kind], {**arguments, **dated, "model": Input("reward")}, runtime), {"reward": outside}


def date_of(recipe: Recipe, model: Stage | Outside) -> dict[str, str]:
    """The run's date as an argument, where a model's chat template shows one. Training keeps the template."""
    while isinstance(model, Stage):
        model = model.inputs["policy"]
    date = recipe.runtime.date
    return {"date": date.isoformat()} if date and has_date(model.path) else {}


def _over(config: Section, name: str, model: Stage | Outside, changes: Mapping[str, Any]) -> tuple[Use, Inputs]:
    arguments, runtime = _settings(config)
    arguments.pop("revision", None)
    settings = {**arguments, **changes, "model": Input(name), "label": _label(model)}
    inputs: dict[str, Stage | Outside] = {name: model}
    if lora := settings.pop("lora", None):
        inputs[f"{name}_lora"] = _adapter(lora)
        settings["lora"] = Input(f"{name}_lora")
    return Use(GENERATORS[str(config.model_dump()["kind"])], settings, runtime), inputs


def _label(model: Stage | Outside) -> str:
    """What rows call a model: a stage's folder, a Hub id, or of a folder, which may have any name, the start of its digest."""
    if isinstance(model, Outside) and model.name != LETTERCRAFT and "/" not in model.name:
        return model.digest[:12]
    return artifact_name(model)


def _adapter(folder: str) -> Outside:
    path = Path(folder)
    if not (path / "adapter_config.json").is_file():
        raise ConfigError([f"lora: there is no adapter_config.json in {folder}; give the folder of a LoRA adapter"])
    return Outside(path.name, path, tree_digest(path))


def _settings(config: Section) -> tuple[dict[str, Any], dict[str, Any]]:
    """A choice's meaning and its runtime knobs."""
    plain = config.model_dump(mode="json", exclude={"kind"})
    runtime = plain.pop("runtime", {})
    return plain, runtime
