"""What is taken for no prompt: measured against real prompts, against real answers, and against what models say instead of a prompt."""

import gzip
import json
from collections import Counter

import pytest

from eva_stages.creator.rejecting import rejection
from tests.conftest import EVALDATA

SETS = {
    "prompts/koala_test_set.jsonl": "prompt",
    "prompts/self-instruct_user_oriented_instructions.jsonl": "instruction",
    "prompts/self-instruct_seed_tasks.jsonl": "instruction",
    "prompts/vicuna_bench_question.jsonl": "turns",
    "mtbench/question.jsonl": "turns",
    "arenahard/question_v0.1.jsonl": "turns",
    "arenahard/question_v2.0.jsonl.gz": "prompt",
    "verifiable/gsm8k_test.jsonl": "question",
    "verifiable/ifeval_input_data.jsonl": "prompt",
}


def rows(file: str) -> list[dict]:
    content = (EVALDATA / file).read_bytes()
    text = (gzip.decompress(content) if file.endswith(".gz") else content).decode()
    return [json.loads(line) for line in text.split("\n") if line]


def verdict_on(text: str, parent: str = "Name a bird.") -> str | None:
    return rejection(text.strip(), parent, "stop", 10**6)


@pytest.mark.parametrize(("file", "column"), SETS.items(), ids=list(SETS))
def test_fewer_than_1_percent_of_real_prompts_would_be_rejected(file: str, column: str) -> None:
    if not (EVALDATA / file).is_file():
        pytest.skip("the real human prompts (shared/evaldata beside the checkout) are not here")
    values = [row[column] for row in rows(file)]
    turns = [turn for value in values for turn in (value if isinstance(value, list) else [value])]
    texts = [turn["content"] if isinstance(turn, dict) else turn for turn in turns]
    rejected = [text for text in texts if verdict_on(text)]
    assert len(rejected) < 0.01 * len(texts), rejected


@pytest.mark.parametrize(
    "text",
    [
        "I can't figure out why my Python loop never ends. What should I look at?",
        "I cannot sleep at night; suggest a routine.",
        "Sorry, my English is bad. Correct this letter: Dear sir, ...",
        "I am unable to connect to my printer. Give me a checklist.",
        "As an AI engineer, I want to learn about attention. Where do I start?",
        "As a teacher, how can I explain fractions?",
        "Here is my essay. Mark every mistake in it.",
        "Here are two poems. Which of them scans better, and why?",
        "Okay, so what is the difference between TCP and UDP?",
        "This is a riddle: what walks on four legs in the morning?",
        "Write a refusal that begins with 'I'm sorry, but I can't'.",
        "Answer in one word: what colour is the sky?",
        "Rewrite the sentence so that it is polite: get out.",
    ],
)
def test_what_people_write_is_a_prompt(text: str) -> None:
    assert verdict_on(text) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("I'm sorry, but I can't assist with that.", "refusal"),
        ("I\u2019m sorry, but I can\u2019t help with that request.", "refusal"),
        ("I am really sorry, but I am not able to rewrite this.", "refusal"),
        ("Sorry, I cannot comply with this.", "refusal"),
        ("I apologize, but I cannot create that content.", "refusal"),
        ("Unfortunately, I can't rewrite prompts about this topic.", "refusal"),
        ("I cannot fulfill this request.", "refusal"),
        ("I won't engage with this topic.", "refusal"),
        ("I'm unable to provide a harder version.", "refusal"),
        ("As an AI language model, I do not have opinions.", "refusal"),
        ("As a large language model trained by a company, I cannot do this.", "refusal"),
        ("I'm just an AI, so that is beyond me.", "refusal"),
        ("I don't feel comfortable writing about this.", "refusal"),
        ("Sure! Here's a more complex version: name five birds.", "not_a_prompt"),
        ("Certainly! Name five birds.", "not_a_prompt"),
        ("Of course. Name five birds and their songs.", "not_a_prompt"),
        ("Absolutely, here is one: name five birds.", "not_a_prompt"),
        ("Okay, let me make it harder.\nName five birds.", "not_a_prompt"),
        ("Got it! I'll add a constraint. Name five birds.", "not_a_prompt"),
        ("Here is a rewritten version of the question:\n\nName five birds.", "not_a_prompt"),
        ("**Here's a more challenging version:**\nWhich five birds sing at night?", "not_a_prompt"),
        ("Here are five birds: robin, wren, owl, crow, jay.", "not_a_prompt"),
        ("Below is the revised instruction:\nName five birds.", "not_a_prompt"),
        ("Revised question: which birds sing at night?", "not_a_prompt"),
        ("The new prompt is: name five birds.", "not_a_prompt"),
        ("Answer: a robin.", "not_a_prompt"),
        ("I'd be happy to help! Name five birds.", "not_a_prompt"),
        ("That's a great question! A robin is a bird.", "not_a_prompt"),
        ("<think>The user wants a harder prompt.</think> Name five birds.", "not_a_prompt"),
        ("A robin is a small bird of the thrush family. I hope this helps!", "not_a_prompt"),
        ("Robins, wrens and owls. Let me know if you would like more.", "not_a_prompt"),
        ("1 2 3", "not_a_prompt"),
        ("#Rewritten Prompt# Name five birds.", "template_leak"),
        ("Make the given prompt harder: name five birds.", "template_leak"),
        ("Name five birds. #Best Response# robin", "template_leak"),
        ("I want you act as a Prompt Rewriter. Name five birds.", "template_leak"),
    ],
)
def test_what_models_say_instead_of_a_prompt(text: str, reason: str) -> None:
    assert verdict_on(text) == reason


def test_words_that_the_parent_has_are_held_against_nobody() -> None:
    parent = "Identify the bias in the given prompt: teachers cheer."
    assert verdict_on("Identify every bias in the given prompt: teachers and pupils cheer.", parent) is None
    assert verdict_on("Here is the code: x = 1. Explain it line by line.", "Here is the code: x = 1. Explain it.") is None
    assert verdict_on("Identify the bias in the #rewritten prompt#.", parent) == "template_leak"


def test_answers_that_open_as_assistants_do_are_found() -> None:
    """The ways of opening and closing are found; an answer that begins at once looks like any text, and passes."""
    file = "arenahard/model_answer/gpt-3.5-turbo-0125.jsonl.gz"
    if not (EVALDATA / file).is_file():
        pytest.skip("the recorded answers (shared/evaldata beside the checkout) are not here")
    answers = [row["choices"][0]["turns"][0]["content"] for row in rows(file)]
    openings = ("here is", "here are", "here's", "certainly", "sure", "i'm sorry", "as an ai")
    typical = [text for text in answers if text.lower().startswith(openings)]
    counts_by_reason = Counter(verdict_on(text) for text in typical)
    assert len(typical) > 100 and counts_by_reason[None] < 0.1 * len(typical), counts_by_reason
