"""What a person reads who gave something wrong: the value, what is allowed, the fix; nothing expensive has started."""

import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cli.creator_solver import creator, solver
from cli.recipes import copy
from eva_stages.core.errors import ConfigError
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.tables import read_table
from eva_stages.models.loading import find_checkpoint
from eva_stages.models.providers import provider_of
from tests.building import check
from tests.conftest import TINY, manifests, overrides, run_eva

PROMPTS = {"prompts": {"kind": "file", "path": "prompts.jsonl"}}
REWARD = """
def flaky(messages, response, reference):
    word = messages[-1]["content"]
    with open({calls!r}, "a") as calls:
        calls.write(word[:6] + "\\n")
    if word.startswith("Take a"):
        raise RuntimeError("no reward for this one")
    if word.startswith("Take b"):
        return float("nan")
    return float(len(response))
"""


def fails(tmp_path: Path, settings: dict[str, object], *says: str) -> None:
    """The recipe is refused with these words."""
    with chdir(tmp_path), pytest.raises(ConfigError) as error:
        check(load_recipe("quickstart", [f"{name}={json.dumps(value)}" for name, value in (TINY | settings).items()]))
    assert all(word in str(error.value) for word in says), error.value


def test_all_faults_come_in_one_message_from_every_command_before_a_run_folder_is_made(tmp_path: Path) -> None:
    settings = TINY | {"creator.metric": "gap", "creator.metrik": 1}
    for command in ("validate", "run"):
        error_text = run_eva(command, "quickstart", *overrides(settings), cwd=tmp_path, code=2).stderr
        assert "creator.metric: is 'gap'; known: reward_gap" in error_text and "creator.metrik: unknown field" in error_text
    error_text = run_eva("run", "quickstart", *overrides(TINY | {"policy.model": "./nowhere"}), cwd=tmp_path, code=2).stderr
    assert "policy.model: there is no checkpoint at ./nowhere" in error_text
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", [creator, solver])
def test_a_recipe_for_evaluation_has_neither_creator_nor_solver(command: Callable[[str, int], None]) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.only: is true, so evaluate has no creator and no solver; use eva eval run"):
        command("evaluate", 1)


def test_a_recipe_cannot_be_copied_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/my\.yaml cannot be written: .* give another path"):
        copy("quickstart", tmp_path / "file" / "my.yaml")


def test_an_unknown_provider_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert provider_of("unknown-thing") is None and capsys.readouterr().out == ""


@pytest.mark.parametrize("model", ["./nowhere", "/nowhere/at/all", "nowhere"])
def test_a_policy_that_does_not_exist(tmp_path: Path, model: str) -> None:
    fails(tmp_path, {"policy.model": model}, f"policy.model: there is no checkpoint at {model}", "`lettercraft`, a folder, or a Hub id")


def test_a_folder_that_is_no_checkpoint_or_has_pickled_weights(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    fails(tmp_path, {"policy.model": "model"}, "has no config.json")
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"x")
    fails(tmp_path, {"policy.model": "model"}, "has no *.safetensors", "save_pretrained")


def test_prompt_files(tmp_path: Path) -> None:
    fails(tmp_path, {**PROMPTS, "prompts": {"kind": "file", "path": "gone.jsonl"}}, "there is no file", "gone.jsonl")
    (tmp_path / "prompts.jsonl").write_text("")
    fails(tmp_path, PROMPTS, "prompts.jsonl is empty")
    (tmp_path / "prompts.jsonl").write_text('{"text": "x"}\n')
    fails(tmp_path, PROMPTS, "has no column 'prompt' or 'messages'", "it has text")


def test_launch_files_and_batch_sizes(tmp_path: Path) -> None:
    fails(tmp_path, {"solver.training.runtime.launch": "tpu"}, "no launch file 'tpu'; packaged: cpu")
    fails(tmp_path, {"solver.training.runtime.micro_batch_size": 3}, "8 pairs are not a multiple of 3 pairs per micro batch")


def test_losses_and_what_they_need(tmp_path: Path) -> None:
    fails(tmp_path, {"solver.loss": {"kind": "sppo"}}, "sppo trains on win probabilities", "lettercraft rewards have none", "pairrm")
    fails(
        tmp_path,
        {"solver.loss": {"kind": "simpo"}, "solver.reference": "initial", "solver.training.max_length": 8},
        "solver.reference: is initial, and simpo has no reference policy; leave solver.reference out",
        "solver.training.max_length: 8 tokens leave none of the prompts room",
    )
    fails(
        tmp_path,
        {"solver.loss": {"kind": "exo_pair", "beta": 0}},
        "solver.loss.beta: is 0; input should be greater than 0",
    )
    fails(tmp_path, {"solver.loss": {"kind": "exo_pair"}}, "solver.loss: exo_pair needs label_smoothing above 0")
    fails(
        tmp_path,
        {"solver.training.runtime": {"launch": "zero3_8gpu", "liger": True, "report_to": ["trackio"]}, "solver.training.batch_size": 64},
        "launch: zero3_8gpu needs deepspeed, which is not installed: pip install deepspeed",
        "pip install liger-kernel",
        "pip install trackio",
    )


def test_a_policy_without_chat_template_or_with_another_tokenizer(tmp_path: Path) -> None:
    source = find_checkpoint("lettercraft", None, "policy.model").path
    shutil.copytree(source, tmp_path / "policy")
    (tmp_path / "policy" / "chat_template.jinja").unlink()
    config = json.loads((source / "config.json").read_text())
    (tmp_path / "policy" / "config.json").write_text(json.dumps({**config, "vocab_size": 10}))
    fails(tmp_path, {"policy.model": "policy"}, "policy has no chat template", "chat_template.jinja", "embeddings for 10")


