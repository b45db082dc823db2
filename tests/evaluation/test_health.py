"""The signs of a failing iteration: each is reported for artifacts that have it, and not for those of a healthy iteration."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from eva_stages.core.config.health_config import Health
from eva_stages.core.health_signs import SIGNS, WHILE_TRAINING, checks
from eva_stages.core.progress import Reporter
from eva_stages.core.rows import SCHEMAS, prompt_row
from eva_stages.core.runner import Context
from eva_stages.core.tables import write_rows
from eva_stages.evaluation.health_figures import (
    distinct_ngrams,
    drift,
    effective_number,
    equal_share,
    evolved,
    hacking,
    measure,
    nll_growth,
    sampled_answers,
)

SENTENCE = "take planet reverse it then drop its first letter and double every sound of a word that nobody knows by heart"


def text(seed: int) -> str:
    return " ".join(np.random.default_rng(seed).permutation(SENTENCE.split())[:8])


def prompt_table(texts: Sequence[str], roots: Sequence[str | None]) -> pa.Table:
    rows = [prompt_row([{"role": "user", "content": text}], "test") for text in texts]
    rows = [row if root is None else {**row, "root_id": root} for row, root in zip(rows, roots, strict=True)]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])


def artifacts(folder: Path, **changes: Any) -> dict[str, Path]:
    """The inputs of a health stage over 80 prompts; a healthy iteration but for the changes."""
    changed_inputs = {
        "texts": [text(n) for n in range(80)],
        "roots": [f"root {n % 30}" for n in range(80)],
        "pairs": 60,
        "answers": [f"answer {n % 3}" for n in range(4)],
        "tokens": 10,
        "reason": "stop",
        "reward": 0.6,
        "win_rate": 0.6,
        "logps": [-1.0, -0.9, -0.8, -0.8],
        "verdicts": [True, True, False, None],
        "held_out": 0.5,
        "vendi_share": 0.3,
        "nearest_distance": 0.2,
        **changes,
    }
    ids = [f"p{n}" for n in range(20)]

    def answers(texts: Sequence[str], tokens: int, reason: str = "stop") -> pa.Table:
        columns = {"responses": [list(texts)] * 20, "token_counts": pa.array([[tokens] * 4] * 20), "finish_reasons": [[reason] * 4] * 20}
        return pa.table({"prompt_id": ids, **columns})

    tables = {
        "prompts": prompt_table(changed_inputs["texts"], changed_inputs["roots"]),
        "seeds": prompt_table([text(1000 + n) for n in range(80)], [None] * 80),
        "pairs": pa.table({"prompt_id": [f"p{n}" for n in range(changed_inputs["pairs"])]}),
        "answers": answers(changed_inputs["answers"], changed_inputs["tokens"], changed_inputs["reason"]),
        "base_answers": answers("abcd", 11),
        "rewards": pa.table({"prompt_id": ids, "rewards": [[changed_inputs["reward"], None]] * 20}),
        "rewards_before": pa.table({"prompt_id": ids, "rewards": [[0.5, 0.5]] * 20}),
        "rewards_base": pa.table({"prompt_id": ids, "rewards": [[0.4, 0.5]] * 20}),
        "held_out": pa.table({"prompt_id": ids, "rewards": [[changed_inputs["held_out"], 0.0], [changed_inputs["held_out"], 1.0]] * 10}),
        "coverage": pa.table({name: [changed_inputs[name]] for name in ("vendi_share", "nearest_distance")} | {"cluster_share": [1.0]}),
        "held_out_base": pa.table({"prompt_id": ids, "rewards": [[0.5, 0.0], [0.5, 1.0]] * 10}),
        "gate": pa.table({"prompt_id": [f"e{n}" for n in range(len(changed_inputs["verdicts"]))], "valid": changed_inputs["verdicts"]}),
    }
    for name, table in tables.items():
        write_rows([table], table.schema, folder / name)
    documents = {"score": {"win_rate": {"value": changed_inputs["win_rate"]}}, "score_before": {"sampled": {"value": 0.5}}}
    for name, document in documents.items():
        (folder / name).mkdir()
        (folder / name / "score.json").write_text(json.dumps(document))
    (folder / "policy").mkdir()
    log = [{"step": step, "loss": 1.0, "logps/chosen": value} for step, value in enumerate(changed_inputs["logps"], 1)]
    (folder / "policy" / "training_log.json").write_text(json.dumps(log))
    return {name: folder / name for name in (*tables, *documents, "policy")}


def measured_figures(folder: Path, inputs: dict[str, Path]) -> Mapping[str, float | None]:
    with Reporter().task("health") as task:
        result = measure(Context(folder, folder / "out", inputs, task, folder), 0, None, "auto", "auto")
    assert json.loads((folder / "out" / "figures.json").read_text()) == result["figures"]
    figures: Mapping[str, float | None] = result["figures"]
    return figures


def broken_limits(figures: Mapping[str, float | None], health: Health | None = None) -> set[str]:
    return {check.figure for check in checks(health or Health()) if check.violation(figures)}


def test_a_healthy_iteration_shows_no_sign(tmp_path: Path) -> None:
    figures = measured_figures(tmp_path, artifacts(tmp_path))
    assert broken_limits(figures) == set()
    assert figures["gate_rate"] == pytest.approx(2 / 3) and figures["held_out_reward"] == 0.5
    assert figures["pair_share"] == 0.75 and figures["reward"] == pytest.approx(0.6) and figures["win_rate"] == 0.6
    assert figures["length_drift"] == pytest.approx(1.1) and figures["equal_responses"] == pytest.approx(1 / 3)
    assert figures["seed_share"] == pytest.approx(30 / 80, rel=0.02) and figures["chosen_nll"] == pytest.approx(0.8)


@pytest.mark.parametrize(
    ("sign", "change"),
    [
        ("length_drift", {"tokens": 40}),
        ("length_drift", {"tokens": 3}),
        ("length_limited", {"reason": "length"}),
        ("reward_hacking", {"win_rate": 0.45}),
        ("equal_responses", {"answers": ["the same"] * 4}),
        ("seed_share", {"roots": ["root 1"] * 77 + ["root 2", "root 3", "root 4"]}),
        ("distinct_prompts", {"texts": [f"{text(1)} {n}" for n in range(80)]}),
        ("pair_share", {"pairs": 5}),
        ("chosen_nll", {"logps": [-1.0, -1.5, -2.0, -3.0]}),
        ("gate_rate", {"verdicts": [True, False, False, False, None]}),
        ("vendi_share", {"vendi_share": 0.01}),
        ("nearest_distance", {"nearest_distance": 0.05}),
        ("reward_divergence", {"reward": 0.9, "held_out": 0.2}),
    ],
)
def test_each_sign_is_reported_alone_where_it_occurs(tmp_path: Path, sign: str, change: dict[str, Any]) -> None:
    assert broken_limits(measured_figures(tmp_path, artifacts(tmp_path, **change))) == {sign}


def test_figures_that_a_recipe_does_not_have_are_null_and_not_checked(tmp_path: Path) -> None:
    inputs = artifacts(tmp_path, logps=[None] * 4)
    figures = measured_figures(tmp_path, {name: inputs[name] for name in ("prompts", "seeds", "policy")})
    known_figures = {name for name, value in figures.items() if value is not None}
    assert known_figures == {"seed_share", "distinct_prompts"} and broken_limits(figures) == set()


def test_a_null_limit_checks_nothing_and_an_exceeded_one_says_what_to_do() -> None:
    figures = {name: 1e9 if meaning.is_maximum else -1.0 for name, meaning in SIGNS.items()}
    assert broken_limits(figures, Health(kl=1.0, cluster_share=0.9)) == set(SIGNS) - set(WHILE_TRAINING)
    assert broken_limits(figures, Health(kl=None, pair_share=None)) == set(SIGNS) - {"kl", "pair_share", "cluster_share", *WHILE_TRAINING}
    (message,) = [check.violation(figures) for check in checks(Health()) if check.figure == "pair_share"]
    assert message and "pairs per prompt is -1, below the limit health.pair_share=0.1" in message
    assert [check.figure for check in checks(Health(stop=("pair_share",))) if check.stop] == ["pair_share"]
    with pytest.raises(ValueError, match=r"stop names kl, which have no limit; set one under health"):
        Health(stop=("kl",))


def test_online_the_share_of_evolved_prompts_is_one_of_uses(tmp_path: Path) -> None:
    mixture = pa.table({"prompt_id": ["a", "b"], "origin": ["original", "evolved"]})
    uses = pa.table({"prompt_id": ["a", "b", "b", "b"]})
    for name, table in {"prompts": mixture, "uses": uses}.items():
        write_rows([table], table.schema, tmp_path / name)
    assert evolved(tmp_path / "prompts", 0.5) == 1
    assert evolved(tmp_path / "prompts", 0.5, tmp_path / "uses") == 1.5


def test_the_figures_follow_their_formulas() -> None:
    assert effective_number(np.array([5, 5, 5, 5])) == pytest.approx(4) and effective_number(np.array([7])) == pytest.approx(1)
    assert effective_number(np.array([3, 1])) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))
    assert distinct_ngrams(["a b c d", "a b c", "a b"]) == pytest.approx(2 / 3) and distinct_ngrams(["a b"]) is None
    assert equal_share([["a", "a", "b"], ["a", "b", "c"], ["a", None]]) == pytest.approx(0.25) and equal_share([["a"]]) is None
    assert nll_growth([]) is None and nll_growth([{"loss": 1.0}]) is None and nll_growth([{"logps/chosen": -2.0}]) == 1
    assert drift(20, 10) == drift(10, 20) == 2 and drift(0, 10) is None
    assert hacking([0.5, 0.6], [0.6, 0.5]) == pytest.approx(0.1) and hacking([0.6, 0.5], [0.6, 0.5]) == 0
    assert hacking([0.5, 0.6], [0.5, 0.6]) == 0 and hacking([None, 0.6], [0.6, 0.5]) is None


def test_first_responses_come_before_second_ones_and_null_ones_are_left_out() -> None:
    questions = pa.table({"prompt_id": ["a", "b"], "messages": [[{"role": "user", "content": name}] for name in "ab"]})
    answers = pa.table({"prompt_id": ["b", "a"], "response_ids": [[[1], [2]], [None, [3]]]})
    sample = sampled_answers(questions, answers, 2)
    assert [(response.messages[0]["content"], response.ids) for response in sample] == [("b", [1]), ("b", [2])]
    assert [response.ids for response in sampled_answers(questions, answers, 9)] == [[1], [2], [3]]
