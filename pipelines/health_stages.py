"""The health of every iteration, after its evaluation.

Health is measured on the policy's responses of a Lettercraft evaluation, or else on responses to a sample of the seed prompts. The
reward that the policy is trained on scores them, unless it only compares responses with each other, and so does a held-out reward that
training never sees, if the recipe has one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from eva_stages.core.config.evaluation_config import AlpacaEval, ArenaHard, Lettercraft, benchmark_name
from eva_stages.core.config.health_config import PROBE_SAMPLES
from eva_stages.core.config.models_config import TransformersGenerator
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import EnsembleReward, LettercraftReward, PairwiseReward
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.health_signs import checks
from eva_stages.core.kinds import (
    ANSWER,
    ANSWER_REWARD,
    BASE,
    EVAL,
    HELD_OUT_REWARD,
    JUDGE,
    JUDGE_SAMPLE,
    LETTERCRAFT,
    PROBE_ANSWER,
    PROBE_REWARD,
    REJUDGE,
    SCORE,
    Side,
    StageName,
    stage_name,
)
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import FunctionStage, Outside, RowStage, Stage, Use
from pipelines.model_calls import date_of
from pipelines.response_stages import responding, rewarding

Inputs = Mapping[str, Stage | Outside]
OF_PROMPTS = {"gate": "gate-verdicts", "coverage": "coverage", "uses": "uses"}
"""Inputs of health, and the stages of an iteration's prompts that they are, in recipes that have these."""


@dataclass(frozen=True)
class PolicyResponses:
    """A policy's responses to the questions that are the same for all policies, and their rewards."""

    stages: tuple[Stage, ...] = ()
    """Stages that only health needs."""
    questions: Stage | None = None
    answers: Stage | None = None
    rewards: Stage | None = None
    held_out_rewards: Stage | None = None


def health_stages(
    recipe: Recipe,
    resolved: Resolved,
    seeds: Stage,
    base: Outside,
    creators: Sequence[Sequence[Stage]],
    prompt_sets: Sequence[Stage],
    solvers: Sequence[Sequence[Stage]],
    of_base: Sequence[Stage],
    of_policies: Sequence[Sequence[Stage]],
) -> list[tuple[Stage, ...]]:
    """The health of each iteration, the last of its stages.

    Args:
        creators, prompt_sets, solvers: of each iteration, from 0.
        of_base, of_policies: the evaluations of the base policy and of each iteration's policy.
    """
    first, previous_score = _policy_responses(recipe, resolved, seeds, 0, base, base, of_base, BASE), _score(recipe, of_base, BASE)
    earlier: dict[str, PolicyResponses] = {BASE: first}
    iteration_stages = []
    parts = zip(creators, prompt_sets, solvers, of_policies, strict=True)
    for number, (creator, prompts, solver, evaluation) in enumerate(parts):
        responses, score = (
            _policy_responses(recipe, resolved, seeds, number, solver[-1], base, evaluation, EVAL),
            _score(recipe, evaluation, EVAL),
        )
        judgments = next((stage for stage in evaluation if stage.kind == JUDGE), None) if number == 0 else None
        rejudging = _rejudging(recipe, judgments) if judgments and recipe.health.judge_repeats else ()
        inputs = {
            "prompts": prompts,
            "seeds": seeds,
            "pairs": next((stage for stage in solver if stage.name == "pair"), None),
            "policy": solver[-1],
            "initial": base,
            "questions": responses.questions,
            "answers": responses.answers,
            "base_answers": first.answers,
            "rewards": responses.rewards,
            "rewards_before": list(earlier.values())[-1].rewards,
            "score": score,
            "score_before": previous_score,
            **{name: next((stage for stage in creator if stage.name == kind), None) for name, kind in OF_PROMPTS.items()},
            **_held_out_inputs(recipe, responses, earlier),
            **({"judgments": judgments, "rejudgments": rejudging[-1]} if rejudging else {}),
        }
        present_inputs = {name: stage for name, stage in inputs.items() if stage is not None}
        health = _health(recipe, resolved, number, present_inputs)
        iteration_stages.append((*(first.stages if number == 0 else ()), *responses.stages, *rejudging, health))
        earlier[str(number)], previous_score = responses, score
    return iteration_stages


def _held_out_inputs(recipe: Recipe, responses: PolicyResponses, earlier: Mapping[str, PolicyResponses]) -> dict[str, Stage | None]:
    """The rewards of this policy and of earlier ones that `held_out_figures` compares. An ensemble standardises the rewards of every stage,
    so their levels say nothing."""
    if responses.held_out_rewards is None:
        return {}
    inputs = {"held_out": responses.held_out_rewards} | {f"held_out_{name}": policy.held_out_rewards for name, policy in earlier.items()}
    if not isinstance(recipe.reward, EnsembleReward):
        inputs |= {f"rewards_{name}": policy.rewards for name, policy in earlier.items()}
    return inputs


