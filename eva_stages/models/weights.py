"""Strict loading of checkpoints: every weight of the model must be in the file with the right shape.

`transformers` initialises missing weights randomly; here they are an error. `load_strictly` reads the weights; `weight_faults` runs the
same loading, including the renaming of old names, on the headers of the safetensors files with a model without data, which takes a
second for any size.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eva_stages.core.errors import DataError
from eva_stages.core.patches import set_attention
from eva_stages.models.architecture import attention_code, first_line, read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter"
"""Folder within a checkpoint: the LoRA adapter that is merged into its weights."""
MOST_NAMES = 4
"""Number of names in a message."""
COPY_AGAIN = "the file is cut off or damaged; copy or download it again"


def load_strictly(kind: Any, folder: str | Path, attention: str | None = None, **settings: Any) -> Any:
    """`kind.from_pretrained(folder)`, with all weights.

    Args:
        kind: an auto class of `transformers`, or a model class.
        attention: attention implementation, see `attention_code`.
        settings: further arguments of `from_pretrained`.

    Raises:
        DataError: names the weights that are missing or have another shape.
    """
    from transformers import AutoConfig, GenerationConfig

    try:
        header_shapes(Path(folder))
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error
    if code := attention_code(Path(folder), attention):
        settings["attn_implementation"] = code
        settings["config"] = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        set_attention(settings["config"], code)
    # the checkpoint's own sampling settings count for nothing, and some of them cannot even be read
    common = {"use_safetensors": True, "trust_remote_code": False, "generation_config": GenerationConfig()}
    model, info = kind.from_pretrained(folder, **common, **settings, output_loading_info=True, ignore_mismatched_sizes=True)
    if fault := _fault(model, info):
        raise DataError(f"{folder}: {fault}")
    if unused_names := _unused_sentence(info):
        print(f"{folder} {unused_names}", flush=True)
    return model


def weight_faults(kind: Any, folder: Path, report_unused: Callable[[str], object] | None = None, optional: str | None = None) -> list[str]:
    """Why loading this checkpoint as `kind` would fail, without reading its weights; empty if it would succeed.

    Args:
        report_unused: called with a sentence about weights that the model does not use, if there are any.
        optional: weights whose names begin with this prefix may be missing, because they are unused.
    """
    from transformers import AutoConfig

    try:
        shapes = header_shapes(folder)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        set_attention(config, "eager")  # nothing is computed, so the configured package need not be installed
        if getattr(config, "quantization_config", None):
            return []  # packed weights are compared when they are loaded
        model, info = _load_headers(kind, config, shapes)
    except DataError as error:
        return [str(error)]
    except Exception as error:  # a configuration can be wrong in any way
        return [f"no model can be built from its config.json: {type(error).__name__}: {first_line(error)}"]
    if optional is not None:
        info["missing_keys"] = {name for name in info["missing_keys"] if not name.startswith(optional)}
    if report_unused is not None and (sentence := _unused_sentence(info)):
        report_unused(sentence)
    fault = _fault(model, info)
    return [fault] if fault else []


def check_weights(kind: Any, folder: Path) -> None:
    """Raises:
    DataError: if a library that loads this checkpoint as `kind` would initialise weights randomly.
    """
    if faults := weight_faults(kind, folder):
        raise DataError(f"{folder}: {faults[0]}")


def header_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a checkpoint's weights.

    Raises:
        DataError: if a file is missing or damaged.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="np") as stream:
                shapes |= {name: tuple(stream.get_slice(name).get_shape()) for name in stream.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError) as error:
            raise DataError(f"{path.name} cannot be read ({first_line(error)}); {COPY_AGAIN}") from error
    return shapes


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a checkpoint's weights, as `transformers` finds them.

    Raises:
        DataError: if there are none, one that the index names is missing, or the folder holds an adapter.
    """
    if (folder / "adapter_config.json").is_file():
        raise DataError(
            "is a LoRA adapter (adapter_config.json), not a complete model; merge it first: "
            "PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(other_folder)"
        )
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        names = ", ".join(sorted(path.name for path in folder.glob("*.safetensors"))[:MOST_NAMES])
        raise DataError(f"has {names or 'no *.safetensors'}, but neither {WEIGHTS} nor {INDEX}; save it with save_pretrained")
    try:
        files = sorted(set(read_json(folder / INDEX)["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{INDEX} cannot be read ({type(error).__name__}); {COPY_AGAIN}") from error
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise DataError(f"{INDEX} names {_name_list(missing)}, which {'is' if len(missing) == 1 else 'are'} missing; download it again")
    return [folder / name for name in files]


def _load_headers(kind: Any, config: Any, shapes: dict[str, tuple[int, ...]]) -> tuple[Any, dict[str, Any]]:
    """The model and loading report of `from_pretrained` for weights of these names and shapes, on the meta device."""
    import torch

    with _quietly(), torch.device("meta"):
        model_class = type(kind.from_config(config, trust_remote_code=False)) if hasattr(kind, "from_config") else kind
        weights = {name: torch.empty(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}
        model, info = model_class.from_pretrained(
            None, config=config, state_dict=weights, device_map={"": "meta"}, output_loading_info=True, ignore_mismatched_sizes=True
        )
    return model, info


def _fault(model: Any, info: dict[str, Any]) -> str | None:
    """The error in a loading report; None if there is none."""
    missing_keys, mismatched_keys = sorted(info["missing_keys"]), sorted(info["mismatched_keys"])
    if not missing_keys and not mismatched_keys:
        return None
    total = len(model.state_dict())
    sentences = []
    if missing_keys:
        sentences.append(f"{len(missing_keys)} of the {total} weights of a {type(model).__name__} are missing: {_name_list(missing_keys)}")
    if mismatched_keys:
        shapes = [f"{name} is {list(stored_shape)}, expected {list(model_shape)}" for name, stored_shape, model_shape in mismatched_keys]
        sentences.append(
            f"{len(mismatched_keys)} of the {total} weights of a {type(model).__name__} have another shape: {_name_list(shapes)}"
        )
    if info["unexpected_keys"]:
        sentences.append(f"the checkpoint has {_name_list(sorted(info['unexpected_keys']))} instead")
    return "; ".join(sentences) + ". They would be initialised randomly; use a checkpoint of this kind of model, or rename its weights"


def _unused_sentence(info: dict[str, Any]) -> str | None:
    names = sorted(info["unexpected_keys"])
    return f"has {len(names)} weights that are not used: {_name_list(names)}" if names else None


def _name_list(names: list[str]) -> str:
    rest = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the loading report and progress bar of `transformers`; `_fault` reports the errors."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
