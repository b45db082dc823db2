"""Lettercraft's exact model, as a generator: it evolves and scores instructions, and gives, judges and rewrites responses.

It reads the prompts that a large model would get (distilabel's evolve templates, a benchmark's judge prompt) and replies in the
same formats, so callers treat it like any other model. Like a real evolver, it sometimes returns an unusable evolution, which the
creator must reject.
"""

import json
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np

from eva_stages.core.generating import GeneratorOutput, SeededLLM, generator_output
from eva_stages.core.rows import Message
from eva_stages.lettercraft.language import grade, parse
from eva_stages.lettercraft.mutations import MUTATIONS, Mutation, classic_mutation, erroneous, with_reference

UNUSABLE = 0.03
REFERENCE = '"reference"'
"""In an evolve prompt that requests a reply in JSON, with a reference."""
_JUDGE_PROMPT = re.compile(
    r"<\|User Prompt\|>\n(?P<prompt>.*?)\n\n<\|The Start of Assistant A's Answer\|>\n(?P<a>.*?)\n<\|The End of Assistant A's Answer\|>"
    r"\n\n<\|The Start of Assistant B's Answer\|>\n(?P<b>.*)\n<\|The End of Assistant B's Answer\|>",
    re.DOTALL,
)
_SCORE_PROMPT = re.compile(r"<\|The Start of the Prompt\|>\n(.*)\n<\|The End of the Prompt\|>", re.DOTALL)


_REWRITE_PROMPT = re.compile(
    r"#The Conversation#:\n.*user: (?P<prompt>[^\n]*)\n#The Given Response#:\n.*\n#Rewritten Response#:", re.DOTALL
)


class LettercraftLLM(SeededLLM):
    """Evolver, judge, rewriter and oracle of Lettercraft.

    Attributes:
        mutations: the table of mutations, a name in `MUTATIONS`.
        errors: share of evolutions that are errors (`mutations.erroneous`).
    """

    mutations: Literal["classic", "deep"] = "classic"
    errors: float = 0.0

    @property
    def model_name(self) -> str:
        return "lettercraft"

    def generate(self, inputs: list[list[Message]], num_generations: int = 1, seeds: Sequence[int] | None = None) -> list[GeneratorOutput]:
        streams: Sequence[int | None] = seeds if seeds is not None else [None] * len(inputs)
        return [self._generate_one(messages[-1]["content"], num_generations, seed) for messages, seed in zip(inputs, streams, strict=True)]

    def _generate_one(self, text: str, n: int, seed: int | None) -> GeneratorOutput:
        streams = [np.random.default_rng(None if seed is None else [seed, k]) for k in range(n)]
        replies = [reply(text, rng, MUTATIONS[self.mutations], self.errors) for rng in streams]
        return generator_output(replies, ["stop"] * n, len(text.split()), [len(answer.split()) for answer in replies])


def reply(text: str, rng: np.random.Generator, mutate: Mutation = classic_mutation, errors: float = 0.0) -> str:
    """The reply to a judge prompt, a scorer's prompt, a rewrite prompt, an evolve prompt or an instruction."""
    if judge_prompt := _JUDGE_PROMPT.search(text):
        return judge(judge_prompt["prompt"], judge_prompt["a"], judge_prompt["b"])
    if score_prompt := _SCORE_PROMPT.search(text):
        return score(score_prompt[1])
    if rewrite_prompt := _REWRITE_PROMPT.search(text):
        instruction = parse(rewrite_prompt["prompt"])
        return instruction.answer if instruction and rng.random() >= UNUSABLE else "I am sorry, but I cannot rewrite this."
    evolve_prompt = re.search(r"#(?:The )?Given Prompt#:\n(.*)\n#(?:Rewritten|Created) Prompt#:", text, re.DOTALL)
    if evolve_prompt is None:
        instruction = parse(text)
        return instruction.answer if instruction else "I do not understand the instruction."
    instruction = parse(evolve_prompt[1])
    if instruction is None or rng.random() < UNUSABLE:
        return "I am sorry, but I cannot rewrite this."
    is_error = errors > 0 and rng.random() < errors
    if REFERENCE in text:
        prompt, reference = with_reference(mutate(text, instruction, rng), is_error, rng)
        return json.dumps({"prompt": prompt, "reference": reference})
    return erroneous(instruction, rng) if is_error else str(mutate(text, instruction, rng))


def judge(prompt: str, answer_a: str, answer_b: str) -> str:
    """A pairwise verdict in the benchmarks' own words: [[A>>B]], [[A>B]], [[A=B]], [[B>A]] or [[B>>A]]."""
    instruction = parse(prompt)
    if instruction is None:
        return "The instruction cannot be read, so no verdict is possible."
    margin = grade(instruction, answer_a) - grade(instruction, answer_b)
    verdict = "A=B" if margin == 0 else ("A" if margin > 0 else "B") + (">>" if abs(margin) > 0.5 else ">") + ("B" if margin > 0 else "A")
    return f"The right answer is {instruction.answer}. My final verdict is: [[{verdict}]]"


def score(prompt: str) -> str:
    """A prompt's quality (5 if it can be answered, else 1) and complexity (operations, and one more for a long word; at most 5)."""
    instruction = parse(prompt)
    if instruction is None:
        return "Quality: 1\nComplexity: 1"
    complexity = min(5, len(instruction.operations) + (len(instruction.word) > 6))
    return f"Quality: {5 if instruction.answer else 1}\nComplexity: {complexity}"
