"""AlpacaEval's annotators with eva's judges: the package's prompt, order of the outputs and parser; the calls are ours.

The package's template is turned into messages before an output is put into it, so that an output with the template's own markers stays
text. A judge that gives no log-probabilities (local engines) is taken by its word: `m` is as sure as can be. Identical outputs are a tie
without a call. A call that fails, or a completion that the package's parser cannot read, is null and counted.
"""

import json
import re
from typing import Any

from distilabel.steps import StepInput
from distilabel.steps.tasks import Task
from distilabel.typing import StepOutput
from pydantic import PrivateAttr

from eva_stages.core.failures import error_reason
from eva_stages.core.generating import reply_of, totals
from eva_stages.core.rows import SCHEMAS, Message
from eva_stages.core.verdicts import outcome_of_preference
from eva_stages.evaluation.judge import COUNTED, NO_ANSWER, NO_VERDICT, ask, count
from eva_stages.models.litellm_generator import LiteLLMGenerator

SEED = 0
"""Of the package's evaluation; it decides which output is shown first."""
TIE = 1.5
IDENTICAL = "identical"
OURS = {"model_name", "max_tokens", "temperature"}
"""Settings of an annotator that the recipe's judge has of its own."""
FIELD = re.compile(r"\{(instruction|output_1|output_2)\}")


class AnnotatePairs(Task):
    """Compares the first answer of every row with the first baseline answer, as an annotator of the alpaca_eval package does.

    Attributes:
        annotator: name of the package's annotator.

    Input columns:
        - prompt_id, question_id, category, turns, responses, generator, baseline_responses, baseline_generator
    Output columns:
        - those of the `benchmark_judgments` rows; `score` is the preference, 1 (baseline) to 2 (model); `game` is 1 where the model's
          answer was shown first
    """

    annotator: str

    _annotator: Any = PrivateAttr(None)
    _template: list[Message] = PrivateAttr(default_factory=list)

    @property
    def inputs(self) -> list[str]:
        own = ["prompt_id", "question_id", "category", "turns", "responses", "generator"]
        return [*own, "baseline_responses", "baseline_generator"]

    @property
    def outputs(self) -> list[str]:
        return SCHEMAS["benchmark_judgments"].names

    def load(self) -> None:
        super().load()
        from alpaca_eval.annotators import PairwiseAnnotator
        from alpaca_eval.utils import prompt_to_chatml

        self._annotator = PairwiseAnnotator(annotators_config=self.annotator, seed=SEED, caching_path=None).annotators[self.annotator]
        self._template = prompt_to_chatml(self._annotator.prompt_template)
        if isinstance(self.llm, LiteLLMGenerator):
            self.llm.extra = {name: value for name, value in self._annotator.completions_kwargs.items() if name not in OURS}

    def format_input(self, input: dict[str, Any]) -> list[Message]:
        """The annotator's prompt for an instruction and two outputs in the order in which they are shown."""
        return [
            {"role": message["role"], "content": FIELD.sub(lambda field: str(input[field[1]]), message["content"])}
            for message in self._template
        ]

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"raw": output}

    def process(self, inputs: StepInput) -> StepOutput:
        judged = self._shown(list(inputs))
        asked = [row for row in judged if row["template"] != IDENTICAL and row["failure"] is None]
        outputs = ask(self.llm, [self.format_input(row) for row in asked]) if asked else []
        for row, output in zip(asked, outputs, strict=True):
            self._read(row, output)
        self._postprocess(judged)
        for row in judged:
            row["outcome"] = outcome_of_preference(row["score"])
            count(row)
        yield judged

    def _shown(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows with both outputs in the package's order."""
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
        return [{**row, **self._begun(row, shown)} for row, shown in zip(rows, table.to_dict("records"), strict=True)]

    def _begun(self, row: dict[str, Any], shown: dict[str, Any]) -> dict[str, Any]:
        missing = None in (row["responses"][0], row["baseline_responses"][0])
        same = shown["output_1"] == shown["output_2"] and not missing
        return {
            **shown,
            "model": row["generator"],
            "baseline": row["baseline_generator"],
            "game": int(shown["is_switched_outputs"]),
            "template": IDENTICAL if same else self.annotator,
            "prompt": None if same else self.format_input(shown)[-1]["content"],
            "judge": self.llm.model_name,
            "raw": None,
            "verdict": None,
            "score": TIE if same else None,
            "failure": NO_ANSWER if missing else None,
            "attempts": 0,
            "spent": dict.fromkeys(COUNTED, 0),
        }

    def _read(self, row: dict[str, Any], output: Any) -> None:
        """The preference for what was shown second, by the package's parser."""
        text, row["failure"] = reply_of(output)
        row["attempts"] = 1
        row["spent"].update(totals(output["statistics"]))
        if text is None:
            return
        completion: Any = text
        row["raw"] = text
        if self._annotator.completion_key == "completions_all":
            told = output["logprobs"][0] if "logprobs" in output else _sure(text)
            completion = {"text": text, "logprobs": {"content": told}}
            row["raw"] = json.dumps(completion, ensure_ascii=False)
        try:
            (preference,) = self._annotator.fn_completion_parser(completion)
            row["score"] = float(preference) if 1 <= preference <= 2 else None
        except Exception as error:  # parsers raise whatever they meet; the package takes every exception as no preference
            row["unread"] = f"{NO_VERDICT} ({error_reason(error)})"

    def _postprocess(self, rows: list[dict[str, Any]]) -> None:
        """Turn preferences for the second place into preferences for the model, whose output may have been shown first."""
        for row in rows:
            if row["game"] and row["score"] is not None and row["template"] != IDENTICAL:
                row["score"] = 3 - row["score"]


def _sure(text: str) -> list[dict[str, Any]]:
    """The log-probabilities of a judge that is sure of its word."""
    token = {"token": text.strip(), "logprob": 0.0}
    return [{**token, "top_logprobs": [token]}]
