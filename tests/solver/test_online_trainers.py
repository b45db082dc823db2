"""The on-policy losses on the shipped policy: loss and gradient against the formulas in float64, and the settings that TRL gets."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.utils import RepeatSampler

from eva_stages.core.config.solver_config import GRPO, RLOO, OnlineDPO, OnPolicyLoss, OnPolicyRuntime
from eva_stages.models.conversation import Chat
from eva_stages.models.loading import find_checkpoint
from eva_stages.models.rewards import VerifierReward
from eva_stages.solver.online import generation_arguments, reward_function
from eva_stages.solver.online_trainers import PromptGroups, preference_advantages, trainer_and_arguments
from tests.conftest import function_code

POLICY = find_checkpoint("lettercraft", None, "policy.model").path
INSTRUCTIONS = [f"Take {word}, {task}." for word in ("planet", "moon") for task in ("reverse it", "sort its letters")]
N = 4
SAMPLING = {"temperature": 1.6, "top_p": 1.0, "top_k": None, "min_p": 0.0, "repetition_penalty": 1.0, "max_new_tokens": 12}


def places_of_letters(messages: list[dict[str, str]], response: str, reference: str | None) -> float | None:
    """Different for nearly all responses; a fifth of them cannot be scored."""
    total = sum(place * ord(letter) for place, letter in enumerate(response))
    return total % 7 / 7 if total % 5 else None


def test_prompts_come_in_whole_groups_in_an_order_of_their_epoch() -> None:
    samples, trls = PromptGroups(7, 3, 2, 4, 5), RepeatSampler(range(7), 2, 3, 4)
    assert len(samples) == len(list(samples)) == len(trls) == len(list(trls))
    for start in (0, 24):
        chunk = list(samples)[start : start + 24]
        assert chunk == chunk[:6] * 4 and chunk[0:6:2] == chunk[1:6:2] and len(set(chunk)) == 3
    first = list(samples)
    samples.set_epoch(1)
    assert list(samples) != first and set(samples) <= set(range(7))
    samples.set_epoch(0)
    assert list(samples) == first


def test_advantages_of_preferences_are_the_gradient_of_dpo_on_the_best_against_the_worst() -> None:
    """Gradients with respect to the log-probabilities, by autograd through the loss itself; prompts without a pair, a tie, a small gap."""
    torch.manual_seed(0)
    nan = torch.nan
    rewards = torch.tensor(
        [[0.1, 0.9, 0.5, nan], [nan, 1.0, nan, nan], [0.3, 0.3, 0.3, 0.3], [0.7, 0.2, 0.7, 0.2], [0.5, 0.52, 0.51, 0.5], [nan] * 4]
    ).double()
    pairs = [(0, 1, 0), (3, 0, 1)]  # prompt, best, worst
    beta, policy, reference = 0.7, torch.randn(6, 4).double().requires_grad_(), torch.randn(6, 4).double()
    ratios = policy - reference
    losses = [-torch.nn.functional.logsigmoid(beta * (ratios[row, best] - ratios[row, worst])) for row, best, worst in pairs]
    loss = torch.stack(losses).sum() / 6  # prompts
    (gradient,) = torch.autograd.grad(loss, policy)
    preferences = preference_advantages(rewards, ratios.detach(), beta, min_gap=0.1)
    assert torch.allclose(-preferences.advantages / 24, gradient)
    assert torch.allclose(preferences.losses.mean(), loss)
    assert torch.allclose(preferences.margins, torch.stack([beta * (ratios[row, a] - ratios[row, b]) for row, a, b in pairs]))


def leave_one_out(scores: torch.Tensor, policy: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Value of TRL's loss at the policy that sampled, and a loss with the same gradient; log-probabilities of tokens."""
    log_probs = (policy * mask).sum(dim=1)
    groups = (scores.view(-1) - 0.3 * (log_probs - (reference * mask).sum(dim=1)).detach()).view(-1, N)
    is_known = groups.isfinite()
    baselines = (groups.nansum(dim=1, keepdim=True) - groups.nan_to_num()) / (is_known.sum(dim=1, keepdim=True) - 1)
    advantages = torch.where(is_known, groups - baselines, 0).nan_to_num().view(-1)
    return -advantages.mean().item(), -(advantages * log_probs).mean()


