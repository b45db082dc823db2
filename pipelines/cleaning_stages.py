"""Decontamination of prompt sets, and embeddings for the distances between prompts."""

from collections.abc import Sequence
from pathlib import PurePath

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.question_files import question_source
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import Input, RowStage, Stage, TableStage, Use
from pipelines.table_stages import table_stage


def decontamination_stages(recipe: Recipe, resolved: Resolved, iteration: int, prompts: Stage) -> tuple[Stage, ...]:
    """The prompts, their matches with the evaluation sets, and the prompts without them; `prompts` alone without decontamination."""
    config = recipe.creator.curate.decontaminate
    if config is None:
        return (prompts,)
    question_files = [resolved.file(question_source(name)) for name in config.against]
    sets = {f"questions_{index}": outside for index, outside in enumerate(question_files)}
    benchmarks = {PurePath(name).name: Input(key) for name, key in zip(config.against, sets, strict=True)}
    settings = {"benchmarks": benchmarks, "ngram": config.ngram, "overlap": config.overlap}
    matches = TableStage(
        "contamination",
        iteration,
        {"prompts": prompts, **sets},
        sources=("prompts",),
        step=Use("eva_stages.creator.contamination:Contamination", settings),
    )
    clean = table_stage(
        "decontaminate", iteration, {"prompts": prompts, "matches": matches}, "eva_stages.creator.contamination:DropMatches"
    )
    return prompts, matches, clean


def diversity_stages(
    recipe: Recipe, resolved: Resolved, iteration: int, curated_prompts: Stage, earlier: Sequence[Stage]
) -> tuple[Stage, ...]:
    """The curated prompts with their distances to everything before them; none without `creator.curate.diversity`.

    Args:
        earlier: X_0, X_1, ... up to the current set.
    """
    config = recipe.creator.curate.diversity
    if config is None:
        return ()
    embeddings = {
        f"embeddings_{index}": embedding_stage(recipe, resolved, "embed-prompts", index, prompts) for index, prompts in enumerate(earlier)
    }
    own_embeddings = embedding_stage(recipe, resolved, "embed", iteration, curated_prompts)
    diverse = table_stage(
        "diversify",
        iteration,
        {"prompts": curated_prompts, "embeddings": own_embeddings, **embeddings},
        "eva_stages.creator.diversity:Diversify",
        {"min_distance": config.min_distance},
    )
    return own_embeddings, diverse


def embedding_stage(recipe: Recipe, resolved: Resolved, name: str, iteration: int, prompts: Stage) -> Stage:
    """The embeddings of prompts, by the model of `creator.curate.diversity`."""
    config = recipe.creator.curate.diversity
    assert config is not None
    model = resolved.checkpoint(config.model, config.revision)
    return RowStage(
        name,
        iteration,
        {"prompts": prompts, "model": model},
        sources=("prompts",),
        steps=(Use("eva_stages.creator.diversity:Embed", {"model": Input("model")}, config.runtime.model_dump()),),
        required_columns=("embedding",),
        rows_per_part=recipe.runtime.rows_per_part,
    )
