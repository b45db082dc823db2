"""Evolving prompts: each selected prompt is rewritten several times, and every usable evolution is kept.

distilabel ships the EvolInstruct templates, but its task does not record the mutation, rejects nothing, and loses a batch with one
failed generation; hence this step. `evolution_rows` has the order in which prompts are evolved.
"""

from typing import Any, Literal

import numpy as np
from distilabel.steps import StepInput
from distilabel.typing import StepOutput
from pydantic import PrivateAttr

from eva_stages.core.config.function_fields import EVOLVE_METHOD
from eva_stages.core.errors import DataError
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.generating import ask, generator_output, reply_of, totals
from eva_stages.core.named_functions import FunctionCode, choice_name, load_choice
from eva_stages.core.prompt_references import PROMPT_AND_REFERENCE, with_request
from eva_stages.core.rows import Message, last_user_text
from eva_stages.core.tasks import OneReplyTask
from eva_stages.creator.context import examples_text, feedback_text
from eva_stages.creator.evolution_rows import INPUTS, OUTPUTS, Evolution, child_row, evolution_rows
from eva_stages.creator.function_calls import Method, meta_prompt
from eva_stages.creator.knobs import OF_REFERENCES
from eva_stages.creator.rejecting import read_evolution, read_prompt_and_reference, rejection

INDEPENDENT = {"self_instruct"}
"""Methods that make siblings, whatever the shape."""


RECORDED_COLUMNS = ("meta_prompt", "reply", "reply_ids")
"""Columns of evolutions that the evolver is trained on: the text that it was shown, its reply, and the reply's token ids as sampled."""


class EvolvePrompts(OneReplyTask):
    """Evolves every prompt `generations` times; one row per attempt. The mutation's name lists the contexts in its meta-prompt.

    An attempt's mutation and seed depend on the selected prompt and the attempt's number, so the first of a chain is the first sibling.

    Attributes:
        method: name of a built-in method, or a function in a file.
        shape: `chain`, each evolution from the last usable one, or `siblings`, all from the selected prompt.
        for_training: all siblings of a prompt get the meta-prompt of the first one, so that the evolver can learn from their differences,
            and rows have what it was shown and what it replied.
        returns: `prompt`, or `prompt_and_reference`: the request shows the parent's reference and asks for both, in JSON. `turn_knob`
            implies it. An evolution without a reference is then rejected.
        seed: from the recipe, the stage and the iteration.
    Input columns:
        - the columns of a prompt row; those of `context.Feedback`, critique and examples where they are to be shown
    Output columns:
        - the same, for the evolved prompt, with its parent, generation and mutation; rejected (why it cannot be used, or null),
          failure (why the call failed, where rejected is `failed`); for training also `RECORDED_COLUMNS`
    Categories:
        - evol
    """

    method: str | FunctionCode = "evol_instruct"
    generations: int = 4
    shape: Literal["chain", "siblings"] = "chain"
    for_training: bool = False
    returns: Literal["prompt", "prompt_and_reference"] = "prompt"
    max_characters: int = 4000
    seed: int = 0
    _method: Method = PrivateAttr()

    def load(self) -> None:
        super().load()
        self._method = load_choice(self.method, EVOLVE_METHOD)

    @property
    def inputs(self) -> list[str]:
        return list(INPUTS)

    @property
    def outputs(self) -> list[str]:
        return [*OUTPUTS, *RECORDED_COLUMNS] if self.for_training else list(OUTPUTS)

    def format_input(self, input: dict[str, Any]) -> list[Message]:
        return [{"role": "user", "content": input["meta_prompt"]}]

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"messages": output}

    def process(self, inputs: StepInput) -> StepOutput:
        is_chain = self.shape == "chain" and self.method not in INDEPENDENT
        yield evolution_rows(inputs, self.generations, is_chain, self._generation)

    def _generation(self, parents: list[dict[str, Any]], selected_rows: list[dict[str, Any]], generation: int) -> list[dict[str, Any]]:
        """One evolution of every parent, in one call of the evolver."""
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
        if self.returns == PROMPT_AND_REFERENCE and self.method not in OF_REFERENCES:
            meta = with_request(meta, parent.get("reference"))
        return "+".join([mutation, *used_contexts]), "\n\n".join([*used_contexts.values(), meta]), None

    def _child(self, parent: dict[str, Any], mutation: str, output: dict[str, Any]) -> dict[str, Any]:
        reply, failure = reply_of(output)
        needs_reference = self.returns == PROMPT_AND_REFERENCE or self.method in OF_REFERENCES
        evolved, reference = read_prompt_and_reference(reply) if needs_reference else (read_evolution(reply), None)
        finish_reason, text = output["finish_reasons"][0], last_user_text(parent["messages"])
        reason = rejection(evolved, text, finish_reason, self.max_characters, lacks_reference=needs_reference and reference is None)
        evolution = Evolution(evolved, reference, mutation, reason, failure, totals(output["statistics"]))
        return child_row(parent, evolution, self.llm.model_name)


def _sampled_reply(output: dict[str, Any] | None) -> tuple[str | None, list[int] | None]:
    """Text and token ids of the reply in an output; None where there are none."""
    return (None, None) if output is None else (output["generations"][0], (output.get("token_ids") or [None])[0])
