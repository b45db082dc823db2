"""Replies of real evolvers: what is the prompt in them, and what is not."""

import pytest

from eva_stages.creator.evolving import read_evolution
from eva_stages.creator.rejecting import rejection

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
def test_what_an_evolver_puts_around_its_prompt_is_no_part_of_it(reply: str) -> None:
    assert read_evolution(reply) == PROMPT


@pytest.mark.parametrize(
    "reply",
    ['Compare "hot" and "warm"', '"Hot" is a word; is "warm" one?', "Explain **bold** text.", "# Title\nWrite an essay under this title."],
)
def test_marks_within_a_prompt_stay(reply: str) -> None:
    assert read_evolution(reply) == reply


def test_words_about_the_given_prompt_are_still_a_leak() -> None:
    reply = "Rewrite #The Given Prompt# so that it asks for three reasons."
    assert rejection(read_evolution(reply), "Why?", "stop", 4000) == "template_leak"
