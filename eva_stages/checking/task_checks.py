"""Checks of what a recipe asks of reasoning-gym."""

from collections.abc import Iterator
from importlib.util import find_spec

from eva_stages.checking.recipe_references import sections
from eva_stages.core.config.evaluation_config import CustomBenchmark, ReasoningGym
from eva_stages.core.config.gate_config import Gate, GateAudit
from eva_stages.core.config.models_config import ReasoningGymModel
from eva_stages.core.config.prompts_config import ReasoningGymPrompts
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import VerifierReward
from eva_stages.core.errors import DataError
from eva_stages.core.resolved import Resolved
from eva_stages.creator.knobs import OF_REFERENCES
from eva_stages.creator.task_prompts import seed_rows, task_questions
from eva_stages.models.task_families import INSTALL


def check_tasks(recipe: Recipe, _: Resolved) -> Iterator[str]:
    """reasoning-gym is installed where it is needed, makes the prompts and questions, and evolves only its own tasks."""
    yield from _evolver(recipe)
    if find_spec("reasoning_gym") is None:
        for place, section in sections(recipe):
            if _needs_package(section):
                yield f"{place}: reasoning_gym needs the package reasoning-gym, which is not installed: {INSTALL}"
        return
    prompts = recipe.prompts
    if isinstance(prompts, ReasoningGymPrompts):
        parts = recipe.iterations + 1 if recipe.creator.control == "human" else 1
        try:
            seed_rows(prompts.families, prompts.demonstrations, recipe.seed, prompts.size * parts)
        except DataError as error:
            yield f"prompts.families: {error}"
    for index, benchmark in enumerate(recipe.evaluation.benchmarks):
        if isinstance(benchmark, ReasoningGym):
            try:
                task_questions(benchmark.families, benchmark.demonstrations, benchmark.questions)
            except DataError as error:
                yield f"evaluation.benchmarks.{index}.families: {error}"


def _needs_package(section: object) -> bool:
    match section:
        case VerifierReward(function=name) | CustomBenchmark(score=name) | Gate(answerable=name) | GateAudit(answerable=name):
            return name == "reasoning_gym"
        case _:
            return isinstance(section, ReasoningGymPrompts | ReasoningGymModel | ReasoningGym)


def _evolver(recipe: Recipe) -> Iterator[str]:
    evolve = recipe.creator.evolve
    turns, makes_tasks = evolve.method in OF_REFERENCES, isinstance(evolve.generator, ReasoningGymModel)
    if turns != makes_tasks:
        yield (
            f"creator.evolve: method {evolve.method} and generator kind {evolve.generator.kind} do not fit: turn_knob is for the generator "
            "of kind reasoning_gym, and that generator only for turn_knob; change one of them"
        )
    if makes_tasks and not isinstance(recipe.prompts, ReasoningGymPrompts):
        yield (
            f"creator.evolve.generator: kind reasoning_gym turns the knobs of its own tasks, and prompts.kind is {recipe.prompts.kind}; "
            "take prompts of kind reasoning_gym, or another generator"
        )
    if makes_tasks and (evolve.feedback or evolve.multi_shot):
        yield "creator.evolve: the generator of kind reasoning_gym reads neither feedback nor examples; leave feedback and multi_shot out"