def group_relative(scores: torch.Tensor, policy: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor) -> tuple[float, torch.Tensor]:
    advantages = torch.zeros_like(scores)
    for row, group in enumerate(scores):
        known_scores = group[group.isfinite()]
        if len(known_scores) > 1:
            advantages[row] = ((group - known_scores.mean()) / (known_scores.std() + 1e-4)).nan_to_num()
    trained_tokens = mask * scores.isfinite().view(-1, 1)  # a response without a reward has no KL divergence either
    ratios = (policy - reference).detach()
    of_tokens = -advantages.view(-1, 1) * policy + 0.3 * ratios * policy
    value = -advantages.view(-1, 1).expand_as(policy) + 0.3 * (torch.exp(-ratios) + ratios - 1)
    return ((value * trained_tokens).sum() / mask.sum()).item(), (of_tokens * trained_tokens).sum() / mask.sum()


def preference(scores: torch.Tensor, policy: torch.Tensor, reference: torch.Tensor, mask: torch.Tensor) -> tuple[float, torch.Tensor]:
    ratios = ((policy - reference) * mask).sum(dim=1).view(-1, N)
    losses = []
    for row, group in enumerate(scores.tolist()):
        places = [(score, place) for place, score in enumerate(group) if score == score]
        if places and max(places)[0] > min(places)[0]:
            best, worst = max(places, key=lambda entry: (entry[0], -entry[1]))[1], min(places)[1]
            losses.append(-torch.log(torch.sigmoid(0.3 * (ratios[row, best] - ratios[row, worst]))))
    assert losses
    loss = torch.stack(losses).sum() / len(scores)
    return loss.item(), loss


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        (RLOO(kind="rloo", beta=0.3), leave_one_out),
        (GRPO(kind="grpo", beta=0.3), group_relative),
        (OnlineDPO(kind="online_dpo", beta=0.3), preference),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_the_losses_and_their_gradients_are_those_of_the_formulas(loss: OnPolicyLoss, formula: Any, tmp_path: Path) -> None:
    """In float64, with a reference that is not the policy, responses that have no reward, a temperature, and two micro batches."""
    words = AutoTokenizer.from_pretrained(POLICY, padding_side="left")
    policy = AutoModelForCausalLM.from_pretrained(POLICY, dtype=torch.float32)
    reference_model = AutoModelForCausalLM.from_pretrained(POLICY, dtype=torch.float32)
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in reference_model.parameters():
            weight += 0.01 * torch.randn_like(weight)
    reference_model.save_pretrained(tmp_path / "reference")
    policy.config._name_or_path = str(tmp_path / "reference")
    reward = VerifierReward(function=function_code(__file__, "places_of_letters"))
    reward.load()
    chat = Chat(words)
    ends = chat.end_tokens(POLICY)
    rows = [{"prompt": [{"role": "user", "content": text}], "reference": None} for text in INSTRUCTIONS]
    trainer_class, trainer_arguments, config, loss_arguments = trainer_and_arguments(loss, SAMPLING["temperature"], 0.0)
    micro = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    trainer = trainer_class(
        chat=chat,
        model=policy,
        reward_funcs=reward_function(reward, chat, ends, True, None),
        args=config(
            str(tmp_path),
            **micro,
            **generation_arguments(loss.runtime, SAMPLING, 64, ends, loss_arguments),
            beta=loss.beta,
            num_generations=N,
            report_to=[],
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=words,
        **trainer_arguments,
    )
    assert trainer.generation_config.temperature == SAMPLING["temperature"]
    policy.train()
    trainer.current_gradient_accumulation_steps = 2
    batch = trainer._generate_and_score_completions([row for row in rows for _ in range(N)])
    parts = [{name: values[start : start + 8] if values.ndim else values for name, values in batch.items()} for start in (0, 8)]
    divisor = 1 if isinstance(loss, GRPO) else 2  # its trainer divides by the micro batches itself
    values = []
    for part in parts:
        value = trainer.compute_loss(policy, part) / divisor
        value.backward()
        values.append(value.item())

    response = batch["completion_ids"]
    is_end = torch.isin(response, torch.tensor(ends))
    mask = (is_end.cumsum(dim=1) - is_end.long() == 0).double()  # up to and with the end token
    ids = torch.cat([batch["prompt_ids"], response], dim=1)
    attention = torch.cat([batch["prompt_mask"], mask.long()], dim=1)
    temperature = 1.0 if isinstance(loss, OnlineDPO) else SAMPLING["temperature"]

    def log_probs(model: torch.nn.Module) -> torch.Tensor:
        logits = model(input_ids=ids, attention_mask=attention).logits[:, -response.shape[1] - 1 : -1] / temperature
        return logits.log_softmax(dim=-1).gather(-1, response.unsqueeze(-1)).squeeze(-1)

    exact = AutoModelForCausalLM.from_pretrained(POLICY, dtype=torch.float64)
    with torch.no_grad():
        reference = log_probs(AutoModelForCausalLM.from_pretrained(tmp_path / "reference", dtype=torch.float64))
    known_scores = [places_of_letters([], text, None) for text in words.batch_decode(response, skip_special_tokens=True)]
    assert None in known_scores and len({*known_scores}) > 5
    scores = torch.tensor([torch.nan if score is None else score for score in known_scores], dtype=torch.float64)
    assert torch.allclose(trainer.rewards.double(), scores, equal_nan=True, rtol=1e-6)
    expected, same_gradient = formula(scores.view(-1, N), log_probs(exact), reference, mask)
    same_gradient.backward()
    assert sum(values) == pytest.approx(expected, abs=2e-5)
    for name, weight in exact.named_parameters():
        difference = (policy.get_parameter(name).grad.double() - weight.grad).norm() / weight.grad.norm()
        assert difference < 2e-4, name


def test_vllm_samples_with_the_recipes_settings_in_the_training_processes_or_on_a_server() -> None:
    _, _, _, loss_arguments = trainer_and_arguments(OnlineDPO(kind="online_dpo"), 1.6, 0.0)
    sampling = {**SAMPLING, "top_p": 0.9, "repetition_penalty": 1.1}
    common = {"max_completion_length": 12, "top_p": 0.9, "min_p": 0.0, "top_k": 0, "temperature": 1.0, "epsilon": 1e6}
    plain = generation_arguments(OnPolicyRuntime(), sampling, 64, [3, 4], loss_arguments)
    assert plain == {**common, "repetition_penalty": 1.0, "generation_kwargs": {"temperature": 1.6}}  # the policy adds the penalty
    engine = {**common, "repetition_penalty": 1.1, "use_vllm": True, "generation_kwargs": {"temperature": 1.6, "stop_token_ids": [3, 4]}}
    assert generation_arguments(OnPolicyRuntime(vllm=True), sampling, 64, [3, 4], loss_arguments) == {
        **engine,
        "vllm_mode": "colocate",
        "vllm_enable_sleep_mode": True,
        "vllm_gpu_memory_utilization": 0.3,
        "vllm_max_model_length": 64,
    }
    runtime = OnPolicyRuntime(vllm=True, server="http://127.0.0.1:8000")
    server = {"vllm_mode": "server", "vllm_server_base_url": "http://127.0.0.1:8000"}
    assert generation_arguments(runtime, sampling, 64, [3, 4], loss_arguments) == {**engine, **server}
    assert (
        "stop_token_ids"
        in generation_arguments(runtime, sampling, 64, [3], trainer_and_arguments(RLOO(kind="rloo"), 1.0, 0.0)[3])["generation_kwargs"]
    )
