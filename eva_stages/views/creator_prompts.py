"""The prompts of an iteration's creator, as `eva creator` ends: how many came from where, and some evolutions beside their parents."""

from collections import Counter
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from eva_stages.core.harmless import one_line
from eva_stages.core.progress import facts
from eva_stages.core.rows import last_user_text
from eva_stages.core.text_table import TextTable, as_rich, count_text
from eva_stages.views.history import Artifact, History
from eva_stages.views.lookup import Rows
from eva_stages.views.run_summary import summary

SAMPLE_SIZE = 5
SHOWN_CHARACTERS = 240
COLUMNS = ["prompt_id", "parent_id", "mutation", "messages"]


def creator_document(history: History, iteration: int) -> dict[str, Any]:
    """The run's summary, and under `creator_prompts` the counts and a sample of the prompts of one iteration; null if not complete."""
    prompts = history.prompt_sets.get(iteration)
    return {
        **summary(history),
        "creator_prompts": None if prompts is None or prompts.rows is None else _prompts(history, iteration, prompts),
    }


def _prompts(history: History, iteration: int, prompts: Artifact) -> dict[str, Any]:
    assert prompts.rows is not None
    rows = Rows(prompts.rows)
    origins = rows.column("origin").to_pylist() if "origin" in rows.names else ["evolved"] * history.size(prompts)
    evolved_places = [place for place, origin in enumerate(origins) if origin == "evolved"]
    mutations = np.array(rows.column("mutation").to_pylist(), dtype=object)[evolved_places]
    selected = history.find("select", iteration)
    spread_places = np.unique(np.linspace(0, len(evolved_places) - 1, min(SAMPLE_SIZE, len(evolved_places))).round().astype(int))
    sampled_rows = rows.take(np.array(evolved_places, dtype=int)[spread_places], COLUMNS) if evolved_places else []
    sources = [rows, *_sources(history, iteration)]
    return {
        "iteration": iteration,
        "prompts": len(origins),
        "selected": None if selected is None else history.size(selected),
        "origins": dict(Counter(map(str, origins)).most_common()),
        "mutations": dict(Counter(str(mutation) for mutation in mutations if mutation is not None).most_common()),
        "sample": [
            {
                "prompt_id": row["prompt_id"],
                "mutation": row["mutation"],
                "parent_id": row["parent_id"],
                "parent": _text(sources, row["parent_id"]),
                "evolution": last_user_text(row["messages"]),
            }
            for row in sampled_rows
        ],
    }


def _sources(history: History, iteration: int) -> list[Rows]:
    """Where the parents of an iteration's evolutions are: among all its evolutions, and in the prompt sets before it."""
    evolutions = history.find("evolve", iteration)
    earlier_sets = [history.prompt_sets[number] for number in sorted(history.prompt_sets, reverse=True) if number < iteration]
    return [Rows(artifact.rows) for artifact in (evolutions, *earlier_sets) if artifact is not None and artifact.rows is not None]


def _text(sources: list[Rows], prompt_id: str | None) -> str | None:
    """The text of a prompt; None if no source has it."""
    rows = (source.of(prompt_id, ["messages"]) for source in sources) if prompt_id is not None else iter(())
    return next((last_user_text(row["messages"]) for row in rows if row is not None), None)


def creator_view(document: dict[str, Any]) -> RenderableType:
    """What the creator made, for a terminal."""
    prompts = document["creator_prompts"]
    place = Text(f"all stages: {document['stages']}")
    if prompts is None:
        return Group(Text("the iteration's prompts are not complete"), place)
    entry = next(entry for entry in document["iterations"] if entry["iteration"] == prompts["iteration"])
    selected = "" if prompts["selected"] is None else f"; evolved from {count_text(prompts['selected'], 'selected prompt')}"
    lines = [f"{count_text(prompts['prompts'], 'prompt')}: {facts(prompts['origins'])}{selected}"]
    if prompts["mutations"]:
        lines.append(f"mutations: {facts(prompts['mutations'])}")
    if entry["rejected"] is not None:
        lines.append(f"evolutions rejected: {facts(entry['rejected']) or 'none'}")
    rows = [
        (
            one_line(example["parent"] or "(unknown)", SHOWN_CHARACTERS),
            one_line(example["evolution"], SHOWN_CHARACTERS),
            example["mutation"],
        )
        for example in prompts["sample"]
    ]
    sample = TextTable(f"{len(rows)} of the evolutions", ("parent", "evolution", "mutation"), rows)
    title = Text(f"{document['recipe']}: prompts of iteration {prompts['iteration']}", style="bold")
    return Group(title, Text("\n".join([*lines, ""])), as_rich([sample] if rows else []), Text(""), place)
