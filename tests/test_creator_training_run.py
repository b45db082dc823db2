"""The creator is trained on its own evolutions, by the command line, with tiny networks."""

import json
from pathlib import Path

from safetensors.numpy import load_file

from tests.conftest import artifact_folder, artifact_rows, manifests, overrides, run_eva
from tests.killing import assert_same_weights, rerun_with_kills
from tests.test_curated_run import RECIPE, words_of
from tests.tiny_models import save_policy, save_reward, tokenizer

TEXTS = [words_of(seed) for seed in range(16)]


def settings(folder: Path) -> dict[str, object]:
    words = tokenizer(TEXTS)
    for name, save in {"policy": save_policy, "reward": save_reward, "creator": save_policy}.items():
        save(folder / name, words)
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS))
    training = {"learning_rate": 1e-3, "batch_size": 4, "dtype": "float32", "max_length": 512, "gradient_checkpointing": False}
    evolver = {"kind": "transformers", "model": str(folder / "creator"), "temperature": 1.0, "top_p": 1.0, "max_new_tokens": 16}
    return {
        "prompts.path": str(folder / "prompts.jsonl"),
        "prompts.size": len(TEXTS),
        "policy.model": str(folder / "policy"),
        "reward.model": str(folder / "reward"),
        "solver.training.batch_size": 8,
        "creator.selection.fraction": 0.5,
        "creator.evolve": {"shape": "siblings", "method": "verbatim", "generations": 3, "generator": evolver},
        "creator.curate.near_duplicate": None,
        "creator.training": {**training, "runtime": {"micro_batch_size": 4}},
    }


def test_a_creator_of_its_own_is_trained_and_evolves_after_a_kill_too(tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = ("run", RECIPE, "--run-dir", str(run), *overrides({**settings(tmp_path), "iterations": 2}), "--until", "evolve")
    run_eva(*arguments)
    manifest_by_label = manifests(run)
    evolutions, pairs = artifact_rows(run, "1-evolve"), artifact_rows(run, "1-creator-pair")
    by_parent = {row["parent_id"]: row["meta_prompt"] for row in evolutions}
    assert len(evolutions) == 24 and all(row["meta_prompt"] == by_parent[row["parent_id"]] for row in evolutions)
    assert len(pairs) == manifest_by_label["1-creator-pair"]["counts"]["pair"] > 0
    assert (
        manifest_by_label["1-creator-train"]["inputs"]["policy"]["artifact"]
        == manifest_by_label["1-creator-train"]["inputs"]["reference"]["artifact"]
    )
    assert manifest_by_label["2-evolve"]["inputs"]["evolver"]["artifact"] == artifact_folder(run, "1-creator-train").name
    assert manifest_by_label["2-creator-respond"]["inputs"]["policy"]["artifact"] == artifact_folder(run, "1-train").name
    first_log = json.loads((artifact_folder(run, "1-creator-train") / "model" / "training_log.json").read_text())[0]
    assert abs(first_log["loss"] - 0.6931) < 1e-3, "the reference is the present creator"
    trained_folder = artifact_folder(run, "1-creator-train") / "model"
    old, new = (load_file(folder / "model.safetensors") for folder in (tmp_path / "creator", trained_folder))
    assert any(abs(old[name] - new[name]).max() > 0 for name in new)

    old_artifacts = tmp_path / "old"
    old_artifacts.mkdir()
    rerun_with_kills(run, ["1-creator-train"], arguments, old_artifacts)
    assert_same_weights(artifact_folder(run, "1-creator-train"), old_artifacts / "1-creator-train")
