"""Pairwise judging in both orders, so a judge's position bias cancels out. Game 0 shows the baseline as assistant A, game 1 the model."""

from collections.abc import Sequence
from typing import Any

from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.rows import last_user_text
from eva_stages.core.verdicts import LABELS, outcome_of_label
from eva_stages.evaluation.arena_hard import verdict_v01
from eva_stages.evaluation.judge import JudgingTask
from eva_stages.evaluation.judge_prompts import Case, chat

SYSTEM = (
    "Compare the two assistants' answers to the user's prompt. Judge correctness first, then helpfulness; the order in which the "
    "answers stand must not matter. Explain briefly, then end with exactly one of [[A>>B]], [[A>B]], [[A=B]], [[B>A]], [[B>>A]]."
)
TEMPLATE = (
    "<|User Prompt|>\n{prompt}\n\n<|The Start of Assistant A's Answer|>\n{a}\n<|The End of Assistant A's Answer|>\n\n"
    "<|The Start of Assistant B's Answer|>\n{b}\n<|The End of Assistant B's Answer|>"
)


def read_verdict(text: str | None) -> str | None:
    """The verdict in a judge's reply; None if there is none, an unknown one, or two different ones."""
    verdict = verdict_v01(text)
    return verdict if verdict in LABELS["v0.1"] else None


class JudgePairs(JudgingTask):
    """Judges the first response of every row against the first baseline response, in both orders; two rows per row.

    Input columns:
        - prompt_id, messages, responses, baseline_responses, generator, baseline_generator
    Output columns:
        - those of the `judgments` rows
    Categories:
        - preference
    """

    seed: int = 0

    @property
    def inputs(self) -> list[str]:
        return ["prompt_id", "messages", "responses", "baseline_responses", "generator", "baseline_generator"]

    def judgments(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        judgments = []
        for row in rows:
            sides = row["baseline_responses"][0], row["responses"][0]
            for game, (a, b) in enumerate((sides, sides[::-1])):
                user = TEMPLATE.format(prompt=last_user_text(row["messages"]), a=a, b=b)
                judgments.append(self.begin(row, Case(game, "pairwise", chat(SYSTEM, user)), None in sides))
        return judgments

    def seed_of(self, row: dict[str, Any]) -> int:
        return derive_seed(self.seed, row["prompt_id"], row["game"], *self.draw)

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        assert input is not None
        verdict = read_verdict(output)
        return {"verdict": verdict, "outcome": outcome_of_label(verdict, input["game"], "v0.1")}
