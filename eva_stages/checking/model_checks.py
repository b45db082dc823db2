"""What a model's files say about it, held against what the recipe uses it for; no weight is read.

Everything that would otherwise end a stage after the generation before it was paid for: missing heads, other shapes, chat templates,
tokenizers, positions. All that is wrong with a model is found at once.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eva_stages.core.config.creator_config import Topics
from eva_stages.core.config.models_config import TransformersGenerator, TransformersModel, VLLMGenerator, VLLMModel
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import ArmoRMReward, LocalReward, PairPreferenceReward, PairRMReward, SequenceClassifierReward
from eva_stages.core.errors import ConfigError, DataError
from eva_stages.core.terminal import note
from eva_stages.models.architecture import position_count, read_json, vocabulary_size
from eva_stages.models.loading import LETTERCRAFT, load_tokenizer, locate
from eva_stages.models.weights import weight_faults

PLACEHOLDER = re.compile("image|video|audio|vision", re.IGNORECASE)
"""What the tokens are called that a processor puts where pictures and sounds are to be."""


@dataclass
class Checkpoint:
    """A model of the recipe and what is wrong with it.

    Attributes:
        model: as the recipe names it.
        place: the recipe's field, for errors.
    """

    model: str
    folder: Path
    place: str
    faults: list[str] = field(default_factory=list)

    def add(self, fault: str) -> None:
        self.faults.append(f"{self.place}: {self.model} {fault}")

    def note(self, sentence: str) -> None:
        note(f"{self.place}: {self.model} {sentence}")


def check_policy(recipe: Recipe) -> None:
    """The policy has all its weights, can be talked to, and has an embedding for every token."""
    policy, wanted = recipe.policy, recipe.solver.training.max_length
    with _checkpoint(policy.model, policy.revision, "policy.model") as checkpoint:
        _check_causal(checkpoint, policy.generator, "policy.generator")
        limit = position_count(checkpoint.folder)
        if limit is not None and wanted > limit:
            checkpoint.note(f"has {limit} positions, so pairs are limited to {limit} tokens, not to solver.training.max_length = {wanted}")


def check_generator(config: TransformersModel | VLLMModel, place: str) -> None:
    """A generator with a model of its own: the same as a policy."""
    with _checkpoint(config.model, config.revision, f"{place}.model") as checkpoint:
        _check_causal(checkpoint, config, place)


def check_reward(config: LocalReward, place: str) -> None:
    """A reward model has all its weights, a chat template where it reads chats, and positions for what it is to score."""
    with _checkpoint(config.model, config.revision, f"{place}.model") as checkpoint:
        _check_tokenizer(checkpoint)
        match config:
            case SequenceClassifierReward():
                _check_template(checkpoint)
                _check_labels(checkpoint)
                _check_weights(checkpoint, "AutoModelForSequenceClassification")
            case ArmoRMReward():
                _check_template(checkpoint)
                _check_weights(checkpoint, "ArmoRM")
            case PairPreferenceReward():
                _check_template(checkpoint)
                _check_letters(checkpoint)
                _check_weights(checkpoint, "AutoModelForCausalLM")
            case PairRMReward():
                _check_weights(checkpoint, "DebertaRanker")
        extra = 2 * config.candidate_max_length if isinstance(config, PairRMReward) else 0
        _check_length(checkpoint, f"{place}.max_length", config.max_length and config.max_length + extra)


def check_topics(topics: Topics, place: str) -> None:
    """A zero-shot classifier has all its weights and a label for entailment."""
    with _checkpoint(topics.model, topics.revision, f"{place}.model") as checkpoint:
        labels = list(read_json(checkpoint.folder / "config.json").get("label2id") or {})
        if not any(label.lower().startswith("entail") for label in labels):
            known = ", ".join(labels) or "none"
            checkpoint.add(
                f"has the labels {known}; a zero-shot classifier is a model of natural-language inference and has one that begins with "
                "entail"
            )
        _check_tokenizer(checkpoint)
        _check_weights(checkpoint, "AutoModelForSequenceClassification")


def check_embedder(model: str, revision: str | None, place: str) -> None:
    """A sentence-embedding model has all the weights that its embeddings depend on."""
    from eva_stages.creator.diversity import embedder_faults, transformer_folder

    with _checkpoint(model, revision, place) as checkpoint:
        for fault in embedder_faults(checkpoint.folder, checkpoint.note):
            checkpoint.add(fault)
        checkpoint.folder = transformer_folder(checkpoint.folder)
        _check_tokenizer(checkpoint)


@contextmanager
def _checkpoint(model: str, revision: str | None, place: str) -> Iterator[Checkpoint]:
    """A model to check.

    Raises:
        ConfigError: at the end, with everything that was found.
    """
    checkpoint = Checkpoint(model, locate(model, revision, place), place)
    try:
        yield checkpoint
    except DataError as error:  # a file that cannot be read
        checkpoint.faults.append(f"{place}: {error}")
    if checkpoint.faults:
        raise ConfigError(list(dict.fromkeys(checkpoint.faults)))


def _check_causal(checkpoint: Checkpoint, generator: TransformersGenerator | VLLMGenerator, place: str) -> None:
    _check_tokenizer(checkpoint)
    _check_template(checkpoint)
    _check_weights(checkpoint, "AutoModelForCausalLM")
    if isinstance(generator, VLLMGenerator):
        _check_length(checkpoint, f"{place}.max_model_len", generator.max_model_len)
        if generator.lora is not None and not (Path(generator.lora) / "adapter_config.json").is_file():
            checkpoint.faults.append(f"{place}.lora: {generator.lora} has no adapter_config.json; give the folder of a LoRA adapter")


def _check_weights(checkpoint: Checkpoint, kind: str) -> None:
    """The packaged base policy is left out: it is known, and model libraries take seconds to import."""
    if checkpoint.model == LETTERCRAFT:
        return
    for fault in weight_faults(_model_class(kind), checkpoint.folder, checkpoint.note):
        checkpoint.add(fault if fault.startswith(("has ", "is ")) else f"cannot be used: {fault}")


def _model_class(kind: str) -> Any:
    if kind == "ArmoRM":
        from eva_stages.models.armorm import ArmoRM

        return ArmoRM
    if kind == "DebertaRanker":
        from eva_stages.models.pairrm import DebertaRanker

        return DebertaRanker
    import transformers

    return getattr(transformers, kind)


def _check_template(checkpoint: Checkpoint) -> None:
    settings = read_json(checkpoint.folder / "tokenizer_config.json")
    if not (checkpoint.folder / "chat_template.jinja").is_file() and not settings.get("chat_template"):
        checkpoint.add(
            "has no chat template, so prompts and responses cannot be told apart; take an instruction-tuned model, or put a "
            "chat_template.jinja beside its tokenizer"
        )


def _check_labels(checkpoint: Checkpoint) -> None:
    config = read_json(checkpoint.folder / "config.json")
    labels = len(config["id2label"]) if config.get("id2label") else config.get("num_labels", 2)
    if labels != 1:
        checkpoint.add(
            f"has {labels} labels, and a sequence_classifier reward has one; take a reward model that was trained on preferences"
        )


def _check_tokenizer(checkpoint: Checkpoint) -> None:
    """The tokenizer can be loaded, has something to pad with, and every token has an embedding."""
    folder = checkpoint.folder
    settings = read_json(folder / "special_tokens_map.json") | read_json(folder / "tokenizer_config.json")
    if not (folder / "tokenizer.json").is_file() or not (settings.get("pad_token") or settings.get("eos_token")):
        _loaded_tokenizer(checkpoint)
    tokens, rows = token_count(folder), vocabulary_size(folder)
    if tokens and rows and tokens > rows:
        checkpoint.add(
            f"has a tokenizer of {tokens} tokens and embeddings for {rows}; put the tokenizer there that the model was trained with"
        )


def _check_letters(checkpoint: Checkpoint) -> None:
    from eva_stages.models.pairwise import letter_ids

    if tokenizer := _loaded_tokenizer(checkpoint):
        try:
            letter_ids(tokenizer, checkpoint.model)
        except DataError as error:
            checkpoint.faults.append(f"{checkpoint.place}: {error}")


def _loaded_tokenizer(checkpoint: Checkpoint) -> Any:
    """The tokenizer; None, and a fault, if it cannot be loaded."""
    try:
        return load_tokenizer(str(checkpoint.folder))
    except DataError as error:
        checkpoint.faults.append(f"{checkpoint.place}: {error}")
        return None


def token_count(folder: Path) -> int:
    """One more than the highest token id that a text can have; 0 if the files do not say.

    The text models of multimodal families keep the placeholders of pictures, and have no embeddings for them (Gemma 3 1B).
    """
    content = read_json(folder / "tokenizer.json")
    vocabulary = content.get("model", {}).get("vocab", {})
    known = list(vocabulary.values()) if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
    added = [
        token["id"] for token in content.get("added_tokens", []) if not (token.get("special") and PLACEHOLDER.search(token["content"]))
    ]
    return max([*known, *added], default=-1) + 1


def _check_length(checkpoint: Checkpoint, place: str, length: int | None) -> None:
    """A length that the recipe gives is within the model's positions."""
    limit = position_count(checkpoint.folder)
    if length is not None and limit is not None and length > limit:
        checkpoint.faults.append(f"{place}: takes {length} positions, and {checkpoint.model} has {limit}; lower it or leave it out")
