"""The size of every stage before it runs: rows, optimiser steps, and generated tokens per row at most. The only place with such rules."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from eva_stages.core.config.evaluation_config import Benchmark, JudgedBenchmark, Lettercraft, ReasoningGym, benchmark_name
from eva_stages.core.config.health_config import PROBE_SAMPLES
from eva_stages.core.config.models_config import Evolver, Sampling
from eva_stages.core.config.prompts_config import LettercraftPrompts, ReasoningGymPrompts
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import EnsembleReward, LLMJudgeReward, OneReward, Reward
from eva_stages.core.config.solver_config import OnPolicyLoss
from eva_stages.core.kinds import (
    ANSWER,
    ANSWER_REWARD,
    BASELINE,
    CHECK,
    EVAL,
    HELD_OUT_REWARD,
    JUDGE,
    JUDGE_SAMPLE,
    LETTERCRAFT,
    PROBE_ANSWER,
    PROBE_REWARD,
    QUESTIONS,
    REASONING_GYM,
    REJUDGE,
    SCORE,
    SIDES,
    Side,
    member_name,
    stage_name,
)
from eva_stages.core.resolved import Resolved
from eva_stages.core.rounds import Iteration
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import Outside, closure
from eva_stages.creator.gate_questions import PASSES, judged_tests
from eva_stages.evaluation.benchmark_questions import question_rows
from eva_stages.planning.judge_costs import judge_calls
from eva_stages.planning.online_sizes import interval_size, interval_tokens

NO_SHARES: Mapping[int, float] = MappingProxyType({})


@dataclass(frozen=True)
class Size:
    rows: int | None
    """None: unknown, or the stage has no rows."""
    tokens_per_row: int = 0
    """Generated tokens, at most."""
    steps: int | None = None
    """Optimiser steps of `train`."""
    answers: int = 0
    """The policy's responses to a question of a public benchmark."""
    other_tokens: int = 0
    """Generated tokens, at most, that do not depend on the rows: those of other models in online training."""

    @property
    def units(self) -> int | None:
        """The units of a rate: optimiser steps of `train`, rows of other stages."""
        return self.rows if self.steps is None else self.steps

    @property
    def tokens(self) -> int | None:
        return None if self.rows is None else self.rows * self.tokens_per_row + self.other_tokens


def prompt_count(recipe: Recipe, resolved: Resolved, rounds: list[Iteration], run: Run) -> int:
    """Prompts of an iteration: as loaded, else as in the recipe, else as in its source."""
    if run.is_complete(rounds[0].prompts):
        return int(run.manifest(rounds[0].prompts)["rows"])
    prompts = recipe.prompts
    if isinstance(prompts, LettercraftPrompts | ReasoningGymPrompts):
        return prompts.size
    assert resolved.prompts is not None
    return min(resolved.prompts.usable, prompts.size or resolved.prompts.usable)


def sizes(recipe: Recipe, rounds: list[Iteration], prompts: int, pair_shares: Mapping[int, float] = NO_SHARES) -> dict[str, Size]:
    """The size of every stage, by fingerprint.

    Args:
        prompts: prompts of an iteration.
        pair_shares: by iteration, the share of the prompts that give a pair; default 1.
    """
    sizes_by_stage: dict[str, Size] = {}
    for iteration in rounds:
        sizes_by_stage = {**_sizes(recipe, iteration, prompts, pair_shares.get(iteration.number, 1.0)), **sizes_by_stage}
    return sizes_by_stage


