"""The checks of `benchmarks.accelerator`: eva's own stages on random models, each a function (models, folder, size) -> figures."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from benchmarks import common
from eva_stages.checking.resolution import resolve
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.solver_config import ON_POLICY_LOSSES
from eva_stages.core.process_ending import kill_tree
from eva_stages.core.rows import prompt_row
from eva_stages.core.stage import Outside, Stage
from eva_stages.core.tables import read_table
from eva_stages.models.loading import find_checkpoint
from eva_stages.solver.launch_file import launch_path
from pipelines.response_stages import responding, rewarding
from pipelines.solver import solver_stages

Figures = dict[str, Any]
Check = Callable[[Path, Path, str], Figures]
SHAPES: dict[str, dict[str, int]] = {
    "1b": {
        "vocab_size": 128_256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "tiny": {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2},
}
"""Of Llama 3.2 1B, and a tiny one."""
PROMPTS = {"1b": 96, "tiny": 16}
PAIRS = {"1b": 256, "tiny": 32}
LENGTHS = {"1b": (200, 400), "tiny": (20, 40)}
"""Median tokens of the prompt and of each response of a training pair."""
RESPONSES = 6
BATCH_SIZE, MICRO_BATCH_SIZE = 16, 4


def save_models(folder: Path, size: str) -> None:
    """A random policy and a random reward model in bfloat16."""
    torch.manual_seed(0)
    policy = LlamaForCausalLM(common.config(**SHAPES[size], initializer_range=0.01)).to(torch.bfloat16)
    policy.save_pretrained(folder / "policy")
    LlamaForSequenceClassification(common.config(**SHAPES[size], num_labels=1)).to(torch.bfloat16).save_pretrained(folder / "reward")
    for name in ("policy", "reward"):
        common.tokenizer().save_pretrained(folder / name)


def recipe(models: Path, loss: Mapping[str, Any], training: Mapping[str, Any], tokens_per_batch: int = 131_072) -> Recipe:
    """A recipe over the random models; the stages under test are taken from it."""
    generator = {"kind": "transformers", "max_new_tokens": 128, "runtime": {"tokens_per_batch": tokens_per_batch}}
    return Recipe.model_validate(
        {
            "name": "accelerator",
            "prompts": {"kind": "lettercraft"},
            "policy": {"model": str(models / "policy"), "generator": generator},
            "reward": {
                "kind": "sequence_classifier",
                "model": str(models / "reward"),
                "runtime": {"tokens_per_batch": tokens_per_batch},
            },
            "creator": {"responses": RESPONSES, "evolve": {"generator": {"kind": "lettercraft"}}},
            "solver": {"responses": RESPONSES, "loss": loss, "training": training},
            "runtime": {"rows_per_part": 512},
        }
    )


def prompts(size: str, folder: Path) -> Outside:
    rows = [prompt_row(messages, "benchmark") for messages in common.prompts(PROMPTS[size])]
    return common.write_source(rows, "prompts", folder / "prompts")


def respond(models: Path, folder: Path, size: str, tokens_per_batch: int = 131_072) -> tuple[Figures, Stage]:
    """The respond stage over all prompts."""
    built_recipe = recipe(models, {"kind": "dpo"}, {}, tokens_per_batch)
    policy = find_checkpoint(built_recipe.policy.model, None, "policy")
    stage = responding(built_recipe, resolve(built_recipe), "respond", 0, prompts(size, folder), policy, RESPONSES)  # type: ignore[arg-type]
    manifest = common.run_stage(stage, folder / f"run-{tokens_per_batch}")
    return _rates(manifest, manifest["counts"]["output_tokens"]), stage


def check_respond(models: Path, folder: Path, size: str) -> Figures:
    """Sampling, and how many responses stay the same when batches are a quarter as large."""
    figures, stage = respond(models, folder, size)
    _, other_responses = respond(models, folder, size, 32_768)
    first, second = (
        read_table(folder / f"run-{batch}" / "stages" / run.folder / "data", ["responses"])["responses"].to_pylist()
        for batch, run in ((131_072, stage), (32_768, other_responses))
    )
    equal = np.mean(
        [a == b for first_list, second_list in zip(first, second, strict=True) for a, b in zip(first_list, second_list, strict=True)]
    )
    return {**figures, "equal in other batches": round(float(equal), 3)}


def check_reward(models: Path, folder: Path, size: str) -> Figures:
    """Scoring, and how much rewards move when batches are a quarter as large."""
    scores = []
    figures: Figures = {}
    answers = iter(common.texts(PROMPTS[size] * RESPONSES, median=150, seed=1, longest=1024, spread=0.7))
    for batch in (131_072, 32_768):
        built_recipe = recipe(models, {"kind": "dpo"}, {}, batch)
        policy = find_checkpoint(built_recipe.policy.model, None, "policy")
        source = prompts(size, folder)
        if not scores:
            ids = read_table(folder / "prompts", ["prompt_id"])["prompt_id"].to_pylist()
            rows = [{"prompt_id": prompt_id, "responses": [next(answers) for _ in range(RESPONSES)]} for prompt_id in ids]
            common.write_source(rows, "responses", folder / "responses")
        responses = Outside("responses", folder / "responses", "responses")
        stage = rewarding(built_recipe, resolve(built_recipe), "reward", 0, source, responses, policy)  # type: ignore[arg-type]
        manifest = common.run_stage(stage, folder / f"run-{batch}")
        tokens = sum(len(text.split()) for row in read_table(folder / "responses", ["responses"])["responses"].to_pylist() for text in row)
        figures = figures or _rates(manifest, tokens)
        rewards = read_table(folder / f"run-{batch}" / "stages" / stage.folder / "data", ["rewards"])["rewards"].to_pylist()
        scores.append(np.array(rewards, dtype=float))
    return {**figures, "largest change in other batches": float(f"{np.abs(scores[0] - scores[1]).max():.2g}"), "spread": _spread(scores[0])}


def _spread(rewards: np.ndarray) -> float:
    return float(f"{rewards.std():.2g}")


def pairs(size: str, folder: Path) -> tuple[Outside, int]:
    """Random pairs, and the tokens of an epoch over them: the prompt counts for each of the two responses."""
    rows = common.pair_rows(PAIRS[size], LENGTHS[size], longest=900)
    prompt, chosen, rejected = (sum(len(row[side][0]["content"].split()) for row in rows) for side in ("prompt", "chosen", "rejected"))
    return common.write_source(rows, "pairs", folder / "pairs"), 2 * prompt + chosen + rejected


def train(models: Path, folder: Path, size: str, loss: Mapping[str, Any], launch: str | None = None, **changes: Any) -> Figures:
    """One epoch over the pairs (on-policy losses: over the prompts) through the train stage."""
    cuda = torch.cuda.is_available()
    runtime = {"launch": launch or ("single_gpu" if cuda else "cpu"), "micro_batch_size": MICRO_BATCH_SIZE, **changes.pop("runtime", {})}
    training = {"epochs": 1, "batch_size": BATCH_SIZE, "learning_rate": 1e-5, "max_length": 2048, "checkpoints_per_epoch": 1, **changes}
    built_recipe = recipe(models, loss, {"dtype": "bfloat16" if cuda else "float32", **training, "runtime": runtime})
    policy = find_checkpoint(built_recipe.policy.model, None, "policy")
    stage, tokens = solver_stages(built_recipe, resolve(built_recipe), 0, prompts(size, folder), policy, policy, [])[-1], None  # type: ignore[arg-type]
    if "pairs" in stage.inputs:
        source, tokens = pairs(size, folder)
        stage = replace(stage, inputs={**stage.inputs, "pairs": source})
    manifest = common.run_stage(stage, folder / "run")
    pace, steps = manifest["pace"]["seconds_per_unit"], manifest["counts"]["steps"]
    rate = {"tokens/s": round(tokens / steps / pace)} if tokens else {}
    facts = {"steps": steps, "seconds per step": round(pace, 3), "loss": round(manifest["training"]["loss"], 4)}
    return {"seconds": round(manifest["seconds"], 1), **rate, **facts}


def _rates(manifest: Mapping[str, Any], tokens: float) -> Figures:
    """Tokens per second of a row stage at its pace, which leaves loading out."""
    seconds = manifest["pace"]["seconds_per_unit"] * manifest["pace"]["total"]
    return {"seconds": round(manifest["seconds"], 1), "tokens/s": round(tokens / seconds)}


def one_process(name: str, folder: Path) -> str:
    """A packaged launch file, with one process in place of eight."""
    content = {**yaml.safe_load(launch_path(name).read_text(encoding="utf-8")), "num_processes": 1}
    path = folder / f"{name}_1.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def check_quickstart(models: Path, folder: Path, size: str) -> Figures:
    """The quickstart with training on the device, small; its table's last gain."""
    document = _eva("run", "quickstart", "--run-dir", str(folder / "run"), "--json", *_quick())
    content = json.loads(document)
    last = content["iterations"][-1]["held_out"]
    return {"base": content["base"]["held_out"]["sampled"], "sampled": last["sampled"], "gain": last["sampled_gain"]}


