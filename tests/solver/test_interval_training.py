"""Intervals of online training on the shipped policy: the same as TRL's plain trainer where nothing is drawn, and resumption."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from eva_stages.core.errors import StageError
from eva_stages.core.progress import Reporter
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.rows import SCHEMAS, prompt_row
from eva_stages.core.runner import Context
from eva_stages.core.stage import FunctionStage
from eva_stages.core.tables import write_rows
from eva_stages.models.loading import find_checkpoint
from eva_stages.solver.launching import train
from tests.building import build_rounds
from tests.solver.jobs import read_metrics

POLICY = find_checkpoint("lettercraft", None, "policy.model").path
WORDS = ("planet", "moon", "river", "stone", "cloud", "garden", "window", "bottle")
STEPS = 4
"""Of an interval: an epoch over the prompts, two in a step."""
SETTINGS: dict[str, Any] = {
    "iterations": 1,
    "policy.generator.max_new_tokens": 16,
    "policy.generator.temperature": 2.0,
    "policy.model": "lettercraft",
    "reward": {"kind": "verifier", "function": f"{__file__}:sum_of_letters"},
    "trust_code": True,
    "solver.responses": 2,
    "solver.training.batch_size": 4,
    "solver.training.runtime.micro_batch_size": 2,
    "solver.training.learning_rate": 1e-3,
    "creator.selection.fraction": 0.5,
}
ONLINE = {"online.interval": STEPS, "online.buffer.size": 12}
OFFLINE = {"mode": "offline", "online": None, "solver.training.epochs": 2}
STATIC = {"online.buffer.share": 0, "creator.control": "no_evolve"}


def sum_of_letters(messages: list[dict[str, str]], response: str, reference: str | None) -> float:
    """Differs for almost all responses."""
    return sum(response.encode()) % 97 / 97


def trainings(changes: dict[str, Any]) -> list[FunctionStage]:
    """The training stages of the recipe with other settings."""
    settings = {**SETTINGS, **(ONLINE if changes is not OFFLINE else {}), **changes}
    recipe = load_recipe("lettercraft/online", [f"{name}={json.dumps(value)}" for name, value in settings.items()])
    stages = [part.solver[-1] for part in build_rounds(recipe)]
    return [stage for stage in stages if isinstance(stage, FunctionStage)]


class Folders:
    """Trainings of stages in folders of their own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        rows = [
            prompt_row([{"role": "user", "content": f"Take {word}, sort its letters, then drop its first letter."}], "test")
            for word in WORDS
        ]
        write_rows([pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])], SCHEMAS["prompts"], root / "prompts")

    def run(self, stage: FunctionStage, name: str, policy: Path) -> Path:
        """The attempt's folder."""
        work = self.root / name
        work.mkdir(exist_ok=True)
        shutil.rmtree(work / "model", ignore_errors=True)
        inputs = {"policy": policy, "reference": POLICY, "prompts": self.root / "prompts"}
        with Reporter().task("train", "steps") as task:
            facts = train(
                Context(work, work / "data", inputs, task, self.root), stage.function.runtime["runtime"], **stage.function.arguments
            )
        (work / "facts.json").write_text(json.dumps(facts))
        return work


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("intervals"))


@pytest.fixture(scope="module")
def warm_up(folders: Folders) -> Path:
    """The artifact of the first interval, which all online recipes share."""
    stages = [trainings(changes)[0] for changes in ({}, STATIC, {"online.lag": 2}, {"creator.control": "human"})]
    assert len({stage.fingerprint for stage in stages}) == 1
    return folders.run(stages[0], "warm-up", POLICY) / "model"


def weights(model: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(model / "model.safetensors"))


