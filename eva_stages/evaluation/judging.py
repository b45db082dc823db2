"""Pairwise judging in both orders, so that a judge's liking for one place cancels out.

Game 0 shows the baseline as assistant A, game 1 the model. A verdict that cannot be read is null and counts for nobody.
"""

import re
from typing import Any

from distilabel.steps import StepInput
from distilabel.steps.tasks import Task
from distilabel.typing import StepOutput

from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.generating import ask, totals
from eva_stages.core.parts import add_statistics
from eva_stages.core.rows import Message, last_user_text

SYSTEM = (
    "Compare the two assistants' answers to the user's prompt. Judge correctness first, then helpfulness; the order in which the "
    "answers stand must not matter. Explain briefly, then end with exactly one of [[A>>B]], [[A>B]], [[A=B]], [[B>A]], [[B>>A]]."
)
TEMPLATE = (
    "<|User Prompt|>\n{prompt}\n\n<|The Start of Assistant A's Answer|>\n{a}\n<|The End of Assistant A's Answer|>\n\n"
    "<|The Start of Assistant B's Answer|>\n{b}\n<|The End of Assistant B's Answer|>"
)
SCORE_OF_A = {"A>>B": 1.0, "A>B": 1.0, "A=B": 0.5, "B>A": 0.0, "B>>A": 0.0}
_VERDICT = re.compile(r"\[\[([AB<>=]+)\]\]")


def read_verdict(text: str | None) -> str | None:
    """The one verdict in a judge's reply; None if there is none, an unknown one, or two that differ."""
    verdicts = set(_VERDICT.findall(text or ""))
    return verdicts.pop() if len(verdicts) == 1 and verdicts <= set(SCORE_OF_A) else None


def model_score(verdict: str | None, game: int) -> float | None:
    """1 = the model won, 0 = the baseline won, None = no verdict."""
    if verdict is None:
        return None
    score = SCORE_OF_A[verdict]
    return score if game == 1 else 1 - score


class JudgePairs(Task):
    """Judges the first response of every row against the first baseline response, in both orders; two rows per row.

    Input columns:
        - prompt_id, messages, responses, baseline_responses, generator, baseline_generator
    Output columns:
        - question_id, model, baseline, game, verdict (null = none), raw, judge, cost
    """

    seed: int = 0

    @property
    def inputs(self) -> list[str]:
        return ["prompt_id", "messages", "responses", "baseline_responses", "generator", "baseline_generator"]

    @property
    def outputs(self) -> list[str]:
        return ["question_id", "model", "baseline", "game", "verdict", "raw", "judge", "cost"]

    def format_input(self, input: dict[str, Any]) -> list[Message]:
        answers = [input["baseline_responses"][0] or "", input["responses"][0] or ""]
        a, b = answers if input["game"] == 0 else answers[::-1]
        user = TEMPLATE.format(prompt=last_user_text(input["messages"]), a=a, b=b)
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"raw": output, "verdict": read_verdict(output)}

    def process(self, inputs: StepInput) -> StepOutput:
        games = [{**row, "game": game} for row in inputs for game in (0, 1)]
        seeds = [derive_seed(self.seed, row["prompt_id"], row["game"]) for row in games]
        outputs = ask(self.llm, self._format_inputs(games), seeds)
        for row, output in zip(games, outputs, strict=True):
            row.update(self.format_output(output["generations"][0]))
            row.update(question_id=row["prompt_id"], model=row["generator"], baseline=row["baseline_generator"])
            spent = totals(output["statistics"])
            row.update(judge=self.llm.model_name, cost=spent.get("cost_usd"))
            add_statistics(
                row,
                judgments=1,
                no_verdict=int(row["verdict"] is None),
                **spent,
            )
        yield games
