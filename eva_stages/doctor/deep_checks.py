"""The checks of `eva doctor --deep`: eva's own stages on random models, each a function from a `Bench` to figures.

A check runs through the runner as `eva run` does: distilabel pipelines, TRL under accelerate, durable artifacts.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from eva_stages.checking.resolution import resolve
from eva_stages.core.config.engine_config import Engine, RayEngine
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.solver_config import ON_POLICY_LOSSES
from eva_stages.core.job_context import job
from eva_stages.core.rows import prompt_row
from eva_stages.core.runner import LOCAL
from eva_stages.core.stage import Outside
from eva_stages.core.tables import read_table
from eva_stages.doctor import random_inputs
from eva_stages.models.loading import find_checkpoint
from eva_stages.solver.launch_file import launch_path
from pipelines.response_stages import responding, rewarding
from pipelines.solver import solver_stages

Figures = dict[str, Any]
MICRO_BATCH_SIZE = 4
OBJECT_STORE_BYTES = 80_000_000
SLOW_SECONDS = 600.0
"""Limit of a check in which DeepSpeed compiles an extension, or a vLLM engine starts."""
Shape = Mapping[str, int]


class Size(NamedTuple):
    """Of the models and of the data of the checks."""

    shape: Shape
    prompts: int
    pairs: int
    lengths: tuple[int, int]
    """Median tokens of the prompt and of each response of a training pair."""
    new_tokens: int
    responses: int
    """Per prompt."""
    batch_size: int
    """Pairs per optimiser step."""
    tokens_per_batch: int


TINY = Size(
    {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2},
    prompts=8,
    pairs=16,
    lengths=(20, 40),
    new_tokens=24,
    responses=4,
    batch_size=8,
    tokens_per_batch=16_384,
)
"""Heads of 64, which every engine has code for."""


@dataclass(frozen=True)
class Bench:
    """Where checks run: the folder of the models, the check's own folder, the size of everything, and how many GPUs it may use."""

    models: Path
    folder: Path
    size: Size
    gpus: int

    @property
    def single(self) -> str:
        """The launch file of one process."""
        return "single_gpu" if self.gpus else "cpu"

    @property
    def processes(self) -> int:
        """Of a training in several processes; one GPU has room for one."""
        return min(self.gpus, 2) or 2


class Check(NamedTuple):
    """A check, and what it needs beyond eva's required packages."""

    name: str
    run: Callable[[Bench], Figures]
    package: str = ""
    """As it is imported."""
    extra: str = ""
    """Of eva, which has the package."""
    needs_gpu: bool = False
    fault: str = ""
    """Why it cannot run on a CPU."""
    limit_seconds: float = 180.0
    """After which it is ended."""

    def obstacle(self, gpus: int) -> str:
        """Why the check cannot run on a machine with so many GPUs; empty if it can."""
        if self.package and find_spec(self.package) is None:
            return f"{self.package} is not installed: pip install 'eva-align[{self.extra}]'"
        if not gpus and self.needs_gpu:
            return self.fault or "needs a GPU"
        return ""


def save_models(folder: Path, size: Size) -> None:
    """A random policy and a random reward model in bfloat16."""
    random_inputs.save_policy(folder / "policy", torch.bfloat16, **size.shape)
    random_inputs.save_reward(folder / "reward", torch.bfloat16, **size.shape)


def recipe(bench: Bench, **solver: Any) -> Recipe:
    """A recipe over the random models; the stages under test are taken from it."""
    batches, responses = {"tokens_per_batch": bench.size.tokens_per_batch}, bench.size.responses
    generator = {"kind": "transformers", "max_new_tokens": bench.size.new_tokens, "runtime": batches}
    return Recipe.model_validate(
        {
            "name": "doctor",
            "prompts": {"kind": "lettercraft"},
            "policy": {"model": str(bench.models / "policy"), "generator": generator},
            "reward": {"kind": "sequence_classifier", "model": str(bench.models / "reward"), "runtime": batches},
            "creator": {"responses": responses, "evolve": {"generator": {"kind": "lettercraft"}}},
            "solver": {"responses": responses, "loss": {"kind": "dpo"}, **solver},
            "runtime": {"rows_per_part": 512},
        }
    )


def prompts(bench: Bench) -> Outside:
    rows = [prompt_row(messages, "doctor") for messages in random_inputs.prompts(bench.size.prompts)]
    return random_inputs.write_source(rows, "prompts", bench.folder / "prompts")


