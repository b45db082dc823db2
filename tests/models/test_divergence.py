"""The distance of a policy to another one, against a direct computation."""

from collections.abc import Iterator

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from eva_stages.models.batching import answered_tokens, common_prefix
from eva_stages.models.divergence import Answered, divergence
from eva_stages.models.loading import load_tokenizer
from tests.tiny_models import config, save_policy, tokenizer

TEXTS = ["What is a planet?", "A planet goes around a star.", "Name three of them, please", "Mars, Venus and the Earth", ""]
ANSWERS = [
    Answered([{"role": "user", "content": TEXTS[0]}], TEXTS[1], 6),
    Answered([{"role": "user", "content": TEXTS[2]}], TEXTS[3], 1000),
    Answered([{"role": "user", "content": TEXTS[2]}], TEXTS[4], 1),
]


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    folder = tmp_path_factory.mktemp("policies")
    words = tokenizer(TEXTS)
    save_policy(folder / "a", words)
    torch.manual_seed(9)
    LlamaForCausalLM(config(words)).save_pretrained(folder / "b")
    words.save_pretrained(folder / "b")
    yield str(folder / "a"), str(folder / "b")


def direct(policy: str, initial: str, system_prompt: str | None) -> tuple[float, int]:
    """Sum of log-ratios over all generated tokens, in float64, one token and one unpadded answer after another; and their number."""
    words = load_tokenizer(policy)
    models = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64) for folder in (policy, initial)]
    total, tokens = 0.0, 0
    for one in ANSWERS:
        opened = [{"role": "system", "content": system_prompt}] if system_prompt else []
        prompt, answer = answered_tokens(words, opened + one.messages, [{"role": "assistant", "content": one.answer}])
        for place, token in enumerate(answer[: one.tokens]):
            before = torch.tensor([prompt + answer[:place]])
            with torch.no_grad():
                ours, theirs = (model(before).logits[0, -1].log_softmax(dim=-1)[token].item() for model in models)
            total, tokens = total + ours - theirs, tokens + 1
    return total, tokens


@pytest.mark.parametrize("system_prompt", [None, "Be brief."])
def test_the_divergence_is_the_mean_log_ratio_of_the_generated_tokens(policies: tuple[str, str], system_prompt: str | None) -> None:
    found = divergence(*policies, ANSWERS, system_prompt, "float32", "cpu")
    total, tokens = direct(*policies, system_prompt)
    assert found["kl"] == pytest.approx(total / 3, rel=1e-4) and found["kl_per_token"] == pytest.approx(total / tokens, rel=1e-4)
    assert abs(total) > 1


def test_a_policy_is_no_distance_away_from_itself(policies: tuple[str, str]) -> None:
    assert divergence(policies[0], policies[0], ANSWERS, None, "float32", "cpu") == {"kl": 0.0, "kl_per_token": 0.0}


def test_nothing_is_known_without_answers(policies: tuple[str, str]) -> None:
    assert divergence(*policies, [], None, "float32", "cpu") == {"kl": None, "kl_per_token": None}


def test_an_answer_starts_where_the_chat_leaves_the_prompt() -> None:
    words = tokenizer(TEXTS)
    prompt, short, long = answered_tokens(words, ANSWERS[0].messages, *([{"role": "assistant", "content": text}] for text in ("", "Mars")))
    assert words.decode(prompt).endswith("<|assistant|>") and words.decode(short) == "<|end|>" and words.decode(long) == "Mars<|end|>"
    assert common_prefix([1, 2, 3], [1, 2, 4, 5]) == 2
