"""A second reward shows that the first one is exploited, and raises no more false alarms than its limit says."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from eva_stages.core.config.health_config import Health
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError
from eva_stages.core.health_signs import checks
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.tables import write_rows
from eva_stages.evaluation.held_out_rewards import Rewards, divergence, gain, held_out_figures
from tests.building import build_rounds, check
from tests.conftest import TINY

EXACT = {"kind": "lettercraft", "exact": True}
ENSEMBLE = {"kind": "ensemble", "members": [{"reward": {"kind": "lettercraft"}}, {"reward": {"kind": "lettercraft_proxy"}}]}
CLASSIFIER = {"kind": "sequence_classifier", "model": "./reward-model"}


def tiny(**changes: object) -> Recipe:
    settings = TINY | {name.replace("__", "."): value for name, value in changes.items()}
    return load_recipe("quickstart", [f"{name}={json.dumps(value)}" for name, value in settings.items()])


def policies(means: list[float], seed: int, questions: int = 200, samples: int = 2) -> list[Rewards]:
    """Exact or not, of policies with these shares on questions that are not equally hard; the training reward rises by chance alone."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0, 1.5, questions)

    def question_means(share: float) -> np.ndarray:
        chances = 1 / (1 + np.exp(-(ease + np.log(share / (1 - share)))))
        return rng.binomial(samples, chances) / samples

    return [Rewards(question_means(share), rng.normal(0, 1, questions)) for share in means]


def test_the_p_value_is_that_of_the_paired_t_test_against_the_best_earlier_policy() -> None:
    policy, *earlier = policies([0.4, 0.5, 0.6, 0.5], 3)
    best = max(earlier, key=lambda rewards: rewards.held_out_means.mean())
    assert best.training is not None
    policy = Rewards(policy.held_out_means, best.training + 0.1)
    figures = divergence(policy, earlier)
    expected = 3 * stats.ttest_rel(best.held_out_means, policy.held_out_means, alternative="greater").pvalue
    assert figures["reward_divergence"] == pytest.approx(expected, rel=1e-9) and 0 < expected < 0.01
    difference = policy.held_out_means - best.held_out_means
    assert figures["held_out_change"] == pytest.approx(difference.mean()) and figures["held_out_change_error"] == stats.sem(difference)
    assert divergence(Rewards(policy.held_out_means, best.training - 0.1), earlier)["reward_divergence"] == 1, (
        "the training reward did not rise"
    )
    assert (
        divergence(Rewards(policy.held_out_means, None), [Rewards(rewards.held_out_means, None) for rewards in earlier])[
            "reward_divergence"
        ]
        is None
    )


def test_unknown_rewards_are_left_out_and_too_few_give_no_figure() -> None:
    policy, base = policies([0.3, 0.6], 5)
    partial_means = np.where(np.arange(200) < 150, np.nan, policy.held_out_means)
    assert policy.training is not None and base.training is not None
    figures = divergence(Rewards(partial_means, policy.training + 1), [base])
    expected = stats.ttest_rel(base.held_out_means[150:], policy.held_out_means[150:], alternative="greater").pvalue
    assert figures["reward_divergence"] == pytest.approx(expected, rel=1e-9)
    assert set(divergence(Rewards(np.full(200, np.nan), policy.training), [base]).values()) == {None}
    assert divergence(Rewards(np.zeros(5), np.ones(5)), [Rewards(np.ones(5), np.zeros(5))])["reward_divergence"] == 1 / 32
    assert divergence(Rewards(np.ones(5), np.ones(5)), [Rewards(np.ones(5), np.zeros(5))])["reward_divergence"] == 1
    assert (
        gain(np.array([3.0, np.nan]), np.array([1.0, 1.0]), np.array([0.0, 2.0])) == 2 and gain(np.ones(2), np.ones(2), np.ones(4)) is None
    )


def test_where_nothing_falls_alarms_are_as_rare_as_the_limit_says_and_where_it_falls_they_come() -> None:
    limit, rounds = Health().reward_divergence, 500
    assert limit is not None

    def alarm_share(shares: list[float], questions: int = 200) -> float:
        values = [
            divergence(policy, earlier)["reward_divergence"] for policy, *earlier in (policies(shares, n, questions) for n in range(rounds))
        ]
        return float(np.mean([value is not None and value < limit for value in values]))

    for shares in ([0.7] * 2, [0.7] * 5, [0.97] * 4):
        assert alarm_share(shares) <= limit + 3 * np.sqrt(limit / rounds)
    assert alarm_share([0.5, 0.7, 0.72]) > 0.4, "the training reward rises in half of the rounds, and then the fall is nearly always seen"


