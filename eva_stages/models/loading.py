"""Where models come from and how their files are read: safetensors only, no remote code, errors before anything expensive."""

from importlib import resources
from pathlib import Path
from typing import Any

from eva_stages.core.devices import take_cores, take_devices
from eva_stages.core.errors import ConfigError, DataError, hub_failures
from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.placing import BALANCED_DEVICE
from eva_stages.core.resolved import Checkpoint
from eva_stages.models.architecture import first_line, read_json, text_setting
from eva_stages.models.conversation import template_source
from eva_stages.models.weights import load_strictly

LETTERCRAFT = "lettercraft"
PACKAGED_POLICIES = {LETTERCRAFT: "base_policy", "lettercraft-deep": "base_policy_deep", "lettercraft-deep-creator": "base_creator_deep"}
"""The models that eva ships, and their folders."""
NO_TOKENIZER = (
    "the folder has no tokenizer.json. Download it from the model's source, or install sentencepiece, load the tokenizer with "
    "AutoTokenizer.from_pretrained(folder) and save it with save_pretrained(folder)"
)
NO_END = (
    "the tokenizer has no eos_token or pad_token, and config.json has no special token for them, so responses cannot be ended or "
    "padded; add the tokens that the model was trained with to tokenizer_config.json"
)


def find_checkpoint(model: str, revision: str | None, place: str) -> Checkpoint:
    """A model given as `lettercraft`, `lettercraft-deep`, a checkpoint folder or a Hub id; the digest of the latter is its commit.

    Raises:
        ConfigError: as `locate`, or if its chat template cannot be read.
    """
    folder = locate(model, revision, place)
    try:
        template = template_source(folder)
    except (DataError, OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{place}: {error}"]) from error
    name = folder.name if is_local(model) else model
    return Checkpoint(name, folder, folder.name if from_hub(model) else tree_digest(folder), template)


def locate(model: str, revision: str | None, place: str) -> Path:
    """The folder of a model, without reading its weights.

    Args:
        model: `lettercraft`, `lettercraft-deep`, a checkpoint folder, or a Hub id.
        place: the recipe field, for errors.

    Raises:
        ConfigError: if it is not there, or is not a checkpoint in safetensors.
    """
    folder = _folder(model, revision, place)
    weights = list(folder.glob("*.safetensors"))
    if not weights and (gguf_files := sorted(folder.glob("*.gguf"))):
        conversion = f"pip install gguf && eva convert {gguf_files[0]} NEW_FOLDER"
        raise ConfigError([f"{place}: {model} has GGUF weights, and eva loads safetensors; convert it with: {conversion}"])
    if not (folder / "config.json").is_file():
        raise ConfigError([f"{place}: {model} has no config.json, so it is not a checkpoint"])
    try:
        read_json(folder / "config.json")
    except DataError as error:
        raise ConfigError([f"{place}: {error}"]) from error
    if not weights:
        raise ConfigError([f"{place}: {model} has no *.safetensors; eva does not load pickled weights. Convert them with save_pretrained"])
    return folder


def is_local(model: str) -> bool:
    """Whether a model is a folder of this machine."""
    return Path(model).expanduser().is_dir()


def from_hub(model: str) -> bool:
    """Whether a model is a Hub id; its files are in a folder named after their commit."""
    return model not in PACKAGED_POLICIES and not is_local(model)


def _folder(model: str, revision: str | None, place: str) -> Path:
    if model in PACKAGED_POLICIES:
        return Path(str(resources.files("eva_stages.lettercraft") / PACKAGED_POLICIES[model]))
    path = Path(model).expanduser()
    if path.is_dir():
        return path.resolve()
    nowhere = ConfigError([f"{place}: there is no checkpoint at {model}; give `lettercraft`, a folder, or a Hub id like org/name"])
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise nowhere
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        patterns = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "README.md"]
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except HFValidationError as error:  # a name that no Hub id may have
        raise nowhere from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ConfigError(
            [f"{place}: the Hub has no {model} at revision {revision or 'main'} (or it is gated and needs a token)"]
        ) from error
    except hub_failures() as error:
        reason = type(error).__name__
        raise ConfigError([f"{place}: {model} is not a local folder, and the Hub cannot be reached ({reason})"]) from error


def pick_device(device: str) -> str:
    """`auto` as cuda, mps or cpu. With several devices, `auto` and `cuda` are the next that no process of the stage has taken; the
    processor's cores are shared.
    """
    import torch

    if device in ("auto", "cuda"):
        take_devices(1)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if device == "cpu":
        take_cores()
    return device


def settled_dtype(dtype: str, device: str) -> str:
    """`auto` as float32 on CPU and bfloat16 elsewhere."""
    return ("float32" if device == "cpu" else "bfloat16") if dtype == "auto" else dtype


def load_model(kind: Any, folder: str, dtype: str, device: str) -> Any:
    """A model, ready for inference, with every weight from its checkpoint (`load_strictly`).

    Args:
        kind: the class whose `from_pretrained` loads it.
        dtype: see `settled_dtype`.
        device: auto, cpu, cuda, cuda:1, mps; `balanced` spreads the model over all visible devices, `balanced:2` over the next two.
    """
    if device.startswith(BALANCED_DEVICE):
        if count := device.removeprefix(BALANCED_DEVICE).removeprefix(":"):
            take_devices(int(count))
        return load_strictly(kind, folder, device_map="auto", dtype=settled_dtype(dtype, "cuda")).eval()
    place = pick_device(device)
    return load_strictly(kind, folder, dtype=settled_dtype(dtype, place)).to(place).eval()


def load_tokenizer(folder: str, **settings: Any) -> Any:
    """A model's tokenizer, with something to pad with.

    Raises:
        DataError: if its files cannot be read, or there is nothing to pad with.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **settings)
    except Exception as error:  # a missing package, a file of another format: there is no common class
        if not (Path(folder) / "tokenizer.json").is_file():
            raise DataError(f"{folder}: the tokenizer cannot be loaded; {NO_TOKENIZER}") from error
        raise DataError(f"{folder}: the tokenizer cannot be loaded: {type(error).__name__}: {first_line(error)}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or _configured_token(tokenizer, Path(folder))
    if tokenizer.pad_token_id is None:
        raise DataError(f"{folder}: {NO_END}")
    return tokenizer


def _configured_token(tokenizer: Any, folder: Path) -> str | None:
    """The token for padding, or else the end, that a checkpoint's config.json names by its id; None if it names none."""
    value = text_setting(folder, "pad_token_id", "eos_token_id")
    ids = value if isinstance(value, list) else [value]
    special_tokens = tokenizer.added_tokens_decoder
    return next((special_tokens[token].content for token in ids if token in special_tokens), None)
