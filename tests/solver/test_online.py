"""On-policy training on the shipped policy: prompts, resumption, and rewards that fail. The losses are in test_online_trainers.py."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from safetensors.torch import load_file
from transformers import AutoTokenizer

from eva_stages.core.errors import DataError, StageError
from eva_stages.core.progress import Reporter
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.rows import SCHEMAS, prompt_row
from eva_stages.core.runner import Context
from eva_stages.core.stage import FunctionStage, Input, Use, as_data, use_of
from eva_stages.core.tables import write_rows
from eva_stages.models.conversation import Chat
from eva_stages.models.loading import find_checkpoint
from eva_stages.models.rewards import VerifierReward
from eva_stages.solver.job import read_job
from eva_stages.solver.launching import cut_sampling, train, training_job
from eva_stages.solver.online import load_prompts, reward_function
from eva_stages.solver.online import train as train_here
from tests.building import build_rounds
from tests.conftest import function_code
from tests.solver.jobs import read_metrics
from tests.tiny_models import save_gemma2, tokenizer

POLICY = find_checkpoint("lettercraft", None, "policy.model").path
INSTRUCTIONS = [
    f"Take {word}, {instruction}." for word in ("planet", "moon", "sun", "river") for instruction in ("reverse it", "sort its letters")
]
LONG = "Take planet, " + ", then ".join(["reverse it"] * 60) + "."


def length(messages: list[dict[str, str]], response: str, reference: str | None) -> float | None:
    """Longer is better; what begins with a letter of the first half of the alphabet cannot be scored."""
    return None if response[:1] < "n" else len(response) / 10


def prompts(folder: Path, texts: list[str]) -> Path:
    rows = [prompt_row([{"role": "user", "content": text}], "test") for text in texts]
    write_rows([pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])], SCHEMAS["prompts"], folder)
    return folder


def test_a_use_survives_the_way_through_json() -> None:
    use = Use("a:B", {"llm": Use("c:D", {"model": Input("judge")}, {"device": "cpu"}), "list": [1, {"x": None}]}, {"n": 2})
    assert use_of(json.loads(json.dumps(as_data(use)))) == use


def test_rewards_that_fail_are_none_and_a_batch_without_any_is_an_error() -> None:
    reward = VerifierReward(function=function_code(__file__, "length"))
    reward.load()
    logged_metrics: dict[str, float] = {}
    chat = Chat(AutoTokenizer.from_pretrained(POLICY))
    score = reward_function(reward, chat, chat.end_tokens(POLICY), True, None)
    prompts_asked = [[{"role": "user", "content": "?"}]] * 4
    response_ids = [chat.response_ids(text) for text in ("zz", "aa", "yyy", "")]
    assert score(prompts=prompts_asked, completion_ids=response_ids, reference=[None] * 4, log_metric=logged_metrics.__setitem__) == [
        0.2,
        None,
        0.3,
        None,
    ]
    assert logged_metrics == {"per_response/unscored": 0.5}
    with pytest.raises(
        DataError, match=r"no response of a batch could be scored; most often \(2\): the function returned None; expected a number"
    ):
        score(prompts=prompts_asked[:2], completion_ids=response_ids[1::2], reference=[None] * 2, log_metric=logged_metrics.__setitem__)


def test_long_prompts_are_left_out_and_templates_without_a_system_role_get_the_system_prompt(tmp_path: Path) -> None:
    words = tokenizer(INSTRUCTIONS)
    save_gemma2(tmp_path / "policy", words)
    gemma = AutoTokenizer.from_pretrained(tmp_path / "policy")
    folder = prompts(tmp_path / "prompts", [*INSTRUCTIONS, LONG])
    chat = Chat(gemma, None, "Be brief.")
    short_prompts, too_long = load_prompts(folder, chat, 40)
    assert (len(short_prompts), too_long) == (len(INSTRUCTIONS), 1)
    assert chat.prompt_text(short_prompts[0]["prompt"]) == f"<|user|>Be brief.\n\n{INSTRUCTIONS[0]}<|end|><|assistant|>"
    with pytest.raises(DataError, match="none of the 9 prompts fits into 3 tokens"):
        load_prompts(folder, chat, 3)


@pytest.mark.parametrize("kind", ["grpo", "online_dpo"])
def test_every_on_policy_loss_trains_and_counts_what_it_sampled(kind: str, tmp_path: Path) -> None:
    settings = {
        "solver.loss": {"kind": kind},
        "solver.responses": 4,
        "solver.pairs.min_gap": 0.1 if kind == "online_dpo" else 0.0,
        "solver.training.batch_size": 16,
        "solver.training.epochs": 1,
        "solver.training.runtime.micro_batch_size": 8,
        "policy.generator.temperature": 1.5,
        "reward": {"kind": "verifier", "function": f"{Path(__file__).with_name('test_online_trainers.py')}:places_of_letters"},
    }
    stage = build_rounds(load_recipe("quickstart", [f"{name}={json.dumps(value)}" for name, value in settings.items()]))[0].solver[-1]
    assert isinstance(stage, FunctionStage) and set(stage.inputs) == {"policy", "reference", "prompts"}
    assert "server" not in stage.function.arguments["loss"]["runtime"]
    inputs = {"policy": POLICY, "reference": POLICY, "prompts": prompts(tmp_path / "prompts", INSTRUCTIONS)}
    runtime = {**stage.function.runtime["runtime"], "unscored": 1.0}
    job = training_job(tmp_path, inputs, tmp_path, kind, runtime, **stage.function.arguments)
    assert cut_sampling(job) is None
    train_here(job)
    facts, entries = json.loads((tmp_path / "result.json").read_text()), read_metrics(tmp_path / "metrics.jsonl")
    counts = facts["counts"]
    assert counts["steps"] == len(entries) == 2 and counts["responses"] == 32 and 0 < counts["unscored"] < 32
    pairs = sum(entry.get("per_response/pairs", 0.0) for entry in entries) * 16
    assert counts.get("pairs") == (round(pairs) if kind == "online_dpo" else None) and (kind == "grpo" or 0 < pairs <= 8)
    if kind == "online_dpo":  # ln 2 for each prompt with a pair, as the policy is its own reference at the first step
        assert entries[0]["loss"] == pytest.approx(0.6931 * entries[0]["per_response/pairs"] * 4, abs=1e-3)
        assert facts["training"].get("reward_margin") == entries[-1].get("rewards/margins")


@pytest.mark.parametrize(("kind", "says"), [("rloo", "with top_p 0.9 and min_p 0.1, and the gradient of rloo"), ("online_dpo", None)])
def test_a_warning_says_where_sampling_is_not_what_the_gradient_is_taken_of(kind: str, says: str | None, tmp_path: Path) -> None:
    settings = [f'solver.loss={{"kind": "{kind}"}}', "policy.generator.top_p=0.9", "policy.generator.min_p=0.1"]
    stage = build_rounds(load_recipe("quickstart", settings))[0].solver[-1]
    assert isinstance(stage, FunctionStage)
    inputs = {"policy": POLICY, "reference": POLICY, "prompts": tmp_path}
    warning = cut_sampling(training_job(tmp_path, inputs, tmp_path, kind, stage.function.runtime["runtime"], **stage.function.arguments))
    assert warning is None if says is None else says in str(warning)


def test_the_address_of_a_server_reaches_the_job_and_is_no_part_of_the_identity(tmp_path: Path) -> None:
    def stage(address: str | None) -> FunctionStage:
        loss = json.dumps({"kind": "grpo", "runtime": {"vllm": True, "server": address}})
        built_stage = build_rounds(load_recipe("quickstart", [f"solver.loss={loss}"]))[0].solver[-1]
        assert isinstance(built_stage, FunctionStage)
        return built_stage

    inputs = {"policy": POLICY, "reference": POLICY, "prompts": tmp_path}
    jobs = [
        training_job(tmp_path, inputs, tmp_path, "", built_stage.function.runtime["runtime"], **built_stage.function.arguments)
        for built_stage in (stage("http://127.0.0.1:8000"), stage("http://127.0.0.1:9000"), stage(None))
    ]
    assert [job.loss.runtime.server for job in jobs] == ["http://127.0.0.1:8000", "http://127.0.0.1:9000", None]  # type: ignore[union-attr]
    assert stage("http://127.0.0.1:8000").fingerprint == stage(None).fingerprint
    jobs[0].write(tmp_path / "job.json")
    assert read_job(tmp_path / "job.json") == jobs[0]


def test_a_resumed_training_ends_where_an_unbroken_one_ends_and_too_many_failed_rewards_end_it(tmp_path: Path) -> None:
    settings = {
        "solver.loss": {"kind": "rloo"},
        "solver.responses": 4,
        "solver.training.batch_size": 16,
        "solver.training.runtime.micro_batch_size": 8,
        "solver.training.checkpoints_per_epoch": 2,
        "reward": {"kind": "verifier", "function": f"{__file__}:length"},
    }
    recipe = load_recipe("quickstart", [f"{name}={json.dumps(value)}" for name, value in settings.items()])
    stage = build_rounds(recipe)[0].solver[-1]
    assert isinstance(stage, FunctionStage) and set(stage.inputs) == {"policy", "reference", "prompts"}
    inputs = {"policy": POLICY, "reference": POLICY, "prompts": prompts(tmp_path / "prompts", [*INSTRUCTIONS, LONG])}

    def run(work: Path, unscored_limit: float) -> dict:
        work.mkdir(exist_ok=True)
        runtime = {**stage.function.runtime["runtime"], "unscored": unscored_limit}
        with Reporter().task("train", "steps") as task:
            return train(Context(work, work / "model", inputs, task, tmp_path), runtime, **stage.function.arguments)

    a, b = tmp_path / "a", tmp_path / "b"
    facts = run(a, 1.0)
    steps = recipe.solver.training.epochs * len(INSTRUCTIONS) // 4
    assert facts["counts"] == {
        "prompts": 8,
        "too_long": 1,
        "responses": 16 * steps,
        "output_tokens": facts["counts"]["output_tokens"],
        "steps": steps,
        "unscored": facts["counts"]["unscored"],
    }
    mean_tokens = [entry["completions/mean_length"] for entry in read_metrics(a / "metrics.jsonl")]
    assert len(mean_tokens) == steps and facts["counts"]["output_tokens"] == round(16 * sum(mean_tokens)) > 0
    shares = [entry["per_response/unscored"] for entry in read_metrics(a / "metrics.jsonl")]
    assert len(shares) == steps and facts["counts"]["unscored"] == pytest.approx(16 * sum(shares)) and sum(shares) > 0
    assert 0 < facts["training"]["reward"] < 2

    # again from the first of the two checkpoints that are kept, the other one being cut off
    shutil.copytree(a / "checkpoints", b / "checkpoints")
    (b / "checkpoints" / f"checkpoint-{steps}" / "trainer_state.json").write_text('{"epoch": 1')
    with pytest.raises(StageError, match=r"responses have no reward .*above the limit limits.unscored = 0.0%.*raise limits.unscored"):
        run(b, 0.0)
    assert f"checkpoint-{steps} is incomplete" in (b / "training.log").read_text()
    first, last = (read_metrics(b / "metrics.jsonl")[place]["step"] for place in (0, -1))
    assert 1 < first <= last == steps
    resumed_weights, unbroken_weights = (load_file(work / "checkpoints" / f"checkpoint-{steps}" / "model.safetensors") for work in (b, a))
    assert max((resumed_weights[name] - unbroken_weights[name]).abs().max().item() for name in resumed_weights) < 1e-6
