"""The transformers generator on tiny models of real architectures."""

from pathlib import Path

import pytest

from eva_stages.models.transformers_generator import TransformersGenerator
from tests.tiny_models import save_gemma2, save_policy, tokenizer

TEXTS = ["Write a poem about the sea", "What is 2 + 2?", "Explain how rain comes to fall on hills, at length " * 4]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_policy(folder / "llama", tokenizer(TEXTS))
    save_gemma2(folder / "gemma2", tokenizer(TEXTS), positions=256)
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