def test_a_verifier_that_cannot_be_imported(tmp_path: Path) -> None:
    fails(tmp_path, {"reward": {"kind": "verifier", "function": "nowhere:f"}}, "reward.function: there is no file", "nowhere.py")


def test_a_reward_that_raises_or_is_nan_is_null_and_counted_and_its_prompts_give_no_pair(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    (tmp_path / "my_reward.py").write_text(REWARD.format(calls=str(calls)))
    settings = TINY | {"trust_code": True, "reward": {"kind": "verifier", "function": "my_reward:flaky"}}
    run = tmp_path / "run"
    arguments = ("run", "quickstart", "--run-dir", str(run), "--until", "pair")
    # above the limit the stage fails and says how to go on; the next attempt scores those again that have no reward, and no others
    strict = overrides(settings | {"limits.unscored": 0.01})
    error_text = run_eva(*arguments, *strict, cwd=tmp_path, code=1).stderr
    assert (
        "stage 0-reward failed" in error_text
        and "above the limit limits.unscored = 1.0%" in error_text
        and "raise limits.unscored" in error_text
    )
    assert "resume with: eva run quickstart" in error_text
    calls.unlink()
    run_eva(*arguments, *overrides(settings | {"limits.unscored": 1.0}), cwd=tmp_path)
    assert set(calls.read_text().splitlines()) <= {"Take a", "Take b", "What i"}, "the last one is the sample that every check calls with"
    manifest_by_label = manifests(run)
    assert sum(manifest_by_label["0-reward"]["failures"].values()) == manifest_by_label["0-reward"]["counts"]["unscored"]
    (folder,) = run.glob("stages/0-reward-*/data")
    (prompts,) = run.glob("stages/0-prompts-*/data")
    rows = read_table(folder).to_pylist()
    starts = [messages[0]["content"][:6] for messages in read_table(prompts)["messages"].to_pylist()]
    broken_rows = [row for row, start in zip(rows, starts, strict=True) if start in ("Take a", "Take b")]
    assert broken_rows and all(value is None for row in broken_rows for value in row["rewards"])
    assert all(value is not None for row in rows if row not in broken_rows for value in row["rewards"])
    reasons = {reason for row in broken_rows for reason in row["failures"]}
    assert reasons == {"RuntimeError: no reward for this one", "the reward is nan"} & reasons and reasons
    assert manifest_by_label["0-reward"]["counts"]["unscored"] == 4 * len(broken_rows)
    assert manifest_by_label["0-pair"]["counts"]["unscored"] == len(broken_rows)


def test_a_policy_that_answers_nothing_fails_with_advice(tmp_path: Path) -> None:
    source = find_checkpoint("lettercraft", None, "policy.model").path
    model, tokenizer = AutoModelForCausalLM.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    model.config.tie_word_embeddings = False
    head = torch.nn.Linear(model.config.hidden_size, len(tokenizer), bias=False)
    head.weight.data.zero_()
    model.lm_head = head
    with torch.no_grad():  # every token is equally likely, then all are made impossible but the end
        model.model.norm.weight.zero_()
        model.model.norm.weight[0] = 1.0
    model.generation_config.eos_token_id = list(range(len(tokenizer)))
    model.save_pretrained(tmp_path / "silent")
    tokenizer.save_pretrained(tmp_path / "silent")
    settings = overrides(TINY | {"policy.model": str(tmp_path / "silent")})
    error_text = run_eva("run", "quickstart", "--run-dir", str(tmp_path / "run"), *settings, code=1).stderr
    assert "stage 0-respond failed: 160 of 160 responses are empty or missing (100.0%)" in error_text
    assert "chat template" in error_text and "limits.empty" in error_text


def test_a_full_or_a_read_only_disk_fails_the_stage_and_the_next_attempt_goes_on(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(disk)], capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs privileges that this machine does not give")
    try:
        run = disk / "run"
        settings = overrides(TINY | {"prompts.size": 400, "creator.responses": 6, "solver.responses": 6, "runtime.rows_per_part": 16})
        arguments = ("run", "quickstart", "--run-dir", str(run), *settings, "--until", "reward")
        error_text = run_eva(*arguments, code=1).stderr
        assert "failed: " in error_text and "No space left on device" in error_text and "MiB free" in error_text, error_text
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        part = next(run.glob("work/*/parts/*.parquet"))
        part.write_bytes(part.read_bytes()[:-100])  # as if the disk had lost the end of it
        assert "failed: " in run_eva("status", str(run)).stdout
        run_eva(*arguments)
        assert manifests(run)["0-reward"]["rows"] == 400
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        error_text = run_eva(*arguments, code=1).stderr
        assert f"cannot write to {run}: Read-only file system" in error_text and "Make it writable; completed work is saved" in error_text
        assert "done" in run_eva("status", str(run)).stdout
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_usage_errors_exit_with_2() -> None:
    assert "No such command" in run_eva("runn", code=2).stderr
    assert "is not a run" in run_eva("status", "nowhere", code=2).stderr
    assert json.loads(run_eva("validate", "quickstart", "--set", "seed=-1", "--json", code=2).stdout)["valid"] is False


def test_a_hub_out_of_reach_is_told_of_every_model(tmp_path: Path) -> None:
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    document = json.loads(run_eva("validate", "gemma-2-9b-it/dpo_eva", "--json", code=2, **nowhere).stdout)
    unreachable_models = {fault.partition(":")[0] for fault in document["faults"] if "Hub cannot be reached" in fault}
    assert unreachable_models == {"policy.model", "reward.model"}
