"""Checks of a model's files against its use in the recipe. No weight is read.

Everything that would otherwise end a stage after the generation before it was paid for: missing heads, other shapes, chat templates,
tokenizers, positions. All that is wrong with a model is found at once.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eva_stages.checking.recipe_references import WITH_MODEL, sections
from eva_stages.core.config.creator_config import Diversity, Topics
from eva_stages.core.config.models_config import Policy, TransformersGenerator, TransformersModel, VLLMGenerator, VLLMModel
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import ArmoRMReward, LocalReward, PairPreferenceReward, PairRMReward, SequenceClassifierReward
from eva_stages.core.errors import DataError
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import load_attribute
from eva_stages.core.terminal import note
from eva_stages.models.architecture import position_count, read_json, vocabulary_size
from eva_stages.models.loading import PACKAGED_POLICIES, load_tokenizer
from eva_stages.models.weights import weight_faults

PLACEHOLDER = re.compile("image|video|audio|vision", re.IGNORECASE)
"""What the tokens are called that a processor puts where pictures and sounds are to be."""


@dataclass
class Inspection:
    """A model of the recipe and its errors.

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


def check_models(recipe: Recipe, resolved: Resolved) -> Iterator[str]:
    """Every model that was found can be used as the recipe says."""
    for place, section in sections(recipe):
        if not isinstance(section, WITH_MODEL) or (checkpoint := resolved.checkpoints.get((section.model, section.revision))) is None:
            continue
        inspection = Inspection(section.model, checkpoint.path, f"{place}.model")
        try:
            match section:
                case Policy():
                    _check_policy(inspection, section, recipe.solver.training.max_length)
                case TransformersModel() | VLLMModel():
                    _check_causal(inspection, section, place)
                case LocalReward():
                    _check_reward(inspection, section, place)
                case Topics():
                    _check_topics(inspection)
                case Diversity():
                    _check_embedder(inspection)
        except DataError as error:  # a file that cannot be read
            inspection.faults.append(f"{place}.model: {error}")
        yield from inspection.faults


def _check_policy(inspection: Inspection, policy: Policy, max_length: int) -> None:
    """The policy has all its weights, can be talked to, and has an embedding for every token."""
    _check_causal(inspection, policy.generator, "policy.generator")
    limit = position_count(inspection.folder)
    if limit is not None and max_length > limit:
        inspection.note(f"has {limit} positions, so pairs are limited to {limit} tokens, not to solver.training.max_length = {max_length}")


def _check_reward(inspection: Inspection, config: LocalReward, place: str) -> None:
    """A reward model has all its weights, a chat template where it reads chats, and positions for what it is to score."""
    _check_tokenizer(inspection)
    match config:
        case SequenceClassifierReward():
            _check_template(inspection)
            _check_labels(inspection)
            _check_weights(inspection, "transformers:AutoModelForSequenceClassification")
        case ArmoRMReward():
            _check_template(inspection)
            _check_weights(inspection, "eva_stages.models.armorm:ArmoRM")
        case PairPreferenceReward():
            _check_template(inspection)
            _check_letters(inspection)
            _check_weights(inspection, "transformers:AutoModelForCausalLM")
        case PairRMReward():
            _check_weights(inspection, "eva_stages.models.pairrm:DebertaRanker")
    extra = 2 * config.candidate_max_length if isinstance(config, PairRMReward) else 0
    _check_length(inspection, f"{place}.max_length", config.max_length and config.max_length + extra)


def _check_topics(inspection: Inspection) -> None:
    """A zero-shot classifier has all its weights and a label for entailment."""
    labels = list(read_json(inspection.folder / "config.json").get("label2id") or {})
    if not any(label.lower().startswith("entail") for label in labels):
        known_labels = ", ".join(labels) or "none"
        inspection.add(
            f"has the labels {known_labels}; a zero-shot classifier is a model of natural-language inference and has one that begins with "
            "entail"
        )
    _check_tokenizer(inspection)
    _check_weights(inspection, "transformers:AutoModelForSequenceClassification")


def _check_embedder(inspection: Inspection) -> None:
    """A sentence-embedding model has all the weights that its embeddings depend on."""
    from eva_stages.creator.diversity import embedder_faults, transformer_folder

    for fault in embedder_faults(inspection.folder, inspection.note):
        inspection.add(fault)
    inspection.folder = transformer_folder(inspection.folder)
    _check_tokenizer(inspection)


