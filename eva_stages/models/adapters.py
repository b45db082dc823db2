"""LoRA adapters on a loaded model."""

from pathlib import Path
from typing import Any


def with_adapter(model: Any, folder: str | Path, is_trainable: bool = False) -> Any:
    """The model with the adapter of a folder, as peft's model; its `merge_and_unload` gives the model with other weights."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder, is_trainable=is_trainable)
