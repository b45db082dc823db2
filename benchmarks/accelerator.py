"""What works on this machine's accelerator, how fast, and in how much memory: eva's own stages on a random model of a real size.

    python -m benchmarks.accelerator                             every check, on a model of 1.2 billion parameters
    python -m benchmarks.accelerator --size tiny --jobs 6        only whether it works, several checks side by side
    python -m benchmarks.accelerator --checks respond,dpo,lora

Each check runs in a process of its own and goes through the runner, as `eva run` does: distilabel pipelines, TRL under accelerate,
durable artifacts. `peak` is the device's memory as nvidia-smi sees it, all processes together, so it is only given with one job.
Without a CUDA device the same checks run on the CPU where they can; the others say why not.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import yaml
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from benchmarks import common
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.rows import prompt_row
from eva_stages.core.stage import Outside, Stage
from eva_stages.core.tables import read_table
from eva_stages.models.loading import resolve
from eva_stages.solver.launching import launch_file
from pipelines.response_stages import responding, rewarding
from pipelines.solver import _trained

Figures = dict[str, Any]
SHAPES: dict[str, dict[str, int]] = {
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8},
    "tiny": {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2},
}
VOCABULARIES = {"1b": 128_256, "tiny": common.VOCABULARY}
PROMPTS = {"1b": 96, "tiny": 16}
PAIRS = {"1b": 256, "tiny": 32}
LENGTHS = {"1b": (200, 400), "tiny": (20, 40)}
"""Median tokens of the prompt and of each response of a training pair."""
RESPONSES = 6
BATCH_SIZE, MICRO_BATCH_SIZE = 16, 4
SAMPLE_SECONDS = 0.3
LIMIT_SECONDS = 240.0


def config(size: str, **settings: Any) -> LlamaConfig:
    """A Llama configuration of the shape of Llama 3.2 1B, or a tiny one."""
    return LlamaConfig(
        vocab_size=VOCABULARIES[size],
        **SHAPES[size],
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
        **settings,
    )


def save_models(folder: Path, size: str) -> None:
    """A random policy and a random reward model in bfloat16."""
    torch.manual_seed(0)
    policy = LlamaForCausalLM(config(size, initializer_range=0.01)).to(torch.bfloat16)
    policy.save_pretrained(folder / "policy")
    LlamaForSequenceClassification(config(size, num_labels=1)).to(torch.bfloat16).save_pretrained(folder / "reward")
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


def respond(models: Path, folder: Path, size: str, tokens_per_batch: int = 131_072) -> tuple[Figures, Stage, Recipe]:
    """The respond stage over all prompts."""
    made = recipe(models, {"kind": "dpo"}, {}, tokens_per_batch)
    policy = resolve(made.policy.model, None, "policy")
    stage = responding(made, "respond", 0, prompts(size, folder), policy, RESPONSES)  # type: ignore[arg-type]
    manifest = common.run_stage(stage, folder / f"run-{tokens_per_batch}")
    return _rates(manifest, manifest["counts"]["output_tokens"]), stage, made


def check_respond(models: Path, folder: Path, size: str) -> Figures:
    """Sampling, and how many responses stay the same when batches are a quarter as large."""
    figures, stage, _ = respond(models, folder, size)
    _, other, _ = respond(models, folder, size, 32_768)
    first, second = (
        read_table(folder / f"run-{batch}" / "stages" / run.folder / "data", ["responses"])["responses"].to_pylist()
        for batch, run in ((131_072, stage), (32_768, other))
    )
    equal = np.mean([a == b for one, two in zip(first, second, strict=True) for a, b in zip(one, two, strict=True)])
    return {**figures, "equal in other batches": round(float(equal), 3)}


def check_reward(models: Path, folder: Path, size: str) -> Figures:
    """Scoring, and how much rewards move when batches are a quarter as large."""
    scores = []
    figures: Figures = {}
    answers = iter(common.texts(PROMPTS[size] * RESPONSES, median=150, seed=1, longest=1024, spread=0.7))
    for batch in (131_072, 32_768):
        made = recipe(models, {"kind": "dpo"}, {}, batch)
        policy = resolve(made.policy.model, None, "policy")
        source = prompts(size, folder)
        if not scores:
            ids = read_table(folder / "prompts", ["prompt_id"])["prompt_id"].to_pylist()
            rows = [{"prompt_id": one, "responses": [next(answers) for _ in range(RESPONSES)]} for one in ids]
            common.write_source(rows, "responses", folder / "responses")
        responses = Outside("responses", folder / "responses", "responses")
        stage = rewarding(made, "reward", 0, source, responses, policy)  # type: ignore[arg-type]
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
    prompt, response = LENGTHS[size]
    sides = [common.texts(PAIRS[size], median, seed, longest=900) for seed, median in enumerate((prompt, response, response))]
    rows = [
        {
            "prompt_id": str(number),
            "prompt": [{"role": "user", "content": question}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            "chosen_reward": 1.0,
            "rejected_reward": 0.0,
            "chosen_win_probability": 0.8,
            "rejected_win_probability": 0.3,
        }
        for number, (question, chosen, rejected) in enumerate(zip(*sides, strict=True))
    ]
    lengths = [[len(text.split()) for text in side] for side in sides]
    return common.write_source(rows, "pairs", folder / "pairs"), 2 * sum(lengths[0]) + sum(lengths[1]) + sum(lengths[2])


def train(models: Path, folder: Path, size: str, loss: Mapping[str, Any], launch: str | None = None, **changes: Any) -> Figures:
    """One epoch over the pairs (RLOO: over the prompts) through the train stage."""
    cuda = torch.cuda.is_available()
    runtime = {"launch": launch or ("single_gpu" if cuda else "cpu"), "micro_batch_size": MICRO_BATCH_SIZE, **changes.pop("runtime", {})}
    training = {"epochs": 1, "batch_size": BATCH_SIZE, "learning_rate": 1e-5, "max_length": 2048, "checkpoints_per_epoch": 1, **changes}
    made = recipe(models, loss, {"dtype": "bfloat16" if cuda else "float32", **training, "runtime": runtime})
    policy = resolve(made.policy.model, None, "policy")
    if loss["kind"] == "rloo":
        stage, tokens = _online(made, policy, prompts(size, folder)), None
    else:
        source, tokens = pairs(size, folder)
        stage = _trained(made, 0, policy, policy, {"pairs": source})
    manifest = common.run_stage(stage, folder / "run")
    pace, steps = manifest["pace"]["seconds_per_unit"], manifest["counts"]["steps"]
    rate = {"tokens/s": round(tokens / steps / pace)} if tokens else {}
    facts = {"steps": steps, "seconds per step": round(pace, 3), "loss": round(manifest["training"]["loss"], 4)}
    return {"seconds": round(manifest["seconds"], 1), **rate, **facts}


def _online(made: Recipe, policy: Outside, source: Outside) -> Stage:
    from pipelines.solver import solver_stages

    return solver_stages(made, 0, source, policy, policy, [])[-1]  # type: ignore[arg-type]


def _rates(manifest: Mapping[str, Any], tokens: float) -> Figures:
    """Tokens per second of a row stage at its pace, which leaves loading out."""
    spent = manifest["pace"]["seconds_per_unit"] * manifest["pace"]["total"]
    return {"seconds": round(manifest["seconds"], 1), "tokens/s": round(tokens / spent)}


def one_process(name: str, folder: Path) -> str:
    """A packaged launch file, with one process in place of eight."""
    content = {**yaml.safe_load(launch_file(name).read_text(encoding="utf-8")), "num_processes": 1}
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
    done = subprocess.run([sys.executable, "-m", "cli.main", *arguments], capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def check_resume(models: Path, folder: Path, size: str) -> Figures:
    """A training whose process is killed half-way ends with the unbroken training's weights; also what a plain second training gives."""
    from safetensors.numpy import load_file

    settings = _quick(**{"solver.training.checkpoints_per_epoch": 4})
    weights = {}
    for name in ("unbroken", "again", "killed"):
        run = folder / name
        command = [sys.executable, "-m", "cli.main", "run", "quickstart", "--run-dir", str(run), "--until", "0-train", *settings]
        if name == "killed":
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
            while process.poll() is None and not list(run.glob("work/0-train-*/checkpoints/checkpoint-*/whole.json")):
                time.sleep(0.02)
            for child in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
                child.send_signal(signal.SIGKILL)
            process.wait()
        subprocess.run(command, check=True, capture_output=True)
        (model,) = run.glob("stages/0-train-*/model/model.safetensors")
        weights[name] = load_file(model)
        if name == "unbroken":  # the same pairs for all
            for other in ("again", "killed"):
                shutil.copytree(run, folder / other)
                shutil.rmtree(next((folder / other).glob("stages/0-train-*")))

    def change(name: str) -> float:
        gaps = [np.abs(weights[name][key].astype(float) - value.astype(float)).max() for key, value in weights["unbroken"].items()]
        return float(f"{max(gaps):.2g}")

    return {"second training": change("again"), "killed and resumed": change("killed")}


