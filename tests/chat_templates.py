"""Small chat templates that behave as those of well-known families do, and tokenizers for them."""

from collections.abc import Iterable
from typing import NamedTuple

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

ANSWER = "{% set text = message['content'] %}"
STRIP_THOUGHT = "{% if '</think>' in text %}{% set text = text.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
ALTERNATION = (
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% endfor %}"
)


class Family(NamedTuple):
    template: str
    tokens: tuple[str, ...]
    """Special tokens besides padding."""
    eos: str
    """The tokenizer's."""
    end: str
    """The text with which the template ends a turn of the assistant."""
    bos: str | None = None
    opens_thought: bool = False
    """Whether the generation prompt opens the reasoning block."""
    alternates: bool = False


def chatml(default_system: str) -> str:
    return (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n" + default_system + "<|im_end|>\n{% endif %}"
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


FAMILIES = {
    "gemma-2": Family(
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + ALTERNATION
        + "{% for message in messages %}<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
        "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        "<eos>",
        "<end_of_turn>",
        bos="<bos>",
        alternates=True,
    ),
    "llama-3": Family(
        "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
        "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|end_of_text|>",
        "<|eot_id|>",
        bos="<|begin_of_text|>",
    ),
    "llama-3.2": Family(
        "{{ bos_token }}{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}{% set messages = messages[1:] %}"
        "{% else %}{% set system = '' %}{% endif %}<|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: {{ date_string }}\n\n{{ system }}<|eot_id|>"
        "{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
        "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        "<|eot_id|>",
        bos="<|begin_of_text|>",
    ),
    "qwen-2.5": Family(
        chatml("You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
        ("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
        "<|im_end|>",
        "<|im_end|>",
    ),
    "qwen-3": Family(
        "{% for message in messages %}{% if message['role'] != 'assistant' %}"
        "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% else %}"
        + ANSWER
        + STRIP_THOUGHT
        + "<|im_start|>assistant\n"
        "{% if loop.last %}<think>\n{{ message['content'].split('</think>')[0].split('<think>')[-1].strip() if '</think>' in "
        "message['content'] else '' }}\n</think>\n\n{% endif %}{{ text }}<|im_end|>\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>"),
        "<|im_end|>",
        "<|im_end|>",
    ),
    "mistral": Family(
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}{% set messages = messages[1:] %}"
        "{% endif %}" + ALTERNATION + "{% for message in messages %}{% if message['role'] == 'user' %}[INST] "
        "{% if system is defined and loop.last %}{{ system }}\n\n{% endif %}{{ message['content'] }} [/INST]"
        "{% else %} {{ message['content'] | trim }}</s>{% endif %}{% endfor %}",
        ("<s>", "</s>", "[INST]", "[/INST]"),
        "</s>",
        "</s>",
        bos="<s>",
        alternates=True,
    ),
    "r1-distill": Family(
        "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] }}"
        "{% elif message['role'] == 'user' %}<|User|>{{ message['content'] }}{% else %}"
        + ANSWER
        + STRIP_THOUGHT
        + "<|Assistant|>{{ text }}<|end_of_sentence|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}",
        ("<|begin_of_sentence|>", "<|end_of_sentence|>", "<|User|>", "<|Assistant|>", "<think>", "</think>"),
        "<|end_of_sentence|>",
        "<|end_of_sentence|>",
        bos="<|begin_of_sentence|>",
        opens_thought=True,
    ),
    "phi": Family(
        "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}",
        ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "<|endoftext|>",
        "<|end|>",
    ),
    "smollm2": Family(
        chatml("You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        "<|im_end|>",
        "<|im_end|>",
    ),
}


def family_tokenizer(family: Family, texts: Iterable[str] = ()) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with the special tokens and the template of a family."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|pad|>", *family.tokens]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet))
    bos = {"bos_token": family.bos} if family.bos else {}
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<|pad|>", eos_token=family.eos, **bos)
    fast.chat_template = family.template
    return fast
