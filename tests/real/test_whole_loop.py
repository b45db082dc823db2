"""The packaged recipe `smollm2-135m/offline` as a user starts it, on a real model, with a real sentence embedder beside it.

The evolver and the judge are a server on loopback (`large_model`); the held-out questions of two turns come from real dialogues. One run
serves all tests. In the middle of its first training it is killed, once the trainer has written what it trains on.
"""

import importlib.util
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest
import yaml
from safetensors import safe_open
from transformers import AutoTokenizer

from eva_stages.core.recipe_files import load_recipe
from tests import official_files
from tests.browser import CHROMIUM, browser
from tests.conftest import kill_group, manifests, overrides, run_eva, start_eva
from tests.killing import running
from tests.real.large_model import LargeModel, large_model
from tests.real.whole_run import (
    SECONDS,
    WholeRun,
    whole_run,
)

RECIPE = "smollm2-135m/offline"
RECIPE_FOLDER = Path(__file__).parents[2] / "configs" / "smollm2-135m" / "offline"
WRAPPINGS = re.compile(r"<think>|#|\*\*|(?:rewritten|created) prompt|\A\"|\bsorry\b", re.IGNORECASE)
"""What an evolver puts around a prompt, none of which is in the questions."""


@dataclass(frozen=True)
class Loop(WholeRun):
    """The run, what its first training was about to train on, and the server's part in it."""

    train_events: list[dict[str, Any]]
    server: LargeModel


def dialogue_questions(folder: Path, count: int) -> dict[str, str]:
    """MT-Bench files whose questions are two real ones of a dialogue corpus each."""
    import chatterbot_corpus

    files = official_files.mt_bench(folder, 0)
    data = Path(chatterbot_corpus.__file__).parent / "data" / "english"
    rows = []
    for number, topic in enumerate(("food", "history", "science", "computers")[:count]):
        conversations = yaml.safe_load((data / f"{topic}.yml").read_text(encoding="utf-8"))["conversations"]
        questions = list(
            dict.fromkeys(text for text, *_ in conversations if re.match(r"(?:what|why|how|who|which)\b", text, re.IGNORECASE))
        )
        rows.append({"question_id": 100 + number, "category": topic, "turns": questions[:2]})
    official_files.lines(Path(files["questions"]), rows)
    return files


def read_ids(path: Path) -> list[dict[str, Any]]:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_stream(source).read_all().to_pylist()


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory, policy: Path, embedder: Path) -> Iterator[Loop]:
    folder = tmp_path_factory.mktemp("loop")
    recipe, run = str(folder / "offline.yaml"), folder / "positivity"
    run_eva("recipes", "copy", RECIPE, recipe)
    with large_model() as server:
        local = {"kind": "litellm", "api_base": server.base, "runtime": {"price": {"input": 1.0, "output": 2.0}, "max_cost_usd": 1.0}}
        evolver = load_recipe(RECIPE).creator.evolve.generator.model_dump(exclude={"runtime"})
        held_out_benchmark = {"kind": "ifeval", "questions": str(folder / "offline" / "held_out.jsonl"), "max_new_tokens": 48}
        two_turns = {"kind": "mt_bench", **dialogue_questions(folder, 3), "judge": {**local, "model": "openai/judge"}, "max_new_tokens": 32}
        settings = [
            "--trust",
            *overrides(
                {
                    "policy.model": str(policy),
                    "creator.evolve.generator": {**evolver, **local},
                    "creator.curate.diversity": {"model": str(embedder)},
                    "evaluation.benchmarks": [held_out_benchmark, two_turns],
                    "limits.unevolved": 0.25,  # of two dozen calls, and a filter withholds one in fourteen
                }
            ),
        ]
        command = ("run", recipe, "--run-dir", str(run), *settings)
        run_eva(*command, "--until", "0-pair", seconds=SECONDS)
        train_events = killed_in_training(run, command)
        finished_run = whole_run(run, server, recipe, settings)
        yield Loop(**vars(finished_run), train_events=train_events, server=server)


def killed_in_training(run: Path, command: tuple[str, ...]) -> list[dict[str, Any]]:
    """Kill everything as soon as the trainer has written the ids that it trains on, and read them."""
    process = start_eva(*command)
    checkpoints: list[Path] = []
    while not checkpoints and running(process):
        checkpoints = list(run.glob("work/0-train-*/tokens.arrow"))
    assert checkpoints, process.communicate()
    ids = read_ids(checkpoints[0])
    kill_group(process)
    return ids


