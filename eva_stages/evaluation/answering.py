"""The step that responds to a benchmark's questions turn by turn; each turn sees the model's own earlier responses.

MT-Bench sets the temperature by category; questions of equal temperature go to the generator together. A turn whose prompt leaves no room
for a response is null, and so are the turns after it.
"""

from typing import Any

from distilabel.steps import StepInput
from distilabel.typing import StepOutput
from pydantic import Field

from eva_stages.core.errors import DataError
from eva_stages.core.failures import add_calls
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.generating import ask, totals
from eva_stages.core.parts import add_statistics
from eva_stages.core.rows import Message
from eva_stages.core.tasks import OneReplyTask

NO_EARLIER_ANSWER = "no_earlier_answer"


class AnswerTurns(OneReplyTask):
    """Responds once to every turn of every question.

    Attributes:
        seed: from the recipe and the stage; each turn's own seed derives from it and the prompt id.
        temperatures: by category; null = the generator's own.
        keep_thoughts: keep a reasoning model's thoughts in its responses.

    Input columns:
        - prompt_id, category, messages, turns
    Output columns:
        - responses, finish_reasons, token_counts, response_ids (one entry per turn; null = no response), generator, seed
    Categories:
        - chat-generation
    """

    seed: int = 0
    temperatures: dict[str, float] | None = Field(default=None)
    keep_thoughts: bool = True

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if self.temperatures is not None and "temperature" not in type(self.llm).model_fields:
            raise DataError(f"AnswerTurns: temperatures: {type(self.llm).__name__} has no field temperature; leave temperatures out")

    @property
    def inputs(self) -> list[str]:
        return ["prompt_id", "category", "messages", "turns"]

    @property
    def outputs(self) -> list[str]:
        return ["responses", "finish_reasons", "token_counts", "response_ids", "generator", "seed"]

    def format_input(self, input: dict[str, Any]) -> list[Message]:
        """The conversation up to the next turn."""
        messages = [{"role": message["role"], "content": message["content"]} for message in input["messages"]]
        for answer, turn in zip(input["responses"], input["turns"][1:], strict=False):
            messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": turn}]
        return messages

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"responses": [output]}

    def process(self, inputs: StepInput) -> StepOutput:
        for row in inputs:
            row.update(responses=[], finish_reasons=[], token_counts=[], response_ids=[], generator=self.llm.model_name)
            row["seed"] = derive_seed(self.seed, row["prompt_id"])
        for turn in range(max(len(row["turns"]) for row in inputs)):
            asked_rows = [row for row in inputs if turn < len(row["turns"])]
            for row in asked_rows:
                if None in row["responses"]:
                    _note(row, None, NO_EARLIER_ANSWER, 0, None)
            self._ask([row for row in asked_rows if len(row["responses"]) == turn], turn)
        yield inputs

    def _ask(self, rows: list[dict[str, Any]], turn: int) -> None:
        for temperature in sorted({self._temperature(row) for row in rows}, key=str):
            group = [row for row in rows if self._temperature(row) == temperature]
            llm = self.llm if temperature is None else self.llm.model_copy(update={"temperature": temperature})
            seeds = [derive_seed(row["seed"], turn) for row in group]
            outputs = ask(llm, [self.format_input(row) for row in group], seeds, keep_thoughts=self.keep_thoughts)
            for row, output in zip(group, outputs, strict=True):
                (text,), (reason,), (ids,) = output["generations"], output["finish_reasons"], output.get("token_ids", [None])
                _note(row, text, reason, output["statistics"]["output_tokens"][0], ids)
                add_statistics(row, **totals(output["statistics"]))

    def _temperature(self, row: dict[str, Any]) -> float | None:
        return None if self.temperatures is None else self.temperatures.get(row["category"], 0.0)


def _note(row: dict[str, Any], text: str | None, reason: str, tokens: int, ids: list[int] | None) -> None:
    row["responses"].append(text)
    row["finish_reasons"].append(reason)
    row["token_counts"].append(tokens)
    row["response_ids"].append(ids)
    add_calls(row, reason if text is None else None)
    add_statistics(row, responses=1, empty=int(not (text or "").strip()))
