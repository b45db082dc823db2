"""The transformers generator on tiny models of real architectures."""

import json
from pathlib import Path

import pytest
import torch

from eva_stages.models.transformers_generator import TransformersGenerator, _InverseSampler
from tests.tiny_models import save_gemma2, save_policy, save_recurrent_gemma, tokenizer

TEXTS = ["Write a poem about the sea", "What is 2 + 2?", "Explain how rain comes to fall on hills, at length " * 4]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_policy(folder / "llama", tokenizer(TEXTS))
    save_gemma2(folder / "gemma2", tokenizer(TEXTS), positions=256)
    save_recurrent_gemma(folder / "recurrent_gemma", tokenizer(TEXTS))
    return folder


def generator(folder: Path, **settings: object) -> TransformersGenerator:
    llm = TransformersGenerator(model=str(folder), **{"max_new_tokens": 16, **settings})
    llm.load()
    return llm


def prompts() -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in TEXTS]


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_answers_do_not_depend_on_the_batch(models: Path, name: str) -> None:
    batch_outputs = generator(models / name, tokens_per_batch=10**6).generate(prompts(), 3, [1, 2, 3])
    single_outputs = generator(models / name, tokens_per_batch=1).generate(prompts(), 3, [1, 2, 3])
    assert batch_outputs == single_outputs and len({text for output in batch_outputs for text in output["generations"]}) == 9


def test_responses_of_a_model_whose_layers_keep_states_do_not_depend_on_their_number(models: Path) -> None:
    (batch_output,), (single_output,) = (generator(models / "recurrent_gemma").generate(prompts()[:1], n, [1]) for n in (3, 1))
    assert batch_output["token_ids"][:1] == single_output["token_ids"]


@pytest.fixture(scope="module")
def ending_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that ends its responses after few tokens, at very different lengths."""
    folder = tmp_path_factory.mktemp("ending")
    words = tokenizer(TEXTS)
    save_policy(folder, words)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(1, len(words), 12))}))
    return folder


@pytest.mark.parametrize("settings", [{}, {"repetition_penalty": 1.5}, {"stop": ["e"]}, {"top_p": 0.8, "min_p": 0.01}])
def test_responses_that_end_leave_the_batch_and_the_others_do_not_change(ending_model: Path, settings: dict[str, object]) -> None:
    big, small = (generator(ending_model, max_new_tokens=48, tokens_per_batch=size, **settings) for size in (10**6, 1))
    batch_outputs, single_outputs = (llm.generate(prompts(), 8, [1, 2, 3]) for llm in (big, small))
    assert batch_outputs == single_outputs
    lengths = {length for output in batch_outputs for length in output["statistics"]["output_tokens"]}
    assert len(lengths) > 6 and max(lengths) > 2 * min(lengths)


def test_greedy_responses_are_those_of_the_loop_of_transformers(ending_model: Path) -> None:
    llm = generator(ending_model, temperature=0.0, max_new_tokens=48)
    for output, messages in zip(llm.generate(prompts(), 2, [1, 2, 3]), prompts(), strict=True):
        ids = torch.tensor([llm._tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]])
        with torch.inference_mode():
            expected_ids = llm._model.generate(ids, max_new_tokens=48)[0, ids.shape[1] :].tolist()
        assert output["token_ids"] == [expected_ids] * 2


def test_a_prompt_that_does_not_fit_is_rejected_and_never_cut(models: Path) -> None:
    long = [{"role": "user", "content": "sea " * 400}]
    outputs = generator(models / "gemma2").generate([prompts()[0], long], 2, [1, 2])
    assert outputs[1]["generations"] == [None, None] and outputs[1]["finish_reasons"] == ["prompt_too_long"] * 2
    assert None not in outputs[0]["generations"]


def test_a_prompt_that_nearly_fills_the_model_gets_the_room_that_is_left(models: Path) -> None:
    llm = generator(models / "gemma2", max_new_tokens=64, temperature=0.0)
    long = [{"role": "user", "content": "x" * 239}]
    (output,) = llm.generate([long], 1, [1])
    tokens = output["statistics"]["input_tokens"][0]
    assert 192 < tokens < 256 and output["statistics"]["output_tokens"][0] <= 256 - tokens


def test_a_system_prompt_changes_the_answer_also_where_the_template_has_no_such_role(models: Path) -> None:
    for name in ("llama", "gemma2"):
        plain_output, prompted_output = (
            generator(models / name, system_prompt=text).generate(prompts(), 1, [1, 2, 3]) for text in (None, "Be brief.")
        )
        assert plain_output != prompted_output
        assert all(
            a["statistics"]["input_tokens"][0] < b["statistics"]["input_tokens"][0]
            for a, b in zip(plain_output, prompted_output, strict=True)
        )


def test_stop_texts_end_an_answer_and_are_left_out(models: Path) -> None:
    (whole,) = generator(models / "llama").generate(prompts()[:1], 1, [1])
    text = str(whole["generations"][0])
    stop = text[len(text) // 2]
    (stopped_output,) = generator(models / "llama", stop=[stop]).generate(prompts()[:1], 1, [1])
    assert stopped_output["generations"][0] == text[: text.index(stop)] and stopped_output["finish_reasons"] == ["stop"]
    assert stopped_output["statistics"]["output_tokens"][0] <= whole["statistics"]["output_tokens"][0]


def test_a_stop_text_that_begins_in_the_prompt_ends_nothing(models: Path) -> None:
    outputs = generator(models / "llama").generate(prompts()[:1] * 8, 1, range(8))  # the prompt ends with `<|assistant|>`
    seed, text = next((seed, text) for seed, output in enumerate(outputs) if (text := str(output["generations"][0]))[0].isascii())
    assert generator(models / "llama", stop=[f">{text[0]}"]).generate(prompts()[:1], 1, [seed]) == [outputs[seed]]


def test_a_draw_near_one_takes_the_last_token_that_can_be_drawn() -> None:
    scores = torch.tensor([[0.0, 1.0, -torch.inf], [2.0, 1.0, 0.0], [0.0, -torch.inf, -torch.inf]])
    draws = torch.full((3, 1), 1 - 1e-12, dtype=torch.float64)
    assert _InverseSampler(draws, 0)(torch.empty(3, 0), scores).argmax(dim=-1).tolist() == [1, 2, 0]