def _quick(**settings: Any) -> list[str]:
    launch = "single_gpu" if torch.cuda.is_available() else "cpu"
    small = {"prompts.size": 240, "iterations": 1, "evaluation.benchmarks.0.prompts": 100, "solver.training.runtime.launch": launch}
    return [word for name, value in {**small, **settings}.items() for word in ("--set", f"{name}={value}")]


def _eva(*arguments: str) -> str:
    result = subprocess.run([sys.executable, "-m", "cli.main", *arguments], capture_output=True, text=True, encoding="utf-8")
    if result.returncode:
        raise RuntimeError(f"exit code {result.returncode}: {result.stderr[-2000:]}")
    return result.stdout


def check_resume(models: Path, folder: Path, size: str) -> Figures:
    """A training whose process is killed half-way ends with the unbroken training's weights; also what a plain second training gives."""
    from safetensors.numpy import load_file

    settings = _quick(**{"solver.training.checkpoints_per_epoch": 4})
    weights = {}
    for name in ("unbroken", "again", "killed"):
        run = folder / name
        command = [sys.executable, "-m", "cli.main", "run", "quickstart", "--run-dir", str(run), "--store", str(run)]
        command += ["--until", "0-train", *settings]
        if name == "killed":
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
            while process.poll() is None and not list(run.glob("work/0-train-*/checkpoints/checkpoint-*/whole.json")):
                time.sleep(0.02)
            kill_tree(process.pid)
            process.wait()
        subprocess.run(command, check=True, capture_output=True)
        (model,) = run.glob("stages/0-train-*/model/model.safetensors")
        weights[name] = load_file(model)
        if name == "unbroken":  # the same pairs for all
            for run_name in ("again", "killed"):
                shutil.copytree(run, folder / run_name)
                shutil.rmtree(next((folder / run_name).glob("stages/0-train-*")))

    def change(name: str) -> float:
        gaps = [np.abs(weights[name][key].astype(float) - value.astype(float)).max() for key, value in weights["unbroken"].items()]
        return float(f"{max(gaps):.2g}")

    return {"second training": change("again"), "killed and resumed": change("killed")}


def training_check(kind: str = "dpo", **changes: Any) -> Check:
    return lambda models, folder, size: train(models, folder, size, {"kind": kind}, **changes)


def launch_check(name: str) -> Check:
    return lambda models, folder, size: train(models, folder, size, {"kind": "dpo"}, launch=one_process(name, folder))


CHECKS: dict[str, Check] = {
    "quickstart": check_quickstart,
    "resume": check_resume,
    "respond": check_respond,
    "reward": check_reward,
    "dpo": training_check(),
    "dpo_live_reference": training_check(runtime={"precompute_reference": False}),
    "dpo_liger": training_check(runtime={"liger": True}),
    "lora": training_check(adapter={"kind": "lora"}, learning_rate=1e-4),
    "qlora": training_check(adapter={"kind": "qlora"}, learning_rate=1e-4),
    "sppo": training_check("sppo"),
    "simpo": training_check("simpo"),
    "orpo": training_check("orpo"),
    **{kind: training_check(kind, batch_size=24, runtime={"micro_batch_size": 12}) for kind in ON_POLICY_LOSSES},
    "fsdp2": launch_check("fsdp2_8gpu"),
    "zero3": launch_check("zero3_8gpu"),
    "dpo_accelerate_launch": launch_check("ddp"),
}
