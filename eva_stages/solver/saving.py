"""From the weights that a trainer saves to the checkpoint of the next iteration: adapters merged and saved beside, in the input's dtype.

Training uses float32 weights. A bfloat16 model saved in float32 would be twice as large and compute in another arithmetic than before;
its generator would round off the lost bits anyway.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from eva_stages.core.config.solver_config import Adapter
from eva_stages.core.patches import write_canonical_config
from eva_stages.models.weights import ADAPTER, load_strictly

INDEX = "model.safetensors.index.json"


def weights_dtype(checkpoint: Path) -> torch.dtype:
    """The dtype in a checkpoint's config.json; float32 if it has none."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    return getattr(torch, config.get("dtype") or config.get("torch_dtype") or "float32")


def merge_adapter(base: Path, folder: Path) -> None:
    """Turn the adapter in `folder` into `base` with the adapter merged in float32; the adapter itself moves to `folder/adapter`."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = folder / ADAPTER
    adapter.mkdir()
    for path in folder.glob("adapter_*"):
        path.rename(adapter / path.name)
    clean_adapter(adapter)
    (folder / "README.md").unlink(missing_ok=True)
    model = load_strictly(AutoModelForCausalLM, base, dtype=torch.float32)
    merged_model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    merged_model.save_pretrained(folder)


def clean_adapter(folder: Path) -> None:
    """Make a saved adapter the same on every machine, without peft's empty model card, which has the base's path in it."""
    write_canonical_config(folder / "adapter_config.json")
    (folder / "README.md").unlink(missing_ok=True)


def lora_settings(adapter: Adapter) -> Any:
    """peft's configuration of an adapter."""
    from peft import LoraConfig

    sizes: dict[str, Any] = {"r": adapter.rank, "lora_alpha": adapter.alpha, "lora_dropout": adapter.dropout}
    return LoraConfig(**sizes, target_modules="all-linear", task_type="CAUSAL_LM", bias="none")


def write_new_adapter(base: str, adapter: dict[str, Any], folder: str) -> None:
    """Write an adapter that changes nothing about `base` yet. Meant for a child process."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    model = load_strictly(AutoModelForCausalLM, Path(base), dtype=torch.bfloat16)
    torch.manual_seed(0)
    get_peft_model(model, lora_settings(Adapter(**adapter))).save_pretrained(folder)
    clean_adapter(Path(folder))


def cast_weights(checkpoint: Path, dtype: torch.dtype) -> None:
    """Convert the floating-point weights of a saved checkpoint to `dtype`, one file at a time."""
    total = 0
    for path in sorted(checkpoint.glob("*.safetensors")):
        tensors = load_file(path)
        if any(tensor.is_floating_point() and tensor.dtype != dtype for tensor in tensors.values()):
            tensors = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
            partial = path.with_suffix(".partial")
            save_file(tensors, partial, metadata={"format": "pt"})
            partial.replace(path)
        total += sum(tensor.nbytes for tensor in tensors.values())
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    (checkpoint / "config.json").write_text(
        json.dumps({**config, "dtype": str(dtype).removeprefix("torch.")}, indent=2) + "\n", encoding="utf-8"
    )
    index = checkpoint / INDEX
    if index.is_file():
        content = json.loads(index.read_text(encoding="utf-8"))
        content["metadata"]["total_size"] = total
        index.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
