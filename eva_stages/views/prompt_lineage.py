"""The origin and the fate of a prompt: the path up to its seed, or the tree below a seed.

Artifacts are searched directly (`lookup`), without an index that could be out of date. A text that evolved
twice is one prompt; its lineage is that of the row that first came into a prompt set, otherwise that of its first evolution.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_stages.core.errors import ConfigError, DamagedError
from eva_stages.core.kinds import KINDS
from eva_stages.core.parts import FAILED_CALLS
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.tables import FILE
from eva_stages.views.history import Artifact, History
from eva_stages.views.lookup import Row, Rows, similar_ids
from eva_stages.views.prompt_facts import Facts

PROMPT = SCHEMAS["prompts"].names
EVOLUTION = [*PROMPT, "rejected", "fate"]
"""Columns of evolutions; online training records their fates."""
MOST_CHILDREN = 200
FATES = {kind.name: kind.leaves_out for kind in KINDS.values() if kind.leaves_out}
"""Stages that an evolved prompt passes, in order, with its fate if it is missing after the stage."""


ONLINE_FATES = {
    "inserted": "in the buffer",
    "duplicate": "left out: a duplicate",
    "gate": "left out by the gate",
    "late": "left out: the evolver's reply came too late",
    "rejected": "left out",
}
"""What became of an evolution in online training, by the kind of its fate."""


@dataclass(frozen=True)
class Origin:
    """A prompt's row and the iteration that made it."""

    iteration: int
    row: Row


