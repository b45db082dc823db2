"""Pairwise judging in both orders, so that a judge's position bias cancels out.

Game 0 shows the baseline as assistant A, game 1 the model. A verdict that cannot be read is null and counts for nobody.
"""

import re
from typing import Any

from distilabel.steps import StepInput
from distilabel.steps.tasks import Task
from distilabel.typing import StepOutput

from eva_stages.core.failures import add_calls, add_reasons
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.generating import ask, reply_of, totals
from eva_stages.core.parts import add_statistics
from eva_stages.core.rows import Message, last_user_text
from eva_stages.core.verdicts import LABELS, outcome_of_label
from eva_stages.evaluation.judge import NO_ANSWER, NO_VERDICT

SYSTEM = (
    "Compare the two assistants' answers to the user's prompt. Judge correctness first, then helpfulness; the order in which the "
    "answers stand must not matter. Explain briefly, then end with exactly one of [[A>>B]], [[A>B]], [[A=B]], [[B>A]], [[B>>A]]."
)
TEMPLATE = (
    "<|User Prompt|>\n{prompt}\n\n<|The Start of Assistant A's Answer|>\n{a}\n<|The End of Assistant A's Answer|>\n\n"
    "<|The Start of Assistant B's Answer|>\n{b}\n<|The End of Assistant B's Answer|>"
)
_VERDICT = re.compile(r"\[\[([AB<>=]+)\]\]")


def read_verdict(text: str | None) -> str | None:
    """The one verdict in a judge's reply; None if there is none, an unknown one, or two that differ."""
    verdicts = set(_VERDICT.findall(text or ""))
    return verdicts.pop() if len(verdicts) == 1 and verdicts <= set(LABELS["v0.1"]) else None


class JudgePairs(Task):
    """Judges the first response of every row against the first baseline response, in both orders; two rows per row.

    Input columns:
        - prompt_id, messages, responses, baseline_responses, generator, baseline_generator
    Output columns:
        - question_id, model, baseline, game, verdict (null = none), outcome (for the model, `core.verdicts`), raw, failure (why the call
          failed, or null), judge, cost
    """

    seed: int = 0

    @property
    def inputs(self) -> list[str]:
        return ["prompt_id", "messages", "responses", "baseline_responses", "generator", "baseline_generator"]

    @property
    def outputs(self) -> list[str]:
        return ["question_id", "model", "baseline", "game", "verdict", "outcome", "raw", "failure", "judge", "cost"]

    def format_input(self, input: dict[str, Any]) -> list[Message]:
        answers = [input["baseline_responses"][0], input["responses"][0]]
        a, b = answers if input["game"] == 0 else answers[::-1]
        user = TEMPLATE.format(prompt=last_user_text(input["messages"]), a=a, b=b)
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"raw": output, "verdict": read_verdict(output)}

    def process(self, inputs: StepInput) -> StepOutput:
        games = [{**row, "game": game} for row in inputs for game in (0, 1)]
        for row in games:
            row.update(question_id=row["prompt_id"], model=row["generator"], baseline=row["baseline_generator"])
            row.update(judge=self.llm.model_name, cost=None, failure=NO_ANSWER, **self.format_output(None))
        asked = [row for row in games if None not in (row["responses"][0], row["baseline_responses"][0])]
        seeds = [derive_seed(self.seed, row["prompt_id"], row["game"]) for row in asked]
        outputs = ask(self.llm, self._format_inputs(asked), seeds) if asked else []
        for row, output in zip(asked, outputs, strict=True):
            reply, row["failure"] = reply_of(output)
            row.update(self.format_output(reply))
            spent = totals(output["statistics"])
            row["cost"] = spent.get("cost_usd")
            add_calls(row, row["failure"])
            add_statistics(row, **spent)
        for row in games:
            row["outcome"] = outcome_of_label(row["verdict"], row["game"], "v0.1")
            unread = row["failure"] is None and row["verdict"] is None
            add_reasons(row, *([NO_VERDICT] if unread else [NO_ANSWER] if row["failure"] == NO_ANSWER else []))
            add_statistics(row, judgments=1, no_verdict=int(unread))
        yield games
