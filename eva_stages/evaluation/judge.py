"""The steps that have responses judged, by any generator. Here: what they share, and MT-Bench's ratings and Arena-Hard's verdicts.

Only the judge's own text is read, never the prompt that it was shown. A failed call gives null with its reason, and so does a missing
response, without a call; a text without a verdict gives null with the text. None of these is a loss or a tie.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from distilabel.steps import StepInput
from distilabel.typing import StepOutput
from pydantic import PrivateAttr

from eva_stages.core.failures import add_calls, add_reasons
from eva_stages.core.fingerprint import derive_seed, fingerprint
from eva_stages.core.generating import ask, reply_of, totals
from eva_stages.core.parts import add_statistics
from eva_stages.core.rows import SCHEMAS, Message
from eva_stages.core.tasks import OneReplyTask
from eva_stages.core.verdicts import Version, outcome_of_label, outcome_of_rating
from eva_stages.evaluation.arena_hard import second_attempt_v01, verdict_v01, verdict_v2
from eva_stages.evaluation.judge_prompts import Case, arena_hard_cases, arena_hard_templates, mt_bench_cases, mt_bench_templates
from eva_stages.evaluation.mt_bench import rating

ATTEMPTS = 2
"""Calls at most for one judgment of Arena-Hard v0.1."""
FOLLOW_UP = "continue your judgment and finish by outputting a final verdict label"
"""What Arena-Hard v0.1 asks a judge whose text has no label (arena-hard-auto, gen_judgment.py of 2024)."""
NO_ANSWER = "there is no response to judge"
NO_VERDICT = "no verdict in the judge's reply"


class JudgingTask(OneReplyTask):
    """A conversation with the judge for every judgment, with its failure and its costs.

    Attributes:
        repeat: 0 for the judgments of a score; another number draws again, as independent calls.

    Output columns:
        - those of the `judgments` rows: `outcome` as in `core.verdicts`, `rating` of MT-Bench alone
    """

    repeat: int = 0

    @property
    def outputs(self) -> list[str]:
        return SCHEMAS["judgments"].names

    def format_input(self, input: dict[str, Any]) -> list[Message]:
        return list(input["conversation"])

    def judgments(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The judgments to make, each begun by `begin`."""
        raise NotImplementedError

    def seed_of(self, row: dict[str, Any]) -> int:
        """Of the judge's draw: it depends on the prompt alone, so equal prompts are one call in any run and iteration."""
        return derive_seed("judge", fingerprint(row["conversation"]), *self.draw)

    @property
    def draw(self) -> tuple[int, ...]:
        """What a repetition adds to the parts of a seed."""
        return (self.repeat,) if self.repeat else ()

    def raw_text(self, row: dict[str, Any], reply: str, output: Any) -> str:
        """What is saved of a reply."""
        return reply

    def follow_up(self, row: dict[str, Any]) -> str | None:
        """What the judge is asked next about the same judgment; None = nothing."""
        return None

    def process(self, inputs: StepInput) -> StepOutput:
        rows = self.judgments(list(inputs))
        waiting = [row for row in rows if row["failure"] is None and row["conversation"]]
        while waiting:
            self._ask(waiting)
            asked_rows, waiting = waiting, []
            for row in asked_rows:
                if row["failure"] is None and (question := self.follow_up(row)):
                    row["conversation"].append({"role": "user", "content": question})
                    waiting.append(row)
        for row in rows:
            row.update(self.format_output(row["raw"], row))
            _count(row)
        yield rows

    def begin(self, row: dict[str, Any], case: Case, missing: bool) -> dict[str, Any]:
        """A judgment before the judge is asked.

        Args:
            case: without messages the judge is not asked.
            missing: one of the responses to show is null.
        """
        return {
            **row,
            "question_id": row.get("question_id", row["prompt_id"]),
            "category": row.get("category"),
            "model": row["generator"],
            "baseline": row.get("baseline_generator"),
            "game": case.game,
            "template": case.template,
            "prompt": case.messages[-1]["content"] if case.messages else None,
            "conversation": list(case.messages),
            "judge": self.llm.model_name,
            "raw": None,
            "verdict": None,
            "rating": None,
            "failure": NO_ANSWER if missing else None,
            "attempts": 0,
            "spent": {},
        }

    def _ask(self, rows: Sequence[dict[str, Any]]) -> None:
        """One reply to each conversation."""
        outputs = ask(self.llm, [self.format_input(row) for row in rows], [self.seed_of(row) for row in rows])
        for row, output in zip(rows, outputs, strict=True):
            reply, row["failure"] = reply_of(output)
            row["attempts"] += 1
            for name, value in totals(output["statistics"]).items():
                row["spent"][name] = row["spent"].get(name, 0) + value
            if reply is not None:
                row["conversation"].append({"role": "assistant", "content": reply})
                row["raw"] = self.raw_text(row, reply, output)


