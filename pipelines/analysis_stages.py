"""Scores and topics of an iteration's prompts; no stage of the training depends on them."""

from collections.abc import Sequence
from typing import Any

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import Input, Limit, Outside, RowStage, Stage, Use
from pipelines.cleaning_stages import embedding_stage
from pipelines.model_calls import generator
from pipelines.seeds import sampling_seed
from pipelines.stage_limits import failed_calls
from pipelines.table_stages import table_stage


def analysing(recipe: Recipe, resolved: Resolved, iteration: int, prompts: Stage, base: Outside) -> tuple[Stage, ...]:
    """The scores and the topics of a prompt set, if the recipe asks for them. A `policy` scorer is the base policy in every iteration."""
    config = recipe.creator.analysis
    stages: list[Stage] = []
    if config and config.scorer:
        scorer, inputs = generator(config.scorer, recipe, resolved, base, "scorer")
        score = Use("eva_stages.creator.analysis:ScorePrompts", {"llm": scorer, **sampling_seed(recipe, scorer, "analyse-scores")})
        limit = failed_calls("scorer", recipe.limits.unanalysed, "creator.analysis.scorer", "limits.unanalysed")
        stages.append(_analysis(recipe, "analyse-scores", iteration, {"prompts": prompts, **inputs}, score, limit))
    if config and config.topics:
        topics = config.topics
        model = resolved.checkpoint(topics.model, topics.revision)
        settings = {"model": Input("model"), "labels": list(topics.labels), "dtype": topics.dtype}
        label = Use("eva_stages.creator.analysis:LabelTopics", settings, topics.runtime.model_dump())
        limit = failed_calls("topic classifier", recipe.limits.unanalysed, "creator.analysis.topics", "limits.unanalysed")
        stages.append(_analysis(recipe, "analyse-topics", iteration, {"prompts": prompts, "model": model}, label, limit))
    return tuple(stages)


def coverage_stages(recipe: Recipe, resolved: Resolved, prompt_sets: Sequence[Stage], analyses: Sequence[Stage]) -> tuple[Stage, ...]:
    """The diversity of all prompts of X_0, X_1, ... up to the last set; none without `creator.analysis.coverage`.

    Args:
        analyses: the scores and topics of all sets, in the sets' order.
    """
    config, curate, iteration = recipe.creator.analysis, recipe.creator.curate, len(prompt_sets) - 1
    if not config or not config.coverage:
        return ()
    newest_first = list(enumerate(prompt_sets))[::-1]
    inputs = {f"prompts_{index}": prompts for index, prompts in newest_first}
    settings: dict[str, Any] = {"sets": len(prompt_sets)}
    if curate.diversity:
        inputs |= {
            f"embeddings_{index}": embedding_stage(recipe, resolved, "embed-prompts", index, prompts) for index, prompts in newest_first
        }
    if curate.archive and curate.archive.cell != "topic_complexity":
        settings["cell"] = resolved.function(curate.archive.cell)
    elif config.scorer and config.topics:
        settings["cell"] = "topic_complexity"
        inputs |= {stage.label: stage for stage in reversed(analyses)}
    return (table_stage("coverage", iteration, inputs, "eva_stages.creator.coverage:Coverage", settings),)


def _analysis(recipe: Recipe, name: str, iteration: int, inputs: dict[str, Stage | Outside], step: Use, limit: Limit) -> RowStage:
    return RowStage(
        name,
        iteration,
        inputs,
        version=2,
        sources=("prompts",),
        steps=(step,),
        limits=(limit,),
        rows_per_part=recipe.runtime.rows_per_part,
    )
