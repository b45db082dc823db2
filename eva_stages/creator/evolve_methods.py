"""The built-in evolve methods: each writes the request to the evolver for a prompt."""

import numpy as np
from distilabel.steps.tasks.evol_instruct.evol_complexity.utils import MUTATION_TEMPLATES as COMPLEXITY_TEMPLATES
from distilabel.steps.tasks.evol_instruct.utils import MUTATION_TEMPLATES


def evol_instruct(text: str, rng: np.random.Generator) -> tuple[str, str]:
    """(mutation, meta-prompt) by a uniformly random EvolInstruct template (Xu et al. 2023, as shipped by distilabel)."""
    mutation = str(rng.choice(list(MUTATION_TEMPLATES)))
    return mutation.lower(), MUTATION_TEMPLATES[mutation].replace("<PROMPT>", text)


def evol_complexity(text: str, rng: np.random.Generator) -> tuple[str, str]:
    """(mutation, meta-prompt) by a uniformly random EvolComplexity template: in-depth only (Liu et al. 2023, as shipped by distilabel)."""
    mutation = str(rng.choice(list(COMPLEXITY_TEMPLATES)))
    return mutation.lower(), COMPLEXITY_TEMPLATES[mutation].replace("<PROMPT>", text)


QUALITIES = {
    "helpfulness": "Rewrite it so that its answer would be of more real use to the person who asks.",
    "relevance": "Rewrite it so that it asks for what matters to its topic and for nothing beside it.",
    "depth": "Rewrite it so that a good answer has to go deeper into the matter.",
    "creativity": "Rewrite it so that it invites an original answer.",
    "details": "Rewrite it so that it gives or asks for more specific details.",
}
QUALITY_TEMPLATE = (
    "I want you to act as a Prompt Writer.\nMake #The Given Prompt# a better prompt. {aim}\nThe rewritten prompt must be reasonable, must "
    "be understood and answered by humans, may be 10 to 20 words longer, and keeps tables and code of #The Given Prompt#.\nDo not answer "
    "it. '#The Given Prompt#', '#Rewritten Prompt#', 'given prompt' and 'rewritten prompt' must not occur in it.\n"
    "#The Given Prompt#:\n{prompt}\n#Rewritten Prompt#:\n"
)


def evol_quality(text: str, rng: np.random.Generator) -> tuple[str, str]:
    """(mutation, meta-prompt) for one of EvolQuality's criteria (Liu et al. 2023), turned from the response on the prompt."""
    quality = str(rng.choice(list(QUALITIES)))
    return quality, QUALITY_TEMPLATE.format(aim=QUALITIES[quality], prompt=text)


STYLES = {
    "question": "Word it as a question.",
    "imperative": "Word it as an instruction, with a verb that #The Given Prompt# does not use.",
}
SELF_INSTRUCT_TEMPLATE = (
    "I want you to act as a Prompt Creator.\nWrite one brand new prompt in the domain of #The Given Prompt#: another task, as rare as you "
    "like, that stands for itself. {style} Its length should be close to that of #The Given Prompt# ({words} words).\nDo not answer it. "
    "'#The Given Prompt#', '#Created Prompt#', 'given prompt' and 'created prompt' must not occur in it.\n"
    "#The Given Prompt#:\n{prompt}\n#Created Prompt#:\n"
)


def self_instruct(text: str, rng: np.random.Generator) -> tuple[str, str]:
    """(mutation, meta-prompt) for a new prompt in the domain of a prompt (SelfInstruct, Wang et al. 2022), of similar length."""
    style = str(rng.choice(list(STYLES)))
    return f"self_instruct_{style}", SELF_INSTRUCT_TEMPLATE.format(style=STYLES[style], words=len(text.split()), prompt=text)


def verbatim(text: str, rng: np.random.Generator) -> tuple[str, str]:
    """(mutation, meta-prompt): the prompt itself, for an evolver that was trained to answer a prompt with another one."""
    return "verbatim", text
