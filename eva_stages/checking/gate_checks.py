"""Checks of the gate, its audit, and the band of admission."""

from collections.abc import Iterator

from eva_stages.core.config.gate_config import BY_JUDGE, Gate, GateAudit
from eva_stages.core.config.prompts_config import LettercraftPrompts, ReasoningGymPrompts
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import LettercraftNoisyReward, LettercraftReward, Reward, VerifierReward
from eva_stages.core.resolved import Resolved
from eva_stages.core.terminal import note
from eva_stages.creator.gate_questions import judged_tests

GATE, BAND = "creator.curate.gate", "creator.curate.admit.band"
PARTIAL_VERIFIERS = ("instruction", "reasoning_gym")
"""Built-in verifiers that also give rewards between 0 and 1."""


def check_gate(recipe: Recipe, _: Resolved) -> Iterator[str]:
    """Every test of the gate can be made, and a judge is given exactly where one is asked."""
    gate = recipe.creator.curate.gate
    if gate is None:
        return
    if all(test is None for test in (gate.max_length_ratio, gate.min_zlib_ratio, gate.answerable, gate.relevant)):
        yield f"{GATE}: has no test; give one of max_length_ratio, min_zlib_ratio, answerable and relevant, or leave the gate out"
    yield from _judge(GATE, gate)
    yield from _function(recipe, f"{GATE}.answerable", gate.answerable)
    if gate.audit is not None:
        yield from _judge(f"{GATE}.audit", gate.audit)
        yield from _function(recipe, f"{GATE}.audit.answerable", gate.audit.answerable)
        if gate.audit.judge is not None and gate.audit.judge == gate.judge:
            note(f"{GATE}.audit.judge: is the gate's own judge, so the audit shows only how well it repeats itself; give a stronger one")
        if gate.audit.answerable == gate.answerable != BY_JUDGE:
            note(
                f"{GATE}.audit.answerable: {gate.answerable} is the gate's own function, so that the audit repeats the gate's verdicts and "
                "finds a precision of 1; give another function or a judge, or leave the audit out"
            )


def _judge(place: str, config: Gate | GateAudit) -> Iterator[str]:
    tests = judged_tests(config)
    if tests and config.judge is None:
        asking = f"{' and '.join(tests)} ask{'' if tests[1:] else 's'} a judge"
        yield f"{place}.judge: {asking}, and there is none; give a model of kind policy, transformers, vllm or litellm"
    if config.judge is not None and not tests:
        asking = "relevant: judge or answerable: judge" if isinstance(config, Gate) else "answerable: judge"
        yield f"{place}.judge: no test asks the judge; set {asking}, or leave the judge out"


def _function(recipe: Recipe, place: str, function: str | None) -> Iterator[str]:
    """A built-in function gets prompts of its own kind."""
    prompts = recipe.prompts
    if function == "lettercraft" and not (isinstance(prompts, LettercraftPrompts) and prompts.distribution.startswith("deep")):
        yield f"{place}: lettercraft knows the deep world only; take prompts of kind lettercraft with a deep distribution, or another test"
    if function == "reasoning_gym" and not isinstance(prompts, ReasoningGymPrompts):
        yield f"{place}: reasoning_gym confirms its own tasks, and prompts.kind is {prompts.kind}; take another test"


def check_band(recipe: Recipe, _: Resolved) -> Iterator[str]:
    """The band is a range of shares, and the rewards can be only 0 and 1."""
    band = recipe.creator.curate.admit.band if recipe.creator.curate.admit else None
    if band is None:
        return
    low, high = band
    if not 0 <= low <= high <= 1:
        yield f"{BAND}: [{low:g}, {high:g}] is no range of shares; give two numbers from 0 to 1, the lower one first"
    if not _may_be_binary(recipe.reward):
        yield (
            f"{BAND}: needs rewards of 0 and 1, and the reward of kind {recipe.reward.kind} gives others; leave the band out, or take a "
            "verifier that returns 0 or 1"
        )


def _may_be_binary(reward: Reward) -> bool:
    """Whether a reward gives only 0 and 1, as far as its settings show."""
    match reward:
        case LettercraftReward(exact=True) | LettercraftNoisyReward():
            return True
        case VerifierReward(function=name):
            return name not in PARTIAL_VERIFIERS
        case _:
            return False
