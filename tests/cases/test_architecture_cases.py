"""Chat templates, tokenizers, positions and names of downloaded models: supported, or refused by `validate`."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    Gemma3TextConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from eva_stages.models.architecture import position_count, vocabulary_size
from eva_stages.models.loading import load_model
from eva_stages.models.reward_models import SequenceClassifierReward
from eva_stages.models.transformers_generator import TransformersGenerator
from eva_stages.models.weights import weight_faults
from tests.building import check
from tests.cases.models import (
    FAMILIES,
    PROMPT,
    SIZES,
    WORDS,
    assert_refused,
    change_config,
    copy_damaged,
    gpt2,
    mamba,
    recipe,
    reward,
    save_model,
    scores_of,
)
from tests.solver.jobs import job, save_pairs
from tests.tiny_models import (
    save_policy,
    tokenizer,
)

# --- validate


def no_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def more_tokens(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"].append({"id": 5000, "content": "<|more|>", **special})
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize("kind", ["sequence_classifier", "armorm", "pair_preference", "evolver", "policy"])
def test_models_that_read_conversations_need_a_template_and_embeddings_for_their_tokens(
    whole_models: Path, tmp_path: Path, kind: str
) -> None:
    source = whole_models / {"sequence_classifier": "reward", "armorm": "armorm"}.get(kind, "policy")

    def damage(folder: Path) -> None:
        no_template(folder)
        more_tokens(folder)
        if kind == "armorm":
            change_config(vocab_size=1000)(folder)

    folder = copy_damaged(source, tmp_path / "model", damage)
    match kind:
        case "policy":
            place, settings = "policy.model", {"policy__model": str(folder)}
        case "evolver":
            evolver = {"kind": "transformers", "model": str(folder)}
            place, settings = "creator.evolve.generator.model", {"creator__evolve__generator": evolver}
        case _:
            place, settings = "reward.model", {"reward": reward(kind, folder), "solver__loss": {"kind": "dpo"}}
    message = assert_refused(f"{place}: {folder} has no chat template", f"{place}: {folder} has a tokenizer of ", **settings)
    assert "chat_template.jinja" in message


def test_image_placeholders_without_embeddings_are_valid(whole_models: Path, tmp_path: Path) -> None:
    def damage(folder: Path) -> None:  # like the published Gemma 3 1B
        content = json.loads((folder / "tokenizer.json").read_text())
        content["added_tokens"].append({**content["added_tokens"][0], "id": len(WORDS), "content": "<image_soft_token>"})
        (folder / "tokenizer.json").write_text(json.dumps(content))

    check(recipe(policy__model=str(copy_damaged(whole_models / "policy", tmp_path / "model", damage))), keys=False)


def test_a_tokenizer_without_an_end_token_is_refused_unless_the_configuration_names_one(whole_models: Path, tmp_path: Path) -> None:
    def nameless(folder: Path) -> None:
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        remaining = {name: value for name, value in settings.items() if name not in ("eos_token", "pad_token")}
        (folder / "tokenizer_config.json").write_text(json.dumps(remaining))

    def endless(folder: Path) -> None:
        nameless(folder)
        change_config(eos_token_id=None, pad_token_id=None)(folder)

    ending_policy, endless_policy = (
        copy_damaged(whole_models / "reward", tmp_path / name, damage) for name, damage in (("a", nameless), ("b", endless))
    )
    assert_refused("reward.model", "no eos_token or pad_token", reward=reward("sequence_classifier", endless_policy))
    check(recipe(reward=reward("sequence_classifier", ending_policy)), keys=False)
    whole = scores_of(SequenceClassifierReward(model=str(whole_models / "reward")))
    assert [score.value for score in scores_of(SequenceClassifierReward(model=str(ending_policy)))] == [score.value for score in whole]


@pytest.mark.parametrize("padding", [-1, len(WORDS) + 1])
def test_a_reward_pads_with_the_token_of_its_configuration_even_if_the_tokenizer_lacks_it(
    whole_models: Path, tmp_path: Path, padding: int
) -> None:
    def damage(folder: Path) -> None:
        change_config(pad_token_id=padding, vocab_size=len(WORDS) + 2)(folder)
        weights = load_file(folder / "model.safetensors")
        weights["model.embed_tokens.weight"] = torch.cat([weights["model.embed_tokens.weight"], torch.ones(2, 32)])
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    values = [
        [score.value for score in scores_of(SequenceClassifierReward(model=str(folder)))]
        for folder in (whole_models / "reward", copy_damaged(whole_models / "reward", tmp_path / "model", damage))
    ]
    assert values[1] == pytest.approx(values[0], abs=1e-5)


def test_a_reward_without_padding_reads_the_last_token_of_a_conversation_even_if_the_tokenizer_pads_with_it(
    whole_models: Path, tmp_path: Path
) -> None:
    def damage(folder: Path) -> None:
        change_config(pad_token_id=None)(folder)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": settings["eos_token"]}))

    folder = copy_damaged(whole_models / "reward", tmp_path / "model", damage)
    texts = ("blue", "green and wide and blue")  # and the end token, which the tokenizer uses for padding
    single_scores = [scores_of(SequenceClassifierReward(model=str(folder), tokens_per_batch=1), text)[0].value for text in texts]
    official = AutoModelForSequenceClassification.from_pretrained(folder)
    for text, value in zip(texts, single_scores, strict=True):
        turns = [*PROMPT, {"role": "assistant", "content": text}]
        ids = WORDS.apply_chat_template(turns, return_tensors="pt", return_dict=True)["input_ids"]
        with torch.no_grad():
            assert value == pytest.approx(official(input_ids=ids).logits.item(), abs=1e-5)
    assert [score.value for score in scores_of(SequenceClassifierReward(model=str(folder)), *texts)] == pytest.approx(
        single_scores, abs=1e-5
    )


def test_named_templates_without_a_default_are_refused(whole_models: Path, tmp_path: Path) -> None:
    def damage(folder: Path) -> None:
        no_template(folder)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        settings["chat_template"] = [{"name": name, "template": "{{ messages[0]['content'] }}"} for name in ("tool_use", "rag")]
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))

    assert_refused("policy.model", "no default", policy__model=str(copy_damaged(whole_models / "policy", tmp_path / "model", damage)))


@pytest.mark.skipif(find_spec("flash_attn") is not None, reason="flash_attn is installed")
def test_a_configuration_that_names_attention_code_of_a_missing_package_is_loaded(whole_models: Path, tmp_path: Path) -> None:
    folder = copy_damaged(whole_models / "policy", tmp_path / "model", change_config(_attn_implementation="flash_attention_2"))
    assert weight_faults(AutoModelForCausalLM, folder) == []
    assert load_model(AutoModelForCausalLM, str(folder), "auto", "cpu").config._attn_implementation == "sdpa"


def test_a_preference_model_needs_a_token_for_each_letter(tmp_path: Path) -> None:
    words = tokenizer(["no letters here"])
    words.backend_tokenizer.normalizer = None
    save_policy(tmp_path, words)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Replace", "pattern": {"String": "A"}, "content": "AA"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert_refused("has no single token for A", reward=reward("pair_preference", tmp_path))


def bert_reward(folder: Path) -> Path:
    torch.manual_seed(0)
    sizes = {**SIZES, "intermediate_size": 64, "max_position_embeddings": 512, "num_labels": 1}
    return save_model(folder, BertForSequenceClassification(BertConfig(**sizes)))


def test_the_length_of_a_reward_is_the_models_own_if_the_recipe_sets_none(tmp_path: Path) -> None:
    folder = bert_reward(tmp_path / "bert")
    check(recipe(reward=reward("sequence_classifier", folder)))
    short, long = scores_of(SequenceClassifierReward(model=str(folder)), "blue", "sea " * 600)
    assert short.value is not None and long.value is None and "are more than max_length = 512" in long.failure
    assert_refused("reward.max_length: takes 4096 positions", "has 512", reward=reward("sequence_classifier", folder, max_length=4096))
    check(recipe(reward=reward("sequence_classifier", folder, max_length=512)))


def test_positions_are_read_from_every_configuration_field_that_holds_them(whole_models: Path, tmp_path: Path) -> None:
    assert position_count(save_model(tmp_path / "gpt2", gpt2(64))) == 64 and position_count(save_model(tmp_path / "mamba", mamba())) is None
    roberta = copy_damaged(
        whole_models / "policy", tmp_path / "roberta", change_config(model_type="roberta", max_position_embeddings=514, pad_token_id=1)
    )
    assert position_count(roberta) == 512
    assert position_count(copy_damaged(whole_models / "pairrm", tmp_path / "relative", change_config(position_biased_input=False))) is None


# --- positions


@pytest.mark.parametrize("name", FAMILIES)
def test_other_architectures_are_valid_and_respond_alike_in_every_batch(tmp_path: Path, name: str) -> None:
    folder = save_model(tmp_path / name, FAMILIES[name]())
    check(recipe(policy__model=str(folder)))
    assert vocabulary_size(folder) == len(WORDS)
    if name == "gemma3":  # as it is published: what is a default of the class is not in the file
        content = json.loads((folder / "config.json").read_text())
        del content["text_config"]["max_position_embeddings"]
        (tmp_path / "config.json").write_text(json.dumps(content))
        assert position_count(tmp_path) == Gemma3TextConfig().max_position_embeddings
    texts = ["the sea", "a poem about the wide sea", "blue and green", "write a poem about the sea and the sea"]
    prompts = [[{"role": "user", "content": text}] for text in texts]
    batched_generator, single_generator = (
        TransformersGenerator(model=str(folder), max_new_tokens=60, tokens_per_batch=size) for size in (4096, 1)
    )
    answers = []
    for generator in (batched_generator, single_generator):
        generator.load()
        answers.append(generator.generate(prompts, num_generations=2, seeds=[1, 2, 3, 4]))
    assert [row["generations"] for row in answers[0]] == [row["generations"] for row in answers[1]]
    if name in ("gpt2", "opt"):  # positions end before the answers do
        positions = [row["statistics"]["input_tokens"][0] + max(row["statistics"]["output_tokens"]) for row in answers[0]]
        assert max(positions) == 64


@pytest.mark.parametrize(("kind", "name"), [*(("dpo", name) for name in FAMILIES), ("simpo", "gpt2")])
def test_other_architectures_are_trained_and_pairs_without_room_for_their_end_are_counted(tmp_path: Path, name: str, kind: str) -> None:
    from eva_stages.core.stage import load_attribute
    from eva_stages.solver.launching import training_length
    from eva_stages.solver.train import trainer_target

    folder = save_model(tmp_path / name, FAMILIES[name]())
    pairs = save_pairs(tmp_path / "pairs", count=16, words=24)
    longest = training_length(256, folder)
    assert longest == {"gpt2": 64, "opt": 64, "gemma3": 128}.get(name, 256)
    settings = job(
        tmp_path / "job", {"policy": str(folder), "reference": str(folder), "pairs": pairs}, kind, max_length=longest, warmup_ratio=0
    )
    load_attribute(trainer_target(kind))(settings)
    counts = json.loads((tmp_path / "job" / "result.json").read_text())["counts"]
    assert counts["pairs"] + counts["too_long"] == 16 and counts["steps"] == 1
    assert (counts["too_long"] > 0) == (longest < 256)
    assert weight_faults(AutoModelForCausalLM, tmp_path / "job" / "model") == []


# --- files and names


def test_a_folder_without_a_readable_tokenizer_is_an_error_that_names_the_fix(whole_models: Path, tmp_path: Path) -> None:
    def damage(folder: Path) -> None:
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02")
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": "LlamaTokenizer"}))

    message = assert_refused(
        "no tokenizer.json", "sentencepiece", policy__model=str(copy_damaged(whole_models / "policy", tmp_path / "model", damage))
    )
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("name", ["a model", "a--b", "trailing.", "-x", "café"])
def test_a_folder_may_have_any_name_and_a_hub_id_may_not(
    whole_models: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole_models / "policy", tmp_path / "org" / name)
    check(recipe(policy__model=f"org/{name}"))
    message = (
        assert_refused(f"policy.model: there is no checkpoint at nowhere/{name}", policy__model=f"nowhere/{name}") if name != "café" else ""
    )
    assert len(message.splitlines()) <= 1


def test_a_gguf_folder_is_an_error_that_names_the_conversion(tmp_path: Path) -> None:
    (tmp_path / "model-q4.gguf").write_bytes(b"GGUF")
    assert_refused("GGUF", "eva convert", "model-q4.gguf NEW_FOLDER", policy__model=str(tmp_path))


def test_a_model_that_generates_no_text_is_refused(tmp_path: Path) -> None:
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 2}
    folder = save_model(tmp_path, T5ForConditionalGeneration(T5Config(vocab_size=len(WORDS), **sizes)))
    assert "no model can be built" in assert_refused("policy.model", "T5Config", policy__model=str(folder))
