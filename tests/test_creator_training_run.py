"""The creator is trained on its own evolutions, by the command line, with tiny networks."""

import json
import math
from pathlib import Path

import torch
from safetensors.numpy import load_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from eva_stages.core.run_folder import Run
from eva_stages.publishing.cards import model_card
from eva_stages.publishing.privacy import Privacy
from eva_stages.publishing.report.creator_table import creator_table
from eva_stages.publishing.story import story_of
from eva_stages.views.history import read_history
from eva_stages.views.prompt_lineage import Lineage
from eva_stages.views.run_summary import summary
from tests.conftest import artifact_folder, artifact_rows, manifests, overrides, run_eva
from tests.test_curated_run import RECIPE, words_of
from tests.tiny_models import config, save_policy, save_reward, tokenizer

TEXTS = [words_of(seed) for seed in range(16)]


def save_creator(folder: Path, words: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(9)
    LlamaForCausalLM(config(words)).save_pretrained(folder)
    words.save_pretrained(folder)


def settings(folder: Path) -> dict[str, object]:
    words = tokenizer(TEXTS)
    for name, save in {"policy": save_policy, "reward": save_reward, "creator": save_creator}.items():
        save(folder / name, words)
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS))
    training = {"learning_rate": 1e-3, "batch_size": 4, "dtype": "float32", "max_length": 512, "gradient_checkpointing": False}
    evolver = {
        "kind": "transformers",
        "model": str(folder / "creator"),
        "temperature": 1.0,
        "top_p": 1.0,
        "stop": ["a", "e"],
        "max_new_tokens": 64,
    }
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


def test_a_creator_of_its_own_is_trained_and_shown(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_eva("run", RECIPE, "--run-dir", str(run), *overrides(settings(tmp_path)), "--until", "1-creator-train")
    manifest_by_label = manifests(run)
    evolutions, pairs = artifact_rows(run, "1-evolve"), artifact_rows(run, "1-creator-pair")
    by_parent = {row["parent_id"]: row["meta_prompt"] for row in evolutions}
    assert len(evolutions) == 24 and all(row["meta_prompt"] == by_parent[row["parent_id"]] for row in evolutions)
    assert all(row["reply_ids"] for row in evolutions)
    assert len(pairs) == manifest_by_label["1-creator-pair"]["counts"]["pair"] > 0
    inputs = manifest_by_label["1-creator-train"]["inputs"]
    assert inputs["policy"]["artifact"] == inputs["reference"]["artifact"]
    trained_folder = artifact_folder(run, "1-creator-train") / "model"
    first_entry = json.loads((trained_folder / "training_log.json").read_text())[0]
    assert abs(first_entry["loss"] - math.log(2)) < 1e-3, "the reference is the present creator"
    old, new = (load_file(folder / "model.safetensors") for folder in (tmp_path / "creator", trained_folder))
    assert any(abs(old[name] - new[name]).max() > 0 for name in new)

    history = read_history(Run(run))
    document = summary(history)
    figures = document["iterations"][1]["creator"]
    assert figures["pairs"] == len(pairs) and figures["steps"] > 0 and 0 <= figures["learnable_share"] <= 1
    assert document["iterations"][0]["creator"] is None and "0-train" in document["policy"]
    assert creator_table(history).rows[0][1] == figures["scored_children"]
    story = story_of(history, "someone", Privacy(run))
    assert list(story.models) == ["someone/run-iter0", "someone/run-creator-iter1"]
    card = model_card(story, "someone/run-creator-iter1")
    assert "the creator after iteration 1" in card and "its training began with" in card and "`creator-pairs-1`" in card
    assert "| learning rate | 0.001 |" in card and "| batch size | 4 |" in card, "of its own training, not of the solver's"
    child = next(row for row in evolutions if row["rejected"] is None)
    (step,) = [step for step in Lineage(history).trace(child["prompt_id"])["lineage"] if step["prompt_id"] == child["prompt_id"]]
    assert step["utilities"][0]["valid"] is True
