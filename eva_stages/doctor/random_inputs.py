"""Random inputs of stages, for `eva doctor --deep` and the benchmarks: models, prompts, pairs. Built on the spot, downloaded from nowhere.

Lengths are log-normal, as those of real prompts are; responses end at random because one token in `ANSWER_TOKENS` ends them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from eva_stages.core.config.engine_config import Engine
from eva_stages.core.progress import Reporter
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import LOCAL, execute
from eva_stages.core.stage import Outside, Stage
from eva_stages.core.tables import write_rows

VOCABULARY = 8192
ANSWER_TOKENS = 48
CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} <|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def words() -> list[str]:
    return [f"w{number}" for number in range(VOCABULARY - len(SPECIAL) - 1)]


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, "<|unknown|>", *words()])}
    word_tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<|unknown|>"))
    word_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=word_tokenizer, pad_token="<|pad|>", eos_token="<|end|>", unk_token="<|unknown|>")
    fast.add_special_tokens({"additional_special_tokens": SPECIAL[2:]})
    fast.chat_template = CHAT
    return fast


SHAPE = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 8}


def config(**settings: Any) -> LlamaConfig:
    """A Llama configuration, by default of `SHAPE`."""
    sizes = {"vocab_size": VOCABULARY, **SHAPE, "max_position_embeddings": 4096, "tie_word_embeddings": True}
    return LlamaConfig(**{**sizes, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": 1, **settings})


def save_policy(folder: Path, dtype: torch.dtype = torch.float32, **settings: Any) -> None:
    """A random policy."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(config(**settings)).to(dtype)
    model.generation_config.eos_token_id = [1, *range(100, VOCABULARY, ANSWER_TOKENS)]
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def save_reward(folder: Path, dtype: torch.dtype = torch.float32, **settings: Any) -> None:
    """A random reward model."""
    torch.manual_seed(1)
    LlamaForSequenceClassification(config(num_labels=1, **settings)).to(dtype).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def texts(count: int, median: float, seed: int, longest: int = 1024, spread: float = 0.8) -> list[str]:
    """`count` texts of log-normal length in tokens."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.lognormal(np.log(median), spread, count).astype(int), 4, longest)
    vocabulary = np.array(words())
    return [" ".join(vocabulary[rng.integers(len(vocabulary), size=length)]) for length in lengths]


def prompts(count: int, median: float = 60, seed: int = 0, longest: int = 1024, spread: float = 0.8) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts(count, median, seed, longest, spread)]


def pair_rows(count: int, medians: tuple[int, int], longest: int) -> list[dict[str, Any]]:
    """Rows of random pairs; `medians`: tokens of prompts and of responses."""
    sides = [texts(count, medians[seed > 0], seed, longest) for seed in range(3)]
    return [
        {
            "prompt_id": str(number),
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
            "chosen_reward": 1.0,
            "rejected_reward": 0.0,
            "chosen_win_probability": 0.8,
            "rejected_win_probability": 0.3,
        }
        for number, (prompt, chosen, rejected) in enumerate(zip(*sides, strict=True))
    ]


def run_stage(stage: Stage, folder: Path, engine: Engine = LOCAL) -> dict[str, Any]:
    """Run one stage in a new run, as `eva run` does; returns its manifest."""
    run = Run(folder)
    run.create()
    with run.lock():
        execute(run, [stage], Reporter(), engine)
    return run.manifest(stage)


def write_source(rows: list[dict[str, Any]], schema: str, folder: Path) -> Outside:
    """Rows as an input of a stage."""
    write_rows([pa.Table.from_pylist(rows, schema=SCHEMAS[schema])], SCHEMAS[schema], folder)
    return Outside(folder.name, folder, folder.name)
