"""The folder of an online run whose training is planted: the journals of a warm-up and of one interval that evolves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from eva_stages.checking.resolution import resolve
from eva_stages.core.planned_stages import PLAN, write_planned_stages
from eva_stages.core.progress import Reporter
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.rows import SCHEMAS, prompt_row
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import Context, execute
from eva_stages.core.stage import FunctionStage, Stage, Use, closure
from eva_stages.core.tables import write_rows
from eva_stages.creator import interval_tables as tables
from pipelines.interval_stages import interval_stages
from tests.creator.test_interval_tables import write_journal

STEPS = 4
RESPONSES = 4
FATES = ("inserted", "inserted", "gate:answerable", "rejected:near_duplicate", "duplicate", "late")


def prompt(text: str, **lineage: Any) -> dict[str, Any]:
    return prompt_row([{"role": "user", "content": text}], "test", **lineage)


SEEDS = [prompt(f"Take the word number {index} and reverse it") for index in range(12)]


def children(parent: Mapping[str, Any]) -> list[dict[str, Any]]:
    lineage = {"parent_id": parent["prompt_id"], "root_id": parent["root_id"], "generation": parent["generation"] + 1, "mutation": "deepen"}
    text = parent["messages"][0]["content"]
    return [prompt(f"{text}, variant {index}", **lineage) for index in range(len(FATES))]


def use(step: int, row: Mapping[str, Any], origin: str) -> dict[str, Any]:
    rewards = [float((len(row["messages"][0]["content"]) * (index + 3) + step) % 7) / 6 for index in range(RESPONSES)]
    return {
        "step": step,
        "prompt_id": row["prompt_id"],
        "origin": origin,
        "responses": [f"response {index} of step {step}" for index in range(RESPONSES)],
        "finish_reasons": ["stop"] * RESPONSES,
        "token_counts": [5] * RESPONSES,
        "rewards": rewards,
        "failures": [None] * RESPONSES,
        "score": max(rewards) - sum(rewards) / RESPONSES,
    }


def plant_prompts(context: Context) -> dict[str, Any]:
    write_rows([pa.Table.from_pylist(SEEDS, schema=SCHEMAS["prompts"])], SCHEMAS["prompts"], context.artifact)
    return {}


def plant_training(context: Context, iteration: int) -> dict[str, Any]:
    """A warm-up on all seed prompts; then steps that use two seed prompts, one prompt of the buffer, and evolve the first of them."""
    model = context.work / "model"
    journal = model / tables.JOURNAL
    first = iteration * STEPS + 1
    log = [{"loss": 1.0 / step, "reward": 0.4, "step": step, "learning_rate": 1e-3} for step in range(first, first + STEPS)]
    uses, draws, evolutions = [], [], []
    for number in range(STEPS):
        step, originals = first + number, [SEEDS[(3 * number + place) % len(SEEDS)] for place in range(3 if iteration == 0 else 2)]
        uses += [use(step, row, "original") for row in originals]
        if iteration:
            parent = SEEDS[0] if number < 2 else children(SEEDS[0])[number - 2]
            uses.append(use(step, parent, "buffer"))
            draws.append({"step": step, "prompt_id": parent["prompt_id"], "weight": 1.0, "probability": 0.5, "draw": 0})
            for child, fate in zip(children(parent), FATES, strict=True):
                row = {**child, "rejected": None, "failure": None, "step": step}
                evolutions.append({**row, "inserted_step": step + 1 if fate == "inserted" else None, "fate": fate})
    write_journal(journal, "uses", first + STEPS - 1, uses)
    entries = [
        {"prompt_id": row["prompt_id"], "score": 0.1 * place, "birth": 1, "last_use": 2, "origin": "original"}
        for place, row in enumerate(SEEDS)
    ]
    write_journal(journal, "buffer", first + STEPS - 1, entries)
    if iteration:
        write_journal(journal, "selections", first + STEPS - 1, draws)
        write_journal(journal, "evolutions", first + STEPS - 1, evolutions)
    (model / "training_log.json").write_text(json.dumps(log))
    (model / "config.json").write_text("{}")
    counts = {"steps": STEPS, "output_tokens": 20 * len(uses), "buffer": 12, "late": iteration * STEPS, "busy": 0, "unscored": 0}
    return {"counts": counts, "training": {"loss": 0.5, "reward": 0.4}}


def write_online_run(root: Path) -> Path:
    """Run the tables of both iterations on the planted trainings."""
    gate = {"max_length_ratio": 2.5}
    recipe = load_recipe("quickstart", ["evaluation.benchmarks=[]", "health.answers=0", f"creator.curate.gate={json.dumps(gate)}"])
    resolved = resolve(recipe)
    seeds = FunctionStage("prompts", 0, {}, function=Use("tests.online_folder:plant_prompts"))
    policy: Stage | None = None
    stages: list[Stage] = []
    for iteration in range(2):
        function = Use("tests.online_folder:plant_training", {"iteration": iteration})
        inputs = {"prompts": seeds} if policy is None else {"prompts": seeds, "policy": policy}
        policy = FunctionStage("train", iteration, inputs, function=function)
        stages += [policy, *interval_stages(recipe, resolved, iteration, policy, [seeds], stages)]
    run = Run(root)
    run.create()
    with run.lock():
        execute(run, stages, Reporter())
    write_planned_stages(root / PLAN, closure(stages))
    data = {**recipe.model_dump(mode="json"), "mode": "online", "iterations": 1}
    (root / "recipe.yaml").write_text(yaml.safe_dump(data))
    return root