def _sizes(recipe: Recipe, iteration: Iteration, prompts: int, pair_share: float) -> dict[str, Size]:
    """Sizes of the stages of an iteration and of their inputs."""
    limit = recipe.policy.generator.max_new_tokens
    drawn_prompts = round(prompts * recipe.creator.selection.fraction)
    attempts = drawn_prompts * recipe.creator.evolve.generations
    evolver_limit = most_tokens(recipe.creator.evolve.generator)
    critic = recipe.creator.evolve.feedback.critic if recipe.creator.evolve.feedback else None
    scorer = recipe.creator.analysis.scorer if recipe.creator.analysis else None
    lettercraft = next((benchmark for benchmark in recipe.evaluation.benchmarks if isinstance(benchmark, Lettercraft)), None)
    gym = next((benchmark for benchmark in recipe.evaluation.benchmarks if isinstance(benchmark, ReasoningGym)), None)
    questions, samples = (lettercraft.prompts, lettercraft.samples) if lettercraft else (0, 0)
    solver_prompts = drawn_prompts if iteration.number and recipe.creator.control == "no_evolve" else prompts
    sizes = {
        "creator-respond": Size(prompts, recipe.creator.responses * limit),
        **_reward_sizes(recipe.reward, "creator-reward", prompts, recipe.creator.responses),
        "admit-respond": Size(attempts, recipe.creator.responses * limit),
        **_reward_sizes(recipe.reward, "admit-reward", attempts, recipe.creator.responses),
        "admit": Size(attempts),
        "creator-children": Size(attempts),
        "creator-utility": Size(attempts),
        **_creator_sizes(recipe, iteration, drawn_prompts),
        "subset": Size(drawn_prompts),
        "respond": Size(solver_prompts, recipe.solver.responses * limit),
        **_reward_sizes(recipe.reward, "reward", solver_prompts, recipe.solver.responses),
        "pair": Size(solver_prompts),
        "rewrite": Size(solver_prompts, most_tokens(recipe.solver.rewrite.generator) if recipe.solver.rewrite else 0),
        **_reward_sizes(recipe.reward, "rewrite-reward", solver_prompts, 1),
        "rewritten": Size(solver_prompts),
        "select": Size(drawn_prompts),
        "archived": Size(drawn_prompts),
        "archive": Size(prompts * iteration.number),
        "coverage": Size(1),
        "evolve": Size(attempts, evolver_limit),
        "feedback": Size(drawn_prompts),
        "critique": Size(drawn_prompts, most_tokens(critic)),
        "parents": Size(drawn_prompts),
        "curate": Size(attempts),
        **_gate_sizes(recipe, attempts),
        "replay": Size(round(prompts * recipe.creator.replay.share) if recipe.creator.replay else None),
        "analyse-scores": Size(prompts, most_tokens(scorer)),
        "train": _training(recipe, iteration, solver_prompts, pair_share),
        stage_name(JUDGE, LETTERCRAFT, EVAL): Size(2 * questions),
        stage_name(JUDGE_SAMPLE, LETTERCRAFT): Size(min(recipe.health.judge_repeats, questions)),
        stage_name(REJUDGE, LETTERCRAFT, EVAL): Size(2 * min(recipe.health.judge_repeats, questions)),
    }
    sizes |= _benchmark_sizes(recipe, iteration)
    sizes |= _online_sizes(recipe, iteration)
    probe_prompts = min(recipe.health.probe_prompts, prompts)
    sizes |= {name: Size(probe_prompts) for name in ("health", "probe")}
    for side in SIDES:
        sizes |= _sampled_sizes(LETTERCRAFT, side, questions, samples, limit)
        sizes |= _sampled_sizes(REASONING_GYM, side, gym.questions, gym.samples, limit) if gym else {}
        sizes[stage_name(PROBE_ANSWER, side=side)] = Size(probe_prompts, PROBE_SAMPLES * limit)
        probe_size = questions or probe_prompts, samples or PROBE_SAMPLES
        sizes |= _reward_sizes(recipe.reward, stage_name(PROBE_REWARD, side=side), *probe_size)
        if recipe.health.held_out_reward:
            sizes |= _reward_sizes(recipe.health.held_out_reward, stage_name(HELD_OUT_REWARD, side=side), *probe_size)
    return {stage.fingerprint: sizes.get(stage.name, Size(prompts)) for stage in closure(list(iteration.stages))}


def _online_sizes(recipe: Recipe, iteration: Iteration) -> dict[str, Size]:
    """Sizes of an interval's training and of its tables, by stage name; none offline."""
    if recipe.online is None:
        return {}
    size = interval_size(recipe, iteration.number)
    tokens_per_use, other_tokens = interval_tokens(recipe, iteration.number)
    return {
        "train": Size(size.uses, tokens_per_use, recipe.online.interval, other_tokens=other_tokens),
        **dict.fromkeys(("uses", "creator-respond", "creator-reward", "inform", "mix"), Size(size.uses)),
        "buffer": Size(recipe.online.buffer.size),
        "select": Size(size.parents),
        **dict.fromkeys(("evolve", "curate", "gate-verdicts", "gate"), Size(size.evolutions)),
    }


def _gate_sizes(recipe: Recipe, attempts: int) -> dict[str, Size]:
    """Sizes of the gate's stages, by name, if no evolution is left out before them."""
    gate = recipe.creator.curate.gate
    if gate is None:
        return {}
    sizes = {name: Size(attempts) for name in ("gate-parents", "gate")}
    sizes["gate-verdicts"] = Size(attempts, len(judged_tests(gate)) * PASSES * most_tokens(gate.judge))
    if gate.audit:
        sample, tokens = min(attempts, 2 * gate.audit.sample), len(judged_tests(gate.audit)) * PASSES * most_tokens(gate.audit.judge)
        sizes |= {"gate-sample": Size(sample), "gate-audit": Size(sample, tokens)}
    return sizes


