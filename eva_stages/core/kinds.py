"""The kinds of stages in one table, and the only code that builds or parses the name of a stage.

A stage's name is what users type (`--until eval-mt-bench-judge`) and what JSON documents, folders and manifests show. For most kinds it is
the kind itself. A stage of an evaluation has the side in front (`base`: the base policy, `eval`: the policy of its iteration), then the
benchmark, which Lettercraft's stages leave out: `base-mt-bench-answer`, `eval-judge`, `arena-hard-v2.0-questions`.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

Side = Literal["base", "eval"]
BASE: Side = "base"
EVAL: Side = "eval"
SIDES = (BASE, EVAL)
LETTERCRAFT = "lettercraft"
REASONING_GYM = "reasoning-gym"


class Role(StrEnum):
    """What the rows of a stage are in the method."""

    PROMPTS = "prompts"
    RESPONSES = "responses"
    REWARDS = "rewards"
    MEMBER_REWARDS = "member rewards"
    INFORMATIVENESS = "informativeness"
    SELECTION = "selection"
    CONTEXT = "context"
    EVOLUTIONS = "evolutions"
    EMBEDDINGS = "embeddings"
    ANALYSIS = "analysis"
    VERDICTS = "verdicts"
    PAIRS = "pairs"
    REWRITES = "rewrites"
    POLICY = "policy"
    CREATOR = "creator"
    QUESTIONS = "questions"
    JUDGMENTS = "judgments"
    SCORE = "score"
    HEALTH = "health"
    AUXILIARY = "other"


@dataclass(frozen=True)
class Kind:
    """What the stages of one kind have in common."""

    name: str
    role: Role
    rows: str | None = None
    """Schema of a row stage's rows (`core.rows.SCHEMAS`), unless its builder sets another one."""
    published_name: str | None = None
    """Configuration on the Hub, without the iteration; None: the stage's name."""
    sentence: str | None = None
    unit: Literal["rows", "steps"] = "rows"
    """What its progress and its rate count."""
    leaves_out: str | None = None
    """The fate of an evolved prompt that this stage leaves out."""
    kept_counts: tuple[str, ...] = ()
    """Its counts that are no reason for leaving a prompt out."""
    part: str | None = None
    """Last part of the stage's name, in an evaluation; None: the kind's name is the stage's name."""
    has_side: bool = False


class StageName(NamedTuple):
    """A stage's name, parsed. Benchmark and side are None for stages that are not part of an evaluation."""

    kind: Kind
    benchmark: str | None = None
    side: Side | None = None

    @property
    def published_name(self) -> str:
        """The stage's configuration on the Hub, without the iteration; only Lettercraft's stages share the names of their kind."""
        shared_name = self.kind.published_name if self.benchmark in (None, LETTERCRAFT) else None
        return str(self) if shared_name is None else shared_name.format(side=self.side)

    @property
    def sentence(self) -> str:
        if self.kind.sentence is None or self.benchmark not in (None, LETTERCRAFT):
            return f"rows of the stage {self}"
        return self.kind.sentence.format(whose="the base policy's" if self.side == BASE else "the policy's")

    def policy(self, iteration: int) -> str:
        """The policy that an evaluation's stage is about, as tables name it."""
        return BASE if self.side == BASE else f"iteration {iteration}"

    def __str__(self) -> str:
        benchmark = None if self.benchmark == LETTERCRAFT else self.benchmark
        return "-".join(part for part in (self.side, benchmark, self.kind.part or self.kind.name) if part)


