"""Evolving prompts: each drawn prompt is rewritten several times in sequence and every usable generation is kept.

distilabel ships the EvolInstruct templates; its task keeps neither the mutation's name nor rejects anything, and one missing
generation breaks its batch, so the loop is ours. A generation that is unusable is recorded with its reason, and the next one starts
from the last good prompt.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from distilabel.steps import StepInput
from distilabel.steps.tasks import Task
from distilabel.steps.tasks.evol_instruct.utils import MUTATION_TEMPLATES
from distilabel.typing import StepOutput

from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.generating import SeededLLM
from eva_stages.core.parts import add_statistics
from eva_stages.core.rows import Message, last_user_text, normalise, prompt_row, with_last_user_text

LEAKS = ("given prompt", "rewritten prompt", "created prompt", "#prompt", "prompt#")
REFUSALS = ("i'm sorry", "i am sorry", "sorry, ", "i cannot", "i can't", "i can not", "as an ai", "i'm unable", "i am unable")


def evol_instruct(text: str, rng: np.random.Generator) -> tuple[str, str]:
    """(mutation, meta-prompt) by a uniformly random EvolInstruct template (Xu et al. 2023, as shipped by distilabel)."""
    mutation = str(rng.choice(list(MUTATION_TEMPLATES)))
    return mutation.lower(), MUTATION_TEMPLATES[mutation].replace("<PROMPT>", text)


METHODS: dict[str, Callable[[str, np.random.Generator], tuple[str, str]]] = {"evol_instruct": evol_instruct}


def read_evolution(reply: str | None) -> str:
    """The evolved prompt in an evolver's reply: what stands behind its last heading."""
    return (reply or "").rpartition("Prompt#:")[2].strip()


def rejection(evolved: str, parent: str, finish_reason: str, max_characters: int) -> str | None:
    """Why an evolution cannot be used; None if it can."""
    lowered = evolved.lower()
    if not evolved:
        return "empty"
    if finish_reason == "length":
        return "truncated"
    if normalise(evolved) == normalise(parent):
        return "unchanged"
    if any(leak in lowered for leak in LEAKS):
        return "template_leak"
    if lowered.startswith(REFUSALS):
        return "refusal"
    return "too_long" if len(evolved) > max_characters else None


class EvolvePrompts(Task):
    """Evolves every prompt `generations` times in sequence; one row per attempt.

    Attributes:
        method: key of `METHODS`.
        seed: from the recipe, the stage and the iteration.

    Input columns:
        - the columns of a prompt row
    Output columns:
        - the same, for the evolved prompt, with its parent, generation and mutation; rejected (reason or null)
    """

    method: str = "evol_instruct"
    generations: int = 4
    max_characters: int = 4000
    seed: int = 0

    @property
    def inputs(self) -> list[str]:
        return ["prompt_id", "messages", "root_id", "generation"]

    @property
    def outputs(self) -> list[str]:
        return ["prompt_id", "messages", "source", "parent_id", "root_id", "generation", "mutation", "rejected"]

    def format_input(self, input: dict[str, Any]) -> list[Message]:
        return [{"role": "user", "content": input["meta_prompt"]}]

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"messages": output}

    def process(self, inputs: StepInput) -> StepOutput:
        parents = [dict(row) for row in inputs]
        made: list[list[dict[str, Any]]] = [[] for _ in inputs]
        for generation in range(self.generations):
            for index, child in enumerate(self._generation(parents, [row["prompt_id"] for row in inputs], generation)):
                made[index].append(child)
                if child["rejected"] is None:
                    parents[index] = child
        yield [row for rows in made for row in rows]

    def _generation(self, parents: list[dict[str, Any]], drawn: list[str], generation: int) -> list[dict[str, Any]]:
        """One evolution of every parent, in one call of the evolver."""
        seeds = [derive_seed(self.seed, prompt_id, generation) for prompt_id in drawn]
        texts = [last_user_text(parent["messages"]) for parent in parents]
        meta = [METHODS[self.method](text, np.random.default_rng(seed)) for text, seed in zip(texts, seeds, strict=True)]
        seeded = {"seeds": seeds} if isinstance(self.llm, SeededLLM) else {}
        inputs: Any = [self.format_input({"meta_prompt": prompt}) for _, prompt in meta]
        outputs: Any = self.llm.generate_outputs(inputs=inputs, num_generations=1, **seeded)
        return [
            self._child(parent, text, mutation, output)
            for parent, text, (mutation, _), output in zip(parents, texts, meta, outputs, strict=True)
        ]

    def _child(self, parent: dict[str, Any], text: str, mutation: str, output: dict[str, Any]) -> dict[str, Any]:
        evolved = read_evolution(output["generations"][0])
        reason = rejection(evolved, text, output["finish_reasons"][0], self.max_characters)
        lineage = {
            "parent_id": parent["prompt_id"],
            "root_id": parent["root_id"],
            "generation": parent["generation"] + 1,
            "mutation": mutation,
        }
        row = prompt_row(with_last_user_text(parent["messages"], evolved), f"evolved by {self.llm.model_name}", **lineage)
        carried = {name: value for name, value in parent.items() if name not in row and name != "_statistics"}
        child = {**carried, **row, "rejected": reason}
        statistics = output["statistics"]
        add_statistics(
            child,
            evolutions=1,
            rejected=int(reason is not None),
            input_tokens=statistics["input_tokens"][0],
            output_tokens=statistics["output_tokens"][0],
        )
        return child
