"""Stage names are built and parsed in one place, and say what a stage is."""

import pytest

from eva_stages.core.kinds import (
    ANSWER,
    BASE,
    EVAL,
    JUDGE,
    KINDS,
    LETTERCRAFT,
    OF_EVALUATION,
    PROBE_REWARD,
    QUESTIONS,
    SIDES,
    Role,
    StageName,
    parsed_label,
    parsed_name,
    stage_name,
)
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.stage import RowStage

NAMES = {
    "questions": StageName(QUESTIONS, LETTERCRAFT),
    "arena-hard-v2.0-questions": StageName(QUESTIONS, "arena-hard-v2.0"),
    "eval-judge": StageName(JUDGE, LETTERCRAFT, EVAL),
    "base-mt-bench-answer": StageName(ANSWER, "mt-bench", BASE),
    "eval-probe-reward": StageName(PROBE_REWARD, None, EVAL),
    "reward": StageName(KINDS["reward"]),
}


@pytest.mark.parametrize(("name", "stage_name"), NAMES.items())
def test_a_name_says_what_a_stage_is(name: str, stage_name: StageName) -> None:
    assert parsed_name(name) == stage_name
    assert str(stage_name) == name


@pytest.mark.parametrize("benchmark", [LETTERCRAFT, "mt-bench", "arena-hard-v0.1", "lm-eval", "of-my-own"])
def test_every_name_of_an_evaluation_is_parsed_back(benchmark: str) -> None:
    for kind in OF_EVALUATION.values():
        for side in SIDES if kind.has_side else (None,):
            parsed_stage = parsed_name(stage_name(kind, benchmark, side))
            assert parsed_stage == StageName(kind, benchmark, side)


def test_the_rewards_of_an_ensembles_member_are_no_rewards_of_the_iteration() -> None:
    assert parsed_name("eval-probe-reward-member-0").kind.role == Role.MEMBER_REWARDS


def test_labels_have_an_iteration_or_none() -> None:
    assert parsed_label("12-eval-judge") == (12, "eval-judge")
    assert parsed_label("eval-judge") == (None, "eval-judge")


def test_published_names_and_schemas_are_unique_and_known() -> None:
    published_names = [
        parsed_name(str(StageName(kind, LETTERCRAFT, side))).published_name
        for kind in OF_EVALUATION.values()
        for side in (SIDES if kind.has_side else (None,))
        if kind != JUDGE or side == EVAL
    ]
    published_names += [kind.published_name or kind.name for kind in KINDS.values()]
    assert len(set(published_names)) == len(published_names)
    assert all(kind.rows in SCHEMAS for kind in (*KINDS.values(), *OF_EVALUATION.values()) if kind.rows)


def test_a_row_stage_has_the_schema_of_its_kind_unless_it_is_given_another() -> None:
    schemas = {
        "critique": "critiques",
        "embed-prompts": "embeddings",
        "analyse-scores": "prompt_scores",
        "analyse-topics": "topics",
        "rewrite": "rewrites",
        "base-probe": "responses",
        "eval-gsm8k-check": "rewards",
        "eval-judge": "judgments",
    }
    assert {name: RowStage(name, 1, {}).schema for name in schemas} == schemas
    assert RowStage("base-answer", 0, {}, schema="answers").schema == "answers"
