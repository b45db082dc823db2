"""Tiny models of real architectures with random weights and a newly trained tokenizer, saved to disk like real models."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DebertaV2Config,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
)

from eva_stages.models.armorm import ASSISTANT_HEADER, ArmoRM
from eva_stages.models.pairrm import DebertaRanker

CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of 500 tokens with a chat template."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet))
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|end|>")
    fast.chat_template = CHAT
    return fast


def config(words: PreTrainedTokenizerFast, **settings: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        bos_token_id=None,
        initializer_range=0.3,
        **settings,
    )


def save_policy(folder: Path, words: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    LlamaForCausalLM(config(words)).save_pretrained(folder)
    words.save_pretrained(folder)


def save_reward(folder: Path, words: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(1)
    settings = config(words, num_labels=1)
    settings.max_position_embeddings = 4096
    LlamaForSequenceClassification(settings).save_pretrained(folder)
    words.save_pretrained(folder)


def save_gemma2(folder: Path, words: PreTrainedTokenizerFast, positions: int = 1024) -> None:
    """A tiny Gemma2, whose chat template rejects the system role."""
    torch.manual_seed(2)
    settings = {name: value for name, value in config(words).to_dict().items() if name not in ("model_type", "architectures")}
    sizes = {name: settings[name] for name in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "eos_token_id")}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": positions, "sliding_window": 64}
    Gemma2ForCausalLM(Gemma2Config(**sizes, **heads, pad_token_id=words.pad_token_id, bos_token_id=None)).save_pretrained(folder)
    words.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHAT
    words.save_pretrained(folder)
    words.chat_template = CHAT


def save_recurrent_gemma(folder: Path, words: PreTrainedTokenizerFast) -> None:
    """A tiny model whose layers, and not its cache, keep the states of the tokens so far."""
    torch.manual_seed(4)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "lru_width": 32}
    ids = {"vocab_size": len(words), "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id, "bos_token_id": None}
    RecurrentGemmaForCausalLM(RecurrentGemmaConfig(**sizes, **ids, attention_window_size=64)).save_pretrained(folder)
    words.save_pretrained(folder)


def save_pairrm(folder: Path, words: PreTrainedTokenizerFast) -> None:
    """A tiny DeBERTa ranker with PairRM's markers."""
    torch.manual_seed(3)
    words.add_special_tokens({"additional_special_tokens": ["<|source|>", "<|candidate1|>", "<|candidate2|>"]})
    source, first, second = words.convert_tokens_to_ids(["<|source|>", "<|candidate1|>", "<|candidate2|>"])
    settings = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "max_position_embeddings": 2048, "initializer_range": 0.5}
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    markers = {"source_prefix_id": source, "cand1_prefix_id": first, "cand2_prefix_id": second, "n_tasks": 1, "drop_out": 0.05}
    model_config = DebertaV2Config(vocab_size=len(words), pad_token_id=words.pad_token_id, **sizes, **settings, **markers)
    DebertaRanker(model_config).save_pretrained(folder)
    words.save_pretrained(folder)


def save_embedder(folder: Path, words: PreTrainedTokenizerFast) -> None:
    """A tiny sentence-embedding model: BERT and mean pooling."""
    torch.manual_seed(5)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    BertModel(BertConfig(vocab_size=len(words), pad_token_id=words.pad_token_id, max_position_embeddings=512, **sizes)).save_pretrained(
        folder
    )
    words.save_pretrained(folder)


def save_classifier(folder: Path, words: PreTrainedTokenizerFast) -> None:
    """A tiny model of natural-language inference: BERT with the three labels that zero-shot classification uses."""
    torch.manual_seed(6)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.3}
    labels = {"contradiction": 0, "neutral": 1, "entailment": 2}
    model_config = BertConfig(
        vocab_size=len(words),
        pad_token_id=words.pad_token_id,
        max_position_embeddings=128,
        label2id=labels,
        id2label={index: label for label, index in labels.items()},
        **sizes,
    )
    BertForSequenceClassification(model_config).save_pretrained(folder)
    words.save_pretrained(folder)


LLAMA3 = {"<|begin_of_text|>": 128000, "<|start_header_id|>": 128006, "<|end_header_id|>": 128007, "<|eot_id|>": 128009}
LLAMA3_CHAT = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n{{ message['content'] }}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def llama3_tokenizer(words: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokens of `words` and those of Llama 3's headers, at Llama 3's ids."""
    description = json.loads(words.backend_tokenizer.to_str())
    vocabulary = description["model"]["vocab"]
    next(vocabulary.update({name: 128255}) for name, place in list(vocabulary.items()) if place == 271)
    vocabulary |= {**LLAMA3, "assistant": 78191, "\n\n": 271}
    bpe = Tokenizer.from_str(json.dumps(description))
    bpe.add_special_tokens(list(LLAMA3))
    bpe.add_tokens(["assistant", "\n\n"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", pad_token=words.pad_token, chat_template=LLAMA3_CHAT
    )
    assert fast.encode("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n") == list(ASSISTANT_HEADER)
    return fast


def save_armorm(folder: Path, words: PreTrainedTokenizerFast) -> None:
    """A tiny ArmoRM with the published weight names and Llama 3's header tokens."""
    torch.manual_seed(4)
    gate = {"gating_hidden_dim": 16, "gating_n_hidden": 2, "gating_temperature": 10}
    fast = llama3_tokenizer(words)
    model = ArmoRM(LlamaConfig(**{**config(words).to_dict(), "vocab_size": 128256, "num_labels": 19, **gate}))
    torch.nn.init.normal_(model.reward_transform_matrix)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
