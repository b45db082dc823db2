"""Checks of a study that need the recipes of its arms: the measure."""

from collections.abc import Mapping

from eva_stages.core.config.evaluation_config import Lettercraft, LMEval, ReasoningGym, benchmark_name
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.study_config import Study
from eva_stages.core.recipe_errors import closest

LETTERCRAFT_SCORES = ("sampled", "greedy", "exact", "exact_greedy")


def measures(recipe: Recipe) -> list[str]:
    """The scores of a recipe's evaluation that have a value for the base policy and for every iteration, by benchmark."""
    names = []
    for benchmark in recipe.evaluation.benchmarks:
        match benchmark:
            case Lettercraft():
                scores: tuple[str, ...] = LETTERCRAFT_SCORES
            case ReasoningGym():
                scores = ("score", "greedy")
            case LMEval(tasks=tasks):
                scores = tuple(f"official.tasks.{task}" for task in tasks)
            case _:
                scores = ("score",)
        names += [f"{benchmark_name(benchmark)}.{score}" for score in scores]
    return names


def measure_of(study: Study, recipes: Mapping[str, Recipe], faults: list[str]) -> str:
    """The measure of a study, by default the first of its recipes; a measure that an arm does not have is added to the faults."""
    measure = study.measure or next((name for recipe in recipes.values() for name in measures(recipe)), "")
    arms_of_fault: dict[str, list[str]] = {}
    for arm, recipe in recipes.items():
        known_measures = measures(recipe)
        if measure not in known_measures:
            known_text = f"is {measure!r}; known: {', '.join(known_measures)}{closest(measure, known_measures)}"
            text = known_text if known_measures else "the recipe has no benchmark with a score; give it one in evaluation.benchmarks"
            arms_of_fault.setdefault(text, []).append(arm)
    for text, arms in arms_of_fault.items():
        faults.append(f"measure: {text}" if len(arms) == len(recipes) else f"measure: in arm {', '.join(arms)}: {text}")
    return measure