def _rejudging(recipe: Recipe, judgments: Stage) -> tuple[Stage, Stage]:
    """A sample of the questions of a benchmark's judgments, and a second call about each of them."""
    assert isinstance(judgments, RowStage)
    settings = {"size": recipe.health.judge_repeats, "seed": derive_seed(recipe.seed, "judge sample")}
    sample = FunctionStage(
        stage_name(JUDGE_SAMPLE, judgments.benchmark),
        0,
        {"prompts": judgments.inputs["questions"]},
        function=Use("eva_stages.evaluation.health_figures:probe", settings),
    )
    rejudgments = replace(
        judgments,
        name=stage_name(REJUDGE, judgments.benchmark, EVAL),
        inputs={**judgments.inputs, "questions": sample},
        steps=tuple(replace(step, arguments={**step.arguments, "repeat": 1}) for step in judgments.steps),
    )
    return sample, rejudgments


def _health(recipe: Recipe, resolved: Resolved, iteration: int, inputs: Inputs) -> Stage:
    generator = recipe.policy.generator
    settings = {"answers": recipe.health.answers, "system_prompt": generator.system_prompt, "dtype": generator.dtype}
    settings |= date_of(resolved, inputs["policy"])
    device = generator.runtime.device if isinstance(generator, TransformersGenerator) else "auto"
    wanted_share = recipe.online.buffer.share if recipe.online else recipe.creator.mix.evolved_share
    first = 2 if recipe.online else 1  # before, the buffer is full of seed prompts
    evolved = {"evolved_share": wanted_share} if iteration >= first and recipe.creator.control is None else {}
    function = Use("eva_stages.evaluation.health_figures:measure", {**settings, **evolved}, {"device": device})
    return FunctionStage(
        "health", iteration, inputs, version=2, function=function, checks=checks(recipe.health, is_online=recipe.mode == "online")
    )


def _policy_responses(
    recipe: Recipe,
    resolved: Resolved,
    seeds: Stage,
    iteration: int,
    policy: Stage | Outside,
    base: Outside,
    evaluation: Sequence[Stage],
    side: Side,
) -> PolicyResponses:
    """A policy's responses with their rewards; the base policy judges where the held-out reward lets the policy judge.

    Args:
        side: base or eval, as in the names of its evaluation's stages.
    """
    responses = _scored_responses(recipe, resolved, seeds, iteration, policy, evaluation, side)
    held_out_reward = recipe.health.held_out_reward
    if held_out_reward is None or responses.questions is None or responses.answers is None:
        return responses
    name = stage_name(HELD_OUT_REWARD, side=side)
    rewards = rewarding(recipe, resolved, name, iteration, responses.questions, responses.answers, base, held_out_reward)
    return replace(responses, stages=(*responses.stages, rewards), held_out_rewards=rewards)


def _scored_responses(
    recipe: Recipe, resolved: Resolved, seeds: Stage, iteration: int, policy: Stage | Outside, evaluation: Sequence[Stage], side: Side
) -> PolicyResponses:
    """A policy's responses with their training rewards."""
    if any(isinstance(benchmark, Lettercraft) for benchmark in recipe.evaluation.benchmarks):
        answers = next(stage for stage in evaluation if stage.parsed_name == StageName(ANSWER, LETTERCRAFT, side))
        questions = answers.inputs["questions"]
        assert isinstance(questions, Stage)
        if recipe.reward == LettercraftReward(kind="lettercraft"):
            reward_name = StageName(ANSWER_REWARD, LETTERCRAFT, side)
            return PolicyResponses((), questions, answers, next(stage for stage in evaluation if stage.parsed_name == reward_name))
        stages: tuple[Stage, ...] = ()
    elif recipe.health.answers:
        draw = Use(
            "eva_stages.evaluation.health_figures:probe", {"size": recipe.health.probe_prompts, "seed": derive_seed(recipe.seed, "probe")}
        )
        questions = FunctionStage("probe", 0, {"prompts": seeds}, function=draw)
        answers = responding(recipe, resolved, stage_name(PROBE_ANSWER, side=side), iteration, questions, policy, PROBE_SAMPLES)
        stages = (questions, answers)
    else:
        return PolicyResponses()
    if isinstance(recipe.reward, PairwiseReward):
        return PolicyResponses(stages, questions, answers)
    rewards = rewarding(recipe, resolved, stage_name(PROBE_REWARD, side=side), iteration, questions, answers, policy)
    return PolicyResponses((*stages, rewards), questions, answers, rewards)


def _score(recipe: Recipe, evaluation: Sequence[Stage], side: Side) -> Stage | None:
    """The score of the first benchmark that is a judged win rate."""
    judged_benchmarks = [
        benchmark for benchmark in recipe.evaluation.benchmarks if isinstance(benchmark, Lettercraft | ArenaHard | AlpacaEval)
    ]
    names = [StageName(SCORE, benchmark_name(benchmark), side) for benchmark in judged_benchmarks[:1]]
    return next((stage for stage in evaluation if stage.parsed_name in names), None)
