"""Which devices there are, how many a model takes, and which of them its copies get: arithmetic, and real processes."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from eva_stages.core.devices import Devices, Model, Share, next_devices, read_model, share_cores, share_out, visible
from eva_stages.core.errors import ConfigError
from eva_stages.core.placing import fit_one_process, models_on_cores, place
from eva_stages.core.process import run_in_child
from eva_stages.core.stage import Input, Use
from eva_stages.models.loading import pick_device

GB = 10**9


def test_the_visible_devices_are_those_that_the_environment_names_and_the_driver_shows() -> None:
    assert visible(None, 3) == ("0", "1", "2")
    assert visible("4, 6,GPU-a", 3) == ("4", "6", "GPU-a")
    assert visible("2,-1,3", 1) == ("2",)  # CUDA stops at the first that is none
    assert visible("", 0) == visible("-1", 0) == visible(None, 0) == ()


def test_steps_fit_one_process_if_their_models_are_the_same_one_on_the_processor() -> None:
    def steps(*models: str, copies: int = 1, devices: int = 0) -> list[tuple[Use, Share]]:
        uses = [Use("a:Step", {"llm": Use("b:Model", {"model": Input(model)}, {"replicas": None})}) for model in models]
        return [(use, Share(copies, devices)) for use in uses] + [(Use("c:Rule"), Share(1, 0))]

    assert fit_one_process(steps()) and fit_one_process(steps("policy")) and fit_one_process(steps("policy", "policy"))
    assert not fit_one_process(steps("policy", "judge"))
    assert not fit_one_process(steps("policy", copies=2)) and not fit_one_process(steps("policy", devices=1))


def test_a_model_is_spread_over_as_few_devices_as_hold_it_and_copied_on_the_rest() -> None:
    assert share_out(Model(18 * GB, 16), 8, 80 * GB) == Share(8, 1)
    assert share_out(Model(140 * GB, 64), 8, 80 * GB) == Share(2, 4)  # 140 > 0.6 x 160
    assert share_out(Model(140 * GB, 64), 8, 141 * GB) == Share(4, 2)
    assert share_out(Model(18 * GB, 16), 8, 24 * GB) == Share(4, 2)
    assert share_out(Model(18 * GB, 16), 3, 24 * GB) == Share(1, 2)
    assert share_out(Model(20 * GB, 14), 8, 24 * GB) == Share(4, 2)
    assert share_out(Model(40 * GB, 14), 8, 24 * GB) == Share(4, 2)  # 14 heads do not go into 4: the engine has the last word
    assert share_out(Model(900 * GB, 128), 8, 80 * GB) == Share(1, 8)
    assert share_out(Model(18 * GB, 16), 0, 0) == Share(1, 0)


def test_what_the_recipe_says_of_copies_and_devices_holds() -> None:
    model = Model(18 * GB, 16)
    assert share_out(model, 8, 80 * GB, devices_per_copy=2) == Share(4, 2)
    assert share_out(model, 8, 80 * GB, copies=3) == Share(3, 1)
    assert share_out(model, 8, 80 * GB, devices_per_copy=4, copies=2) == Share(2, 4)
    assert share_out(model, 8, 20 * GB, copies=3) == Share(3, 2)
    assert share_out(model, 0, 0, devices_per_copy=2, copies=2) == Share(2, 0)
    for wrong in ({"devices_per_copy": 3, "copies": 3}, {"devices_per_copy": 16}, {"copies": 9}):
        with pytest.raises(ConfigError, match="but 8 are available; lower replicas or tensor_parallel"):
            share_out(model, 8, 80 * GB, **wrong)


def checkpoint(folder: Path, dtype: str, weights: int) -> Path:
    folder.mkdir()
    save_file({"weights": np.zeros(weights, np.uint8)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"text_config": {"dtype": dtype, "num_attention_heads": 12}}))
    return folder


def test_a_checkpoint_counts_as_it_is_loaded(tmp_path: Path) -> None:
    for stored_type, loaded_type, bytes_ in (("float32", "auto", 5000), ("float32", "float32", 10000), ("bfloat16", "auto", 10000)):
        model = read_model(checkpoint(tmp_path / f"{stored_type}-{loaded_type}", stored_type, 10000), loaded_type)
        assert model.weights == pytest.approx(bytes_, rel=0.05) and model.heads == 12


def test_the_models_of_a_stage_share_the_devices_out(tmp_path: Path) -> None:
    folders = {"policy": checkpoint(tmp_path / "policy", "bfloat16", 10000)}
    vllm = Use("vllm", {"model": Input("policy")}, {"replicas": None, "tensor_parallel": None, "max_num_seqs": 3})
    local = Use("local", {"model": Input("policy")}, {"replicas": None, "device": "auto"})
    respond, judge_use = Use("respond", {"llm": vllm}), Use("reward", {"reward": Use("judge", {"llm": local})})
    eight = Devices(tuple("01234567"), 100_000)

    ((single_share, share),) = place([respond], folders, eight)
    assert share == Share(8, 1)
    assert single_share.arguments["llm"].runtime == {"replicas": 8, "tensor_parallel": 1, "max_num_seqs": 3}
    shares = place([respond, judge_use, Use("plain")], folders, eight)
    assert [share for _, share in shares] == [Share(4, 1), Share(4, 1), Share(1, 0)]
    ((spread, share),) = place([judge_use], folders, eight._replace(memory=5_000))
    assert share == Share(2, 4) and spread.arguments["reward"].arguments["llm"].runtime == {"replicas": 2, "device": "balanced:4"}
    for device, expected in (("balanced", Share(1, 8)), ("balanced:2", Share(4, 2)), ("cuda:1", Share(1, 0)), ("cpu", Share(1, 0))):
        named_use = Use("reward", {"reward": Use("local", {"model": Input("policy")}, {"replicas": None, "device": device})})
        assert place([named_use], folders, eight)[0][1] == expected, device
    assert place([respond], folders, Devices())[0][1] == Share(1, 0)
    assert place([respond], folders, eight, copies=1)[0][1] == Share(1, 1)


def test_copies_take_neighbouring_devices_in_turn() -> None:
    ids = ["4", "5", "GPU-a", "GPU-b"]
    assert [next_devices(ids, taken_count, 2) for taken_count in (0, 2, 4)] == [["4", "5"], ["GPU-a", "GPU-b"], ["4", "5"]]


def threads(processes: int) -> tuple[int, int]:
    """torch's threads in a process that shares the cores, and in this one."""
    import torch

    def look(reply: Any) -> None:
        pick_device("cpu")
        first = torch.get_num_threads()
        pick_device("cpu")
        reply.send((first, torch.get_num_threads(), (torch.ones(300, 300) @ torch.ones(300, 300)).sum().item()))

    share_cores(processes)
    ours, child_end = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=look, args=(child_end,))
    worker.start()
    first, second, total = ours.recv()
    worker.join()
    assert first == second and total == 300**3, "a second model in the same process takes nothing away"
    return first, torch.get_num_threads()


def test_models_that_work_at_the_same_time_share_the_cores(tmp_path: Path) -> None:
    whole = run_in_child(f"{__name__}:threads", {"processes": 1}, tmp_path / "log", lambda: None)
    assert whole[0] == whole[1]
    half = run_in_child(f"{__name__}:threads", {"processes": 2}, tmp_path / "log", lambda: None)
    assert half == (max(1, whole[0] // 2), whole[0])


def test_only_models_on_the_processor_share_it() -> None:
    step = Use("a:B", {"llm": Use("a:C", {"model": "m"}, {"replicas": None, "device": "cpu"})})
    plain = Use("a:B")
    placed_uses = place([step, plain, step], {}, Devices(), copies=2)
    assert models_on_cores(placed_uses) == 4
    assert models_on_cores([(step, Share(3, 1)), (plain, Share(1, 0))]) == 0
