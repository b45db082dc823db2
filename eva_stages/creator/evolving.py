"""Evolving prompts: each selected prompt is rewritten several times, and every usable evolution is kept.

distilabel ships the EvolInstruct templates, but its task does not record the mutation, rejects nothing, and loses a batch with one
failed generation; hence this loop. A rejected evolution is recorded with its reason. In a chain, the next one starts from the last usable
prompt, and a failed call ends its prompt's chain until the stage's next attempt: later generations would start from another prompt, and
would be paid for twice. Siblings all start from the selected prompt.
"""

from typing import Any, Literal

import numpy as np
from distilabel.steps import StepInput
from distilabel.steps.tasks import Task
from distilabel.steps.tasks.evol_instruct.evol_complexity.utils import MUTATION_TEMPLATES as COMPLEXITY_TEMPLATES
from distilabel.steps.tasks.evol_instruct.utils import MUTATION_TEMPLATES
from distilabel.typing import StepOutput
from pydantic import PrivateAttr

from eva_stages.core.config.function_fields import EVOLVE_METHOD
from eva_stages.core.errors import DataError
from eva_stages.core.failures import add_calls
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.generating import ask, generator_output, reply_of, totals
from eva_stages.core.named_functions import FunctionCode, choice_name, load_choice
from eva_stages.core.parts import FAILED_CALLS, add_statistics
from eva_stages.core.rows import Message, last_user_text, prompt_row, with_last_user_text
from eva_stages.creator.context import examples_text, feedback_text
from eva_stages.creator.function_calls import Method, meta_prompt
from eva_stages.creator.knobs import OF_REFERENCES
from eva_stages.creator.rejecting import read_evolution, read_prompt_and_reference, rejection


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


INDEPENDENT = {"self_instruct"}
"""Methods that make siblings, whatever the shape."""


CONTEXT_COLUMNS = ("best", "worst", "best_reward", "worst_reward", "critique", "examples")
"""Columns that the evolver is shown; evolved prompts do not carry them."""


RECORDED_COLUMNS = ("meta_prompt", "reply", "reply_ids")
"""Columns of evolutions that the evolver is trained on: the text that it was shown, its reply, and the reply's token ids as sampled."""


