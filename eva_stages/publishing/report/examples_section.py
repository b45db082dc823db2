"""Examples to read: chains from a seed to an evolved prompt with its best and worst responses, and responses side by side with verdicts.

A rule selects them: of the newest evolved prompts those with the largest, the median and the smallest reward gap; of the judged responses
a win, a loss, and a question on which the two orders disagree or tie.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from eva_stages.core.kinds import EVAL, JUDGE
from eva_stages.core.rows import last_user_text
from eva_stages.publishing.report.judging_section import judged_rows
from eva_stages.publishing.report.numbers import rewards, table
from eva_stages.publishing.report.section_html import Section
from eva_stages.views.history import Artifact, History
from eva_stages.views.lookup import Rows
from eva_stages.views.prompt_lineage import Lineage

MOST_JUDGMENT_STAGES = 2
"""Benchmarks whose responses are shown."""


@dataclass(frozen=True)
class Answer:
    label: str
    text: str | None
    reward: float | None = None


@dataclass(frozen=True)
class Step:
    """A prompt on the way from the seed."""

    heading: str
    text: str
    about: str
    """The informativeness of its responses, in a line."""
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Chain:
    title: str
    prompt_id: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Comparison:
    """A question with the policy's response and the baseline's."""

    title: str
    question: str
    answers: tuple[Answer, ...]
    verdicts: tuple[Answer, ...]


def examples(history: History) -> Section:
    lineage = Lineage(history)
    chains = [_chain(title, lineage.trace(prompt_id)) for title, prompt_id in _example_ids(history)]
    comparisons = [
        comparison for artifact in _judgment_artifacts(history)[:MOST_JUDGMENT_STAGES] for comparison in _comparisons(history, artifact)
    ]
    missing = [] if chains else ["No prompt has evolved and been answered yet."]
    missing += [] if comparisons else ["No responses have been judged against a baseline yet."]
    return Section("examples", "Examples", chains=chains, answers=comparisons, missing=missing)


def _example_ids(history: History) -> Iterator[tuple[str, str]]:
    """Ids of evolved prompts of the last answered set, by their reward gap."""
    for iteration, artifact in sorted(history.prompt_sets.items(), reverse=True):
        prompts, reward_rows = table(artifact, ["prompt_id", "generation"]), rewards(history.find("reward", iteration))
        if prompts is None or reward_rows is None or not prompts["prompt_id"].combine_chunks().equals(reward_rows.ids):
            continue
        evolved = np.flatnonzero((prompts["generation"].to_numpy() > 0) & np.isfinite(reward_rows.gap))
        if not len(evolved):
            continue
        ranking = evolved[np.argsort(-reward_rows.gap[evolved], kind="stable")]
        places = {0: "The largest reward gap", len(ranking) // 2: "A reward gap in the middle", len(ranking) - 1: "The smallest reward gap"}
        for place, title in places.items():
            yield (
                f"{title} among the {len(ranking):,} evolved prompts of iteration {iteration}",
                reward_rows.ids[int(ranking[place])].as_py(),
            )
        return


def _chain(title: str, document: dict[str, Any]) -> Chain:
    return Chain(title, document["prompt_id"], tuple(_step(step) for step in document["lineage"]))


def _step(step: dict[str, Any]) -> Step:
    heading = (
        f"Generation {step['generation']}: {step['mutation'].replace('_', ' ')}, iteration {step['iteration']}"
        if step["mutation"]
        else "Seed prompt"
    )
    about = step["fate"]
    answers: tuple[Answer, ...] = ()
    if step["answers"]:
        last = step["answers"][-1]
        scored_responses = sorted(
            (response for response in last["responses"] if response["reward"] is not None), key=lambda response: -response["reward"]
        )
        differ = len(scored_responses) > 1 and scored_responses[0]["reward"] > scored_responses[-1]["reward"]
        ends = (
            [("best response", scored_responses[0]), ("worst response", scored_responses[-1])]
            if differ
            else [("one response", entry) for entry in scored_responses[:1]]
        )
        answers = tuple(Answer(label, entry["text"], entry["reward"]) for label, entry in ends)
        gap = "unknown" if last["gap"] is None else f"{last['gap']:.3g}"
        about += f"; {len(last['responses'])} responses in iteration {last['iteration']}, reward gap {gap}"
    return Step(heading, last_user_text(step["messages"]), about, answers)


def _judgment_artifacts(history: History) -> list[Artifact]:
    """The judgments of responses against a baseline, of the last iteration that has them."""
    judgment_artifacts = [artifact for artifact in history.of_kind(JUDGE) if "baseline" in artifact.manifest["inputs"]]
    last = max((artifact.iteration for artifact in judgment_artifacts), default=0)
    of_last = [artifact for artifact in judgment_artifacts if artifact.iteration == last]
    return [artifact for artifact in of_last if artifact.parsed_name.side == EVAL] or of_last


def _comparisons(history: History, artifact: Artifact) -> list[Comparison]:
    sources = [history.input_artifact(artifact, name) for name in ("questions", "answers", "baseline")]
    if any(source is None or source.rows is None for source in sources):
        return []
    by_question: dict[str, list[dict[str, Any]]] = {}
    for row in judged_rows(artifact, ["raw"]):
        by_question.setdefault(row["question_id"], []).append(row)
    outcomes = {question: [row["outcome"] for row in rows] for question, rows in by_question.items()}
    orders = " in both orders" if any(len(rows) > 1 for rows in by_question.values()) else ""
    wanted_texts = {
        f"a win{orders}": lambda scores: None not in scores and min(scores) > 0.5,
        f"a loss{orders}": lambda scores: None not in scores and max(scores) < 0.5,
        "the orders disagree, or it is a tie": lambda scores: None not in scores and min(scores) <= 0.5 <= max(scores),
        "no verdict": lambda scores: None in scores,
    }
    questions, answers, baselines = (Rows(source.rows) for source in sources if source is not None and source.rows is not None)
    key = "question_id" if "question_id" in questions.names else "prompt_id"
    comparisons_found = []
    for title, fits in wanted_texts.items():
        question = next((name for name, scores in outcomes.items() if fits(scores)), None)
        if question is None:
            continue
        row = questions.take(questions.where(key, question)[:1])[0]
        turns = len(row.get("turns") or (None,))
        texts = [_text(rows.of(row["prompt_id"], ["responses"]), turns) for rows in (answers, baselines)]
        sides = (Answer(f"policy of iteration {artifact.iteration}", texts[0]), Answer("baseline", texts[1]))
        verdicts = tuple(_verdict(entry) for entry in by_question[question])
        comparisons_found.append(Comparison(f"{artifact.parsed_name.benchmark}: {title}", _question(row), sides, verdicts))
    return comparisons_found


def _verdict(row: dict[str, Any]) -> Answer:
    order = "policy first" if row["game"] == 1 else "baseline first"
    verdict_text = "no verdict" if row["outcome"] is None else row.get("verdict") or f"{row['outcome']:.2f} for the policy"
    return Answer(f"{row['judge']}, {order}: {verdict_text}", row["raw"])


def _text(row: dict[str, Any] | None, turns: int) -> str | None:
    """The response that was judged: one for each turn of the question, of several samples the first."""
    if row is None:
        return None
    return "\n\n".join(text or "(none)" for text in row["responses"][:turns])


def _question(row: dict[str, Any]) -> str:
    return "\n\n".join(row["turns"]) if row.get("turns") else last_user_text(row["messages"])
