"""Replies of real evolvers: which part is the prompt."""

import pytest

from eva_stages.creator.rejecting import read_evolution, rejection

PROMPT = "Why do leaves change colour in autumn?\nName exactly three reasons."


@pytest.mark.parametrize(
    "reply",
    [
        PROMPT,
        f"#Rewritten Prompt#:\n{PROMPT}",
        f"**#Rewritten Prompt#:**\n\n{PROMPT}",
        f"**#Rewritten Prompt#**:\n{PROMPT}",
        f"## #Rewritten Prompt#\n\n{PROMPT}\n",
        f"#The Given Prompt#:\nWhy do leaves change colour?\n\n#Rewritten Prompt#:\n{PROMPT}",
        f'"{PROMPT}"',
        f"#Created Prompt#: \u201c{PROMPT}\u201d",
    ],
)
def test_text_that_an_evolver_puts_around_its_prompt_is_removed(reply: str) -> None:
    assert read_evolution(reply) == PROMPT


@pytest.mark.parametrize(
    "reply",
    ['Compare "hot" and "warm"', '"Hot" is a word; is "warm" one?', "Explain **bold** text.", "# Title\nWrite an essay under this title."],
)
def test_marks_within_a_prompt_stay(reply: str) -> None:
    assert read_evolution(reply) == reply


def test_words_about_the_given_prompt_are_rejected_as_a_leak() -> None:
    reply = "Rewrite #The Given Prompt# so that it asks for three reasons."
    assert rejection(read_evolution(reply), "Why?", "stop", 4000) == "template_leak"