def _dpo(**changes: Any) -> Callable[[Path, Path, str], Figures]:
    return lambda models, folder, size: train(models, folder, size, {"kind": "dpo"}, **changes)


def _loss(kind: str, **changes: Any) -> Callable[[Path, Path, str], Figures]:
    return lambda models, folder, size: train(models, folder, size, {"kind": kind}, **changes)


def _launched(name: str) -> Callable[[Path, Path, str], Figures]:
    return lambda models, folder, size: train(models, folder, size, {"kind": "dpo"}, launch=one_process(name, folder))


CHECKS: dict[str, Callable[[Path, Path, str], Figures]] = {
    "quickstart": check_quickstart,
    "resume": check_resume,
    "respond": check_respond,
    "reward": check_reward,
    "dpo": _dpo(),
    "dpo_live_reference": _dpo(runtime={"precompute_reference": False}),
    "dpo_liger": _dpo(runtime={"liger": True}),
    "lora": _dpo(adapter={"kind": "lora"}, learning_rate=1e-4),
    "qlora": _dpo(adapter={"kind": "qlora"}, learning_rate=1e-4),
    "sppo": _loss("sppo"),
    "simpo": _loss("simpo"),
    "orpo": _loss("orpo"),
    "rloo": _loss("rloo", batch_size=24, runtime={"micro_batch_size": 12}),
    "fsdp2": _launched("fsdp2_8gpu"),
    "zero3": _launched("zero3_8gpu"),
    "dpo_accelerate_launch": _launched("ddp"),
}


