"""Where models come from and how their files are read: safetensors only, no remote code, errors before anything expensive."""

from importlib import resources
from pathlib import Path
from typing import Any

from eva_stages.core.devices import take_cores, take_devices
from eva_stages.core.errors import ConfigError, hub_failures
from eva_stages.core.fingerprint import tree_digest
from eva_stages.core.placing import BALANCED
from eva_stages.core.stage import Outside

MICROWORLD = "microworld"


def resolve(model: str, revision: str | None, place: str, code: bool = False) -> Outside:
    """Find a model given as `microworld`, a checkpoint folder or a Hub id; the digest of the latter is its commit.

    Args:
        place: the recipe field it stands in, for errors.
        code: fetch the model's Python files too.

    Raises:
        ConfigError: if it is not there, or is no checkpoint in safetensors.
    """
    folder = _folder(model, revision, place, code)
    if not (folder / "config.json").is_file():
        raise ConfigError([f"{place}: {model} has no config.json, so it is no checkpoint"])
    if not list(folder.glob("*.safetensors")):
        raise ConfigError([f"{place}: {model} has no *.safetensors; eva loads no pickled weights. Convert it with save_pretrained"])
    return Outside(folder.name if is_local(model) else model, folder, folder.name if from_hub(model) else tree_digest(folder))


def is_local(model: str) -> bool:
    """Whether a model is a folder of this machine."""
    return Path(model).expanduser().is_dir()


def from_hub(model: str) -> bool:
    """Whether a model is a Hub id; its files lie in a folder that is named after their commit."""
    return model != MICROWORLD and not is_local(model)


def _folder(model: str, revision: str | None, place: str, code: bool) -> Path:
    if model == MICROWORLD:
        return Path(str(resources.files("eva_stages.microworld") / "base_policy"))
    path = Path(model).expanduser()
    if path.is_dir():
        return path.resolve()
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise ConfigError([f"{place}: there is no checkpoint at {model}; give `microworld`, a folder, or a Hub id like org/name"])
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        patterns = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "README.md", *(["*.py"] if code else [])]
        return Path(snapshot_download(model, revision=revision, allow_patterns=patterns))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ConfigError(
            [f"{place}: the Hub has no {model} at revision {revision or 'main'} (or it is gated and needs a token)"]
        ) from error
    except hub_failures() as error:
        reason = type(error).__name__
        raise ConfigError([f"{place}: {model} is no local folder and the Hub cannot be reached ({reason})"]) from error


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


def load_kwargs(dtype: str, device: str, trust_remote_code: bool = False) -> dict[str, Any]:
    """Arguments for `from_pretrained`: float32 on CPU unless the recipe says otherwise, bf16 where the device has it."""
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    return {"dtype": dtype, "use_safetensors": True, "trust_remote_code": trust_remote_code}


def load_model(kind: Any, folder: str, dtype: str, device: str, trust_remote_code: bool = False) -> Any:
    """A model of a `transformers` auto class, ready for inference.

    Args:
        kind: the class whose `from_pretrained` loads it.
        device: auto, cpu, cuda, cuda:1, mps; `balanced` spreads the model over all visible devices, `balanced:2` over the next two.
    """
    if device.startswith(BALANCED):
        if count := device.removeprefix(BALANCED).removeprefix(":"):
            take_devices(int(count))
        return kind.from_pretrained(folder, device_map="auto", **load_kwargs(dtype, "cuda", trust_remote_code)).eval()
    place = pick_device(device)
    return kind.from_pretrained(folder, **load_kwargs(dtype, place, trust_remote_code)).to(place).eval()


def load_tokenizer(folder: str, **settings: Any) -> Any:
    """A model's tokenizer, with something to pad with."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, **settings)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
