"""The evolution of the selected prompts: the context for the evolver, and its evolutions."""

from dataclasses import dataclass, replace
from typing import Any

from eva_stages.core.config.models_config import FunctionEvolver, LiteLLMModel
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.prompt_references import PROMPT_AND_REFERENCE, RESPONSE_FORMAT
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import Outside, RowStage, Stage, Use
from eva_stages.creator.knobs import OF_REFERENCES
from pipelines.cleaning_stages import embedding_stage
from pipelines.creator_training import trained_evolver
from pipelines.model_calls import Inputs, generator
from pipelines.seeds import sampling_seed
from pipelines.stage_limits import failed_calls
from pipelines.table_stages import table_stage


@dataclass(frozen=True)
class ScoredPrompts:
    """The current prompt set X_t with responses, rewards, and the policy that responded."""

    prompts: Stage
    responses: Stage
    rewards: Stage
    policy: Stage | Outside
    number: int
    """t"""


def evolving(
    recipe: Recipe, resolved: Resolved, iteration: int, selected: Stage, scored_prompts: ScoredPrompts, creator: Stage | None = None
) -> tuple[Stage, ...]:
    """From the selected prompts to their evolutions, which are the last stage; `creator`: the evolver as it was trained last."""
    context_stages = (
        *_feedback(recipe, resolved, iteration, selected, scored_prompts),
        *_parents(recipe, resolved, iteration, selected, scored_prompts),
    )
    sources = {"selected": selected, "prompts": scored_prompts.prompts, **{stage.name: stage for stage in context_stages}}
    step, inputs = evolve_step(recipe, resolved, iteration, scored_prompts.policy, creator)
    evolved = RowStage(
        "evolve",
        iteration,
        {**sources, **inputs},
        version=3,
        sources=tuple(sources),
        steps=(step,),
        schema="recorded_evolutions" if recipe.creator.training else "",
        required_columns=("prompt_id", "messages"),
        limits=(failed_calls("evolver", recipe.limits.unevolved, "creator.evolve.generator", "limits.unevolved"),),
        rows_per_part=recipe.runtime.rows_per_part,
    )
    return *context_stages, evolved


def evolve_step(recipe: Recipe, resolved: Resolved, iteration: int, policy: Stage | Outside, creator: Stage | None) -> tuple[Use, Inputs]:
    """The step that evolves, and the inputs it needs beside the prompts. Choices that are off are left out, as before there were any."""
    evolve, config = recipe.creator.evolve, recipe.creator.evolve.generator
    settings: dict[str, Any] = evolve.model_dump(include={"generations", "max_characters"})
    if evolve.shape == "siblings" and (evolve.method != "self_instruct" or isinstance(config, FunctionEvolver)):
        settings["shape"] = evolve.shape
    if evolve.returns == PROMPT_AND_REFERENCE and evolve.method not in OF_REFERENCES:
        settings["returns"] = evolve.returns
    settings["seed"] = derive_seed(recipe.seed, "evolve", iteration)
    if isinstance(config, FunctionEvolver):
        return Use(config.target, {"function": resolved.function(config.function), **settings}), {}
    if recipe.creator.training:
        settings["for_training"] = True
    evolver, inputs = trained_evolver(recipe, resolved, policy, creator)
    if "returns" in settings and isinstance(config, LiteLLMModel):
        evolver = replace(evolver, arguments={**evolver.arguments, "extra": {"response_format": RESPONSE_FORMAT}})
    method = resolved.function(evolve.method)
    return Use("eva_stages.creator.evolving:EvolvePrompts", {"llm": evolver, "method": method, **settings}), inputs


def _feedback(recipe: Recipe, resolved: Resolved, iteration: int, selected: Stage, scored_prompts: ScoredPrompts) -> tuple[Stage, ...]:
    """Best and worst responses, and a critique if there is a critic; none without `creator.evolve.feedback`."""
    config = recipe.creator.evolve.feedback
    if config is None:
        return ()
    inputs = {
        "selected": selected,
        "prompts": scored_prompts.prompts,
        "responses": scored_prompts.responses,
        "rewards": scored_prompts.rewards,
    }
    feedback = table_stage("feedback", iteration, inputs, "eva_stages.creator.context:Feedback")
    if config.critic is None:
        return (feedback,)
    critic, critic_inputs = generator(config.critic, recipe, resolved, scored_prompts.policy, "critic")
    critique = RowStage(
        "critique",
        iteration,
        {"feedback": feedback, **critic_inputs},
        version=2,
        sources=("feedback",),
        steps=(Use("eva_stages.creator.context:Critique", {"llm": critic, **sampling_seed(recipe, critic, "critique", iteration)}),),
        limits=(failed_calls("critic", recipe.limits.uncriticised, "creator.evolve.feedback.critic", "limits.uncriticised"),),
        rows_per_part=recipe.runtime.rows_per_part,
    )
    return feedback, critique


def _parents(recipe: Recipe, resolved: Resolved, iteration: int, selected: Stage, scored_prompts: ScoredPrompts) -> tuple[Stage, ...]:
    """Other informative prompts for each selected prompt; none without `creator.evolve.multi_shot`."""
    config = recipe.creator.evolve.multi_shot
    if config is None:
        return ()
    inputs = {"selected": selected, "prompts": scored_prompts.prompts}
    if recipe.creator.curate.diversity:
        inputs["embeddings"] = embedding_stage(recipe, resolved, "embed-prompts", scored_prompts.number, scored_prompts.prompts)
    settings = {**config.model_dump(), "seed": derive_seed(recipe.seed, "parents", iteration)}
    return (table_stage("parents", iteration, inputs, "eva_stages.creator.context:Parents", settings),)