def _check_causal(inspection: Inspection, generator: TransformersGenerator | VLLMGenerator, place: str) -> None:
    _check_tokenizer(inspection)
    _check_template(inspection)
    _check_weights(inspection, "transformers:AutoModelForCausalLM")
    if isinstance(generator, VLLMGenerator):
        _check_length(inspection, f"{place}.max_model_len", generator.max_model_len)
        adapter = None if generator.lora is None else Path(generator.lora).expanduser()
        if adapter is not None and adapter.is_dir() and not (adapter / "adapter_config.json").is_file():
            inspection.faults.append(f"{place}.lora: {generator.lora} has no adapter_config.json; give the folder of a LoRA adapter")


def _check_weights(inspection: Inspection, kind: str) -> None:
    """The packaged base policy is left out: it is known, and model libraries take seconds to import."""
    if inspection.model in PACKAGED_POLICIES:
        return
    for fault in weight_faults(load_attribute(kind), inspection.folder, inspection.note):
        inspection.add(fault if fault.startswith(("has ", "is ")) else f"cannot be used: {fault}")


def _check_template(inspection: Inspection) -> None:
    settings = read_json(inspection.folder / "tokenizer_config.json")
    if not (inspection.folder / "chat_template.jinja").is_file() and not settings.get("chat_template"):
        inspection.add(
            "has no chat template, so prompts and responses cannot be separated; use an instruction-tuned model, or add a "
            "chat_template.jinja beside its tokenizer"
        )


def _check_labels(inspection: Inspection) -> None:
    config = read_json(inspection.folder / "config.json")
    labels = len(config["id2label"]) if config.get("id2label") else config.get("num_labels", 2)
    if labels != 1:
        inspection.add(
            f"has {labels} labels, and a sequence_classifier reward has one; take a reward model that was trained on preferences"
        )


def _check_tokenizer(inspection: Inspection) -> None:
    """The tokenizer can be loaded, has something to pad with, and every token has an embedding."""
    folder = inspection.folder
    settings = read_json(folder / "special_tokens_map.json") | read_json(folder / "tokenizer_config.json")
    if not (folder / "tokenizer.json").is_file() or not (settings.get("pad_token") or settings.get("eos_token")):
        _loaded_tokenizer(inspection)
    tokens, rows = token_count(folder), vocabulary_size(folder)
    if tokens and rows and tokens > rows:
        inspection.add(
            f"has a tokenizer of {tokens} tokens and embeddings for {rows}; put the tokenizer there that the model was trained with"
        )


def _check_letters(inspection: Inspection) -> None:
    from eva_stages.models.pairwise import letter_ids

    if tokenizer := _loaded_tokenizer(inspection):
        try:
            letter_ids(tokenizer, inspection.model)
        except DataError as error:
            inspection.faults.append(f"{inspection.place}: {error}")


def _loaded_tokenizer(inspection: Inspection) -> Any:
    """The tokenizer; None, and an error, if it cannot be loaded."""
    try:
        return load_tokenizer(str(inspection.folder))
    except DataError as error:
        inspection.faults.append(f"{inspection.place}: {error}")
        return None


def token_count(folder: Path) -> int:
    """One more than the highest token id that a text can have; 0 if the files do not contain it.

    The text models of multimodal families keep the placeholders of pictures, and have no embeddings for them (Gemma 3 1B).
    """
    content = read_json(folder / "tokenizer.json")
    vocabulary = content.get("model", {}).get("vocab", {})
    token_ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else [len(vocabulary) - 1]
    added_ids = [
        token["id"] for token in content.get("added_tokens", []) if not (token.get("special") and PLACEHOLDER.search(token["content"]))
    ]
    return max([*token_ids, *added_ids], default=-1) + 1


def _check_length(inspection: Inspection, place: str, length: int | None) -> None:
    """A length that the recipe gives is within the model's positions."""
    limit = position_count(inspection.folder)
    if length is not None and limit is not None and length > limit:
        inspection.faults.append(f"{place}: takes {length} positions, and {inspection.model} has {limit}; lower it or leave it out")