def test_without_buffer_and_evolving_two_intervals_are_trls_plain_training_to_the_bit(folders: Folders, warm_up: Path) -> None:
    plain = folders.run(trainings(OFFLINE)[0], "plain", POLICY)
    online = folders.run(trainings(STATIC)[1], "static", warm_up)
    plain_weights, online_weights = weights(plain / "model"), weights(online / "model")
    assert all(torch.equal(plain_weights[name], online_weights[name]) for name in plain_weights)
    plain_log = read_metrics(plain / "metrics.jsonl")[STEPS:]
    online_log = read_metrics(online / "metrics.jsonl")
    assert [entry["step"] for entry in online_log] == [1, 2, 3, 4] and all(entry["total_steps"] == STEPS for entry in online_log)
    for name in ("loss", "reward", "kl", "grad_norm", "learning_rate"):
        assert [entry[name] for entry in plain_log] == [entry[name] for entry in online_log]
    uses = pq.read_table(online / "model" / "journal" / "uses-8.parquet")
    assert len(uses) == 2 * (STEPS // 2) and set(uses["origin"].to_pylist()) == {"original"}
    facts = json.loads((online / "facts.json").read_text())
    assert facts["counts"]["steps"] == STEPS and facts["counts"]["responses"] == 4 * STEPS


def test_an_interval_that_resumes_ends_with_the_weights_the_rows_and_the_buffer_of_an_unbroken_one(folders: Folders, warm_up: Path) -> None:
    stage = trainings({})[1]
    first_work = folders.run(stage, "unbroken", warm_up)
    second_work = folders.root / "resumed"
    for name in ("checkpoints", "journal"):
        shutil.copytree(first_work / name, second_work / name)
    (second_work / "checkpoints" / "checkpoint-8" / "curriculum" / "state.json").write_text("{")  # killed while it was written
    folders.run(stage, "resumed", warm_up)
    assert "checkpoint-8 is incomplete" in (second_work / "training.log").read_text()
    first, second = first_work / "model", second_work / "model"
    assert all(torch.equal(weights(first)[name], weights(second)[name]) for name in weights(first))
    files = [
        "trainer/curriculum/state.json",
        "trainer/curriculum/buffer.parquet",
        *(f"journal/{path.name}" for path in (first / "journal").iterdir()),
    ]
    assert len(files) == 2 + 2 * 3 + 1
    assert {name: (first / name).read_bytes() for name in files} == {name: (second / name).read_bytes() for name in files}
    evolutions = [row for path in (first / "journal").glob("evolutions-*") for row in pq.read_table(path).to_pylist()]
    assert len(evolutions) == 4 * STEPS and any(row["fate"] == "inserted" for row in evolutions)

    # killed after its last step, before its result was written: nothing is trained again
    (second_work / "metrics.jsonl").unlink()
    folders.run(stage, "resumed", warm_up)
    assert not (second_work / "metrics.jsonl").exists()
    assert all(torch.equal(weights(first)[name], weights(second)[name]) for name in weights(first))


def mortal_evolver(text: str, reference: str | None, rng: np.random.Generator) -> tuple[str, None, str]:
    """Each of its orders, files in a folder, kills the process in the next call."""
    for order in sorted(Path(os.environ["TEST_ORDERS"]).iterdir())[:1]:
        if rng.integers(3) == 0:
            order.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
    return f"{text} Then reverse it {rng.integers(1000)} times.", None, "more"


def test_three_kills_in_calls_of_the_evolver_change_nothing(
    folders: Folders, warm_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_ORDERS", str(tmp_path))
    stage = trainings({"creator.evolve.generator": {"kind": "function", "function": f"{__file__}:mortal_evolver"}})[1]
    first = folders.run(stage, "not-killed", warm_up) / "model"
    for number in range(3):
        (tmp_path / str(number)).touch()
    kill_count = 0
    while kill_count <= 3:
        try:
            second = folders.run(stage, "killed", warm_up) / "model"
            break
        except StageError as error:
            assert "was killed by signal 9" in str(error)
            kill_count += 1
    assert kill_count == 3
    assert all(torch.equal(weights(first)[name], weights(second)[name]) for name in weights(first))
    names = {path.relative_to(first).as_posix() for folder in ("journal", "trainer/curriculum") for path in (first / folder).iterdir()}
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names - {"trainer/curriculum/seen.npz"})