QUESTIONS = Kind("questions", Role.QUESTIONS, published_name="questions", sentence="held-out questions", part="questions")
BASELINE = Kind("baseline", Role.RESPONSES, part="baseline")
ANSWER = Kind(
    "answer",
    Role.RESPONSES,
    rows="responses",
    published_name="{side}-answers",
    sentence="{whose} responses to the held-out questions",
    part="answer",
    has_side=True,
)
ANSWER_REWARD = Kind(
    "answer-reward",
    Role.REWARDS,
    rows="answer_rewards",
    published_name="{side}-rewards",
    sentence="rewards of {whose} responses to the held-out questions",
    part="reward",
    has_side=True,
)
CHECK = Kind("check", Role.REWARDS, rows="rewards", part="check", has_side=True)
JUDGE = Kind(
    "judge",
    Role.JUDGMENTS,
    rows="judgments",
    published_name="judgments",
    sentence="verdicts against the base policy, in both orders",
    part="judge",
    has_side=True,
)
JUDGE_SAMPLE = Kind("judge-sample", Role.QUESTIONS, part="judge-sample")
REJUDGE = Kind(
    "rejudge",
    Role.JUDGMENTS,
    rows="judgments",
    sentence="the judge's second verdicts about a sample of the same responses",
    part="rejudge",
    has_side=True,
)
SCORE = Kind("score", Role.SCORE, part="score", has_side=True)
PROBE_ANSWER = Kind("probe-answer", Role.RESPONSES, rows="responses", part="probe", has_side=True)
PROBE_REWARD = Kind("probe-reward", Role.REWARDS, part="probe-reward", has_side=True)
HELD_OUT_REWARD = Kind(
    "held-out-reward",
    Role.REWARDS,
    published_name="{side}-held-out-rewards",
    sentence="rewards of {whose} responses by a reward that training never sees",
    part="held-out-reward",
    has_side=True,
)
OF_EVALUATION = {str(kind.part): kind for kind in (QUESTIONS, BASELINE, ANSWER, ANSWER_REWARD, CHECK, JUDGE, JUDGE_SAMPLE, REJUDGE, SCORE)}
OF_PROBE = {str(kind.part): kind for kind in (PROBE_ANSWER, PROBE_REWARD, HELD_OUT_REWARD)}
KINDS = {
    kind.name: kind
    for kind in (
        Kind("prompts", Role.PROMPTS, published_name="seeds", sentence="seed prompts as they were loaded"),
        Kind("contamination", Role.AUXILIARY),
        Kind(
            "decontaminate",
            Role.PROMPTS,
            leaves_out="left out: contaminated by an evaluation set",
            kept_counts=("clean", "kept", "prompts"),
        ),
        Kind(
            "creator-respond",
            Role.RESPONSES,
            rows="responses",
            published_name="creator-responses",
            sentence="the policy's responses by which prompts are selected",
        ),
        Kind("creator-reward", Role.REWARDS, published_name="creator-rewards", sentence="rewards of those responses"),
        Kind("inform", Role.INFORMATIVENESS, published_name="info", sentence="informativeness of each prompt, by every metric"),
        Kind("novelty", Role.AUXILIARY, sentence="distance of each prompt to the nearest prompt of earlier sets"),
        Kind("archive", Role.AUXILIARY, sentence="every scored prompt of all sets in its cell, the most informative first"),
        Kind("select", Role.SELECTION, published_name="selected", sentence="prompts that were drawn to be evolved"),
        Kind("subset", Role.PROMPTS),
        Kind("archived", Role.PROMPTS, sentence="prompts of all sets that were drawn from the archive to be evolved"),
        Kind("replay", Role.PROMPTS, published_name="replayed", sentence="informative prompts of earlier sets"),
        Kind("feedback", Role.CONTEXT),
        Kind("critique", Role.CONTEXT, rows="critiques"),
        Kind("parents", Role.CONTEXT),
        Kind("evolve", Role.EVOLUTIONS, rows="evolutions", published_name="evolutions", sentence="evolved prompts before curation"),
        Kind("embed-prompts", Role.EMBEDDINGS, rows="embeddings"),
        Kind("embed", Role.EMBEDDINGS, rows="embeddings"),
        Kind(
            "curate",
            Role.PROMPTS,
            published_name="evolved",
            sentence="evolved prompts that passed curation",
            leaves_out="left out: filtered, or a duplicate or near duplicate",
            kept_counts=("evolved", "kept"),
        ),
        Kind(
            "diversify",
            Role.PROMPTS,
            leaves_out="left out: too close to earlier prompts",
            kept_counts=("kept", "diverse", "prompts"),
        ),
        Kind("gate-parents", Role.AUXILIARY),
        Kind(
            "gate-verdicts",
            Role.VERDICTS,
            rows="gate_verdicts",
            published_name="gate-verdicts",
            sentence="the gate's verdicts on each evolved prompt",
        ),
        Kind("gate", Role.PROMPTS, leaves_out="left out by the gate", kept_counts=("prompts", "passed")),
        Kind("gate-sample", Role.AUXILIARY),
        Kind(
            "gate-audit",
            Role.VERDICTS,
            rows="gate_audits",
            published_name="gate-audit",
            sentence="a sample of the gate's verdicts with those of its audit",
        ),
        Kind(
            "creator-children",
            Role.PROMPTS,
            published_name="children",
            sentence="evolutions that neither evolving nor a filter rejected",
        ),
        Kind("admit-respond", Role.RESPONSES, rows="responses"),
        Kind("admit-reward", Role.REWARDS),
        Kind(
            "admit",
            Role.PROMPTS,
            published_name="admitted",
            sentence="evolved prompts that were informative enough",
            leaves_out="left out: not informative enough",
            kept_counts=("admitted",),
        ),
        Kind(
            "creator-utility",
            Role.INFORMATIVENESS,
            published_name="utilities",
            sentence="utility of every evolution for the training of the creator",
        ),
        Kind("creator-pair", Role.PAIRS, published_name="creator-pairs", sentence="pairs of sibling evolutions that the creator trains on"),
        Kind("creator-train", Role.CREATOR, unit="steps"),
        Kind(
            "mix",
            Role.PROMPTS,
            published_name="prompts",
            sentence="prompts that the iteration trains on",
            leaves_out="not drawn for the prompt set",
        ),
        Kind("analyse-scores", Role.ANALYSIS, rows="prompt_scores"),
        Kind("analyse-topics", Role.ANALYSIS, rows="topics"),
        Kind("coverage", Role.AUXILIARY, sentence="diversity of all prompts up to an iteration"),
        Kind("respond", Role.RESPONSES, rows="responses", published_name="responses", sentence="the policy's responses to the prompts"),
        Kind("reward", Role.REWARDS, published_name="rewards", sentence="rewards of the responses"),
        Kind("pair", Role.PAIRS, published_name="pairs", sentence="preference pairs of the best and the worst responses"),
        Kind("rewrite", Role.REWRITES, rows="rewrites", published_name="rewrites", sentence="chosen responses, rewritten"),
        Kind("rewrite-reward", Role.REWARDS, published_name="rewrite-rewards", sentence="rewards of the rewritten responses"),
        Kind("rewritten", Role.PAIRS, published_name="rewritten-pairs", sentence="preference pairs with rewritten chosen responses"),
        Kind("pool", Role.PAIRS, published_name="pooled-pairs", sentence="preference pairs of this iteration and of those before"),
        Kind("train", Role.POLICY, unit="steps"),
        Kind("buffer", Role.AUXILIARY, published_name="buffer", sentence="the buffer of online training at the end of an interval"),
        Kind("uses", Role.AUXILIARY, published_name="uses", sentence="every use of a prompt in online training, by optimiser step"),
        Kind("probe", Role.QUESTIONS),
        Kind("health", Role.HEALTH),
    )
}
_MEMBER_OF = re.compile(r"-member-\d+")


