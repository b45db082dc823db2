"""The training of an interval of mode online, with the curriculum that gives it its prompts."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.failures import CALLS
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.health_signs import training_checks
from eva_stages.core.parts import FAILED_CALLS
from eva_stages.core.question_files import question_source
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import FunctionStage, Input, Limit, Outside, Stage, Use, as_data
from eva_stages.creator.gate_questions import judged_tests
from pipelines.cleaning_stages import decontamination_stages
from pipelines.evolution_stages import evolve_step
from pipelines.gate_stages import GATE, gate_tests
from pipelines.model_calls import generator
from pipelines.prompt_stages import prompts_stage
from pipelines.solver import on_policy_training
from pipelines.stage_limits import failed_calls

Inputs = dict[str, Stage | Outside]


def interval_training(
    recipe: Recipe, resolved: Resolved, number: int, prompts: Stage, policy: Stage | Outside, base: Outside
) -> FunctionStage:
    """The training of interval `number`; 0 is the warm-up.

    Args:
        prompts: the seed prompts.
        policy: the training of the interval before, whose artifact has the state to go on from; the base policy for the first.
    """
    online = recipe.online
    assert online is not None
    curriculum, inputs = _curriculum(recipe, resolved, number, policy)
    settings = {
        "number": number,
        "steps": online.interval,
        # a constant schedule does not depend on how many intervals follow
        "intervals": (number if recipe.solver.training.scheduler == "constant" else recipe.iterations) + 1,
        "curriculum": as_data(curriculum),
    }
    training = on_policy_training(recipe, resolved, number, prompts, policy, base, {"seed": _seed(recipe), "online": settings})
    runtime = {**training.function.runtime["runtime"], "limits": [asdict(limit) for limit in _limits(recipe)]}
    evolving_intervals = number if recipe.creator.control is None else 0
    runtime["health"] = [asdict(check) for check in training_checks(recipe.health, evolving_intervals, recipe.limits.unscored)]
    function = replace(training.function, runtime={"runtime": runtime})
    return replace(training, inputs={**training.inputs, **inputs, "reference": base}, function=function)


def _seed(recipe: Recipe) -> int:
    """Of all intervals, as of the first iteration of an offline run."""
    return derive_seed(recipe.seed, "train", 0) % 2**31


def _curriculum(recipe: Recipe, resolved: Resolved, number: int, policy: Stage | Outside) -> tuple[Use, Inputs]:
    """The curriculum of an interval, and the inputs that it needs. That of the warm-up is the same for all recipes that differ later."""
    online, creator = recipe.online, recipe.creator
    assert online is not None
    settings: dict[str, Any] = {
        "prompts": Input("prompts"),
        "seed": _seed(recipe),
        "size": recipe.solver.training.batch_size // recipe.solver.responses,
        "metric": resolved.function(creator.metric),
    }
    inputs: Inputs = {}
    if number and creator.control == "human":
        settings |= {"fresh": Input("fresh"), "share": online.buffer.share}
        inputs["fresh"] = decontamination_stages(recipe, resolved, number, prompts_stage(recipe, resolved, number))[-1]
    elif number:
        settings |= {"share": online.buffer.share, "buffer": online.buffer.model_dump()}
        if creator.control is None:
            evolving, inputs = _evolving(recipe, resolved, policy)
            selection = {"kind": resolved.function(creator.selection.kind), "fraction": creator.selection.fraction}
            settings |= {"selection": selection, "evolving": evolving, "lag": online.lag}
    return Use("eva_stages.creator.curriculum:Curriculum", settings), inputs


def _evolving(recipe: Recipe, resolved: Resolved, policy: Stage | Outside) -> tuple[Use, Inputs]:
    """What evolves, curates and judges within a step. A model of kind policy is the policy at the start of the interval."""
    evolve, curate = recipe.creator.evolve, recipe.creator.curate
    evolver, more_inputs = evolve_step(recipe, resolved, 0, policy, None)
    inputs: Inputs = {**more_inputs}
    settings: dict[str, Any] = {"evolver": _named_step(evolver, "evolve"), "seed": derive_seed(recipe.seed, "online")}
    settings["near_duplicate"] = curate.near_duplicate
    if curate.filters:
        settings["filters"] = [resolved.function(spec) for spec in curate.filters]
    if config := curate.decontaminate:
        files = {f"questions_{index}": resolved.file(question_source(name)) for index, name in enumerate(config.against)}
        benchmarks = {name: Input(key) for name, key in zip(config.against, files, strict=True)}
        settings["decontaminate"] = {"benchmarks": benchmarks, "ngram": config.ngram, "overlap": config.overlap}
        inputs |= files
    if evolve.feedback:
        settings["has_feedback"] = True
        if evolve.feedback.critic is not None:
            critic, critic_inputs = generator(evolve.feedback.critic, recipe, resolved, policy, "critic")
            settings["critique"] = Use("eva_stages.creator.context:Critique", {"name": "critique", "llm": critic})
            inputs |= critic_inputs
    if gate := curate.gate:
        tests = gate_tests(gate, resolved)
        if gate.judge is not None and judged_tests(gate):
            tests["llm"], judge_inputs = generator(gate.judge, recipe, resolved, policy, "gate-judge")
            inputs |= judge_inputs
        settings["gate"] = Use("eva_stages.creator.gate:JudgeValidity", {"name": "gate", **tests})
    return Use("eva_stages.creator.step_evolving:StepEvolving", settings), inputs


def _named_step(step: Use, name: str) -> Use:
    """A step with a name, and without the seed of a stage: every optimiser step has its own."""
    arguments: Mapping[str, Any] = {key: value for key, value in step.arguments.items() if key != "seed"}
    return replace(step, arguments={"name": name, **arguments})


def _limits(recipe: Recipe) -> list[Limit]:
    """The recipe's limits on failed calls within an interval; the counts of a role have its name in front."""
    limits = recipe.limits
    of_roles = {
        "critic": failed_calls("critic", limits.uncriticised, "creator.evolve.feedback.critic", "limits.uncriticised"),
        "gate": failed_calls("gate", limits.ungated, GATE, "limits.ungated"),
    }
    role_limits = [replace(limit, counter=f"{role}_{FAILED_CALLS}", total=f"{role}_{CALLS}") for role, limit in of_roles.items()]
    return [failed_calls("evolver", limits.unevolved, "creator.evolve.generator", "limits.unevolved"), *role_limits]
