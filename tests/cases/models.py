"""Complete tiny models of every kind that eva loads, models of other architectures, and ways to damage them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    MambaConfig,
    MambaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError
from eva_stages.core.recipe_files import load_recipe
from eva_stages.models.reward_models import SequenceClassifierReward
from eva_stages.models.rewards import Conversation
from eva_stages.solver.job import TrainingJob
from tests.building import check
from tests.conftest import TINY
from tests.solver.jobs import job
from tests.tiny_models import (
    save_armorm,
    save_classifier,
    save_embedder,
    save_pairrm,
    save_policy,
    save_reward,
    tokenizer,
)

WORDS = tokenizer(["A B the sea is wide and blue and green", "write a poem about the sea"])
SIZES = {"vocab_size": len(WORDS), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": WORDS.pad_token_id}
PROMPT = [{"role": "user", "content": "write a poem about the sea"}]
Damage = Callable[[Path], object]


def save_models(folder: Path) -> Path:
    """Save a complete model of every kind that eva loads; `copy_damaged` makes damaged ones of them."""
    kinds: dict[str, Callable[[Path, PreTrainedTokenizerFast], None]] = {
        "policy": save_policy,
        "reward": save_reward,
        "armorm": save_armorm,
        "embedder": save_embedder,
        "classifier": save_classifier,
    }
    for name, save in kinds.items():
        save(folder / name, WORDS)
    save_pairrm(folder / "pairrm", tokenizer(["the sea"]))
    return folder


def save_model(folder: Path, model: Any, words: PreTrainedTokenizerFast = WORDS) -> Path:
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def copy_damaged(source: Path, folder: Path, damage: Damage) -> Path:
    shutil.copytree(source, folder)
    damage(folder)
    return folder


def rename_weights(change: Callable[[str], str | None]) -> Damage:
    """Rename every weight by `change`; a weight whose new name is None is dropped."""

    def damage(folder: Path) -> None:
        weights = {change(name): value for name, value in load_file(folder / "model.safetensors").items()}
        save_file({name: value for name, value in weights.items() if name}, folder / "model.safetensors", {"format": "pt"})

    return damage


def drop_weights(*names: str) -> Damage:
    return rename_weights(lambda name: None if name in names else name)


def change_config(**settings: Any) -> Damage:
    """Change settings of the configuration; None removes a setting."""

    def damage(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text()) | settings
        (folder / "config.json").write_text(json.dumps({name: value for name, value in content.items() if value is not None}))

    return damage


def cut(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-100])


def claim_missing_shard(folder: Path) -> None:
    """Write an index of three weight files, one of which is missing."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00003.safetensors")
    parts = {"a": "model-00001-of-00003.safetensors", "b": "model-00002-of-00003.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": parts}))


def recipe(**settings: Any) -> Recipe:
    fields = {name.replace("__", "."): value for name, value in settings.items()}
    return load_recipe("quickstart", [f"{name}={json.dumps(value)}" for name, value in (TINY | fields).items()])


def assert_refused(*says: str, **settings: Any) -> str:
    with pytest.raises(ConfigError) as error:
        check(recipe(**settings), keys=False)
    message = str(error.value)
    assert all(word in message for word in says), message
    return message


def reward(kind: str, model: Path, **settings: Any) -> dict[str, Any]:
    return {"kind": kind, "model": str(model), **settings}


def training(folder: str) -> TrainingJob:
    return job(Path(f"{folder}-work"), {"policy": folder, "reference": folder}, "dpo")


def scores_of(model: SequenceClassifierReward, *texts: str) -> list[Any]:
    model.load()
    return model.score([Conversation(PROMPT, text) for text in texts or ("blue", "green and wide")])


def gpt2(positions: int) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": positions, "initializer_range": 0.3}
    ends = {"eos_token_id": WORDS.eos_token_id, "bos_token_id": None, "pad_token_id": WORDS.pad_token_id}
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), **sizes, **ends))


def opt(positions: int) -> OPTForCausalLM:
    torch.manual_seed(0)
    sizes = {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": positions, "init_std": 0.3}
    ends = {"eos_token_id": WORDS.eos_token_id, "bos_token_id": None}
    return OPTForCausalLM(OPTConfig(**SIZES, **sizes, **ends))


def bloom() -> BloomForCausalLM:
    torch.manual_seed(0)
    ends = {"eos_token_id": WORDS.eos_token_id, "bos_token_id": None, "pad_token_id": WORDS.pad_token_id}
    return BloomForCausalLM(BloomConfig(vocab_size=len(WORDS), hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3, **ends))


def mamba() -> MambaForCausalLM:
    torch.manual_seed(0)
    return MambaForCausalLM(MambaConfig(**SIZES, state_size=4, eos_token_id=WORDS.eos_token_id, bos_token_id=None, initializer_range=0.3))


def gemma3() -> Gemma3ForConditionalGeneration:
    torch.manual_seed(0)
    text = {**SIZES, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 64, "max_position_embeddings": 128}
    text |= {"eos_token_id": WORDS.eos_token_id, "bos_token_id": None}
    sight = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    return Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=sight, mm_tokens_per_image=4, eos_token_id=WORDS.eos_token_id)
    )


FAMILIES: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: gpt2(64),
    "opt": lambda: opt(64),
    "bloom": bloom,
    "mamba": mamba,
    "gemma3": gemma3,
}
