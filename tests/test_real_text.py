"""Real human prompts through creator and solver with tiny models of real architectures, by the real command line."""

import json
from collections import Counter
from pathlib import Path

import pytest

from eva_stages.core.rows import prompt_id
from eva_stages.core.tables import read_table
from tests.conftest import EVALDATA, manifests, overrides, run_eva
from tests.tiny_models import save_policy, save_reward, tokenizer

RECIPE = str(Path(__file__).parent / "recipes" / "tiny_text.yaml")


def rows(run: Path, label: str) -> list[dict]:
    (folder,) = run.glob(f"stages/{label}-????????????/data")
    return read_table(folder).to_pylist()


def test_real_prompts_go_through_every_stage(tmp_path: Path) -> None:
    source = EVALDATA / "prompts" / "koala_test_set.jsonl"
    if not source.is_file():
        pytest.skip("the real human prompts (shared/evaldata beside the checkout) are not here")
    words = tokenizer(json.loads(line)["prompt"] for line in source.read_text().splitlines())
    save_policy(tmp_path / "policy", words)
    save_reward(tmp_path / "reward", words)
    models = {"prompts.path": str(source), "policy.model": str(tmp_path / "policy"), "reward.model": str(tmp_path / "reward")}
    run = tmp_path / "run"
    document = json.loads(run_eva("run", RECIPE, "--run-dir", str(run), *overrides(models), "--json").stdout)
    made = manifests(run)

    prompts = rows(run, "0-prompts")
    assert len(prompts) == 48 and made["0-prompts"]["counts"]["read"] == 180
    assert sum(count for reason, count in made["0-prompts"]["counts"].items() if reason != "read") + 48 == 180
    for label in ("0-respond", "1-creator-respond", "1-respond"):
        answered = rows(run, label)
        assert len(answered) == 48 and all(len(row["responses"]) == 3 for row in answered)
        assert all(1 <= count <= 12 for row in answered for count in row["token_counts"])
        assert {reason for row in answered for reason in row["finish_reasons"]} <= {"stop", "length"}
        assert {row["generator"] for row in answered} == ({"policy"} if label == "0-respond" else {answered[0]["generator"]})
    assert all(isinstance(reward, float) for row in rows(run, "1-reward") for reward in row["rewards"])

    drawn = {row["prompt_id"] for row in rows(run, "1-select")}
    evolved = rows(run, "1-evolve")
    assert len(drawn) == 12 and len(evolved) == 24
    counts = made["1-curate"]["counts"]
    assert Counter(row["rejected"] for row in evolved if row["rejected"]) <= Counter(counts)
    assert counts["evolved"] == 24 == sum(count for reason, count in counts.items() if reason != "evolved")

    known = {row["prompt_id"] for row in prompts}
    by_id = {row["prompt_id"]: row for row in evolved}
    for row in rows(run, "1-curate"):
        assert row["prompt_id"] == prompt_id(row["messages"]) and row["mutation"]
        while row["generation"]:
            row = by_id.get(row["parent_id"]) or next(seed for seed in prompts if seed["prompt_id"] == row["parent_id"])
        assert row["prompt_id"] in known and row["prompt_id"] in drawn
    mixed = rows(run, "1-mix")
    assert len(mixed) == 48 == len({row["prompt_id"] for row in mixed})
    pairs = rows(run, "1-pair")
    assert all(row["chosen_reward"] > row["rejected_reward"] for row in pairs)
    assert sum(made["1-pair"]["counts"].values()) == 48
    assert made["1-train"]["counts"]["pairs"] + made["1-train"]["counts"]["too_long"] == len(pairs)
    assert Path(document["policy"], "model.safetensors").is_file() and document["base"] is None
