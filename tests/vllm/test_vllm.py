"""The real vLLM engine on CPU with a tiny Llama, by `make test-vllm`. One engine serves most tests; the rest go by the command line."""

import importlib.util
import inspect
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from packaging.specifiers import SpecifierSet
from transformers import AutoTokenizer, GenerationConfig, LlamaForCausalLM

from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.patches import PATCHES
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.tables import FILE, read_table
from eva_stages.models.conversation import Chat
from eva_stages.models.transformers_generator import TransformersGenerator
from eva_stages.models.vllm_generator import VLLMGenerator
from tests.conftest import events, kill_group, manifests, overrides, run_eva, start_eva
from tests.killing import running
from tests.tiny_models import config, save_reward, tokenizer

pytestmark = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed here; `make test-vllm` installs it")

RECIPE = str(Path(__file__).parents[1] / "recipes" / "tiny_text.yaml")
TOPICS = ["rivers", "bread", "the moon", "old maps", "a lost key", "chess", "winter", "honest work", "glass", "music", "trains", "salt"]
PROMPTS = [f"{task} {topic}." for task in ("Write a poem about", "Explain to a child", "Name three facts on") for topic in TOPICS]
TOKENS = 24


def asking(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, a reward, and a policy whose generation config names a second end token and would turn sampling into greedy choice."""
    folder = tmp_path_factory.mktemp("vllm")
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    words = tokenizer(PROMPTS)
    save_reward(folder / "reward", words)
    torch.manual_seed(0)
    model = LlamaForCausalLM(config(words, head_dim=32))  # vLLM's CPU attention takes heads of 32, 64, ...
    ids = torch.tensor([words.apply_chat_template(asking(PROMPTS[0]), add_generation_prompt=True, return_dict=True)["input_ids"]])
    sampled_ids = model.generate(ids, do_sample=False, max_new_tokens=TOKENS)[0, ids.shape[1] :].tolist()
    ends = [words.eos_token_id, sampled_ids[TOKENS // 2]]
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=words.pad_token_id, do_sample=True, top_k=1, max_length=30)
    model.save_pretrained(folder / "policy")
    words.save_pretrained(folder / "policy")
    return folder


@pytest.fixture(scope="module")
def generator(folder: Path) -> Iterator[VLLMGenerator]:
    llm = VLLMGenerator(model=str(folder / "policy"), label="tiny", max_new_tokens=TOKENS, enforce_eager=True)
    llm.load()
    yield llm
    llm.unload()


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken run up to the first answers."""
    run_folder = tmp_path_factory.mktemp("runs") / "unbroken"
    run_eva(*arguments(folder, run_folder))
    return run_folder


def arguments(folder: Path, run: Path) -> list[str]:
    settings = {
        "prompts.path": str(folder / "prompts.jsonl"),
        "prompts.size": None,
        "policy.model": str(folder / "policy"),
        "policy.generator.kind": "vllm",
        "policy.generator.max_new_tokens": TOKENS,
        "policy.generator.runtime.enforce_eager": True,
        "reward.model": str(folder / "reward"),
        "runtime.rows_per_part": 2,
    }
    return ["run", RECIPE, "--run-dir", str(run), "--store", str(run), "--until", "0-respond", *overrides(settings)]


def answers(run: Path) -> Path:
    (data_folder,) = run.glob("stages/0-respond-????????????/data")
    return data_folder


def test_the_command_line_writes_rows_and_counts_like_any_generator(run: Path, folder: Path) -> None:
    assert pq.read_schema(answers(run) / FILE).equals(SCHEMAS["responses"])
    rows = read_table(answers(run)).to_pylist()
    assert len(rows) == len(PROMPTS) and {row["generator"] for row in rows} == {tree_digest(folder / "policy")[:12]}
    assert all(len(row["responses"]) == len(row["finish_reasons"]) == len(row["token_counts"]) == 3 for row in rows)
    assert {reason for row in rows for reason in row["finish_reasons"]} == {"stop", "length"}
    assert all(
        count == TOKENS if reason == "length" else 1 <= count <= TOKENS
        for row in rows
        for reason, count in zip(row["finish_reasons"], row["token_counts"], strict=True)
    )
    counts = manifests(run)["0-respond"]["counts"]
    assert counts["responses"] == 3 * len(PROMPTS) and counts["output_tokens"] == sum(sum(row["token_counts"]) for row in rows)
    assert counts["input_tokens"] > 0 and counts.get("empty", 0) == sum(not text.strip() for row in rows for text in row["responses"])


def test_another_engine_draws_the_same_responses_from_the_same_seeds(run: Path, generator: VLLMGenerator, folder: Path) -> None:
    (stage,) = run.glob("stages/0-prompts-????????????/data")
    conversations = {row["prompt_id"]: row["messages"] for row in read_table(stage).to_pylist()}
    rows = read_table(answers(run)).to_pylist()
    as_recipe = generator.model_copy(update={"top_p": 0.95})
    repeated_outputs = as_recipe.generate([conversations[row["prompt_id"]] for row in rows], 3, [row["seed"] for row in rows])
    assert [answer["generations"] for answer in repeated_outputs] == [row["responses"] for row in rows]


def test_a_run_killed_in_the_middle_of_its_answers_ends_with_the_same_ones(run: Path, folder: Path, tmp_path: Path) -> None:
    killed_run = tmp_path / "killed"
    process = start_eva(*arguments(folder, killed_run))
    while running(process) and not any(killed_run.glob("work/0-respond-*/parts/*.parquet")):
        continue
    family = psutil.Process(process.pid).children(recursive=True)
    working = names(family)
    kill_group(process)
    part_count = len(list(killed_run.glob("work/0-respond-*/parts/*.parquet")))
    assert 1 <= part_count < len(PROMPTS) / 2 and any("EngineCore" in name for name in working)
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    run_eva(*arguments(folder, killed_run))
    assert "0-respond" in {event["stage"] for event in events(killed_run) if event["event"] == "resume"}
    for part in ("digest", "counts", "fingerprint"):
        assert manifests(killed_run)["0-respond"][part] == manifests(run)["0-respond"][part]


def names(processes: list[psutil.Process]) -> list[str]:
    """Their command lines; of those that are gone already, nothing."""
    return [" ".join(process.cmdline()) for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def test_all_responses_of_a_prompt_are_one_request(generator: VLLMGenerator) -> None:
    request_count = generator._engine.request_counter.counter
    (first, second) = generator.generate([asking(PROMPTS[0]), asking(PROMPTS[1])], 5, [7, 1_000_000])
    assert generator._engine.request_counter.counter - request_count == 2
    for answer in (first, second):
        assert len(answer["generations"]) == len(answer["statistics"]["output_tokens"]) == 5
    assert len(set(first["generations"])) == 5, "the generation config's top_k=1 must not reach the sampler"


def test_a_response_does_not_depend_on_its_batch(generator: VLLMGenerator) -> None:
    seeds = [2**63 - 1 - 1000 * index for index in range(len(PROMPTS))]
    batch_outputs = generator.generate([asking(prompt) for prompt in PROMPTS], 2, seeds)
    single_outputs = generator.generate([asking(PROMPTS[5])], 2, [seeds[5]])
    assert single_outputs == [batch_outputs[5]]
    assert generator.generate([asking(PROMPTS[5])], 2, [seeds[6]]) != single_outputs


def test_without_seeds_it_samples_freely(generator: VLLMGenerator) -> None:
    assert generator.generate([asking(PROMPTS[0])], 3) != generator.generate([asking(PROMPTS[0])], 3)


def test_greedy_answers_under_a_penalty_are_those_of_transformers(generator: VLLMGenerator, folder: Path) -> None:
    conversations = [asking(prompt) for prompt in PROMPTS]
    settings = {"temperature": 0.0, "repetition_penalty": 1.3, "system_prompt": "You explain old maps to a child."}
    reference = TransformersGenerator(model=str(folder / "policy"), max_new_tokens=TOKENS, device="cpu", **settings)
    reference.load()
    ours = generator.model_copy(update=settings).generate(conversations, 2)
    assert ours == reference.generate(conversations, 2)


def test_greedy_answers_are_those_of_transformers(generator: VLLMGenerator, folder: Path) -> None:
    conversations = [asking(prompt) for prompt in PROMPTS]
    reference = TransformersGenerator(model=str(folder / "policy"), temperature=0.0, max_new_tokens=TOKENS, device="cpu")
    reference.load()
    ours = generator.model_copy(update={"temperature": 0.0}).generate(conversations, 2)
    assert ours == reference.generate(conversations, 2)  # texts, reasons and token ids
    assert ours[0]["finish_reasons"] == ["stop", "stop"], "the generation config's second end token must end the response"
    assert Counter(reason for answer in ours for reason in answer["finish_reasons"]).keys() == {"stop", "length"}


def test_conversations_of_several_turns_get_the_system_prompt_unless_they_have_one(generator: VLLMGenerator) -> None:
    turns = [*asking("Name a river."), {"role": "assistant", "content": "The Nile."}, *asking("And another one.")]
    system = {"role": "system", "content": "You explain old maps to a child."}
    polite = generator.model_copy(update={"system_prompt": system["content"]})
    explicit = generator.generate([[system, *turns]], 2, [3])
    assert polite.generate([turns], 2, [3]) == explicit
    assert polite.generate([[system, *turns]], 2, [3]) == explicit
    text = "".join(f"<|{turn['role']}|>{turn['content']}<|end|>" for turn in [system, *turns]) + "<|assistant|>"
    assert explicit[0]["statistics"]["input_tokens"] == [len(generator._tokenizer.encode(text))] * 2
    assert generator.generate([turns], 2, [3]) != explicit


def test_a_stop_text_ends_a_response_and_is_left_out(generator: VLLMGenerator) -> None:
    greedy = generator.model_copy(update={"temperature": 0.0})
    free = greedy.generate([asking(prompt) for prompt in PROMPTS])
    place = next(index for index, answer in enumerate(free) if answer["finish_reasons"] == ["length"])
    (text,) = free[place]["generations"]
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    (stopped_output,) = greedy.model_copy(update={"stop": [stop, "never said"]}).generate([asking(PROMPTS[place])])
    assert stopped_output["generations"] == [text.partition(stop)[0]] and stopped_output["finish_reasons"] == ["stop"]
    assert 1 <= stopped_output["statistics"]["output_tokens"][0] < TOKENS


def test_a_prompt_that_leaves_no_room_gets_null_and_a_long_one_a_short_answer(generator: VLLMGenerator) -> None:
    limit = generator._engine.model_config.max_model_len
    chat = Chat(generator._tokenizer)
    frame = len(chat.prompt_ids(asking("")))
    unit = len(chat.prompt_ids(asking("\x01" * 100))) - frame
    assert unit == 100, "a byte the tokenizer never merged is one token"
    full, nearly = asking("\x01" * (limit - frame)), asking("\x01" * (limit - frame - 2))
    rejected, short, usual = generator.generate([full, nearly, asking(PROMPTS[0])], 2, [1, 1, 1])
    assert rejected["generations"] == [None, None] and rejected["finish_reasons"] == ["prompt_too_long"] * 2
    assert rejected["statistics"] == {"input_tokens": [limit, limit], "output_tokens": [0, 0]}
    assert short["statistics"]["input_tokens"] == [limit - 2] * 2 and max(short["statistics"]["output_tokens"]) <= 2
    assert usual == generator.generate([asking(PROMPTS[0])], 2, [1])[0]
    assert generator.generate([full], 2, [1]) == [rejected]


@pytest.fixture(scope="module")
def lora_responses(folder: Path) -> tuple[list, list, list[psutil.Process]]:
    """Answers of an engine with a LoRA adapter, those of the merged model, and the processes of the engine, by now unloaded."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    lora = LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, target_modules=["q_proj", "v_proj", "gate_proj"])
    model = get_peft_model(LlamaForCausalLM.from_pretrained(folder / "policy"), lora)
    model.save_pretrained(folder / "adapter")
    model.merge_and_unload().save_pretrained(folder / "merged")
    AutoTokenizer.from_pretrained(folder / "policy").save_pretrained(folder / "merged")
    conversations = [asking(prompt) for prompt in PROMPTS]
    reference = TransformersGenerator(model=str(folder / "merged"), temperature=0.0, max_new_tokens=TOKENS, device="cpu")
    reference.load()

    settings = {"temperature": 0.0, "max_new_tokens": TOKENS, "enforce_eager": True, "lora": str(folder / "adapter")}
    engine = VLLMGenerator(model=str(folder / "policy"), **settings)
    earlier_processes = psutil.Process().children(recursive=True)
    engine.load()
    new_processes = [process for process in psutil.Process().children(recursive=True) if process not in earlier_processes]
    processes = [process for process in new_processes if "resource_tracker" not in " ".join(process.cmdline())]  # which is Python's own
    assert any("EngineCore" in name for name in names(processes))
    ours = engine.generate(conversations)
    engine.unload()
    return ours, reference.generate(conversations), processes


def test_a_lora_adapter_answers_as_the_merged_model_does(lora_responses: tuple, generator: VLLMGenerator) -> None:
    adapter_responses, merged_responses, _ = lora_responses
    assert adapter_responses == merged_responses
    assert adapter_responses != generator.model_copy(update={"temperature": 0.0}).generate([asking(prompt) for prompt in PROMPTS])


def test_unload_leaves_no_process_of_the_engine(lora_responses: tuple) -> None:
    _, _, processes = lora_responses
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not alive


def test_vllm_configures_logging_at_import_and_rewinds_generators_after_a_chunk_of_a_prompt() -> None:
    import vllm
    from vllm.v1.worker import gpu_model_runner

    assert "VLLM_CONFIGURE_LOGGING" in inspect.getsource(vllm.logger), "patch: prepare_vllm"
    assert "gen.set_offset(gen.get_offset()" in inspect.getsource(gpu_model_runner), "patch: cpu_engine_settings"
    with pytest.raises(RuntimeError):
        torch.Generator().get_offset()
    for patch in (PATCHES["prepare_vllm"], PATCHES["cpu_engine_settings"]):
        assert vllm.__version__ in SpecifierSet(patch.versions), "check whether this version still needs the patch"