class PeakMemory(threading.Thread):
    """The most memory of the first device that is in use while this runs, in MiB; None where nvidia-smi is not available."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak: int | None = None
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(SAMPLE_SECONDS):
            try:
                done = subprocess.run(
                    ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
                    capture_output=True,
                    text=True,
                    check=True,
                    encoding="utf-8",
                )
            except (OSError, subprocess.CalledProcessError):
                return
            self.peak = max(self.peak or 0, int(done.stdout.split()[0]))

    def stop(self) -> int | None:
        self._stopped.set()
        self.join()
        return self.peak


def run_check(name: str, models: Path, folder: Path, size: str, memory: bool, logs: Path | None) -> Figures:
    """One check in a process of its own: its figures, or the end of what it printed."""
    sampler = PeakMemory()
    if memory:
        sampler.start()
    command = [sys.executable, "-m", "benchmarks.accelerator", "--check", name, "--size", size, "--models", str(models)]
    began = time.monotonic()
    try:
        done = subprocess.run(
            [*command, "--folder", str(folder / name)], capture_output=True, text=True, timeout=LIMIT_SECONDS, encoding="utf-8"
        )
        output, code = done.stdout + done.stderr, done.returncode
        line = next((line for line in reversed(done.stdout.splitlines()) if line.startswith("{")), None)
    except subprocess.TimeoutExpired as error:
        output, code, line = f"{error.stdout}{error.stderr}", None, None
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
        (logs / f"{name}.log").write_text(output[-200_000:], encoding="utf-8")
    peak = {"peak": sampler.stop()} if memory else {}
    shutil.rmtree(folder / name, ignore_errors=True)
    wall = round(time.monotonic() - began, 1)
    if line is None or code:
        reason = "ran out of time" if code is None else " | ".join(output.strip().splitlines()[-3:])[-400:]
        return {"check": name, "works": False, "wall": wall, **peak, "reason": reason}
    return {"check": name, "works": True, "wall": wall, **peak, **json.loads(line)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SHAPES), default="1b")
    parser.add_argument("--checks", default=",".join(CHECKS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--logs", type=Path, help="folder for the output of every check")
    parser.add_argument("--check", choices=list(CHECKS))
    parser.add_argument("--models", type=Path)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.check:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(CHECKS[arguments.check](arguments.models, arguments.folder, arguments.size)))
        return
    with tempfile.TemporaryDirectory() as name:
        models = Path(name) / "models"
        save_models(models, arguments.size)
        names = arguments.checks.split(",")

        def checked(check: str) -> Figures:
            figures = run_check(check, models, Path(name), arguments.size, arguments.jobs == 1, arguments.logs)
            print(json.dumps(figures), flush=True)
            return figures

        with ThreadPoolExecutor(arguments.jobs) as pool:
            rows = list(pool.map(checked, names))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    table = Table("check", "works", "wall s", "tokens/s", "peak MiB", "more", title=f"{device}, model {arguments.size}")
    for row in rows:
        more = {key: value for key, value in row.items() if key not in ("check", "works", "wall", "tokens/s", "peak")}
        told = ", ".join(f"{key} {value}" for key, value in more.items())
        table.add_row(row["check"], str(row["works"]), str(row["wall"]), str(row.get("tokens/s")), str(row.get("peak")), told)
    Console(width=180).print(table)
    sys.exit(not all(row["works"] for row in rows))


if __name__ == "__main__":
    main()