def respond(bench: Bench, engine: Engine = LOCAL, **generator: Any) -> tuple[Figures, list[list[str]]]:
    """The respond stage over all prompts, perhaps with another generator; also the responses."""
    base = recipe(bench)
    built_recipe = Recipe.model_validate(base.model_dump() | {"policy": _changed_policy(base, generator)}) if generator else base
    policy = find_checkpoint(built_recipe.policy.model, None, "policy")
    stage = responding(built_recipe, resolve(built_recipe), "respond", 0, prompts(bench), policy, bench.size.responses)  # type: ignore[arg-type]
    manifest = random_inputs.run_stage(stage, bench.folder / "run", engine)
    rows = read_table(bench.folder / "run" / "stages" / stage.folder / "data", ["responses"])
    return row_figures(manifest, manifest["counts"]["output_tokens"]), rows["responses"].to_pylist()


def _changed_policy(base: Recipe, generator: Mapping[str, Any]) -> dict[str, Any]:
    length = {"max_new_tokens": base.policy.generator.max_new_tokens}
    return {**base.policy.model_dump(), "generator": {**length, **generator}}


def reward(bench: Bench) -> tuple[Figures, list[list[float]]]:
    """The reward stage over random responses; also the rewards."""
    built_recipe, source, count = recipe(bench), prompts(bench), bench.size.responses
    texts = iter(random_inputs.texts(bench.size.prompts * count, median=bench.size.lengths[1], seed=1, longest=1024, spread=0.7))
    ids = read_table(bench.folder / "prompts", ["prompt_id"])["prompt_id"].to_pylist()
    rows = [{"prompt_id": prompt_id, "responses": [next(texts) for _ in range(count)]} for prompt_id in ids]
    responses = random_inputs.write_source(rows, "responses", bench.folder / "responses")
    policy = find_checkpoint(built_recipe.policy.model, None, "policy")
    stage = rewarding(built_recipe, resolve(built_recipe), "reward", 0, source, responses, policy)  # type: ignore[arg-type]
    manifest = random_inputs.run_stage(stage, bench.folder / "run")
    tokens = sum(len(text.split()) for row in rows for text in row["responses"])
    return row_figures(manifest, tokens), read_table(bench.folder / "run" / "stages" / stage.folder / "data", ["rewards"])[
        "rewards"
    ].to_pylist()


def pairs(bench: Bench) -> tuple[Outside, int]:
    """Random pairs, and the tokens of an epoch over them: the prompt counts for each of the two responses."""
    rows = random_inputs.pair_rows(bench.size.pairs, bench.size.lengths, longest=900)
    prompt, chosen, rejected = (sum(len(row[side][0]["content"].split()) for row in rows) for side in ("prompt", "chosen", "rejected"))
    return random_inputs.write_source(rows, "pairs", bench.folder / "pairs"), 2 * prompt + chosen + rejected


def train(bench: Bench, loss: Mapping[str, Any] | None = None, runtime: Mapping[str, Any] | None = None, **training: Any) -> Figures:
    """One epoch over the pairs (on-policy losses: over the prompts) through the train stage."""
    all_runtime = {"launch": bench.single, "micro_batch_size": MICRO_BATCH_SIZE, **(runtime or {})}
    settings = {"epochs": 1, "batch_size": bench.size.batch_size, "learning_rate": 1e-4, "max_length": 2048, "checkpoints_per_epoch": 1}
    dtype = "bfloat16" if bench.gpus else "float32"
    solver = {"loss": loss or {"kind": "dpo"}, "training": {"dtype": dtype, **settings, **training, "runtime": all_runtime}}
    built_recipe = recipe(bench, **solver)
    policy = find_checkpoint(built_recipe.policy.model, None, "policy")
    stage, tokens = solver_stages(built_recipe, resolve(built_recipe), 0, prompts(bench), policy, policy, [])[-1], 0  # type: ignore[arg-type]
    if "pairs" in stage.inputs:
        source, tokens = pairs(bench)
        stage = replace(stage, inputs={**stage.inputs, "pairs": source})
    manifest = random_inputs.run_stage(stage, bench.folder / "run")
    pace, steps = manifest["pace"]["seconds_per_unit"], manifest["counts"]["steps"]
    tokens = tokens or manifest["counts"]["output_tokens"]  # an on-policy loss samples them within training
    figures = {"tokens/s": round(tokens / steps / pace), "steps": steps, "seconds per step": round(pace, 3)}
    return {**figures, "loss": round(manifest["training"]["loss"], 4)}


