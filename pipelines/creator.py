"""The creator: respond, reward, inform, select, evolve, curate, mix [paper, 3.3.1]."""

from collections.abc import Sequence

from eva_stages.core.config.function_fields import function_name
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import Outside, Stage
from pipelines.cleaning_stages import decontamination_stages, diversity_stages
from pipelines.creator_training import Evolutions, children_stage, last_creator, training_stages
from pipelines.evolution_stages import ScoredPrompts, evolving
from pipelines.gate_stages import gate_stages
from pipelines.response_stages import responding, rewarding
from pipelines.selection_stages import NO_MEMORY, Memory, informing, selecting
from pipelines.table_stages import table_stage


def creator_stages(
    recipe: Recipe,
    resolved: Resolved,
    iteration: int,
    prompts: Stage,
    earlier: Sequence[Stage],
    policy: Stage | Outside,
    memory: Memory = NO_MEMORY,
) -> tuple[Stage, ...]:
    """From the current prompt set to the next set, which is the last stage.

    Args:
        prompts: the current set X_t.
        earlier: the sets before it.
        policy: the checkpoint that responds.
        memory: of earlier iterations, for replay, novelty, the archive, the posterior and trained creators.
    """
    creator = recipe.creator
    replay = _replay_stages(recipe, iteration, prompts, earlier, memory.informativeness)
    responses = responding(recipe, resolved, "creator-respond", iteration, prompts, policy, creator.responses)
    rewards = rewarding(recipe, resolved, "creator-reward", iteration, prompts, responses, policy)
    informativeness = informing(recipe, resolved, iteration, rewards, memory)
    selection = selecting(recipe, resolved, iteration, prompts, informativeness, memory)
    selected = next(stage for stage in selection if stage.name == "select")
    parents = next((stage for stage in selection if stage.name == "archived"), prompts)
    scored_prompts = ScoredPrompts(parents, responses, rewards, policy, len(earlier))
    evolved = evolving(recipe, resolved, iteration, selected, scored_prompts, last_creator(memory.stages))
    clean = decontamination_stages(recipe, resolved, iteration, evolved[-1])
    filters = [resolved.function(spec) for spec in creator.curate.filters]
    curating = {"near_duplicate": creator.curate.near_duplicate, **({"filters": filters} if filters else {})}
    history = {f"prompts_{index}": prompt_set for index, prompt_set in enumerate((prompts, *earlier))}
    curation = table_stage("curate", iteration, {"evolved": clean[-1], **history}, "eva_stages.creator.curation:Curate", curating)
    diverse = diversity_stages(recipe, resolved, iteration, curation, (*earlier, prompts))
    gate = gate_stages(recipe, resolved, iteration, diverse[-1] if diverse else curation, parents, evolved[-1], policy)
    new = (curation, *diverse, *gate)[-1]
    verdicts = next((stage for stage in gate if stage.name == "gate-verdicts"), None)
    children = children_stage(recipe, resolved, iteration, clean[-1]) if creator.training else None
    scoring = _scoring(recipe, resolved, iteration, new if gate or not children else children, policy)
    admission = (_admission(recipe, resolved, iteration, new, scoring[-1]),) if creator.curate.admit else ()
    training: tuple[Stage, ...] = ()
    if children:
        evolutions = Evolutions(evolved[-1], children, scoring[-1], (curation, *diverse)[-1], (prompts, *earlier), verdicts)
        training = (children, *training_stages(recipe, resolved, iteration, evolutions, policy, memory.stages))
    mixing = {"evolved": admission[-1] if admission else new, "present": prompts, **{stage.name: stage for stage in replay}}
    mixture = table_stage(
        "mix",
        iteration,
        mixing,
        "eva_stages.creator.mixture:Mix",
        {**creator.mix.model_dump(), "seed": derive_seed(recipe.seed, "mix", iteration)},
    )
    scored_stages = (*replay, responses, rewards, informativeness)
    return *scored_stages, *selection, *evolved, *clean[1:], curation, *diverse, *gate, *scoring, *admission, *training, mixture


def _replay_stages(
    recipe: Recipe, iteration: int, prompts: Stage, earlier: Sequence[Stage], informativeness: Sequence[Stage]
) -> tuple[Stage, ...]:
    """The most informative prompts that are no longer in the current set; none without `creator.replay` or earlier sets."""
    config = recipe.creator.replay
    if config is None or not earlier:
        return ()
    inputs = {"present": prompts}
    for index, (prompt_set, info) in enumerate(zip(earlier, informativeness, strict=True)):
        inputs |= {f"prompts_{index}": prompt_set, f"info_{index}": info}
    settings = {
        "share": config.share,
        "metric": function_name(recipe.creator.metric),
        "seed": derive_seed(recipe.seed, "replay", iteration),
    }
    return (table_stage("replay", iteration, inputs, "eva_stages.creator.mixture:Replay", settings),)


def _scoring(recipe: Recipe, resolved: Resolved, iteration: int, prompts: Stage, policy: Stage | Outside) -> tuple[Stage, ...]:
    """Responses to the evolutions, and their rewards, which are the last stage; none where nothing reads them."""
    if not recipe.creator.curate.admit and not recipe.creator.training:
        return ()
    responses = responding(recipe, resolved, "admit-respond", iteration, prompts, policy, recipe.creator.responses)
    return responses, rewarding(recipe, resolved, "admit-reward", iteration, prompts, responses, policy)


def _admission(recipe: Recipe, resolved: Resolved, iteration: int, curation: Stage, rewards: Stage) -> Stage:
    """The most informative of the curated evolutions."""
    creator, admit = recipe.creator, recipe.creator.curate.admit
    assert admit is not None
    fraction = (0.5 if admit.band is None else 1.0) if admit.fraction is None else admit.fraction
    settings = {"metric": resolved.function(creator.metric), "fraction": fraction, **({"band": list(admit.band)} if admit.band else {})}
    inputs = {"prompts": curation, "rewards": rewards}
    return table_stage("admit", iteration, inputs, "eva_stages.creator.informativeness:Admit", settings)
