"""Evolving by a function in a file, which returns an evolution with its reference. No model is called."""

from typing import Any, Literal

import numpy as np
from distilabel.steps import StepInput
from distilabel.typing import StepOutput
from pydantic import PrivateAttr

from eva_stages.core.errors import DataError
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.named_functions import FunctionCode
from eva_stages.core.pipeline_patches import LoudStep
from eva_stages.core.prompt_references import PROMPT_AND_REFERENCE
from eva_stages.core.rows import last_user_text, normalise
from eva_stages.creator.evolution_rows import INPUTS, OUTPUTS, Evolution, child_row, evolution_rows
from eva_stages.creator.function_calls import Evolver, evolution_by
from eva_stages.creator.rejecting import NO_PROMPT_AND_REFERENCE


class EvolveByFunction(LoudStep):
    """Evolves every prompt `generations` times; one row per attempt, as `EvolvePrompts` writes them.

    A call's random numbers depend on the selected prompt and the attempt's number.

    Attributes:
        function: from (last user message, reference, rng) to (prompt, reference, mutation).
        returns: with `prompt_and_reference`, an evolution without a reference is rejected.
        generations, shape, max_characters, seed: as those of `EvolvePrompts`.

    Input columns:
        - the columns of a prompt row
    Output columns:
        - as `EvolvePrompts`
    Categories:
        - evol
    """

    function: FunctionCode
    returns: Literal["prompt", "prompt_and_reference"] = "prompt"
    generations: int = 4
    shape: Literal["chain", "siblings"] = "chain"
    max_characters: int = 4000
    seed: int = 0
    _call: Evolver = PrivateAttr()

    def load(self) -> None:
        super().load()
        self._call = self.function.load()

    @property
    def inputs(self) -> list[str]:
        return list(INPUTS)

    @property
    def outputs(self) -> list[str]:
        return list(OUTPUTS)

    def process(self, inputs: StepInput) -> StepOutput:
        yield evolution_rows(inputs, self.generations, self.shape == "chain", self._generation)

    def _generation(self, parents: list[dict[str, Any]], selected_rows: list[dict[str, Any]], generation: int) -> list[dict[str, Any]]:
        seeds = [derive_seed(self.seed, row["prompt_id"], generation) for row in selected_rows]
        evolver = f"function {self.function.name}"
        return [child_row(parent, self._evolution(parent, seed), evolver) for parent, seed in zip(parents, seeds, strict=True)]

    def _evolution(self, parent: dict[str, Any], seed: int) -> Evolution:
        text = last_user_text(parent["messages"])
        try:
            evolved, reference, mutation = evolution_by(self._call, text, parent.get("reference"), np.random.default_rng(seed))
        except DataError as error:
            return Evolution("", None, self.function.name, failure=str(error))
        return Evolution(evolved, reference, mutation, self._reason(evolved, text, reference))

    def _reason(self, evolved: str, parent: str, reference: str | None) -> str | None:
        """Why an evolution cannot be used; None if it can."""
        if not evolved.strip():
            return "empty"
        if normalise(evolved) == normalise(parent):
            return "unchanged"
        if len(evolved) > self.max_characters:
            return "too_long"
        return NO_PROMPT_AND_REFERENCE if reference is None and self.returns == PROMPT_AND_REFERENCE else None
