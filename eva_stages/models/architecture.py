"""Settings of a checkpoint's text model, for every architecture.

Multimodal checkpoints nest them under `text_config` or another name and often omit their class's defaults; settings that the file does
not contain are read through `transformers`, which takes seconds to import.
"""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from eva_stages.core.errors import DataError

POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
OFFSET_TYPES = ("roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "camembert", "longformer", "mpnet", "data2vec-text")
"""Architectures whose positions start after the padding position, so that fewer positions than configured hold tokens."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if there is no file.

    Raises:
        DataError: if the file holds anything else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); copy or download it again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} does not contain a JSON object; copy or download it again")
    return content


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 300 characters."""
    return next(iter(str(error).strip().splitlines()), "")[:300]


def text_setting(folder: Path, *names: str) -> Any:
    """The first of these settings that a checkpoint's text model has; None without any."""
    config = read_json(folder / "config.json")
    text_config = config.get("text_config")
    settings = {**config, **(text_config if isinstance(text_config, dict) else {})}
    composite = any(isinstance(part, dict) and "model_type" in part for part in config.values())
    if composite and not any(name in settings for name in names):
        from transformers import AutoConfig

        try:
            settings = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config().to_dict()
        except Exception as error:  # a configuration can be wrong in any way
            raise DataError(f"{folder}: config.json cannot be read: {type(error).__name__}: {first_line(error)}") from error
    return next((settings[name] for name in names if settings.get(name) is not None), None)


def vocabulary_size(folder: Path) -> int | None:
    """Rows of a checkpoint's embeddings; None if not configured."""
    size: int | None = text_setting(folder, "vocab_size")
    return size


def position_count(folder: Path) -> int | None:
    """Number of tokens that a checkpoint has positions for; None = no limit (Mamba, Bloom, relative positions)."""
    count: int | None = text_setting(folder, *POSITIONS)
    config = read_json(folder / "config.json")
    if count is None or config.get("position_biased_input") is False:
        return None
    if config.get("model_type") in OFFSET_TYPES:
        return count - int(config.get("pad_token_id", 1)) - 1
    return count


def runs_past_positions(folder: Path) -> bool:
    """Whether a model can run beyond its last position (of whatever quality): rotary positions can, learned positions raise an error."""
    return position_count(folder) is None or text_setting(folder, "rope_parameters", "rope_theta") is not None


def attention_code(folder: Path, choice: str | None = None) -> str | None:
    """The attention implementation to load a checkpoint with; None leaves it to the model.

    `choice` comes first; then eager where attention scores are soft-capped (Gemma 2), which the model's default ignores; then sdpa where
    the configuration requires a package that is not installed.
    """
    if choice:
        return choice
    if text_setting(folder, "attn_logit_softcapping") is not None:
        return "eager"
    model_choice = str(text_setting(folder, "_attn_implementation", "attn_implementation"))
    return "sdpa" if model_choice.startswith("flash_attention") and find_spec("flash_attn") is None else None
