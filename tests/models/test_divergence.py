"""The distance of a policy to another one, against a direct computation."""

from collections.abc import Iterator

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from eva_stages.models.conversation import Chat
from eva_stages.models.divergence import TokenizedResponse, divergence
from eva_stages.models.loading import load_tokenizer
from tests.tiny_models import config, save_policy, tokenizer

TEXTS = ["What is a planet?", "A planet goes around a star.", "Name three of them, please", "Mars, Venus and the Earth", ""]
WORDS = tokenizer(TEXTS)
ANSWERS = [
    TokenizedResponse([{"role": "user", "content": TEXTS[0]}], Chat(WORDS).response_ids(TEXTS[1])[:6]),
    TokenizedResponse([{"role": "user", "content": TEXTS[2]}], Chat(WORDS).response_ids(TEXTS[3])),
    TokenizedResponse([{"role": "user", "content": TEXTS[2]}], Chat(WORDS).response_ids(TEXTS[4])),
]


@pytest.fixture(scope="module")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    folder = tmp_path_factory.mktemp("policies")
    words = WORDS
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
    for response in ANSWERS:
        prompt_messages = [{"role": "system", "content": system_prompt}] if system_prompt else []
        prompt = words.apply_chat_template(prompt_messages + response.messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        for place, token in enumerate(response.ids):
            prefix = torch.tensor([prompt + response.ids[:place]])
            with torch.no_grad():
                policy_log_prob, initial_log_prob = (model(prefix).logits[0, -1].log_softmax(dim=-1)[token].item() for model in models)
            total, tokens = total + policy_log_prob - initial_log_prob, tokens + 1
    return total, tokens


@pytest.mark.parametrize("system_prompt", [None, "Be brief."])
def test_the_divergence_is_the_mean_log_ratio_of_the_generated_tokens(policies: tuple[str, str], system_prompt: str | None) -> None:
    result = divergence(*policies, ANSWERS, system_prompt, None, "float32", "cpu")
    total, tokens = direct(*policies, system_prompt)
    assert result["kl"] == pytest.approx(total / 3, rel=1e-4) and result["kl_per_token"] == pytest.approx(total / tokens, rel=1e-4)
    assert abs(total) > 1


def test_a_policy_is_no_distance_away_from_itself(policies: tuple[str, str]) -> None:
    assert divergence(policies[0], policies[0], ANSWERS, None, None, "float32", "cpu") == {"kl": 0.0, "kl_per_token": 0.0}


def test_nothing_is_known_without_answers(policies: tuple[str, str]) -> None:
    assert divergence(*policies, [], None, None, "float32", "cpu") == {"kl": None, "kl_per_token": None}