class Lineage:
    """Looks up the prompts of one run; files that were read are cached."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._rows: dict[Path, Rows] = {}

    # --- the questions

    def trace(self, prompt_id: str) -> dict[str, Any]:
        """The steps from the seed to a prompt, each with its responses, informativeness, pairs and checkpoints.

        Raises:
            ConfigError: if the run has no such prompt, with similar ids.
        """
        steps = self._climb(self._origin(prompt_id))
        evolutions = [(step.iteration, self._open(step).where("parent_id", prompt_id)) for step in self._history.every("evolve")]
        count = sum(len(numbers) for _, numbers in evolutions)
        return {
            "run": self._history.name,
            "prompt_id": prompt_id,
            "seed": steps[0].row["prompt_id"],
            "reaches_seed": steps[0].row["parent_id"] is None,
            "lineage": [self._step(step) for step in steps],
            "evolved_into": self._children(prompt_id),
            "evolutions": count,
        }

    def tree(self, prompt_id: str) -> dict[str, Any]:
        """All evolutions of a prompt's seed, rejected ones included.

        Raises:
            ConfigError: if the run has no such prompt, with similar ids.
        """
        seed = self._climb(self._origin(prompt_id))[0]
        root = self._node(seed, [])
        nodes = {root["prompt_id"]: root}
        total = 0
        for artifact in self._history.every("evolve"):
            rows = self._open(artifact)
            for row in rows.take(rows.where("root_id", root["prompt_id"]), EVOLUTION):
                node = self._node(Origin(artifact.iteration, row), [])
                nodes.get(row["parent_id"], root)["children"].append(node)
                total += 1
                if row["rejected"] is None:
                    nodes.setdefault(row["prompt_id"], node)
        return {"run": self._history.name, "seed": root["prompt_id"], "evolutions": total, "tree": root}

    # --- lookups

    def _open(self, artifact: Artifact) -> Rows:
        if artifact.folder not in self._rows:
            if artifact.rows is None:
                raise DamagedError(f"{artifact.folder} is damaged: {FILE} is missing")
            self._rows[artifact.folder] = Rows(artifact.rows)
        return self._rows[artifact.folder]

    def _in_set(self, prompt_id: str, last: int | None = None) -> Origin | None:
        """The prompt as it first came into a prompt set, up to that of iteration `last`."""
        for iteration, artifact in sorted(self._history.prompt_sets.items()):
            if last is not None and iteration > last:
                break
            if row := self._open(artifact).of(prompt_id, PROMPT):
                return Origin(iteration, row)
        return None

    def _origin(self, prompt_id: str) -> Origin:
        """The first row of a prompt: in a prompt set, or else an evolution, preferably one that was not rejected."""
        if origin := self._in_set(prompt_id):
            return origin
        attempts = []
        for artifact in self._history.every("evolve"):
            rows = self._open(artifact)
            attempts += [Origin(artifact.iteration, row) for row in rows.take(rows.where("prompt_id", prompt_id), EVOLUTION)]
        if attempts:
            return next((attempt for attempt in attempts if attempt.row["rejected"] is None), attempts[0])
        for prompt_set in self._history.every("prompts"):
            if row := self._open(prompt_set).of(prompt_id, PROMPT):
                return Origin(prompt_set.iteration, row)
        searched_artifacts = (*self._history.prompt_sets.values(), *self._history.every("evolve"), *self._history.every("prompts"))
        similar = similar_ids(prompt_id, [self._open(artifact).column("prompt_id") for artifact in searched_artifacts])
        if not similar:
            hint = "it has no prompts yet"
        elif similar[0][0] == prompt_id.strip().lower()[:1]:
            hint = f"did you mean {', '.join(similar)}?"
        else:
            hint = f"ids are in the column prompt_id of its rows, for example {similar[0]}"
        raise ConfigError([f"{self._history.name} has no prompt {prompt_id[:64]!r}; {hint}"])

    def _climb(self, origin: Origin) -> list[Origin]:
        """From the seed down to a prompt. Ends: each step up lowers the iteration, or in the same one the generation."""
        steps = [origin]
        while parent := self._parent(steps[0]):
            steps.insert(0, parent)
        return steps

    def _parent(self, origin: Origin) -> Origin | None:
        row = origin.row
        if row["parent_id"] is None:
            return None
        if parent := self._in_set(row["parent_id"], origin.iteration - 1):
            return parent
        evolved = self._history.find("evolve", origin.iteration)
        if evolved is None:
            return None
        rows = self._open(evolved)
        for candidate in rows.take(rows.where("prompt_id", row["parent_id"]), EVOLUTION):
            if candidate["rejected"] is None and candidate["root_id"] == row["root_id"] and candidate["generation"] < row["generation"]:
                return Origin(origin.iteration, candidate)
        same_set = self._in_set(row["parent_id"], origin.iteration)  # online training evolves what it has just used
        return same_set if same_set and same_set.row["generation"] < row["generation"] else None

    # --- entries of the documents

    def _fate(self, origin: Origin) -> str:
        row, iteration = origin.row, origin.iteration
        if row.get("rejected") == FAILED_CALLS:
            return "no prompt: the evolver's call failed"
        if row.get("rejected"):
            return f"rejected: {row['rejected']}"
        if row["parent_id"] is None:
            return "seed prompt" if self._in_set(row["prompt_id"]) else FATES["decontaminate"]
        if self._history.is_online:
            return self._online_fate(row, iteration)
        for stage, words in FATES.items():
            passing_artifact = self._history.find(stage, iteration)
            if passing_artifact is not None and not len(self._open(passing_artifact).where("prompt_id", row["prompt_id"])):
                return f"{words}{self._gate_reason(row['prompt_id'], iteration)}" if stage == "gate" else words
        prompt_set = self._history.prompt_sets.get(iteration)
        return f"in the prompt set of iteration {iteration}" if prompt_set else "not mixed yet"

    def _online_fate(self, row: Row, iteration: int) -> str:
        """The fate of an evolution that is recorded with it; a prompt that was trained on has none in its row."""
        fate = row.get("fate")
        if fate is None:
            return f"trained on from iteration {iteration} on"
        kind, _, reason = fate.partition(":")
        return ": ".join(part for part in (ONLINE_FATES.get(kind, "left out"), reason.replace("_", " ")) if part)

    def _gate_reason(self, prompt_id: str, iteration: int) -> str:
        """The test that a prompt failed; empty if it never came to the gate."""
        verdicts = self._history.find("gate-verdicts", iteration)
        row = self._open(verdicts).of(prompt_id, ["reason"]) if verdicts else None
        return f": {row['reason'].replace('_', ' ')}" if row and row["reason"] else ""

    def _node(self, origin: Origin, children: list[Row]) -> Row:
        shown_fields = {name: origin.row[name] for name in ("prompt_id", "generation", "mutation", "source", "messages")}
        return {**shown_fields, "iteration": self._birth(origin), "fate": self._fate(origin), "children": children}

    def _birth(self, origin: Origin) -> int:
        """The iteration that made a prompt; in online training it may be earlier than that of the first use."""
        if not self._history.is_online or origin.row["parent_id"] is None:
            return origin.iteration
        evolutions = [artifact for artifact in self._history.every("evolve") if artifact.iteration <= origin.iteration]
        births = (step.iteration for step in evolutions if len(self._open(step).where("prompt_id", origin.row["prompt_id"])))
        return next(births, origin.iteration)

    def _children(self, prompt_id: str) -> list[Row]:
        children: list[Row] = []
        for artifact in self._history.every("evolve"):
            rows = self._open(artifact)
            numbers = rows.where("parent_id", prompt_id)[: MOST_CHILDREN - len(children)]
            for row in rows.take(numbers, ["prompt_id", "generation", "mutation", "rejected"]):
                children.append({**row, "iteration": artifact.iteration})
        return children

    def _step(self, origin: Origin) -> Row:
        step = self._node(origin, [])
        del step["children"]
        return {**step, **Facts(self._history, self._open).of(origin.row["prompt_id"])}
