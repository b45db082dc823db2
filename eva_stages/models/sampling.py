"""Sampling of tokens, equal in both engines: only the recipe's settings apply, the model's own settings are ignored.

The order is vLLM's: repetition penalty, temperature, min_p, top_k, top_p. At temperature 0 only the penalty applies.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from eva_stages.core.patches import RepetitionPenalty
from eva_stages.core.reasoning import opens_thought
from eva_stages.models.architecture import read_json
from eva_stages.models.conversation import SampledResponse

if TYPE_CHECKING:
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    from eva_stages.core.generating import GeneratorOutput

LARGEST_SEED = 2**63 - 1
NEUTRAL: Mapping[str, Any] = {
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "encoder_repetition_penalty": 1.0,
    "diversity_penalty": 0.0,
    "length_penalty": 1.0,
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "min_length": 0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
}
"""Values of a model's sampling settings that have no effect."""
NOT_SAMPLING = ("_from_model_config", "transformers_version", "cache_implementation", "use_cache", "max_length", "max_new_tokens")
"""Entries of a generation configuration that are not sampling settings; the recipe sets the length."""


class Sampling(NamedTuple):
    """The settings that decide which token is drawn."""

    temperature: float
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0


def processors(sampling: Sampling, starts: Sequence[int]) -> "LogitsProcessorList":
    """The settings as processors of `transformers`, in vLLM's order.

    Args:
        starts: length of the left padding of each row of the batch.
    """
    from transformers import LogitsProcessorList, MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    chain = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        chain.append(RepetitionPenalty(sampling.repetition_penalty, starts))
    if sampling.temperature == 0:
        return chain
    chain.append(TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.min_p > 0:
        chain.append(MinPLogitsWarper(sampling.min_p))
    if sampling.top_k:
        chain.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        chain.append(TopPLogitsWarper(sampling.top_p))
    return chain


def vllm_settings(sampling: Sampling, seed: int, n: int, max_tokens: int, stop: Sequence[str], ends: Sequence[int]) -> dict[str, Any]:
    """The settings as arguments of vLLM's `SamplingParams`."""
    return {
        "n": n if sampling.temperature > 0 else 1,  # vLLM rejects more than one greedy response
        "seed": seed & LARGEST_SEED,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k or 0,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "max_tokens": max_tokens,
        "stop": list(stop),
        "stop_token_ids": list(ends),
    }


def neutral_generation_config(ends: Sequence[int], pad: int | None, **limits: Any) -> "GenerationConfig":
    """A generation configuration with the end tokens and `limits` only."""
    from transformers import GenerationConfig

    return GenerationConfig(eos_token_id=list(ends) or None, pad_token_id=pad, do_sample=False, **limits)


def stop_texts(texts: Sequence[str], tokenizer: Any) -> "StoppingCriteriaList":
    """The texts that end a response as criteria of `transformers`."""
    from transformers import StoppingCriteriaList, StopStringCriteria

    return StoppingCriteriaList([StopStringCriteria(tokenizer, list(texts))] if texts else [])


def model_settings(checkpoint: Path) -> dict[str, Any]:
    """Sampling settings in a checkpoint's files, by name, which the recipe overrides; without end tokens."""
    generation_settings = read_json(checkpoint / "generation_config.json")
    legacy_settings = {name: value for name, value in read_json(checkpoint / "config.json").items() if name in NEUTRAL}
    sampling_switch = {"do_sample"} if generation_settings.get("do_sample") else set()
    return {
        name: value
        for name, value in {**legacy_settings, **generation_settings}.items()
        if name not in NOT_SAMPLING
        and name not in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "do_sample")
        and value not in (None, False, [], {})
        and value != NEUTRAL.get(name)
    } | dict.fromkeys(sampling_switch, True)


def sampled_responses(responses: Sequence[SampledResponse], prompt: str, input_tokens: int) -> "GeneratorOutput":
    """The responses to one prompt with their token ids; token counts include the end token."""
    from eva_stages.core.generating import generator_output  # imports distilabel, which takes seconds and prints warnings

    counts = [len(response.ids) for response in responses]
    result = generator_output([response.text for response in responses], [response.reason for response in responses], input_tokens, counts)
    return {**result, "token_ids": [response.ids for response in responses], "in_thought": opens_thought(prompt)}


def too_long(tokens: int, n: int) -> "GeneratorOutput":
    """The null responses to a prompt that leaves no room for a response."""
    from eva_stages.core.generating import generator_output

    return {**generator_output([None] * n, ["prompt_too_long"] * n, tokens, [0] * n), "token_ids": [None] * n}
