"""The divergence KL(pi || pi_0) between two policies, estimated from responses sampled from pi.

The estimate is the mean over responses y ~ pi of sum_t [log pi(y_t | x, y_<t) - log pi_0(y_t | x, y_<t)]. It is unbiased for responses
sampled at temperature 1 without top-p; for other sampling it is the same mean over the responses of the policy in use. Responses are the
sampled tokens, so a truncated response has no end token.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from eva_stages.core.rows import Message
from eva_stages.models.batching import token_batches
from eva_stages.models.conversation import Chat
from eva_stages.models.loading import load_model, load_tokenizer

if TYPE_CHECKING:
    import numpy as np

TOKENS_PER_BATCH = 4096
"""Small, because a forward pass holds the logits of all tokens."""


class TokenizedResponse(NamedTuple):
    """A prompt and the token ids of a response."""

    messages: list[Message]
    ids: list[int]


def divergence(
    policy: str, initial: str, responses: Sequence[TokenizedResponse], system_prompt: str | None, date: str | None, dtype: str, device: str
) -> dict[str, float | None]:
    """KL(policy || initial) in nats per response (`kl`) and per token (`kl_per_token`); null without responses.

    Args:
        policy: checkpoint folder of the policy that was sampled.
        initial: checkpoint folder of the other policy, with the same vocabulary.
        system_prompt, date: as when the responses were sampled.
        dtype, device: see `load_model`. One model is in memory at a time.
    """
    from transformers import AutoModelForCausalLM

    chat = Chat(load_tokenizer(policy), date, system_prompt)
    sequences = [(chat.prompt_ids(response.messages), response.ids) for response in responses if response.ids]
    if not sequences:
        return {"kl": None, "kl_per_token": None}
    policy_sums, initial_sums = (
        log_probs(load_model(AutoModelForCausalLM, folder, dtype, device), sequences) for folder in (policy, initial)
    )
    total = float((policy_sums - initial_sums).sum())
    return {"kl": total / len(sequences), "kl_per_token": total / sum(len(ids) for _, ids in sequences)}


def log_probs(model: Any, sequences: Sequence[tuple[list[int], list[int]]]) -> "np.ndarray":
    """Log-probability of every response given its prompt, float64 of shape (sequences,).

    Args:
        sequences: token ids of prompt and response, neither empty.
    """
    import numpy as np
    import torch
    from torch.nn.functional import cross_entropy

    sums = np.empty(len(sequences))
    for batch in token_batches([len(prompt_ids) + len(response_ids) for prompt_ids, response_ids in sequences], TOKENS_PER_BATCH):
        rows = [torch.tensor(sequences[index][0] + sequences[index][1]) for index in batch]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = torch.arange(ids.shape[1]) < torch.tensor([[len(row)] for row in rows])
        with torch.inference_mode():
            logits = model(input_ids=ids.to(model.device), attention_mask=mask.long().to(model.device)).logits
        for place, index in enumerate(batch):
            prompt_ids, response_ids = sequences[index]
            response_logits = logits[place, len(prompt_ids) - 1 : len(prompt_ids) + len(response_ids) - 1].float()
            nll = cross_entropy(response_logits, torch.tensor(response_ids, device=response_logits.device), reduction="none")
            sums[index] = -nll.double().sum().item()
    return sums
