"""Generation: eva's respond stage against the bare engine, and n responses in one request against n passes.

    python -m benchmarks.generation --engine transformers
    python -m benchmarks.generation --engine vllm           # in an environment with vLLM
    python -m benchmarks.generation --engine vllm --long    # shared prompts of 500 and more tokens: one request of n against n passes
    python -m benchmarks.generation --load 7                # on a machine where 7 processes per core do other work
    python -m benchmarks.generation --lettercraft           # Lettercraft's policy: eva's decoding loop against that of transformers

`stage` is the complete stage as `eva run` runs it: distilabel pipeline, durable part files, manifest. `raw` is the engine alone in one
process: the same model, prompts, settings and batches, nothing written. `passes` asks the engine n times for one response, as the
paper's public scripts do. `passive` and `spinning` are the stage on a busy machine, with threads that wait as eva lets them
(`OMP_WAIT_POLICY`) and as they wait by default. `loop` is eva's generator alone in one process, over parts of 64 prompts, as `raw` is with
`--lettercraft`; compared are tokens per second of processor time, which other work on the machine changes little. Loading is on no side's
clock: `stage` subtracts what an empty stage of the same kind takes to start.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.sides import clock, compare, options, parse
from eva_stages.checking.resolution import resolve
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.process import run_in_child
from eva_stages.core.rows import prompt_row
from eva_stages.doctor import random_inputs
from eva_stages.models.loading import find_checkpoint
from pipelines.response_stages import responding

SETTINGS = {"temperature": 1.0, "top_p": 1.0}
WAITING = {"passive": {}, "spinning": {"GOMP_SPINCOUNT": "300000"}}
"""How threads wait: as eva lets them, and as libgomp does by default."""


def recipe(engine: str, policy: Path, n: int, max_new_tokens: int) -> Recipe:
    runtime = {"enforce_eager": True} if engine == "vllm" else {"tokens_per_batch": 16384}
    generator = {"kind": engine, **SETTINGS, "max_new_tokens": max_new_tokens, "runtime": runtime}
    return Recipe.model_validate(
        {
            "name": "benchmark",
            "prompts": {"kind": "lettercraft"},
            "policy": {"model": str(policy), "generator": generator},
            "reward": {"kind": "lettercraft"},
            "creator": {"responses": n, "evolve": {"generator": {"kind": "lettercraft"}}},
            "solver": {"responses": n, "loss": {"kind": "dpo"}},
            "runtime": {"rows_per_part": 500},
        }
    )


def stage(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The respond stage over all prompts, less the time of the same stage over one."""
    rows = [prompt_row(messages, "benchmark") for messages in request_prompts(arguments)]
    seconds, tokens = {}, 0.0
    run_in_child("builtins:dict", {}, folder / "start.log", lambda: None)  # the fork server imports the libraries, once
    built_recipe = recipe(arguments.engine, folder / "policy", arguments.n, arguments.max_new_tokens)
    policy = find_checkpoint(built_recipe.policy.model, None, "policy")
    for name, part in (("start", rows[:1]), ("all", rows)):
        source = random_inputs.write_source(part, "prompts", folder / name)
        manifest = random_inputs.run_stage(
            responding(built_recipe, resolve(built_recipe), name, 0, source, policy, arguments.n), folder / f"run-{name}"
        )
        seconds[name], tokens = manifest["seconds"], manifest["counts"]["output_tokens"]
    work_seconds = seconds["all"] - seconds["start"]
    return {"tokens_per_second": tokens / work_seconds, "seconds": work_seconds, "start": seconds["start"], "tokens": tokens}


def raw(arguments: argparse.Namespace, folder: Path, passes: int = 1) -> dict[str, float]:
    """The engine alone, `passes` times for n / passes responses each."""
    seconds: dict[str, float] = {}
    answer = (raw_vllm if arguments.engine == "vllm" else raw_transformers)(
        folder / "policy", arguments.n // passes, arguments.max_new_tokens
    )
    conversations = request_prompts(arguments)
    tokens = answer(conversations[:2]) * 0
    with clock(seconds, "all"):
        for _ in range(passes):
            tokens += answer(conversations)
    return {"tokens_per_second": tokens / seconds["all"], "seconds": seconds["all"], "tokens": tokens}


