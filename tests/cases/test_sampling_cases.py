"""Sampling: only the recipe sets it, in both engines; only end tokens come from the model."""

import json
from pathlib import Path

import pytest
import torch
from transformers import GenerationConfig
from trl.trainer.utils import create_model_from_path, get_config_model_id

from eva_stages.core.patches import reference_settings
from eva_stages.models.conversation import Chat
from eva_stages.models.sampling import Sampling, model_settings, processors, vllm_settings
from eva_stages.solver.fitting import load_policy
from tests.building import check
from tests.cases.conversations import DIALOGUE, QUESTION, TEXTS, generator, recipe
from tests.chat_templates import FAMILIES, family_tokenizer
from tests.solver.jobs import job
from tests.tiny_models import save_policy, save_reward, tokenizer


@pytest.mark.parametrize("name", list(FAMILIES))
def test_both_engines_and_training_use_the_same_end_tokens_including_the_templates_own(models: Path, tmp_path: Path, name: str) -> None:
    family, folder = FAMILIES[name], models / name
    words = family_tokenizer(family, TEXTS)
    llm = generator(folder)
    ends = set(llm._ends)
    assert {words.convert_tokens_to_ids(token) for token in (family.end, family.eos)} <= ends
    assert set(vllm_settings(Sampling(1.0), 1, 1, 8, [], llm._ends)["stop_token_ids"]) == ends
    assert set(llm._model.generation_config.eos_token_id) == ends
    policy = load_policy(job(tmp_path, {"policy": str(folder), "reference": str(folder)}, "dpo"))
    assert set(policy.generation_config.eos_token_id) == ends


def test_end_tokens_are_those_of_all_files_together(tmp_path: Path) -> None:
    words = tokenizer(TEXTS)
    save_policy(tmp_path, words)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "eos_token_id": 11}))
    assert Chat(words).end_tokens(tmp_path) == sorted({7, 9, 11, words.eos_token_id})


def test_a_stop_text_that_is_a_special_token_ends_responses_in_both_engines(tmp_path: Path) -> None:
    words = tokenizer(TEXTS)
    save_policy(tmp_path, words)
    llm = generator(tmp_path, stop=["<|user|>"], max_new_tokens=120)
    user = words.convert_tokens_to_ids("<|user|>")
    assert user in llm._ends and user not in Chat(words).end_tokens(tmp_path)  # vLLM is given the same `_ends`
    (output,) = llm.generate([QUESTION], 16, seeds=[1])
    ends = [ids[-1] for ids in output["token_ids"] if user in ids]
    assert ends and set(ends) == {user} and words.pad_token_id not in {ids[-1] for ids in output["token_ids"]}


def test_a_tokenizer_that_names_no_attention_mask_changes_no_response(tmp_path: Path) -> None:
    words = tokenizer(TEXTS)
    words.pad_token = words.eos_token  # so that padding cannot be recognised by its id
    save_policy(tmp_path, words)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "model_input_names": ["input_ids"]}))
    llm = generator(tmp_path, temperature=0.0)
    assert llm.generate([QUESTION, DIALOGUE])[0]["token_ids"] == llm.generate([QUESTION])[0]["token_ids"]


def test_sampling_settings_in_the_models_files_change_nothing_and_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = tokenizer(TEXTS)
    save_policy(tmp_path / "policy", words)
    plain = generator(tmp_path / "policy", temperature=1.0).generate([QUESTION, DIALOGUE], 2, [1, 2])
    file_settings = {
        "repetition_penalty": 3.0,
        "no_repeat_ngram_size": 1,
        "min_new_tokens": 12,
        "suppress_tokens": list(range(5, 60)),
        "begin_suppress_tokens": [70],
        "forced_eos_token_id": words.eos_token_id,
        "bad_words_ids": [[80]],
        "num_beams": 3,
        "num_return_sequences": 2,
        "stop_strings": ["a", "e"],
        "return_dict_in_generate": True,
        "output_scores": True,
        "temperature": 0.1,
        "top_k": 2,
        "min_p": 0.5,
    }
    file = tmp_path / "policy" / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": words.eos_token_id, **file_settings}))
    assert generator(tmp_path / "policy", temperature=1.0).generate([QUESTION, DIALOGUE], 2, [1, 2]) == plain
    assert set(model_settings(tmp_path / "policy")) == set(file_settings)
    save_reward(tmp_path / "reward", words)
    check(recipe(tmp_path))
    message = capsys.readouterr().err
    assert "policy.model: the files of" in message and "repetition_penalty 3.0" in message and "num_beams 3" in message


