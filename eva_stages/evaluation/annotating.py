"""AlpacaEval's annotators with eva's judges: prompt, order of the outputs and parser are the package's, the calls are eva's.

The package's template becomes messages before the outputs are filled in, so an output that contains the template's markers stays text.
Judges without log-probabilities (local engines) get probability 1 for the token that they wrote. Identical outputs are a tie
without a call. A completion that the package's parser cannot read is null and counted.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import PrivateAttr

from eva_stages.core.failures import error_reason
from eva_stages.core.rows import Message
from eva_stages.core.verdicts import outcome_of_preference
from eva_stages.evaluation.judge import NO_VERDICT, JudgingTask
from eva_stages.evaluation.judge_prompts import Case
from eva_stages.models.litellm_generator import LiteLLMGenerator

SEED = 0
"""The package's own; it decides which output is shown first."""
TIE = 1.5
IDENTICAL = "identical"
OURS = {"model_name", "max_tokens", "temperature"}
"""Settings of an annotator that the recipe's judge replaces."""
FIELD = re.compile(r"\{(instruction|output_1|output_2)\}")


class AnnotatePairs(JudgingTask):
    """Compares the first response of every row with the first baseline response, as an annotator of the alpaca_eval package does.

    Attributes:
        annotator: name of the package's annotator.

    Input columns:
        - prompt_id, question_id, category, turns, responses, generator, baseline_responses, baseline_generator
    Output columns:
        - those of the `judgments` rows; `game` is 1 where the model's response was shown first
    Categories:
        - preference
    """

    annotator: str

    _annotator: Any = PrivateAttr(None)
    _template: list[Message] = PrivateAttr(default_factory=list)

    @property
    def inputs(self) -> list[str]:
        baseline = ["baseline_responses", "baseline_generator"]
        return ["prompt_id", "question_id", "category", "turns", "responses", "generator", *baseline]

    def load(self) -> None:
        super().load()
        from alpaca_eval.annotators import PairwiseAnnotator
        from alpaca_eval.utils import prompt_to_chatml

        self._annotator = PairwiseAnnotator(annotators_config=self.annotator, seed=SEED, caching_path=None).annotators[self.annotator]
        self._template = prompt_to_chatml(self._annotator.prompt_template)
        if isinstance(self.llm, LiteLLMGenerator):
            self.llm.extra = {name: value for name, value in self._annotator.completions_kwargs.items() if name not in OURS}

    def judgments(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """One judgment per row, both outputs in the package's order."""
        import pandas as pd

        table = pd.DataFrame(
            {
                "instruction": [row["turns"][0] for row in rows],
                "output_1": [row["baseline_responses"][0] or "" for row in rows],
                "output_2": [row["responses"][0] or "" for row in rows],
            }
        )
        for processor in self._annotator.processors:
            table = processor.preprocess(table)
        return [self._judgment(row, shown_row) for row, shown_row in zip(rows, table.to_dict("records"), strict=True)]

    def _judgment(self, row: dict[str, Any], shown_row: dict[str, Any]) -> dict[str, Any]:
        missing = None in (row["responses"][0], row["baseline_responses"][0])
        is_same = shown_row["output_1"] == shown_row["output_2"] and not missing
        messages = []
        for message in [] if is_same else self._template:
            messages.append({**message, "content": FIELD.sub(lambda field: str(shown_row[field[1]]), message["content"])})
        case = Case(int(shown_row["is_switched_outputs"]), IDENTICAL if is_same else self.annotator, messages)
        return self.begin(row, case, missing)

    def raw_text(self, row: dict[str, Any], reply: str, output: Any) -> str:
        """The reply, or the reply with its log-probabilities where the package's parser needs them."""
        if self._annotator.completion_key != "completions_all":
            return reply
        logprobs = output["logprobs"][0] if "logprobs" in output else _sure(reply)
        return json.dumps({"text": reply, "logprobs": {"content": logprobs}}, ensure_ascii=False)

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        """The outcome for the model, whose output may have been shown first, by the package's parser."""
        assert input is not None
        if input["template"] == IDENTICAL:
            return {"outcome": outcome_of_preference(TIE)}
        if output is None:
            return {"outcome": None}
        try:
            completion = json.loads(output) if self._annotator.completion_key == "completions_all" else output
            (preference,) = self._annotator.fn_completion_parser(completion)
            second = float(preference) if 1 <= preference <= 2 else None
        except Exception as error:  # parsers raise any exception; the package counts each as no preference
            return {"outcome": None, "unread": f"{NO_VERDICT} ({error_reason(error)})"}
        return {"outcome": outcome_of_preference(3 - second if input["game"] and second is not None else second)}


def _sure(text: str) -> list[dict[str, Any]]:
    """Log-probabilities that give the reply probability 1."""
    token = {"token": text.strip(), "logprob": 0.0}
    return [{**token, "top_logprobs": [token]}]