def small(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """A small model, with eva's decoding loop (`loop`) or that of transformers (`raw`)."""
    from eva_stages.lettercraft.language import random_instruction
    from eva_stages.models.transformers_generator import TransformersGenerator

    rng, policy = np.random.default_rng(0), find_checkpoint("lettercraft", None, "policy").path
    texts = [str(random_instruction(rng, int(rng.integers(1, 5)), int(rng.integers(3, 7)))) for _ in range(arguments.prompts)]
    conversations = [[{"role": "user", "content": text}] for text in texts]
    if arguments.side == "loop":
        generator = TransformersGenerator(model=str(policy), max_new_tokens=40, device="cpu")
        generator.load()

        def answer(part: list) -> int:
            outputs = generator.generate(part, arguments.n, range(len(part)))
            return sum(count for output in outputs for count in output["statistics"]["output_tokens"])

    else:
        answer = raw_transformers(policy, arguments.n, 40)
    answer(conversations[:2])
    processor_time, seconds, tokens = time.process_time(), dict[str, float](), 0
    with clock(seconds, "all"):
        for start in range(0, len(conversations), 64):
            tokens += answer(conversations[start : start + 64])
    processor_seconds = time.process_time() - processor_time
    return {"tokens_per_processor_second": tokens / processor_seconds, "tokens_per_second": tokens / seconds["all"], "tokens": tokens}


def raw_transformers(policy: Path, n: int, max_new_tokens: int):  # type: ignore[no-untyped-def]
    """A loop over length-sorted batches around `generate`."""
    import torch
    from transformers import AutoModelForCausalLM

    from eva_stages.models.batching import token_batches
    from eva_stages.models.loading import load_tokenizer

    model = AutoModelForCausalLM.from_pretrained(policy).eval()
    tokenizer = load_tokenizer(str(policy), padding_side="left")

    def answer(conversations: list) -> int:
        ids = [
            tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"] for messages in conversations
        ]
        token_count = 0
        for batch in token_batches([len(sequence) + max_new_tokens for sequence in ids], 16384, n):
            tensors = tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt")
            with torch.inference_mode():
                output = model.generate(
                    **tensors, do_sample=True, top_k=0, num_return_sequences=n, max_new_tokens=max_new_tokens, **SETTINGS
                )
            answers = output[:, tensors["input_ids"].shape[1] :]
            texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
            token_count += int((answers != tokenizer.pad_token_id).sum()) + 0 * len(texts)
        return token_count

    return answer


def raw_vllm(policy: Path, n: int, max_new_tokens: int):  # type: ignore[no-untyped-def]
    """One call of `LLM.generate` with everything in it."""
    import os

    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import LLM, SamplingParams, TokensPrompt

    settings = {"dtype": "float32", "generation_config": "vllm", "enforce_eager": True, "enable_chunked_prefill": False}
    engine = LLM(model=str(policy), **settings, enable_prefix_caching=True)
    tokenizer = engine.get_tokenizer()
    calls = 0

    def answer(conversations: list) -> int:
        nonlocal calls
        calls += 1
        ids = [
            tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"] for messages in conversations
        ]
        limits = {"temperature": 1.0, "top_p": 1.0, "max_tokens": max_new_tokens}
        settings = [SamplingParams(n=n, seed=1000 * calls + place, **limits) for place in range(len(ids))]
        answers = engine.generate([TokensPrompt(prompt_token_ids=result) for result in ids], settings, use_tqdm=False)
        return sum(len(output.token_ids) for result in answers for output in result.outputs)

    return answer


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Other work on this machine: processes that compute without end."""
    processes_started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in processes_started:
            process.kill()
            process.wait()


def request_prompts(arguments: argparse.Namespace) -> list:
    if arguments.long:
        return random_inputs.prompts(arguments.prompts, median=700, longest=1500, spread=0.25)
    return random_inputs.prompts(arguments.prompts)


def side(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    if arguments.lettercraft:
        return small(arguments, folder)
    random_inputs.save_policy(folder / "policy")
    if arguments.side in ("raw", "passes"):
        return raw(arguments, folder, arguments.n if arguments.side == "passes" else 1)
    os.environ.update(WAITING.get(arguments.side, {}))  # the stage's process has not started yet
    return stage(arguments, folder)


def main() -> None:
    parser = options(__doc__, prompts=2000, n=6, max_new_tokens=128, long=False, lettercraft=False)
    parser.add_argument("--engine", choices=("transformers", "vllm"), default="transformers")
    parser.add_argument("--load", type=int, default=0, help="processes per core that do other work")
    arguments = parse(parser, dict.fromkeys(("stage", "raw", "passes", "loop", *WAITING), side))
    choices = {"lettercraft": ["loop", "raw"], "load": list(WAITING), "long": ["raw", "passes"]}
    sides = next((names for option, names in choices.items() if getattr(arguments, option)), ["stage", "raw"])
    with busy(arguments.load * len(os.sched_getaffinity(0))):
        figure = "tokens_per_processor_second" if arguments.lettercraft else "tokens_per_second"
        compare("benchmarks.generation", sides, arguments.rounds, figure)


if __name__ == "__main__":
    main()
