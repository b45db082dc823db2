"""The one-step influence against real gradient steps on a tiny model, with the trainers of both kinds of loss."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from accelerate import PartialState

from eva_stages.core.errors import DataError
from eva_stages.core.rows import SCHEMAS, prompt_row
from eva_stages.core.stage import load_attribute
from eva_stages.core.tables import read_table, write_rows
from eva_stages.solver.influence import _write_pairs, influences, measure_influence, pair_loss
from eva_stages.solver.train import trainer_target
from tests.solver.jobs import arguments, job, save_models, save_pairs

SAMPLE = 5


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("influence")
    return {**save_models(root), "pairs": save_pairs(root / "pairs", count=40, words=8)}


def held_out_loss(trainer: Any) -> float:
    with torch.no_grad():
        return float(pair_loss(trainer, range(SAMPLE, len(trainer.train_dataset))))


@pytest.mark.parametrize("kind", ["dpo", "simpo"])
def test_it_is_the_fall_of_the_held_out_loss_after_a_gradient_step(folders: dict[str, str], tmp_path: Path, kind: str):
    PartialState(cpu=True)
    tiny_job = job(tmp_path / kind, folders, kind, loss={"nll_alpha": 1.0})
    trainer, _ = load_attribute(f"{trainer_target(kind).partition(':')[0]}:make_trainer")(tiny_job)
    values = list(influences(trainer, SAMPLE, 16))
    parameters = list(trainer.model.parameters())
    loss_at_start, step, falls = held_out_loss(trainer), 1e-3, []
    for place in range(SAMPLE):
        gradients = torch.autograd.grad(pair_loss(trainer, [place]), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(gradient, alpha=step)
        falls.append((loss_at_start - held_out_loss(trainer)) / step)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.add_(gradient, alpha=step)
    assert np.ptp(values) > 0
    assert values == pytest.approx(falls, rel=0.05, abs=0.02 * float(np.abs(values).max()))


def test_sampled_and_held_out_prompts_descend_from_different_seeds(folders: dict[str, str], tmp_path: Path):
    roots = [prompt_row([{"role": "user", "content": f"seed {index}"}], "test")["prompt_id"] for index in range(10)]
    prompt_rows = [
        {**prompt_row([{"role": "user", "content": f"question {index}"}], "test"), "root_id": roots[index % 10]} for index in range(40)
    ]
    prompts = pa.Table.from_pylist(prompt_rows, schema=SCHEMAS["prompts"])
    write_rows([prompts], SCHEMAS["prompts"], tmp_path / "prompts")
    pairs = read_table(Path(folders["pairs"])).set_column(0, "prompt_id", prompts["prompt_id"].cast(pa.string()))
    write_rows([pairs], SCHEMAS["pairs"], tmp_path / "pairs")
    tiny_job = job(tmp_path / "job", folders, "dpo", launch="cpu")
    inputs = {"policy": tiny_job.policy, "reference": tiny_job.reference, "pairs": tmp_path / "pairs"}
    (tmp_path / "work").mkdir()
    result = measure_influence(tmp_path / "work", tmp_path / "log", inputs, arguments(tiny_job), tmp_path / "prompts", 14)
    assert len(result.prompt_ids) == len(set(result.prompt_ids)) == len(result.values) == 12  # three seeds with four prompts each
    assert result.held_out_count == 28
    root_of = dict(zip(prompts["prompt_id"].to_pylist(), prompts["root_id"].to_pylist(), strict=True))
    assert len({root_of[prompt_id] for prompt_id in result.prompt_ids}) == 3
    assert np.isfinite(result.values).all()
    (tmp_path / "all").mkdir()
    assert len(_write_pairs(tmp_path / "pairs", tmp_path / "prompts", 1000, tmp_path / "all")) == 20  # the other half is held out
    with pytest.raises(DataError, match="40 pairs of 10 seed prompts"):
        measure_influence(tmp_path / "work", tmp_path / "log", inputs, arguments(tiny_job), tmp_path / "prompts", 2)