def test_settings_that_transformers_refuses_to_read_stop_nothing(tmp_path: Path) -> None:
    words = tokenizer(TEXTS)
    save_policy(tmp_path / "policy", words)
    plain = generator(tmp_path / "policy").generate([QUESTION], 2, [1])
    (tmp_path / "policy" / "generation_config.json").write_text(json.dumps({"num_return_sequences": 3}))
    assert generator(tmp_path / "policy").generate([QUESTION], 2, [1]) == plain
    policy = load_policy(job(tmp_path / "work", {"policy": str(tmp_path / "policy"), "reference": str(tmp_path / "policy")}, "dpo"))
    settings_of_reference = reference_settings(policy, tmp_path / "policy", "float32")
    create_model_from_path(get_config_model_id(policy.config), **settings_of_reference)  # as TRL loads the reference of rloo
    settings = tmp_path / "policy" / "config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "repetition_penalty": 3.0, "num_beams": 3}))
    assert generator(tmp_path / "policy").generate([QUESTION], 2, [1]) == plain


def test_a_policy_with_settings_that_cannot_be_saved_is_trained_and_keeps_them(models: Path, tmp_path: Path) -> None:
    words = tokenizer(TEXTS)
    save_policy(tmp_path / "policy", words)
    file = tmp_path / "policy" / "generation_config.json"
    file.write_text(json.dumps({"do_sample": False, "temperature": 0.6, "eos_token_id": words.eos_token_id}))
    policy = load_policy(job(tmp_path / "work", {"policy": str(tmp_path / "policy"), "reference": str(tmp_path / "policy")}, "dpo"))
    policy.save_pretrained(tmp_path / "saved")
    assert GenerationConfig.from_pretrained(tmp_path / "saved").eos_token_id == [words.eos_token_id]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_responses_under_a_repetition_penalty_do_not_depend_on_their_batch(tmp_path: Path, temperature: float) -> None:
    words = tokenizer(TEXTS)
    words.pad_token = words.eos_token  # padding with a token that changes the result
    save_policy(tmp_path, words)
    settings = {"repetition_penalty": 1.8, "top_k": 40, "min_p": 0.01, "temperature": temperature}
    long = [{"role": "user", "content": "What is a planet? " * 20}]
    batched_output = generator(tmp_path, tokens_per_batch=10**6, **settings).generate([QUESTION, long], 2, [1, 2])
    single_output = generator(tmp_path, tokens_per_batch=1, **settings).generate([QUESTION, long], 2, [1, 2])
    plain = generator(tmp_path, temperature=temperature).generate([QUESTION, long], 2, [1, 2])
    assert batched_output == single_output != plain


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(0.0, repetition_penalty=1.3),
        Sampling(0.7),
        Sampling(0.7, top_p=0.8),
        Sampling(1.5, top_p=0.9, top_k=7, min_p=0.05, repetition_penalty=1.4),
        Sampling(1.0, min_p=0.2, top_p=0.5),
    ],
)
def test_settings_have_the_same_meaning_in_transformers_and_vllm(sampling: Sampling) -> None:
    """Compared with vLLM's sampler, written out: penalty, temperature, min_p, top_k, top_p."""
    torch.manual_seed(1)
    logits, prompt_ids = 3 * torch.randn(2, 50), torch.randint(0, 50, (2, 6))
    starts = [0, 3]
    probabilities = processors(sampling, starts)(prompt_ids, logits.clone()).softmax(dim=-1)
    vllm_sampling = vllm_settings(sampling, 5, 4, 9, ["x"], [2])
    for row in range(2):
        scores = logits[row].double()
        for token in set(prompt_ids[row, starts[row] :].tolist()):
            scores[token] = (
                scores[token] / vllm_sampling["repetition_penalty"]
                if scores[token] > 0
                else scores[token] * vllm_sampling["repetition_penalty"]
            )
        if vllm_sampling["temperature"] > 0:
            scores = scores / vllm_sampling["temperature"]
            share = scores.softmax(dim=-1)
            scores[share < vllm_sampling["min_p"] * share.max()] = -torch.inf
            if vllm_sampling["top_k"]:
                scores[scores < scores.topk(vllm_sampling["top_k"]).values[-1]] = -torch.inf
            order = scores.argsort(descending=True)
            mass_above = scores.softmax(dim=-1)[order].cumsum(dim=0) - scores.softmax(dim=-1)[order]
            scores[order[mass_above >= vllm_sampling["top_p"]]] = -torch.inf
        assert torch.allclose(probabilities[row].double(), scores.softmax(dim=-1), atol=1e-5)
    assert vllm_sampling["n"] == (4 if sampling.temperature else 1) and vllm_sampling["max_tokens"] == 9 and vllm_sampling["stop"] == ["x"]
