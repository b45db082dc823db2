"""The training of the creator: RLOO over recorded siblings, an adapter that goes on, and an iteration without pairs."""

import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.runner import Context
from eva_stages.core.tables import write_rows
from eva_stages.models.adapters import with_adapter
from eva_stages.models.transformers_generator import TransformersGenerator
from eva_stages.solver.creator_network import train_creator
from eva_stages.solver.losses import PairLogProbs, best_sibling, sibling_rloo
from eva_stages.solver.preference import train
from eva_stages.solver.saving import write_new_adapter
from tests.solver.jobs import job, read_metrics, save_models, save_pairs

ADAPTER = {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("creator")
    models = save_models(folder)
    return {"policy": models["policy"], "reference": models["policy"], "pairs": save_pairs(folder / "pairs", 16)}


def test_rloo_over_siblings_is_the_sum_over_their_pairs() -> None:
    rng, beta, n = np.random.default_rng(0), 0.3, 4
    policy = torch.tensor(rng.normal(size=n), requires_grad=True)
    reference, utility = torch.tensor(rng.normal(size=n)), torch.tensor(rng.random(n))
    rewards = (utility - beta * (policy - reference)).detach()
    advantages = torch.stack([rewards[i] - (rewards.sum() - rewards[i]) / (n - 1) for i in range(n)])
    (expected,) = torch.autograd.grad(-(advantages * policy).mean(), policy)

    first, second = zip(*itertools.combinations(range(n), 2), strict=True)
    sides = (policy[list(first)], policy[list(second)], reference[list(first)], reference[list(second)])
    lengths = torch.ones(len(first))
    pairs = PairLogProbs(*sides, lengths, lengths, None, None, utility[list(first)], utility[list(second)])
    values, _ = sibling_rloo(pairs, beta)
    (gradient,) = torch.autograd.grad(values.mean(), policy)
    assert torch.allclose(gradient, expected, atol=1e-12)
    other_sides = (*(sides[i] for i in (1, 0, 3, 2)), lengths, lengths, None, None)
    exchanged_pairs = PairLogProbs(*other_sides, pairs.rejected_reward, pairs.chosen_reward)
    assert torch.allclose(sibling_rloo(exchanged_pairs, beta)[0], values), "the order of a pair does not matter"
    assert torch.allclose(best_sibling(pairs._replace(chosen_tokens=2 * lengths))[0], -sides[0] / 2)


def test_every_objective_trains(folders: dict[str, str], tmp_path: Path) -> None:
    for kind in ("sibling_rloo", "supervised"):
        settings = job(tmp_path / kind, folders, kind, batch_size=8)
        train(settings)
        assert (settings.work / "model" / "model.safetensors").is_file()
        metrics = read_metrics(settings.work / "metrics.jsonl")[0]
        assert metrics["advantage"] == pytest.approx(1.0, abs=1e-4) if kind == "sibling_rloo" else metrics["loss"] > 0


def test_an_adapter_goes_on_from_the_last_one_which_is_the_reference(folders: dict[str, str], tmp_path: Path) -> None:
    own_settings = {"adapter": ADAPTER, "learning_rate": 1e-2, "batch_size": 8}
    first = job(tmp_path / "first", folders, "dpo", **own_settings).model_copy(update={"keeps_adapter": True})
    train(first)
    adapter = first.work / "model"
    assert (adapter / "adapter_model.safetensors").is_file() and not list(adapter.glob("model*.safetensors"))
    second = job(tmp_path / "second", {**folders, "adapter": str(adapter)}, "dpo", **own_settings, cache=first.cache)
    second = second.model_copy(update={"keeps_adapter": True, "reference_digest": "with adapter"})
    train(second)
    losses = [read_metrics(settings.work / "metrics.jsonl")[0]["loss"] for settings in (first, second)]
    assert losses == pytest.approx([math.log(2)] * 2, abs=1e-5), "both start at their reference"
    assert sorted(path.name for path in (second.work / "model").iterdir() if path.is_dir()) == []
    assert tree_digest(second.work / "model") != tree_digest(adapter)

    merged_model = with_adapter(AutoModelForCausalLM.from_pretrained(folders["policy"]), second.work / "model").merge_and_unload()
    generator = TransformersGenerator(model=folders["policy"], lora=str(second.work / "model"), device="cpu")
    generator.load()
    ids = torch.tensor([[5, 6, 7]])
    assert torch.allclose(generator._model(ids).logits, merged_model(ids).logits, atol=1e-5)


def test_without_a_pair_the_creator_stays_as_it_is(folders: dict[str, str], tmp_path: Path) -> None:
    write_rows([SCHEMAS["creator_pairs"].empty_table()], SCHEMAS["creator_pairs"], tmp_path / "pairs")
    write_new_adapter(folders["policy"], ADAPTER, str(tmp_path / "new"))
    untrained_model = with_adapter(AutoModelForCausalLM.from_pretrained(folders["policy"]), tmp_path / "new")
    ids, notes = torch.tensor([[5, 6, 7]]), list[str]()
    with untrained_model.disable_adapter():
        expected = untrained_model(ids).logits
    assert torch.allclose(untrained_model(ids).logits, expected)
    (tmp_path / "new" / "training_log.json").write_text("[]")
    for name, keeps_adapter in (("policy", False), ("adapter", True)):
        work = tmp_path / name
        work.mkdir()
        inputs = {"pairs": tmp_path / "pairs", "policy": Path(folders["policy"]), "adapter": tmp_path / "new"}
        context = Context(work, work / "data", inputs, cast(Any, SimpleNamespace(note=notes.append)), tmp_path)
        result = train_creator(context, {}, keeps_adapter=keeps_adapter, training={"adapter": ADAPTER})
        assert result["counts"] == {"pairs": 0, "steps": 0}
        names = {path.name for path in inputs[name].iterdir()} - {"training_log.json"}
        assert {path.name: path.read_bytes() for path in (work / "model").iterdir()} == {
            path: (inputs[name] / path).read_bytes() for path in names
        }
    assert len(notes) == 2 and "no pair" in notes[0]
