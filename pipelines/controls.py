"""The paper's controls: iterations without a creator, or with a creator that does not evolve [figure 5, table 4].

Each control trains like eva, iteration by iteration from the policy of the previous iteration; only the prompts differ.
"""

from collections.abc import Sequence

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import Outside, Stage
from pipelines.cleaning_stages import decontamination_stages
from pipelines.creator import creator_stages
from pipelines.prompt_stages import prompts_stage
from pipelines.selection_stages import Memory, seeds_memory
from pipelines.table_stages import table_stage


def control_stages(
    recipe: Recipe, resolved: Resolved, iteration: int, seeds: Stage, policy: Stage | Outside, creators: Sequence[Sequence[Stage]]
) -> tuple[Stage, ...]:
    """The stages that lead to the prompts of an iteration; the last stage has the prompts. For recipes with a control.

    `longer` uses the seed prompts again; `human` takes the next, disjoint part of the prompt source; `no_evolve` draws, in every
    iteration, the seed prompts that are informative under the current policy.

    Args:
        creators: the stages that led to the prompts of each earlier iteration, with their analysis.
    """
    match recipe.creator.control:
        case "human":
            return decontamination_stages(recipe, resolved, iteration, prompts_stage(recipe, resolved, iteration))
        case "no_evolve":
            return _subset_stages(recipe, resolved, iteration, seeds, policy, seeds_memory(creators))
        case _:
            return (seeds,)


def _subset_stages(
    recipe: Recipe, resolved: Resolved, iteration: int, seeds: Stage, policy: Stage | Outside, memory: Memory
) -> tuple[Stage, ...]:
    creator = creator_stages(recipe, resolved, iteration, seeds, (), policy, memory)
    place = next(index for index, stage in enumerate(creator) if stage.name == "select")
    subset = table_stage("subset", iteration, {"prompts": seeds, "selected": creator[place]}, "eva_stages.creator.selection:Subset")
    return *creator[: place + 1], subset
