"""Evolving the drawn prompts: what the evolver is shown, and what it makes of it."""

from dataclasses import dataclass

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import Outside, RowStage, Stage, TableStage, Use
from pipelines.cleaning_stages import embedded
from pipelines.model_calls import generator
from pipelines.seeds import sampling_seed
from pipelines.stage_limits import failed_calls


@dataclass(frozen=True)
class Answered:
    """The present prompt set X_t with its answers, and the checkpoint that gave them."""

    prompts: Stage
    responses: Stage
    rewards: Stage
    policy: Stage | Outside
    number: int
    """t"""


def evolving(recipe: Recipe, resolved: Resolved, iteration: int, selected: Stage, answered: Answered) -> tuple[Stage, ...]:
    """From the drawn prompts to their evolutions, which are the last stage."""
    evolve = recipe.creator.evolve
    shown = (*_feedback(recipe, resolved, iteration, selected, answered), *_parents(recipe, resolved, iteration, selected, answered))
    evolver, needed = generator(evolve.generator, recipe, resolved, answered.policy, "evolver")
    sources = {"selected": selected, "prompts": answered.prompts, **{stage.name: stage for stage in shown}}
    settings = evolve.model_dump(exclude={"method", "generator", "feedback", "multi_shot"})
    method = resolved.function(evolve.method)
    step = Use(
        "eva_stages.creator.evolving:EvolvePrompts",
        {"llm": evolver, "method": method, **settings, "seed": derive_seed(recipe.seed, "evolve", iteration)},
    )
    evolved = RowStage(
        "evolve",
        iteration,
        {**sources, **needed},
        version=3,
        sources=tuple(sources),
        steps=(step,),
        schema="evolutions",
        required_columns=("prompt_id", "messages"),
        limits=(failed_calls("evolver", recipe.limits.unevolved, "creator.evolve.generator", "limits.unevolved"),),
        rows_per_part=recipe.runtime.rows_per_part,
    )
    return *shown, evolved


def _feedback(recipe: Recipe, resolved: Resolved, iteration: int, selected: Stage, answered: Answered) -> tuple[Stage, ...]:
    """Best and worst responses, and a critique of them if there is a critic; none if not asked for."""
    config = recipe.creator.evolve.feedback
    if config is None:
        return ()
    inputs = {"selected": selected, "prompts": answered.prompts, "responses": answered.responses, "rewards": answered.rewards}
    feedback = TableStage("feedback", iteration, inputs, sources=tuple(inputs), step=Use("eva_stages.creator.context:Feedback"))
    if config.critic is None:
        return (feedback,)
    critic, needed = generator(config.critic, recipe, resolved, answered.policy, "critic")
    critique = RowStage(
        "critique",
        iteration,
        {"feedback": feedback, **needed},
        version=2,
        sources=("feedback",),
        steps=(Use("eva_stages.creator.context:Critique", {"llm": critic, **sampling_seed(recipe, critic, "critique", iteration)}),),
        schema="critiques",
        limits=(failed_calls("critic", recipe.limits.uncriticised, "creator.evolve.feedback.critic", "limits.uncriticised"),),
        rows_per_part=recipe.runtime.rows_per_part,
    )
    return feedback, critique


def _parents(recipe: Recipe, resolved: Resolved, iteration: int, selected: Stage, answered: Answered) -> tuple[Stage, ...]:
    """Other informative prompts for every drawn one; none if not asked for."""
    config = recipe.creator.evolve.multi_shot
    if config is None:
        return ()
    inputs = {"selected": selected, "prompts": answered.prompts}
    if recipe.creator.curate.diversity:
        inputs["embeddings"] = embedded(recipe, resolved, "embed-prompts", answered.number, answered.prompts)
    settings = {**config.model_dump(), "seed": derive_seed(recipe.seed, "parents", iteration)}
    return (TableStage("parents", iteration, inputs, sources=tuple(inputs), step=Use("eva_stages.creator.context:Parents", settings)),)
