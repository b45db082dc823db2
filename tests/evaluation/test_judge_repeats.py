"""How far a judge agrees with itself, from two calls about the same texts in the same order."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import cohen_kappa_score

from eva_stages.core.rows import SCHEMAS
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import RowStage
from eva_stages.evaluation.judge_repeats import repeat_figures
from eva_stages.evaluation.pair_judging import JudgePairs
from eva_stages.lettercraft.player import LettercraftLLM
from tests.building import build_rounds, plan_of
from tests.evaluation.test_held_out_rewards import tiny


def judgments(outcomes: list[float | None], is_rating: bool = False) -> pa.Table:
    rows = [
        {
            "prompt_id": f"p{n // 2}",
            "game": n % 2,
            "outcome": outcome,
            "rating": 1 + 9 * outcome if is_rating and outcome is not None else None,
        }
        for n, outcome in enumerate(outcomes)
    ]
    return pa.Table.from_pylist([{**dict.fromkeys(SCHEMAS["judgments"].names), **row} for row in rows], schema=SCHEMAS["judgments"])


def outcome_pairs(values: list[float], share: float, n: int, seed: int) -> tuple[list[Any], list[Any]]:
    """Outcomes of which the second one differs in a share of the judgments."""
    rng = np.random.default_rng(seed)
    first = rng.choice(values, n)
    return first.tolist(), np.where(rng.random(n) < share, rng.choice(values, n), first).tolist()


@pytest.mark.parametrize("is_rating", [False, True])
def test_agreement_and_kappa_are_those_of_scikit_learn(is_rating: bool) -> None:
    values = [number / 9 for number in range(10)] if is_rating else [0.0, 0.5, 1.0]
    first, second = outcome_pairs(values, 0.4, 100, 1)
    figures = repeat_figures(judgments(first, is_rating), judgments(second, is_rating))
    labels = [[values.index(value) for value in outcomes] for outcomes in (first, second)]
    assert figures["judge_kappa"] == pytest.approx(cohen_kappa_score(*labels, labels=range(len(values)), weights="quadratic"))
    assert figures["judge_agreement"] == pytest.approx(np.mean(np.equal(*labels))) and figures["judgments_repeated"] == 100
    for name in ("judge_kappa", "judge_agreement"):
        low, value, high = (figures[f"{name}{end}"] for end in ("_low", "", "_high"))
        assert low is not None and value is not None and high is not None and low < value < high


def test_a_sample_is_matched_by_prompt_and_game_and_missing_verdicts_are_left_out() -> None:
    first, second = outcome_pairs([0.1, 0.9], 0.3, 40, 2)  # probabilities count by their winner
    second[0] = None
    sample = judgments(second).slice(0, 20).take(list(reversed(range(20))))
    figures = repeat_figures(judgments(first), sample)
    assert figures["judgments_repeated"] == 19
    assert figures["judge_agreement"] == pytest.approx(np.mean([a == b for a, b in zip(first[1:20], second[1:20], strict=True)]))
    assert repeat_figures(judgments(first), judgments([None] * 40))["judge_agreement"] is None
    equal = repeat_figures(judgments([1.0] * 20), judgments([1.0] * 20))
    assert equal["judge_agreement"] == 1 and equal["judge_kappa"] is None, "chance alone would agree as well"


def test_the_sample_is_judged_again_once_per_run_by_other_draws() -> None:
    rounds = build_rounds(tiny(health__judge_repeats=5))
    names = [[stage.name for stage in iteration.health] for iteration in rounds]
    assert names == [["judge-sample", "eval-rejudge", "health"], ["health"]]
    assert len(rounds[0].stages) == len({stage.label for stage in rounds[0].stages}), "a plan counts the calls of each stage once"
    _, rejudging, health = rounds[0].health
    judging = health.inputs["judgments"]
    assert isinstance(judging, RowStage) and isinstance(rejudging, RowStage)
    assert rejudging.steps[0].arguments == {**judging.steps[0].arguments, "repeat": 1} and rejudging.schema == "judgments"
    assert {name for name in judging.inputs if judging.inputs[name] != rejudging.inputs[name]} == {"questions"}
    assert health.inputs["rejudgments"] == rejudging and judging in rounds[0].evaluation
    row = {"prompt_id": "p", "game": 0, "conversation": []}
    seeds = {JudgePairs(name="judge", llm=LettercraftLLM(), seed=1, repeat=number).seed_of(row) for number in (0, 1)}
    assert len(seeds) == 2


def test_the_plan_shows_what_the_repetition_costs(tmp_path: Any) -> None:
    entries = {entry["stage"]: entry for entry in plan_of(tiny(health__judge_repeats=5), Run(tmp_path))["stages"]}
    assert [entries[f"0-{name}"]["rows"] for name in ("judge-sample", "eval-rejudge")] == [5, 10]
