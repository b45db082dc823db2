"""The step that has answers judged: MT-Bench's ratings and Arena-Hard's verdicts, by any generator.

Of all that a judge says only its own text is read, never the prompt it was shown. A call that fails gives a null with its reason, and so
does an answer that is null, without a call; a text without a verdict gives a null with the text. None is a loss or a tie. A judge's draws
depend on the prompt alone, so that equal prompts are one call, in whatever run and iteration.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from distilabel.steps import StepInput
from distilabel.steps.tasks import Task
from distilabel.typing import StepOutput
from pydantic import PrivateAttr

from eva_stages.core import generating
from eva_stages.core.failures import add_calls, add_reasons
from eva_stages.core.fingerprint import derive_seed, fingerprint
from eva_stages.core.generating import COSTS, reply_of, totals
from eva_stages.core.parts import add_statistics
from eva_stages.core.rows import SCHEMAS, Message
from eva_stages.core.verdicts import Version, outcome_of_label
from eva_stages.evaluation.arena_hard import second_attempt_v01, verdict_v01, verdict_v2
from eva_stages.evaluation.judge_prompts import Case, arena_hard_cases, arena_hard_templates, mt_bench_cases, mt_bench_templates
from eva_stages.evaluation.mt_bench import rating

ATTEMPTS = {"arena_hard_v0.1": 2}
"""How often a judge is asked that gave no verdict."""
AGAIN = "continue your judgment and finish by outputting a final verdict label"
"""What Arena-Hard v0.1 asks a judge then (arena-hard-auto, gen_judgment.py of 2024)."""
NO_ANSWER = "there is no answer to judge"
NO_VERDICT = "no verdict in the judge's reply"
COUNTED = ("output_tokens", *COSTS)


class JudgeAnswers(Task):
    """Judges every answer as its benchmark does; two rows per question (turns or games).

    Attributes:
        protocol: whose prompts and verdicts.
        prompts: the official file with the judge's templates.
        system_prompts: the official file with system prompts by category; null = they are in `prompts`.

    Input columns:
        - prompt_id, question_id, category, turns, references, responses, generator
        - baseline_responses, baseline_generator (Arena-Hard)
    Output columns:
        - those of the `benchmark_judgments` rows
    """

    protocol: Literal["mt_bench", "arena_hard_v0.1", "arena_hard_v2.0"]
    prompts: str
    system_prompts: str | None = None

    _templates: Any = PrivateAttr(None)

    @property
    def inputs(self) -> list[str]:
        pair = [] if self.protocol == "mt_bench" else ["baseline_responses", "baseline_generator"]
        return ["prompt_id", "question_id", "category", "turns", "references", "responses", "generator", *pair]

    @property
    def outputs(self) -> list[str]:
        return SCHEMAS["benchmark_judgments"].names

    def load(self) -> None:
        super().load()
        if self.protocol == "mt_bench":
            self._templates = mt_bench_templates(Path(self.prompts))
        else:
            self._templates = arena_hard_templates(Path(self.prompts), Path(self.system_prompts) if self.system_prompts else None)

    def format_input(self, input: dict[str, Any]) -> list[Message]:
        return list(input["conversation"])

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the judge's text says: a rating, or the label of a verdict."""
        if self.protocol == "mt_bench":
            return {"score": rating(output), "verdict": None}
        return {"score": None, "verdict": verdict_v01(output) if self.protocol == "arena_hard_v0.1" else verdict_v2(output)}

    def process(self, inputs: StepInput) -> StepOutput:
        judged = [self._begun(row, case) for row in inputs for case in self._cases(row)]
        waiting = [row for row in judged if row["failure"] is None]
        for attempt in range(ATTEMPTS.get(self.protocol, 1)):
            if attempt:
                waiting = [row for row in waiting if row["failure"] is None and second_attempt_v01(row["raw"])]
                for row in waiting:
                    row["conversation"].append({"role": "user", "content": AGAIN})
            if waiting:
                self._ask(waiting)
        for row in judged:
            row.update(self.format_output(row["raw"]))
            row["outcome"] = None if self.protocol == "mt_bench" else outcome_of_label(row["verdict"], row["game"], self._version())
            count(row)
        yield judged

    def _version(self) -> Version:
        return "v0.1" if self.protocol == "arena_hard_v0.1" else "v2.0"

    def _missing(self, row: dict[str, Any], game: int) -> bool:
        """Whether one of the answers that the judge would be shown is null: those up to the turn, or both sides of a game."""
        if self.protocol == "mt_bench":
            return None in row["responses"][:game]
        return None in (row["responses"][0], row["baseline_responses"][0])

    def _cases(self, row: dict[str, Any]) -> list[Case]:
        if self.protocol == "mt_bench":
            return mt_bench_cases(self._templates, row["turns"], row["references"], row["responses"])
        return arena_hard_cases(self._templates, row["category"], row["turns"][0], row["responses"][0], row["baseline_responses"][0])

    def _begun(self, row: dict[str, Any], case: Case) -> dict[str, Any]:
        return {
            **row,
            "model": row["generator"],
            "baseline": row.get("baseline_generator"),
            "game": case.game,
            "template": case.template,
            "prompt": case.messages[-1]["content"],
            "conversation": list(case.messages),
            "judge": self.llm.model_name,
            "raw": None,
            "failure": NO_ANSWER if self._missing(row, case.game) else None,
            "attempts": 0,
            "spent": dict.fromkeys(COUNTED, 0),
        }

    def _ask(self, rows: Sequence[dict[str, Any]]) -> None:
        """One reply to each conversation; the official tools join the replies of one judgment by line breaks."""
        outputs = ask(self.llm, [self.format_input(row) for row in rows])
        for row, output in zip(rows, outputs, strict=True):
            reply, row["failure"] = reply_of(output)
            row["attempts"] += 1
            for name, value in totals(output["statistics"]).items():
                row["spent"][name] += value
            if reply is None:
                continue
            row["conversation"].append({"role": "assistant", "content": reply})
            row["raw"] = f"{row['raw'] or ''}\n{reply}" if self.protocol == "arena_hard_v0.1" else reply


def ask(llm: Any, conversations: Sequence[list[Message]]) -> Any:
    """One output per conversation, with seeds that depend on the conversation alone."""
    return generating.ask(llm, list(conversations), [derive_seed("judge", fingerprint(messages)) for messages in conversations])


def count(row: dict[str, Any]) -> None:
    """Put a judgment's costs into its columns, and its fate and costs into the stage's statistics. Local judges cost null.

    `unread` may say why the judge's reply holds no verdict.
    """
    spent = row.pop("spent")
    row["input_tokens"], row["output_tokens"] = spent["input_tokens"], spent["output_tokens"]
    row["cost"] = None if not spent["cost_usd"] or spent["unpriced_calls"] else spent["cost_usd"]
    unread = row["failure"] is None and row["verdict"] is None and row["score"] is None
    if row["attempts"]:
        add_calls(row, row["failure"])
    elif row["failure"]:
        add_reasons(row, row["failure"])
    add_reasons(row, *([row.pop("unread", NO_VERDICT)] if unread else []))
    add_statistics(row, judgments=1, no_verdict=int(unread), **spent)