def _sampled_sizes(benchmark: str, side: Side, questions: int, samples: int, limit: int) -> dict[str, Size]:
    """Sizes of a benchmark whose questions get sampled responses and a greedy one, by stage name."""
    scoring = {stage_name(kind, benchmark, side): Size(questions) for kind in (ANSWER_REWARD, SCORE)}
    return {
        stage_name(QUESTIONS, benchmark): Size(questions),
        stage_name(ANSWER, benchmark, side): Size(questions, (samples + 1) * limit),
        **scoring,
    }


def _reward_sizes(reward: Reward, name: str, rows: int | None, responses: int) -> dict[str, Size]:
    """Sizes of a reward stage and of an ensemble's members, by stage name; only LLM judges generate tokens."""
    if isinstance(reward, EnsembleReward):
        members = {member_name(name, index): _judge_size(member.reward, rows, responses) for index, member in enumerate(reward.members)}
        return {**members, name: Size(rows)}
    return {name: _judge_size(reward, rows, responses)}


def _judge_size(reward: OneReward, rows: int | None, responses: int) -> Size:
    return Size(rows, responses * most_tokens(reward.judge) if isinstance(reward, LLMJudgeReward) else 0)


def _training(recipe: Recipe, iteration: Iteration, prompts: int, pair_share: float) -> Size:
    """On-policy training responds to every prompt itself; other training uses pairs, from scratch those of all iterations."""
    training, responses = recipe.solver.training, recipe.solver.responses
    if isinstance(recipe.solver.loss, OnPolicyLoss):
        limit = recipe.policy.generator.max_new_tokens
        steps = training.epochs * math.ceil(prompts * responses / training.batch_size)
        return Size(prompts, training.epochs * responses * limit, steps)
    pairs = math.ceil(prompts * pair_share) * (iteration.number + 1 if training.start == "scratch" else 1)
    return Size(None, steps=training.epochs * math.ceil(pairs / training.batch_size))


def _creator_sizes(recipe: Recipe, iteration: Iteration, parents: int) -> dict[str, Size]:
    """Sizes of the creator's pairs and training, by stage name: at most as many pairs as its objective makes of valid siblings."""
    training, siblings = recipe.creator.training, recipe.creator.evolve.generations
    if training is None:
        return {}
    combinations = math.comb(siblings, 2)
    per_parent = {"dpo": min(training.pairs_per_parent, combinations), "supervised": 1, "rloo": combinations}[training.objective]
    replay = training.replay if training.objective != "rloo" and iteration.number > 1 else 0.0
    pairs = round(parents * per_parent / (1 - replay))
    return {"creator-pair": Size(pairs), "creator-train": Size(None, steps=training.epochs * math.ceil(pairs / training.batch_size))}


def most_tokens(model: Evolver | None) -> int:
    """Tokens of a model's reply at most; those of Lettercraft and reasoning-gym are free."""
    return model.max_new_tokens if isinstance(model, Sampling) else 0


def _benchmark_sizes(recipe: Recipe, iteration: Iteration) -> dict[str, Size]:
    """Rows and tokens of the public benchmarks' stages, by stage name."""
    sizes: dict[str, Size] = {}
    for benchmark in recipe.evaluation.benchmarks:
        if isinstance(benchmark, Lettercraft | ReasoningGym):
            continue
        name = benchmark_name(benchmark)
        loads = next((stage for stage in closure(list(iteration.evaluation)) if (stage.kind, stage.benchmark) == (QUESTIONS, name)), None)
        if loads is None or not isinstance(benchmark, Benchmark):
            sizes |= {stage_name(SCORE, name, side): Size(1) for side in SIDES}
            continue
        file = loads.inputs["questions"]
        assert isinstance(file, Outside)
        rows = question_rows(str(benchmark.model_dump()["kind"]), file.path)
        turns = sum(len(row["turns"]) for row in rows)
        sizes |= {stage_name(kind, name): Size(len(rows)) for kind in (QUESTIONS, BASELINE)}
        for side in SIDES:
            sizes |= {stage_name(kind, name, side): Size(len(rows)) for kind in (CHECK, SCORE)}
            if isinstance(benchmark, JudgedBenchmark):
                sizes[stage_name(JUDGE, name, side)] = Size(judge_calls(benchmark, len(rows)))
                repeats = min(recipe.health.judge_repeats, len(rows))
                sizes[stage_name(JUDGE_SAMPLE, name)] = Size(repeats)
                sizes[stage_name(REJUDGE, name, side)] = Size(judge_calls(benchmark, repeats))
            answers = turns // len(rows)
            sizes[stage_name(ANSWER, name, side)] = Size(len(rows), answers * benchmark.max_new_tokens, answers=answers)
    return sizes
