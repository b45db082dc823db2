"""The selection of the prompts to evolve: by informativeness and novelty from the current set, or from the archive of all sets."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import Stage
from pipelines.cleaning_stages import embedding_stage
from pipelines.table_stages import table_stage


@dataclass(frozen=True)
class Memory:
    """What a run knows about earlier prompts when an iteration begins."""

    sets: Sequence[Stage] = ()
    """X_0, X_1, ... before the current set."""
    informativeness: Sequence[Stage] = ()
    """Of the prompts of each of these sets, or of the same set in each earlier iteration."""
    archive: Stage | None = None
    """Of the iteration before."""
    topics: Stage | None = None
    """Of the current set."""
    scores: Stage | None = None
    """Of the current set."""
    stages: Sequence[Stage] = ()
    """Of the creators of all earlier iterations."""


NO_MEMORY = Memory()


def memory_of(prompt_sets: Sequence[Stage], creators: Sequence[Sequence[Stage]]) -> Memory:
    """The memory of the next iteration, after the iterations with these sets and creator stages."""
    last_stages = {stage.name: stage for stage in creators[-1]}
    stages = list(chain.from_iterable(creators))
    return Memory(
        prompt_sets[:-1],
        informativeness=[stage for stage in stages if stage.name == "inform"],
        archive=last_stages.get("archive"),
        topics=last_stages.get("analyse-topics"),
        scores=last_stages.get("analyse-scores"),
        stages=stages,
    )


def seeds_memory(creators: Sequence[Sequence[Stage]]) -> Memory:
    """The memory of the next iteration where every iteration selects from the seed prompts."""
    first_stages = {stage.name: stage for stage in creators[0]}
    return replace(memory_of((), creators), topics=first_stages.get("analyse-topics"), scores=first_stages.get("analyse-scores"))


def informing(recipe: Recipe, resolved: Resolved, iteration: int, rewards: Stage, memory: Memory) -> Stage:
    """How informative the prompts are by their rewards, and with a posterior by those of earlier iterations."""
    settings: dict[str, Any] = {"metric": resolved.function(recipe.creator.metric)}
    inputs = {"rewards": rewards}
    if recipe.creator.posterior:
        settings["discount"] = recipe.creator.posterior.discount
        inputs |= {f"info_{index}": info for index, info in enumerate(memory.informativeness)}
    return table_stage("inform", iteration, inputs, "eva_stages.creator.informativeness:Informativeness", settings)


def selecting(
    recipe: Recipe, resolved: Resolved, iteration: int, prompts: Stage, informativeness: Stage, memory: Memory
) -> tuple[Stage, ...]:
    """From the current set to the prompts to evolve: the stage `select`, and with an archive last the rows of these prompts."""
    creator = recipe.creator
    novelty = _novelty(recipe, resolved, iteration, prompts, memory)
    novelty_inputs = {stage.name: stage for stage in novelty}
    novelty_settings = {"novelty_weight": creator.curate.novelty.weight} if novelty and creator.curate.novelty else {}
    seed = derive_seed(recipe.seed, "select", iteration)
    if creator.curate.archive is None:
        selection = creator.selection
        settings = {
            "kind": resolved.function(selection.kind),
            "fraction": selection.fraction,
            "seed": seed,
            **novelty_settings,
        }
        inputs = {"info": informativeness, **novelty_inputs}
        if selection.topic_share and memory.topics:
            settings["topic_share"], inputs["topics"] = selection.topic_share, memory.topics
        return *novelty, table_stage("select", iteration, inputs, "eva_stages.creator.selection:Select", settings)
    config = creator.curate.archive
    optional_inputs = {"archive": memory.archive, **novelty_inputs}
    if config.cell == "topic_complexity":
        optional_inputs |= {"topics": memory.topics, "scores": memory.scores}
    archive = table_stage(
        "archive",
        iteration,
        {"prompts": prompts, "info": informativeness, **{name: stage for name, stage in optional_inputs.items() if stage}},
        "eva_stages.creator.archive:UpdateArchive",
        {"cell": resolved.function(config.cell), "iteration": iteration, **novelty_settings},
    )
    selected = table_stage(
        "select",
        iteration,
        {"archive": archive, "prompts": prompts},
        "eva_stages.creator.archive:SelectFromArchive",
        {"fraction": creator.selection.fraction, "temperature": config.temperature, "seed": seed},
    )
    sets = {f"prompts_{index}": prompt_set for index, prompt_set in enumerate((prompts, *reversed(memory.sets)))}
    rows = table_stage("archived", iteration, {"selected": selected, **sets}, "eva_stages.creator.archive:ArchivedPrompts")
    return *novelty, archive, selected, rows


def _novelty(recipe: Recipe, resolved: Resolved, iteration: int, prompts: Stage, memory: Memory) -> tuple[Stage, ...]:
    """Distances to the earlier sets; none without `creator.curate.novelty` or earlier sets."""
    if recipe.creator.curate.novelty is None or not memory.sets:
        return ()
    inputs = {"prompts": prompts, **{f"prompts_{index}": prompt_set for index, prompt_set in enumerate(memory.sets)}}
    settings = {}
    if recipe.creator.curate.diversity:
        embeddings = [
            embedding_stage(recipe, resolved, "embed-prompts", index, prompt_set)
            for index, prompt_set in enumerate((*memory.sets, prompts))
        ]
        inputs = {"prompts": prompts, "embeddings": embeddings[-1], **{f"embeddings_{i}": stage for i, stage in enumerate(embeddings[:-1])}}
        settings["has_embeddings"] = True
    return (table_stage("novelty", iteration, inputs, "eva_stages.creator.novelty:Novelty", settings),)