def test_the_trained_ids_are_those_sampled(loop: Loop, policy: Path) -> None:
    loop.assert_pairs_hold_sampled_ids(0)
    loop.assert_pairs_hold_sampled_ids(1)
    pairs = loop.rows("0-pair")
    assert [(row["chosen_ids"], row["rejected_ids"]) for row in loop.train_events] == [
        (row["chosen_ids"], row["rejected_ids"]) for row in pairs
    ]
    tokenizer = AutoTokenizer.from_pretrained(policy)
    system = {"role": "system", "content": load_recipe(RECIPE).policy.generator.system_prompt}
    prompt_ids = [
        tokenizer.apply_chat_template([system, *row["prompt"]], add_generation_prompt=True, return_dict=True)["input_ids"] for row in pairs
    ]
    assert [row["prompt_ids"] for row in loop.train_events] == prompt_ids
    assert manifests(loop.folder)["0-train"]["counts"]["pairs"] == len(pairs)


def test_every_evolved_prompt_is_what_the_evolver_meant_and_goes_back_to_a_seed(loop: Loop) -> None:
    seeds = {row["prompt_id"]: row for row in loop.rows("0-prompts")}
    evolved = {(row["prompt_id"], row["root_id"]): row for row in loop.rows("1-evolve") if row["rejected"] is None}
    drawn_rows = {row["prompt_id"] for row in loop.rows("1-select")}
    mixed_rows = [row for row in loop.rows("1-mix") if row["origin"] == "evolved"]
    loop.assert_ids_are_hashes("1-mix")
    assert len(seeds) == 24 and len(mixed_rows) >= 8
    for row in mixed_rows:
        text = row["messages"][-1]["content"]
        assert text in loop.server.evolutions and not WRAPPINGS.search(text)
        ancestor = row
        while ancestor["generation"] > 1:
            ancestor = evolved[ancestor["parent_id"], row["root_id"]]
        assert ancestor["parent_id"] == row["root_id"] and row["root_id"] in drawn_rows & set(seeds)
    last = max(mixed_rows, key=lambda row: row["generation"])
    document = json.loads(run_eva("lineage", str(loop.folder), last["prompt_id"], "--json").stdout)
    assert document["reaches_seed"] and document["seed"] == last["root_id"] and len(document["lineage"]) == last["generation"] + 1


def test_every_reply_of_the_evolver_is_a_prompt_or_has_a_reason(loop: Loop) -> None:
    styles, rows = loop.server.styles, loop.rows("1-evolve")
    assert len(rows) == styles.total() > len(loop.rows("1-select")), "one paid call for each evolution, also where it is withheld"
    reasons = [row["rejected"] for row in rows]
    expected = {"failed": "filtered", "refusal": "refusal", "truncated": "cut", "template_leak": "preamble"}
    assert {reason: reasons.count(reason) for reason in expected} == {reason: styles[style] for reason, style in expected.items()}
    assert set(reasons) <= {None, *expected} and all("content_filter" in row["failure"] for row in rows if row["rejected"] == "failed")


def test_rewards_are_those_of_the_function_called_by_hand(loop: Loop) -> None:
    positivity = module(RECIPE_FOLDER / "positivity.py").positivity
    for respond, prompts in {"0-respond": "0-prompts", "1-creator-respond": "0-prompts", "1-respond": "1-mix"}.items():
        assert loop.assert_rewards_are_the_functions(respond, prompts, positivity) > 24


def test_a_second_run_computes_nothing(loop: Loop) -> None:
    loop.assert_nothing_was_computed()


def test_the_policy_was_trained_and_every_policy_measured(loop: Loop, policy: Path) -> None:
    document = loop.document
    assert [iteration["done"] for iteration in document["iterations"]] == [True, True]
    assert all(math.isfinite(figure) for iteration in document["iterations"] for figure in iteration["training"].values())
    weights = [up_projection(folder) for folder in (policy, loop.artifact("0-train"), loop.artifact("1-train"))]
    assert all((old_weights != new_weights).any() for old_weights, new_weights in pairwise(weights))
    scores = {(entry["benchmark"], entry["policy"]): entry["scores"] for entry in document["benchmarks"]}
    assert len(scores) == 6 and None not in scores.values()
    ratings = [row for label in ("0-base", "0-eval", "1-eval") for row in loop.rows(f"{label}-mt-bench-judge")]
    assert len(ratings) == 18 and all(1 <= row["score"] <= 10 for row in ratings)


def test_the_report_tells_the_run(loop: Loop) -> None:
    page = Path(run_eva("report", str(loop.folder)).stdout.strip())
    html = page.read_text(encoding="utf-8")
    assert html.startswith("<!DOCTYPE html>") and "smollm2-135m-offline" in html
    if CHROMIUM is None:
        return
    with browser() as tab:
        tab.open(page.resolve().as_uri(), 1200)
        assert tab.value("document.querySelectorAll('section').length") >= 6
        assert tab.of("Log.entryAdded", "Runtime.exceptionThrown") == []


def up_projection(folder: Path) -> Any:
    """Weights of the first layer."""
    with safe_open(folder / "model.safetensors", "np") as weights:
        return weights.get_tensor("model.layers.0.mlp.up_proj.weight")


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    loaded_module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded_module)
    return loaded_module
