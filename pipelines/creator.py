"""The prompt player: answer, score, inform, select, evolve, curate, mix [paper, 3.3.1]."""

from collections.abc import Sequence

from eva_stages.core.config import Recipe
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.stage import Outside, RowStage, Stage, TableStage, Use
from eva_stages.models.choosing import player
from pipelines.cleaning import decontaminated, diversified
from pipelines.playing import responding, rewarding


def creator_stages(recipe: Recipe, iteration: int, prompts: Stage, earlier: Sequence[Stage], policy: Stage | Outside) -> tuple[Stage, ...]:
    """From the present prompt set to the next one, which is the last stage.

    Args:
        prompts: the present set X_t.
        earlier: the sets before it.
        policy: the checkpoint that answers.
    """
    creator = recipe.creator
    responses = responding(recipe, "creator-respond", iteration, prompts, policy, creator.responses)
    rewards = rewarding(recipe, "creator-reward", iteration, prompts, responses, policy)
    informed = TableStage(
        "inform",
        iteration,
        {"rewards": rewards},
        sources=("rewards",),
        step=Use("eva_stages.creator.informativeness:Informativeness", {"metric": creator.metric}),
    )
    selected = TableStage(
        "select",
        iteration,
        {"info": informed},
        sources=("info",),
        step=Use(
            "eva_stages.creator.sampling:Select",
            {**creator.selection.model_dump(), "seed": derive_seed(recipe.seed, "select", iteration)},
        ),
    )
    evolver, needed = player(creator.evolve.generator, recipe.policy, policy, "evolver")
    evolved = RowStage(
        "evolve",
        iteration,
        {"selected": selected, "prompts": prompts, **needed},
        sources=("selected", "prompts"),
        steps=(
            Use(
                "eva_stages.creator.evolving:EvolvePrompts",
                {
                    "llm": evolver,
                    **creator.evolve.model_dump(exclude={"generator"}),
                    "seed": derive_seed(recipe.seed, "evolve", iteration),
                },
            ),
        ),
        schema="evolutions",
        required=("prompt_id", "messages"),
        rows_per_part=recipe.runtime.rows_per_part,
    )
    cleaned = decontaminated(recipe, iteration, evolved)
    history = {f"prompts_{index}": one for index, one in enumerate((prompts, *earlier))}
    curated = TableStage(
        "curate",
        iteration,
        {"evolved": cleaned[-1], **history},
        sources=("evolved", *history),
        step=Use("eva_stages.creator.curating:Curate", {"near_duplicate": creator.curate.near_duplicate}),
    )
    diverse = diversified(recipe, iteration, curated, (*earlier, prompts))
    new = diverse[-1] if diverse else curated
    admission = _admission(recipe, iteration, new, policy) if creator.curate.admit else ()
    mixed = TableStage(
        "mix",
        iteration,
        {"evolved": admission[-1] if admission else new, "present": prompts},
        sources=("evolved", "present"),
        step=Use("eva_stages.creator.mixing:Mix", {**creator.mix.model_dump(), "seed": derive_seed(recipe.seed, "mix", iteration)}),
    )
    return responses, rewards, informed, selected, *cleaned, curated, *diverse, *admission, mixed


def _admission(recipe: Recipe, iteration: int, curated: Stage, policy: Stage | Outside) -> tuple[Stage, ...]:
    """The curated evolutions answered and scored like any prompt, and the most informative of them."""
    creator = recipe.creator
    assert creator.curate.admit is not None
    responses = responding(recipe, "admit-respond", iteration, curated, policy, creator.responses)
    rewards = rewarding(recipe, "admit-reward", iteration, curated, responses, policy)
    admitted = TableStage(
        "admit",
        iteration,
        {"prompts": curated, "rewards": rewards},
        sources=("prompts", "rewards"),
        step=Use("eva_stages.creator.informativeness:Admit", {"metric": creator.metric, "fraction": creator.curate.admit.fraction}),
    )
    return responses, rewards, admitted
