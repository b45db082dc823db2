"""How fast eva's stages are on this machine's accelerator and how much memory they take: `eva doctor --deep` on a model of a real size.

    python -m benchmarks.accelerator                                  every check, on a model of 1.2 billion parameters
    python -m benchmarks.accelerator --checks transformers,training,LoRA
    python -m benchmarks.accelerator --size tiny                      as eva doctor --deep, and the further checks below

Further checks: whether results depend on the size of batches, the other losses, the reference policy in every step, and whether a training
that was killed ends with the weights of an unbroken one.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from functools import partial
from typing import Any

import numpy as np
from rich.console import Console

from eva_stages.core.process_ending import kill_tree
from eva_stages.core.text_table import as_rich
from eva_stages.doctor.deep import check_all, deep_table
from eva_stages.doctor.deep_checks import CHECKS, TINY, Bench, Check, Figures, Size, respond, reward, train
from eva_stages.doctor.device_findings import read_gpus
from eva_stages.doctor.findings import State

LLAMA_1B = {
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}
"""The shape of Llama 3.2 1B."""
SIZES = {"1b": Size(LLAMA_1B, 96, 256, (200, 400), new_tokens=128, responses=6, batch_size=16, tokens_per_batch=131_072), "tiny": TINY}
LIMIT_SECONDS = 600.0


def _in_two_batch_sizes(bench: Bench) -> tuple[Bench, Bench]:
    smaller_size = bench.size._replace(tokens_per_batch=bench.size.tokens_per_batch // 4)
    return Bench(bench.models, bench.folder / "large", bench.size, bench.gpus), Bench(
        bench.models, bench.folder / "small", smaller_size, bench.gpus
    )


def equal_responses(bench: Bench) -> Figures:
    """The share of responses that stay the same when batches are a quarter as large."""
    first, second = (respond(sized_bench)[1] for sized_bench in _in_two_batch_sizes(bench))
    pairs = [pair for rows in zip(first, second, strict=True) for pair in zip(*rows, strict=True)]
    return {"equal": round(float(np.mean([first_text == second_text for first_text, second_text in pairs])), 3)}


def equal_rewards(bench: Bench) -> Figures:
    """The largest change of a reward when batches are a quarter as large, and the rewards' standard deviation."""
    first, second = (np.array(reward(sized_bench)[1], dtype=float) for sized_bench in _in_two_batch_sizes(bench))
    return {"largest change": float(f"{np.abs(first - second).max():.2g}"), "spread": float(f"{first.std():.2g}")}


def _quick(launch: str, **settings: Any) -> list[str]:
    small = {"prompts.size": 240, "iterations": 1, "evaluation.benchmarks.0.prompts": 100, "solver.training.runtime.launch": launch}
    return [word for name, value in {**small, **settings}.items() for word in ("--set", f"{name}={value}")]


def check_quickstart(bench: Bench) -> Figures:
    """The quickstart with training on the device, small; its table's last gain."""
    command = [sys.executable, "-m", "cli.main", "run", "quickstart", "--run-dir", str(bench.folder / "run"), "--json"]
    result = subprocess.run([*command, *_quick(bench.single)], capture_output=True, text=True, encoding="utf-8")
    if result.returncode:
        raise RuntimeError(f"exit code {result.returncode}: {result.stderr[-2000:]}")
    content = json.loads(result.stdout)
    last = content["iterations"][-1]["held_out"]
    return {"base": content["base"]["held_out"]["sampled"], "sampled": last["sampled"], "gain": last["sampled_gain"]}


def check_resume(bench: Bench) -> Figures:
    """A training whose process is killed half-way ends with the unbroken training's weights; also what a plain second training gives."""
    from safetensors.numpy import load_file

    settings, weights, folder = _quick(bench.single, **{"solver.training.checkpoints_per_epoch": 4}), {}, bench.folder
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


FURTHER_CHECKS = (
    Check("equal responses", equal_responses),
    Check("equal rewards", equal_rewards),
    Check("live reference", partial(train, runtime={"precompute_reference": False})),
    *(Check(kind.upper(), partial(train, {"kind": kind})) for kind in ("sppo", "simpo", "orpo")),
    Check("quickstart", check_quickstart),
    Check("resume", check_resume),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    checks = {check.name: check for check in (*CHECKS, *FURTHER_CHECKS)}
    parser.add_argument("--size", choices=list(SIZES), default="1b")
    parser.add_argument("--checks", default=",".join(checks), help="names, separated by commas")
    arguments = parser.parse_args()
    names = [checks[name]._replace(limit_seconds=LIMIT_SECONDS) for name in arguments.checks.split(",")]
    content = check_all(read_gpus().visible_count, print, names, SIZES[arguments.size])
    print(json.dumps(content, indent=1))
    Console(width=120).print(as_rich([deep_table(content)]))
    sys.exit(any(row["state"] == State.ERROR for row in content["checks"]))


if __name__ == "__main__":
    main()