def test_the_figures_come_from_the_reward_stages_of_all_policies(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    matrices = {
        name: rng.normal(size=(30, 4)) for name in ("rewards_base", "held_out_base", "rewards_0", "held_out_0", "rewards", "held_out")
    }
    matrices["rewards"] += 3
    matrices["held_out"] -= 2
    matrices["held_out"][0] = 1e308  # a custom reward may be absurd
    for name, matrix in matrices.items():
        table = pa.table({"prompt_id": [f"p{n}" for n in range(30)], "rewards": matrix.tolist()})
        write_rows([table], table.schema, tmp_path / name)
    paths = {name: tmp_path / name for name in matrices}
    with np.errstate(all="raise"):
        assert held_out_figures(paths)["held_out_gain"] is not None
    del matrices["held_out"]
    figures = held_out_figures({**paths, "held_out": paths["held_out_0"]})
    difference = matrices["rewards"].mean() - matrices["rewards_base"].mean()
    assert figures["reward_gain"] == pytest.approx(difference / matrices["rewards_base"].std())
    assert figures["held_out_reward"] == pytest.approx(matrices["held_out_0"].mean())
    without_levels = held_out_figures({name: path for name, path in paths.items() if name not in ("rewards_base", "rewards_0")})
    assert without_levels["reward_gain"] is None and without_levels["reward_divergence"] is None


def test_a_held_out_reward_scores_the_responses_of_health_in_every_iteration_and_changes_no_other_stage() -> None:
    plain_rounds, scored_rounds = build_rounds(tiny()), build_rounds(tiny(health__held_out_reward=EXACT))
    for number, (plain_round, scored_round) in enumerate(zip(plain_rounds, scored_rounds, strict=True)):
        names = {stage.name for stage in scored_round.stages} - {stage.name for stage in plain_round.stages}
        assert names == ({"base-held-out-reward", "eval-held-out-reward"} if number == 0 else {"eval-held-out-reward"})
        identities = [
            {stage.fingerprint for stage in (*part.creator, *part.solver, *part.evaluation)} for part in (plain_round, scored_round)
        ]
        assert identities[0] == identities[1]
        inputs = scored_round.health[-1].inputs
        earlier = ["base", *map(str, range(number))]
        assert [name for name in inputs if "held_out" in name] == ["held_out", *(f"held_out_{name}" for name in earlier)]
        assert [inputs[f"rewards_{name}"] for name in earlier][-1] == inputs["rewards_before"]
        assert inputs["held_out"].inputs["responses"] == inputs["answers"]


def test_health_reads_the_gate_and_the_coverage_of_recipes_that_have_them() -> None:
    changes = {"creator.curate.gate": {"answerable": "lettercraft"}, "creator.analysis": {"coverage": True}}
    first, second = (iteration.health[-1].inputs for iteration in build_rounds(tiny(**changes)))
    assert [inputs["coverage"].label for inputs in (first, second)] == ["0-coverage", "1-coverage"]
    assert "gate" not in first and second["gate"].label == "1-gate-verdicts"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"health__held_out_reward": {"kind": "lettercraft"}}, "training sees this reward (kind lettercraft)"),
        ({"reward": CLASSIFIER, "health__held_out_reward": {**CLASSIFIER, "dtype": "float32"}}, "training sees this reward"),
        ({"health__held_out_reward": {"kind": "lettercraft_judge"}}, "health.held_out_reward"),
        (
            {"reward": ENSEMBLE, "health__held_out_reward": EXACT, "health__stop": ["reward_divergence"]},
            "health.stop: rewards of kind ensemble have no level",
        ),
        ({"health__held_out_reward": EXACT, "health__answers": 0, "evaluation__benchmarks": []}, "set health.answers=256"),
        ({"health__held_out_reward": {"kind": "verifier", "function": "math"}}, "questions of the Lettercraft evaluation have none"),
        (
            {"health__held_out_reward": {"kind": "verifier", "function": "math"}, "prompts__references": True},
            "math cannot read the references of prompts of kind lettercraft; take lettercraft",
        ),
        ({"health__judge_repeats": 50, "evaluation__benchmarks": []}, "no judged benchmark; add one"),
        ({"health__stop": ["gate_rate"]}, "health.stop: gate_rate is measured only with creator.curate.gate; set creator.curate.gate, or"),
        ({"health__judge_repeats": 50, "evaluation__only": True}, "leave health.judge_repeats out"),
    ],
)
def test_what_health_cannot_measure_is_an_error_before_the_run(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(tiny(**changes), keys=False)
    assert message in str(error.value)


def test_a_held_out_verifier_checks_against_the_references_of_lettercrafts_questions() -> None:
    check(tiny(prompts__references=True, health__held_out_reward={"kind": "verifier", "function": "lettercraft"}))


def test_an_ensemble_has_no_level_and_the_recipe_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny(reward=ENSEMBLE, health__held_out_reward=EXACT)
    check(recipe)
    assert "and no reward_divergence" in capsys.readouterr().err
    assert not any(name.startswith("rewards_") and name != "rewards_before" for name in build_rounds(recipe)[-1].health[-1].inputs)


def test_the_sign_warns_below_its_level_and_says_what_to_do() -> None:
    (message,) = [text for sign in checks(Health()) if (text := sign.violation({"reward_divergence": 0.001}))]
    assert "is 0.001, below the limit health.reward_divergence=0.01: the policy probably exploits the training reward" in message
