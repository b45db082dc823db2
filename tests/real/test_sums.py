"""Sums of reasoning-gym with references: rewards by the `math` verifier, and an iteration that keeps references."""

import json
from pathlib import Path

import pytest

from eva_stages.models.verifiers import math
from tests.conftest import manifests, overrides
from tests.real.large_model import large_model
from tests.real.whole_run import (
    WholeRun,
    whole_run,
)

SUMS, HELD_OUT_SUMS = 24, 8


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory, policy: Path) -> WholeRun:
    """A base round on half of the sums, and an iteration on the other half (control `human`); `gsm8k` measures on sums of their own."""
    import reasoning_gym

    folder = tmp_path_factory.mktemp("sums")
    data = reasoning_gym.create_dataset("chain_sum", size=200, seed=7, min_terms=2, max_terms=2, min_digits=1, max_digits=1)
    different = {entry["question"]: entry["answer"] for entry in data}
    rows = [{"question": question, "answer": answer} for question, answer in different.items()][: SUMS + HELD_OUT_SUMS]
    for name, part in (("sums.jsonl", rows[:SUMS]), ("held_out.jsonl", rows[SUMS:])):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in part), encoding="utf-8")
    prompts = {"kind": "file", "path": str(folder / "sums.jsonl"), "column": "question", "reference_column": "answer", "size": SUMS // 2}
    settings = {
        "name": "smollm2-135m-sums",
        "policy.model": str(policy),
        "policy.generator.system_prompt": None,
        "prompts": prompts,
        "reward": {"kind": "verifier", "function": "math"},
        "creator.control": "human",
        "solver.training.epochs": 1,
        "evaluation.benchmarks": [{"kind": "gsm8k", "questions": str(folder / "held_out.jsonl"), "max_new_tokens": 48}],
        "health.answers": 0,
    }
    with large_model() as server:
        run = whole_run(folder / "sums", server, "smollm2-135m/offline", overrides(settings))
        assert not server.requests
    return run


def test_references_come_with_the_prompts_of_every_iteration(sums: WholeRun) -> None:
    prompts = [sums.rows("0-prompts"), sums.rows("1-prompts")]
    assert [len(part) for part in prompts] == [SUMS // 2, SUMS // 2]
    assert len({row["prompt_id"] for part in prompts for row in part}) == SUMS
    for row in prompts[0] + prompts[1]:
        first, sign, second = row["messages"][-1]["content"].removesuffix(" =").split()[-3:]
        assert int(row["reference"]) == int(first) + int(second) * (1 if sign == "+" else -1)
    sums.assert_ids_are_hashes("1-prompts")


def test_rewards_are_the_verifiers_and_some_sums_are_right(sums: WholeRun) -> None:
    for iteration in "01":
        assert sums.assert_rewards_are_the_functions(f"{iteration}-respond", f"{iteration}-prompts", math) == 2
        assert manifests(sums.folder)[f"{iteration}-reward"]["counts"].get("unscored", 0) == 0


def test_pairs_are_right_against_wrong_answers_with_their_sampled_ids(sums: WholeRun) -> None:
    for iteration in (0, 1):
        sums.assert_pairs_hold_sampled_ids(iteration)
        assert {(row["chosen_reward"], row["rejected_reward"]) for row in sums.rows(f"{iteration}-pair")} == {(1.0, 0.0)}


def test_a_second_run_computes_nothing(sums: WholeRun) -> None:
    sums.assert_nothing_was_computed()


def test_every_policy_is_measured_on_sums_of_its_own(sums: WholeRun) -> None:
    scores = {entry["policy"]: entry["scores"] for entry in sums.document["benchmarks"]}
    assert set(scores) == {"base", "iteration 0", "iteration 1"} and None not in scores.values()