class JudgeAnswers(JudgingTask):
    """Judges every response as its benchmark does; two rows per question (turns or games).

    Attributes:
        protocol: whose prompts and verdicts.
        prompts: the official file with the judge's templates.
        system_prompts: the official file with system prompts by category; null = they are in `prompts`.

    Input columns:
        - prompt_id, question_id, category, turns, references, responses, generator
        - baseline_responses, baseline_generator (Arena-Hard)
    Output columns:
        - those of the `judgments` rows
    Categories:
        - scorer
    """

    protocol: Literal["mt_bench", "arena_hard_v0.1", "arena_hard_v2.0"]
    prompts: str
    system_prompts: str | None = None

    _templates: Any = PrivateAttr(None)

    @property
    def inputs(self) -> list[str]:
        pair = [] if self.protocol == "mt_bench" else ["baseline_responses", "baseline_generator"]
        return ["prompt_id", "question_id", "category", "turns", "references", "responses", "generator", *pair]

    def load(self) -> None:
        super().load()
        if self.protocol == "mt_bench":
            self._templates = mt_bench_templates(Path(self.prompts))
        else:
            self._templates = arena_hard_templates(Path(self.prompts), Path(self.system_prompts) if self.system_prompts else None)

    def judgments(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self.begin(row, case, self._misses(row, case.game)) for row in rows for case in self._cases(row)]

    def raw_text(self, row: dict[str, Any], reply: str, output: Any) -> str:
        """The official tool of v0.1 joins the replies of one judgment by line breaks."""
        return f"{row['raw'] or ''}\n{reply}" if self.protocol == "arena_hard_v0.1" else reply

    def follow_up(self, row: dict[str, Any]) -> str | None:
        needs_label = self.protocol == "arena_hard_v0.1" and row["attempts"] < ATTEMPTS and second_attempt_v01(row["raw"])
        return FOLLOW_UP if needs_label else None

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the judge's text says: a rating, or the label of a verdict; and the outcome."""
        assert input is not None
        if self.protocol == "mt_bench":
            return {"rating": rating(output), "outcome": outcome_of_rating(rating(output))}
        version: Version = "v0.1" if self.protocol == "arena_hard_v0.1" else "v2.0"
        verdict = verdict_v01(output) if version == "v0.1" else verdict_v2(output)
        return {"verdict": verdict, "outcome": outcome_of_label(verdict, input["game"], version)}

    def _misses(self, row: dict[str, Any], game: int) -> bool:
        """Whether a response that the judge would be shown is null: one up to the turn, or either side of a game."""
        if self.protocol == "mt_bench":
            return None in row["responses"][:game]
        return None in (row["responses"][0], row["baseline_responses"][0])

    def _cases(self, row: dict[str, Any]) -> list[Case]:
        if self.protocol == "mt_bench":
            return mt_bench_cases(self._templates, row["turns"], row["references"], row["responses"])
        return arena_hard_cases(self._templates, row["category"], row["turns"][0], row["responses"][0], row["baseline_responses"][0])


def _count(row: dict[str, Any]) -> None:
    """Put a judgment's costs into its columns, and its calls, reasons and costs into the stage's statistics.

    `unread` may say why the judge's reply holds no verdict. Judges that run here cost null.
    """
    costs = row.pop("spent")
    row["input_tokens"], row["output_tokens"] = costs.get("input_tokens", 0), costs.get("output_tokens", 0)
    row["cost"] = None if not costs.get("cost_usd") or costs.get("unpriced_calls") else costs["cost_usd"]
    no_verdict = row["failure"] is None and row["outcome"] is None
    if row["attempts"]:
        add_calls(row, row["failure"])
    elif row["failure"]:
        add_reasons(row, row["failure"])
    if no_verdict:
        add_reasons(row, row.pop("unread", NO_VERDICT))
    add_statistics(row, judgments=1, no_verdict=int(no_verdict), **costs)