def row_figures(manifest: Mapping[str, Any], tokens: float) -> Figures:
    """Tokens per second of a row stage at its pace, which leaves loading out."""
    return {"tokens/s": round(tokens / (manifest["pace"]["seconds_per_unit"] * manifest["pace"]["total"]))}


def launch_file(bench: Bench, name: str, **changes: Any) -> str:
    """A packaged launch file for the processes that this machine has room for."""
    content = {**yaml.safe_load(launch_path(name).read_text(encoding="utf-8")), "num_processes": bench.processes, **changes}
    path = bench.folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return str(path)


def train_in_processes(bench: Bench, name: str) -> Figures:
    """Training by `accelerate launch` with a packaged launch file."""
    changes = {} if bench.gpus else {"mixed_precision": "no"}
    file = launch_file(bench, "cpu_2" if name == "ddp" and not bench.gpus else name, **changes)
    # what DeepSpeed compiles: a compilation that is ended in the user's own folder would leave a lock there, for which all later ones wait
    with job({"TORCH_EXTENSIONS_DIR": str(bench.folder / "extensions")}):
        return {**train(bench, runtime={"launch": file}), "processes": bench.processes}


def train_on_policy(bench: Bench, kind: str, **loss: Any) -> Figures:
    """An on-policy loss: sampling and rewards within training."""
    responses = bench.size.responses
    runtime = {"micro_batch_size": 2 * responses}
    return train(bench, {"kind": kind, **loss}, runtime, learning_rate=1e-5, batch_size=4 * responses)


def train_with_vllm(bench: Bench) -> Figures:
    """RLOO with a vLLM engine inside the training process."""
    return train_on_policy(bench, "rloo", runtime={"vllm": True})


def train_adapter(bench: Bench, kind: str) -> Figures:
    return train(bench, adapter={"kind": kind})


def respond_on_ray(bench: Bench) -> Figures:
    """The respond stage on a Ray cluster of this machine, which is started and ended here."""
    with local_cluster(bench) as address:
        return respond(bench, RayEngine(kind="ray", address=address))[0]


@contextmanager
def local_cluster(bench: Bench) -> Iterator[str]:
    """A Ray cluster of one node; yields its address."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "num_gpus": min(bench.gpus, 1), "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
    try:
        yield cluster.address
    finally:
        for node in cluster.list_all_nodes():
            cluster.remove_node(node, allow_graceful=False)
        cluster.shutdown()


def respond_with_vllm(bench: Bench) -> Figures:
    """The respond stage with vLLM's engine, without compiling, which takes longer than this check."""
    share = 0.3
    return respond(bench, kind="vllm", max_model_len=2048, runtime={"enforce_eager": True, "gpu_memory_utilization": share})[0]


FSDP_FAULT = "accelerate shards with FSDP only on GPUs: on a CPU it would train without it, so eva stops"
CHECKS = (
    Check("transformers", lambda bench: respond(bench)[0]),
    Check("reward model", lambda bench: reward(bench)[0]),
    Check("training", train),
    Check("LoRA", partial(train_adapter, kind="lora")),
    Check("QLoRA", partial(train_adapter, kind="qlora"), "bitsandbytes", "qlora"),
    Check("Liger", partial(train, runtime={"liger": True}), "liger_kernel", "liger", needs_gpu=True),
    *(Check(kind.upper().replace("_", " "), partial(train_on_policy, kind=kind)) for kind in ON_POLICY_LOSSES),
    Check("DDP", partial(train_in_processes, name="ddp")),
    Check("FSDP2", partial(train_in_processes, name="fsdp2_8gpu"), needs_gpu=True, fault=FSDP_FAULT),
    Check("ZeRO-3", partial(train_in_processes, name="zero3_8gpu"), "deepspeed", "deepspeed", limit_seconds=SLOW_SECONDS),
    Check("Ray", respond_on_ray, "ray", "ray"),
    Check("vLLM", respond_with_vllm, "vllm", "vllm", limit_seconds=SLOW_SECONDS),
    Check(
        "RLOO with vLLM",
        partial(train_on_policy, kind="rloo", runtime={"vllm": True}),
        "vllm",
        "vllm",
        needs_gpu=True,
        limit_seconds=SLOW_SECONDS,
    ),
)