def member_name(stage: str, index: int) -> str:
    """The name of the stage that scores by one member of an ensemble; `stage`: the name of the stage that combines the members."""
    return f"{stage}-member-{index}"


def stage_name(kind: Kind, benchmark: str | None = None, side: Side | None = None) -> str:
    """The name of a stage of an evaluation, or of a probe."""
    return str(StageName(kind, benchmark, side))


def parsed_name(name: str) -> StageName:
    """The parts of a stage's name; an unknown name becomes a kind with this name."""
    if kind := KINDS.get(name):
        return StageName(kind)
    if _MEMBER_OF.search(name):
        return StageName(Kind(name, Role.MEMBER_REWARDS))
    side: Side | None = next((side for side in SIDES if name.startswith(f"{side}-")), None)
    rest = name if side is None else name[len(side) + 1 :]
    if side is not None and rest in OF_PROBE:
        return StageName(OF_PROBE[rest], None, side)
    for part, kind in OF_EVALUATION.items():
        if kind.has_side == (side is not None) and (rest == part or rest.endswith(f"-{part}")):
            return StageName(kind, rest[: -len(part) - 1] or LETTERCRAFT, side)
    return StageName(Kind(name, Role.AUXILIARY))


def parsed_label(label: str) -> tuple[int | None, str]:
    """Iteration and name of a stage, of `1-respond` or `respond`."""
    number, _, name = label.partition("-")
    return (int(number), name) if number.isdigit() else (None, label)


def folder_label(folder: str) -> str:
    """The label of a stage, of the name of its folder, which ends with the start of the fingerprint."""
    return folder.rpartition("-")[0]
