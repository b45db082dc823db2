"""Local reward models of real architectures: batches, failures, both orders."""

from pathlib import Path

import numpy as np
import pytest
import torch

from eva_stages.models.batching import token_batches
from eva_stages.models.pairwise import PairPreferenceReward, PairRMReward, PairwiseReward, win_matrix
from eva_stages.models.reward_models import ArmoRMReward, SequenceClassifierReward
from eva_stages.models.rewards import Candidates
from tests.tiny_models import save_armorm, save_pairrm, save_policy, save_reward, tokenizer

TEXTS = [
    "Write a poem about the sea",
    "What is 2 + 2?",
    "Explain how rain comes to fall on hills, at length and with examples " * 3,
    "A B A B",
]


def rows() -> list[Candidates]:
    """Prompts with four responses each, of very different lengths, and one that failed."""
    prompts = [[{"role": "user", "content": text}] for text in TEXTS]
    prompts[1] = [*prompts[0], {"role": "assistant", "content": "The sea, the sea."}, {"role": "user", "content": "Shorter."}]
    candidates = [Candidates(messages, [text, text[:5], text * 2, "yes"]) for messages, text in zip(prompts, TEXTS, strict=True)]
    candidates[3].responses[2] = None
    return candidates


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, save in (("reward", save_reward), ("armorm", save_armorm), ("causal", save_policy), ("pairrm", save_pairrm)):
        save(folder / name, tokenizer(TEXTS))
    return folder


def score_all(reward: PairwiseReward | SequenceClassifierReward, candidates: list[Candidates]) -> list[dict]:
    reward.load()
    try:
        return reward.score_rows(candidates)
    finally:
        reward.unload()


KINDS = {"reward": SequenceClassifierReward, "armorm": ArmoRMReward, "pairrm": PairRMReward, "causal": PairPreferenceReward}


@pytest.mark.parametrize("name", KINDS)
def test_scores_in_batches_are_the_scores_one_by_one(models: Path, name: str) -> None:
    batch_scores = score_all(KINDS[name](model=str(models / name), tokens_per_batch=4096), rows())
    single_scores = score_all(KINDS[name](model=str(models / name), tokens_per_batch=1), rows())
    for batch, single in zip(batch_scores, single_scores, strict=True):
        for a, b in zip(batch["rewards"], single["rewards"], strict=True):
            assert (a is None and b is None) or a == pytest.approx(b, abs=1e-4)
    assert len({round(value, 4) for row in batch_scores for value in row["rewards"] if value is not None}) > 8
    assert batch_scores[3]["rewards"][2] is None and batch_scores[3]["failures"][2] == "no response"


def test_a_classifier_scores_the_last_token_of_the_chat(models: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    words = AutoTokenizer.from_pretrained(models / "reward")
    model = AutoModelForSequenceClassification.from_pretrained(models / "reward").eval()
    (row,) = score_all(SequenceClassifierReward(model=str(models / "reward")), rows()[:1])
    chat = [*rows()[0].messages, {"role": "assistant", "content": rows()[0].responses[0]}]
    with torch.no_grad():
        expected = model(**words.apply_chat_template(chat, return_tensors="pt", return_dict=True)).logits[0, 0].item()
    assert row["rewards"][0] == pytest.approx(expected, abs=1e-5)


def test_armorm_keeps_its_objectives(models: Path) -> None:
    score_rows = score_all(ArmoRMReward(model=str(models / "armorm")), rows())
    assert (
        all(len(objectives) == 19 for row in score_rows[:3] for objectives in row["objectives"]) and score_rows[3]["objectives"][2] is None
    )


def test_too_long_conversations_are_null_with_the_reason(models: Path) -> None:
    score_rows = score_all(SequenceClassifierReward(model=str(models / "reward"), max_length=60), rows())
    assert score_rows[0]["rewards"][3] is not None and score_rows[2]["rewards"][2] is None
    assert "max_length = 60" in score_rows[2]["failures"][2] and score_rows[0]["failures"][3] is None


@pytest.mark.parametrize("name", ["pairrm", "causal"])
def test_win_probabilities_are_a_matrix_of_both_orders(models: Path, name: str) -> None:
    score_rows = score_all(KINDS[name](model=str(models / name)), rows())
    matrix = np.array(score_rows[0]["win_matrix"])
    assert matrix.shape == (4, 4) and np.allclose(matrix + matrix.T, 1) and np.allclose(np.diag(matrix), 0.5)
    assert np.abs(matrix - 0.5).max() > 1e-3
    assert (
        np.allclose(matrix.mean(axis=1), score_rows[0]["win_probability"]) and score_rows[0]["rewards"] == score_rows[0]["win_probability"]
    )


def test_win_matrix_averages_the_orders() -> None:
    matrix = win_matrix(np.array([[np.nan, 0.9], [0.3, np.nan]]))
    assert matrix.tolist() == [[0.5, pytest.approx(0.8)], [pytest.approx(0.2), 0.5]]


def test_a_comparison_that_does_not_fit_leaves_its_responses_without_a_reward(models: Path) -> None:
    score_rows = score_all(PairPreferenceReward(model=str(models / "causal"), max_length=150), rows())
    assert score_rows[2]["rewards"][2] is None and "max_length = 150" in score_rows[2]["failures"][2]
    assert all(value is not None for value in score_rows[0]["rewards"])


def test_pair_preference_reads_the_letters_at_the_end_of_the_question(models: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words, model = AutoTokenizer.from_pretrained(models / "causal"), AutoModelForCausalLM.from_pretrained(models / "causal").eval()
    letters = [words.encode(letter, add_special_tokens=False)[0] for letter in "AB"]

    def first_wins(a: str, b: str) -> float:
        question = f"[CONTEXT] \n\n<turn> user\n {TEXTS[0]}\n [RESPONSE A] {a} [RESPONSE B] {b} \n"
        ids = words.apply_chat_template([{"role": "user", "content": question}], return_tensors="pt", return_dict=True)["input_ids"]
        with torch.no_grad():
            return model(ids).logits[0, -1, letters].softmax(dim=-1)[0].item()

    (row,) = score_all(PairPreferenceReward(model=str(models / "causal")), [Candidates(rows()[0].messages, ["one", "two words"])])
    expected = (first_wins("one", "two words") + 1 - first_wins("two words", "one")) / 2
    assert row["win_matrix"][0][1] == pytest.approx(expected, abs=1e-5)


def test_batches_hold_everything_once_within_their_budget() -> None:
    lengths = [5, 900, 17, 3, 250, 250, 60, 1, 2000]
    batches = list(token_batches(lengths, 1000, copies=2))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or 2 * len(batch) * max(lengths[i] for i in batch) <= 1000 for batch in batches)
    assert len(batches) < len(lengths)