class EvolvePrompts(Task):
    """Evolves every prompt `generations` times; one row per attempt. The mutation's name lists the contexts in its meta-prompt.

    An attempt's mutation and seed depend on the selected prompt and the attempt's number, so the first of a chain is the first sibling.

    Attributes:
        method: name of a built-in method, or a function in a file.
        shape: `chain`, each evolution from the last usable one, or `siblings`, all from the selected prompt.
        for_training: all siblings of a prompt get the meta-prompt of the first one, so that the evolver can learn from their differences,
            and rows have what it was shown and what it replied.
        seed: from the recipe, the stage and the iteration.

    Input columns:
        - the columns of a prompt row; those of `context.Feedback`, critique and examples where they are to be shown
    Output columns:
        - the same, for the evolved prompt, with its parent, generation and mutation; rejected (why it cannot be used, or null),
          failure (why the call failed, where rejected is `failed`); for training also `RECORDED_COLUMNS`
    """

    method: str | FunctionCode = "evol_instruct"
    generations: int = 4
    shape: Literal["chain", "siblings"] = "chain"
    for_training: bool = False
    max_characters: int = 4000
    seed: int = 0
    _method: Method = PrivateAttr()

    def load(self) -> None:
        super().load()
        self._method = load_choice(self.method, EVOLVE_METHOD)

    @property
    def inputs(self) -> list[str]:
        return ["prompt_id", "messages", "root_id", "generation"]

    @property
    def outputs(self) -> list[str]:
        names = ["prompt_id", "messages", "source", "parent_id", "root_id", "generation", "mutation", "reference", "rejected", "failure"]
        return [*names, *RECORDED_COLUMNS] if self.for_training else names

    def format_input(self, input: dict[str, Any]) -> list[Message]:
        return [{"role": "user", "content": input["meta_prompt"]}]

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"messages": output}

    def process(self, inputs: StepInput) -> StepOutput:
        parents = [dict(row) for row in inputs]
        attempts: list[list[dict[str, Any]]] = [[] for _ in inputs]
        going_on = list(range(len(inputs)))
        is_chain = self.shape == "chain" and self.method not in INDEPENDENT
        for generation in range(self.generations):
            children = self._generation([parents[index] for index in going_on], [inputs[index] for index in going_on], generation)
            for index, child in zip(going_on, children, strict=True):
                attempts[index].append(child)
                if is_chain and child["rejected"] is None:
                    parents[index] = child
            if is_chain:
                going_on = [index for index in going_on if attempts[index][-1]["failure"] is None]
        yield [row for rows in attempts for row in rows]

    def _generation(self, parents: list[dict[str, Any]], selected_rows: list[dict[str, Any]], generation: int) -> list[dict[str, Any]]:
        """One evolution of every parent, in one call of the evolver."""
        if not selected_rows:
            return []
        seeds = [derive_seed(self.seed, row["prompt_id"], generation) for row in selected_rows]
        mutation_seeds = [derive_seed(self.seed, row["prompt_id"], 0) for row in selected_rows] if self.for_training else seeds
        attempts = [self._attempt(parent, row, seed) for parent, row, seed in zip(parents, selected_rows, mutation_seeds, strict=True)]
        indices = [index for index, (_, _, failure) in enumerate(attempts) if failure is None]
        inputs: Any = [self.format_input({"meta_prompt": attempts[index][1]}) for index in indices]
        outputs: dict[int, Any] = dict(
            zip(indices, ask(self.llm, inputs, [seeds[index] for index in indices]) if indices else [], strict=True)
        )
        children = [
            self._child(parent, mutation, outputs[index] if failure is None else dict(generator_output([None], [failure], 0, [0])))
            for index, (parent, (mutation, _, failure)) in enumerate(zip(parents, attempts, strict=True))
        ]
        if self.for_training:
            for index, (child, (_, meta, _)) in enumerate(zip(children, attempts, strict=True)):
                child |= zip(RECORDED_COLUMNS, (meta, *_sampled_reply(outputs.get(index))), strict=True)
        return children

    def _attempt(self, parent: dict[str, Any], selected_row: dict[str, Any], seed: int) -> tuple[str, str, str | None]:
        """(mutation, meta-prompt, why the method failed or None); contexts of the selected prompt precede the method's text."""
        text = str(parent.get("reference")) if self.method in OF_REFERENCES else last_user_text(parent["messages"])
        try:
            mutation, meta = meta_prompt(self._method, text, np.random.default_rng(seed))
        except DataError as error:
            return choice_name(self.method), "", str(error)
        contexts = {
            "multi_shot": examples_text(selected_row.get("examples") or []),
            "feedback": feedback_text(selected_row, evolved=parent["prompt_id"] != selected_row["prompt_id"]),
        }
        used_contexts = {name: text for name, text in contexts.items() if text}
        return "+".join([mutation, *used_contexts]), "\n\n".join([*used_contexts.values(), meta]), None

    def _child(self, parent: dict[str, Any], mutation: str, output: dict[str, Any]) -> dict[str, Any]:
        reply, failure = reply_of(output)
        evolved, reference = read_prompt_and_reference(reply) if self.method in OF_REFERENCES else (read_evolution(reply), None)
        finish_reason, text = output["finish_reasons"][0], last_user_text(parent["messages"])
        reason = FAILED_CALLS if failure is not None else rejection(evolved, text, finish_reason, self.max_characters)
        lineage = {
            "parent_id": parent["prompt_id"],
            "root_id": parent["root_id"],
            "generation": parent["generation"] + 1,
            "mutation": mutation,
            "reference": reference,
        }
        row = prompt_row(with_last_user_text(parent["messages"], evolved), f"evolved by {self.llm.model_name}", **lineage)
        other_columns = {name: value for name, value in parent.items() if name not in (*row, *CONTEXT_COLUMNS, "_statistics")}
        child = {**other_columns, **row, "rejected": reason, "failure": failure}
        add_calls(child, failure)
        add_statistics(child, evolutions=1, rejected=int(reason not in (None, FAILED_CALLS)), **totals(output["statistics"]))
        return child


def _sampled_reply(output: dict[str, Any] | None) -> tuple[str | None, list[int] | None]:
    """Text and token ids of the reply in an output; None where there are none."""
    return (None, None) if output is None else (output["generations"][0], (output.get("token_ids") or [None])[0])
