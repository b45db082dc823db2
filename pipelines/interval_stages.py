"""The tables of an interval of online training, projected from its journal after it: the stages that an offline iteration has before it."""

from collections.abc import Sequence

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import FunctionStage, Stage, Use
from pipelines.selection_stages import NO_MEMORY, informing
from pipelines.table_stages import table_stage

CODE = "eva_stages.creator.interval_tables"


def interval_stages(
    recipe: Recipe, resolved: Resolved, iteration: int, training: Stage, originals: Sequence[Stage], earlier: Sequence[Stage] = ()
) -> tuple[Stage, ...]:
    """The tables of an interval; the last one is its prompt set: the prompts that it trained on.

    Args:
        training: the interval's training.
        originals: the sets of original prompts that the interval and earlier ones drew from.
        earlier: the tables of all earlier intervals.
    """
    uses = _journal_table("uses", iteration, training, Use(f"{CODE}:journal_rows", {"table": "uses"}))
    responses = table_stage("creator-respond", iteration, {"uses": uses}, f"{CODE}:LastResponses")
    rewards = table_stage("creator-reward", iteration, {"uses": uses}, f"{CODE}:LastRewards")
    informativeness = informing(recipe, resolved, iteration, rewards, NO_MEMORY)
    evolving = _evolving(recipe, iteration, training) if iteration and recipe.creator.control is None else ()
    curations = [stage for stage in (*earlier, *evolving) if stage.name == "curate"]
    distinct_originals = {stage.fingerprint: stage for stage in originals}.values()
    sets = {f"prompts_{index}": prompt_set for index, prompt_set in enumerate((*distinct_originals, *curations))}
    mixture = table_stage("mix", iteration, {"uses": uses, **sets}, f"{CODE}:IntervalPrompts")
    buffer = _journal_table("buffer", iteration, training, Use(f"{CODE}:journal_rows", {"table": "buffer"}))
    return uses, buffer, responses, rewards, informativeness, *evolving, mixture


def _evolving(recipe: Recipe, iteration: int, training: Stage) -> tuple[Stage, ...]:
    """What was drawn to be evolved, its evolutions, and those that were fit to train on, after the gate too where there is one."""
    selection = _journal_table("select", iteration, training, Use(f"{CODE}:last_draws"))
    evolutions = _journal_table("evolve", iteration, training, Use(f"{CODE}:journal_rows", {"table": "evolutions"}))
    curation = table_stage("curate", iteration, {"evolved": evolutions}, f"{CODE}:CuratedEvolutions")
    if recipe.creator.curate.gate is None:
        return selection, evolutions, curation
    verdicts = table_stage("gate-verdicts", iteration, {"evolved": evolutions}, f"{CODE}:GateReasons")
    return selection, evolutions, curation, verdicts, table_stage("gate", iteration, {"evolved": evolutions}, f"{CODE}:GatedEvolutions")


def _journal_table(name: str, iteration: int, training: Stage, function: Use) -> FunctionStage:
    return FunctionStage(name, iteration, {"training": training}, function=function)
