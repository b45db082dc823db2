"""The step that samples responses: n per prompt, in one call, with a separate seed for each row."""

from typing import Any

from distilabel.steps import StepInput
from distilabel.typing import StepOutput

from eva_stages.core.failures import add_calls
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.generating import ask, totals
from eva_stages.core.parts import add_statistics
from eva_stages.core.reasoning import CUT_REASONS
from eva_stages.core.rows import Message
from eva_stages.core.tasks import LoudTask


class Respond(LoudTask):
    """Samples `num_generations` responses to every prompt.

    Attributes:
        seed: from the recipe, the stage and the iteration; each row's own seed derives from it and the prompt id.
        prefix: prefix of the output columns' names, so that greedy and sampled responses fit in one row.
        keep_thoughts: leave the thoughts of a model that reasons in the texts of its responses.
    Input columns:
        - prompt_id, messages
    Output columns:
        - responses, finish_reasons, token_counts (lists of n), generator, seed. A response that failed is null, its finish reason says why.
        - response_ids: token ids of each response as it was sampled, thoughts included; null of generators behind an API
    Categories:
        - text-generation
    """

    seed: int = 0
    prefix: str = ""
    keep_thoughts: bool = True
    group_generations: bool = True

    @property
    def inputs(self) -> list[str]:
        return ["prompt_id", "messages"]

    @property
    def outputs(self) -> list[str]:
        return [f"{self.prefix}{name}" for name in ("responses", "finish_reasons", "token_counts", "response_ids")] + ["generator", "seed"]

    def format_input(self, input: dict[str, Any]) -> list[Message]:
        return [{"role": message["role"], "content": message["content"]} for message in input["messages"]]

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        return {f"{self.prefix}responses": output}

    def process(self, inputs: StepInput) -> StepOutput:
        seeds = [derive_seed(self.seed, row["prompt_id"]) for row in inputs]
        outputs = ask(self.llm, self._format_inputs(inputs), seeds, self.num_generations, self.keep_thoughts)
        for row, output, seed in zip(inputs, outputs, seeds, strict=True):
            texts, counts = output["generations"], output["statistics"]["output_tokens"]
            row[f"{self.prefix}responses"] = texts
            row[f"{self.prefix}finish_reasons"] = output["finish_reasons"]
            row[f"{self.prefix}token_counts"] = counts
            row[f"{self.prefix}response_ids"] = output.get("token_ids")
            row["generator"], row["seed"] = self.llm.model_name, seed
            add_calls(row, *(reason if text is None else None for text, reason in zip(texts, output["finish_reasons"], strict=True)))
            add_statistics(
                row,
                responses=len(texts),
                empty=sum(not (text or "").strip() for text in texts),
                length_limited=sum(reason in CUT_REASONS for reason in output["finish_reasons"]),
                **totals(output["statistics"]),
            )
        yield inputs
