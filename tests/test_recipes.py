"""The recipes for real models, run whole with tiny stand-ins that `--set` puts in their places."""

import json
from pathlib import Path

import pytest

from tests.conftest import manifests, overrides, run_eva
from tests.tiny_models import save_armorm, save_gemma2, save_policy, save_reward, tokenizer

TEXTS = [f"Tell me something new about the number {number} and the colour of the {number % 5} seas" for number in range(16)]
POLICIES = {"gemma-2-9b-it": save_gemma2, "llama-3.1-8b-instruct": save_policy, "smollm2-135m": save_policy}
WHOLE = {"gemma-2-9b-it/dpo", "smollm2-135m/dpo"}
"""Run whole; the others differ from them by a model's name."""
SMALL = {
    "prompts.size": 12,
    "iterations": 1,
    "policy.generator.kind": "transformers",
    "policy.generator.max_new_tokens": 8,
    "creator.responses": 2,
    "creator.evolve.generations": 2,
    "creator.evolve.generator.max_new_tokens": 48,
    "creator.evolve.generator.stop": ["e", "a", "."],  # random weights hardly ever draw their end token
    "creator.evolve.generator.temperature": 1.0,
    "limits.empty": 1.0,
    "solver.responses": 2,
    "solver.training.batch_size": 4,
    "solver.training.epochs": 1,
    "solver.training.dtype": "float32",
    "solver.training.runtime.micro_batch_size": 4,
    "solver.training.runtime.launch": "cpu",
    "reward.runtime.device": "cpu",
}


@pytest.mark.parametrize("name", ["gemma-2-9b-it/dpo", "gemma-2-9b-it/dpo_skywork", "llama-3.1-8b-instruct/dpo", "smollm2-135m/dpo"])
def test_a_recipe_validates_plans_and_runs_with_tiny_stand_ins(tmp_path: Path, name: str) -> None:
    words = tokenizer(TEXTS)
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS))
    POLICIES[name.partition("/")[0]](tmp_path / "policy", words)
    armo = name in ("gemma-2-9b-it/dpo", "llama-3.1-8b-instruct/dpo")
    (save_armorm if armo else save_reward)(tmp_path / "reward", words)
    models = {
        "policy.model": str(tmp_path / "policy"),
        "reward.model": str(tmp_path / "reward"),
        "prompts.path": str(tmp_path / "prompts.jsonl"),
    }
    settings = overrides({**SMALL, **models})
    assert json.loads(run_eva("validate", name, *settings, "--json").stdout)["valid"]
    plan = json.loads(run_eva("plan", name, *settings, "--json", cwd=tmp_path).stdout)
    if name not in WHOLE:
        return
    run_eva("run", name, "--run-dir", str(tmp_path / "run"), *settings, HF_HOME=str(tmp_path / "hub"))
    made = manifests(tmp_path / "run")
    assert set(made) == {entry["stage"] for entry in plan["stages"]}
    assert made["1-mix"]["rows"] == 12 and made["1-train"]["counts"]["steps"] > 0
    assert made["1-reward"]["counts"]["responses"] == 24 and not made["1-reward"]["counts"].get("unscored")
