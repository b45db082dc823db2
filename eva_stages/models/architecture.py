"""What a checkpoint's configuration says about its text model, whatever the architecture calls it and wherever it stands.

Multimodal checkpoints keep it under `text_config` or another name and often leave out what is their class's default, so what the file
does not say of them is read through `transformers`, which takes seconds to import.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from eva_stages.core.errors import DataError

POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
OFFSET_TYPES = ("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "mpnet", "data2vec-text")
"""Architectures whose first position stands behind that of padding, so that as many positions less one hold no token."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no file.

    Raises:
        DataError: if it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); copy or download it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object; copy or download it again")
    return content


def first_line(error: BaseException) -> str:
    """The first line of an error's message, as much as a message of ours has room for."""
    return next(iter(str(error).strip().splitlines()), "")[:300]


def text_setting(folder: Path, *names: str) -> Any:
    """The first of these settings that a checkpoint's text model has; None if it has none of them."""
    config = read_json(folder / "config.json")
    text_config = config.get("text_config")
    settings = {**config, **(text_config if isinstance(text_config, dict) else {})}
    composite = any(isinstance(part, dict) and "model_type" in part for part in config.values())
    if composite and not any(name in settings for name in names):
        from transformers import AutoConfig

        try:
            settings = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config().to_dict()
        except Exception as error:  # a configuration may be wrong in any way
            raise DataError(f"{folder}: config.json cannot be read: {type(error).__name__}: {first_line(error)}") from error
    return next((settings[name] for name in names if settings.get(name) is not None), None)


def vocabulary_size(folder: Path) -> int | None:
    """Rows of a checkpoint's embeddings; None if it does not say."""
    size: int | None = text_setting(folder, "vocab_size")
    return size


def position_count(folder: Path) -> int | None:
    """Tokens that a checkpoint has positions for; None if any number will do (Mamba, Bloom, relative positions)."""
    count: int | None = text_setting(folder, *POSITIONS)
    config = read_json(folder / "config.json")
    if count is None or config.get("position_biased_input") is False:
        return None
    if config.get("model_type") in OFFSET_TYPES:
        return count - int(config.get("pad_token_id", 1)) - 1
    return count


def runs_past_positions(folder: Path) -> bool:
    """Whether a model computes positions beyond its last one too, of whatever use: rotary ones do, learned ones end in an index error."""
    return position_count(folder) is None or text_setting(folder, "rope_parameters", "rope_theta") is not None


def attention_code(folder: Path, choice: str | None = None) -> str | None:
    """The attention code to load a checkpoint with: what the recipe wants, else eager where attention scores are soft-capped (Gemma 2),
    which the model's own choice leaves out, else sdpa where the configuration asks for a package that is not installed; None leaves it to
    the model.
    """
    if choice:
        return choice
    if text_setting(folder, "attn_logit_softcapping") is not None:
        return "eager"
    model_choice = str(text_setting(folder, "_attn_implementation", "attn_implementation"))
    return "sdpa" if model_choice.startswith("flash_attention") and find_spec("flash_attn") is None else None
