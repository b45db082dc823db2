"""The prompts of online training: what every step trains on, and what becomes of its rewards.

A step takes prompts from the buffer and the rest from the seed prompts, in the order in which offline training takes them. When it has
scored its responses, their metric is the prompts' score; a share of the prompts is drawn and evolved, and the evolutions enter the buffer
`lag` steps later. In an interval without a buffer, the warm-up, seed prompts are scored for the buffer of the next one. All this happens
in one process; the state between two steps is saved with the checkpoint of the weights.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from eva_stages.core.config.function_fields import METRIC, SELECTION
from eva_stages.core.config.online_config import Buffer
from eva_stages.core.errors import DataError
from eva_stages.core.failures import REASON, plain, split
from eva_stages.core.fingerprint import derive_seed, uniforms
from eva_stages.core.named_functions import FunctionCode, load_choice
from eva_stages.core.ourfiles import read_json
from eva_stages.core.parts import FAILED_CALLS, STATISTICS
from eva_stages.core.rows import SCHEMAS, Message
from eva_stages.creator.evolving_thread import Batch, EvolvingThread
from eva_stages.creator.function_calls import metric_values, selected_places
from eva_stages.creator.informativeness import weights
from eva_stages.creator.online_journal import FATE_INSERTED, FATE_LATE, Journal, drop_after
from eva_stages.creator.originals import Originals, fitting_prompts
from eva_stages.creator.prompt_buffer import Entry, PromptBuffer, read_entries
from eva_stages.creator.step_evolving import StepEvolving

Row = dict[str, Any]
STATE, BUFFER = "state.json", "buffer.parquet"
OF_EVOLVER = {name: f"evolver_{name}" for name in ("input_tokens", "output_tokens")}
"""Names of the evolver's tokens among the counts of a training, whose own are those of the policy."""


class StepPrompt(NamedTuple):
    """A prompt of a step: a row of the schema `prompts`, and where it was drawn: original, buffer or fresh."""

    row: Row
    origin: str


class Curriculum:
    """Draws the prompts of every step, and takes their scores.

    Args:
        prompts: artifact with the seed prompts.
        seed: of the order of the seed prompts, and of all draws.
        size: prompts of a step.
        metric: name of a built-in metric, or a function in a file.
        fresh: artifact with prompts that take the place of the buffer.
        share: of a step's prompts that come from the buffer, or are fresh.
        buffer: the fields of `Buffer`; None = prompts are scored, and none is drawn from the buffer.
        selection: `kind` and `fraction` of the prompts of a step that are evolved.
        evolving: None = nothing evolves.
        lag: steps until evolutions enter the buffer; 0 = training waits for them.
    """

    def __init__(
        self,
        prompts: str,
        seed: int,
        size: int,
        metric: str | FunctionCode,
        fresh: str | None = None,
        share: float = 0.0,
        buffer: dict[str, Any] | None = None,
        selection: dict[str, Any] | None = None,
        evolving: StepEvolving | None = None,
        lag: int = 0,
    ) -> None:
        self._seed, self._size, self._share, self._lag = seed, size, share, lag
        self._metric, self._selection, self._evolving = load_choice(metric, METRIC), selection, evolving
        self._files = {"original": prompts, **({"fresh": fresh} if fresh else {})}
        self._settings = None if buffer is None else Buffer(**buffer)
        self._is_warm_up = buffer is None and fresh is None
        self._buffer = PromptBuffer(self._settings)
        self._journal, self._counts = Journal(), Counter[str]()
        self._pending: list[Batch] = []
        self._thread: EvolvingThread | None = None
        self._originals: dict[str, Originals] = {}

    def begin(self, fits: Callable[[Sequence[Message]], bool], state: Path | None, journal: Path, is_new: bool) -> None:
        """Read the prompts, and the state that an earlier interval (`is_new`) or an earlier attempt has saved.

        Args:
            fits: whether a prompt leaves the policy room for a response.
            journal: folder of the interval's journal; rows of an earlier attempt after that state are dropped.
        """
        seeds = {"original": self._seed, "fresh": derive_seed(self._seed, "fresh")}
        for name, folder in self._files.items():
            self._originals[name] = Originals(fitting_prompts(Path(folder), fits), seeds[name])
            if len(self._originals[name].table) < self._size:
                raise DataError(
                    f"a step has {self._size} prompts, and only {len(self._originals[name].table)} of {folder} leave room for a response; "
                    "lower solver.training.batch_size, or raise solver.training.max_length"
                )
        drop_after(journal, 0 if state is None else self._read(state, is_new))
        if self._evolving is not None:
            self._evolving.begin([originals.table for originals in self._originals.values()], state)
            self._thread = EvolvingThread(self._evolving, fits)

    def draw(self, step: int) -> list[StepPrompt]:
        """The prompts of a step, each once; evolutions that are due enter the buffer first."""
        self._enter_due(step)
        share_count = round(self._share * self._size)
        if "fresh" in self._originals:
            fresh = [StepPrompt(row, "fresh") for row in self._originals["fresh"].take(share_count)]
            return [*(StepPrompt(row, "original") for row in self._originals["original"].take(self._size - share_count)), *fresh]
        available = min(share_count, len(self._buffer)) if self._settings else 0
        prompts = [StepPrompt(row, "original") for row in self._originals["original"].take(self._size - available)]
        known_ids = {prompt.row["prompt_id"] for prompt in prompts}
        prompts += [StepPrompt(entry.prompt, "buffer") for entry in self._buffer.draw(step, available, self._seed, known_ids)]
        known_ids = {prompt.row["prompt_id"] for prompt in prompts}
        other_rows = self._originals["original"].take_others(self._size - len(prompts), known_ids)
        return [*prompts, *(StepPrompt(row, "original") for row in other_rows)]

    def record(self, step: int, prompts: Sequence[StepPrompt], results: Sequence[Row]) -> dict[str, float]:
        """Take what became of the prompts of a step; returns figures to log.

        Args:
            results: of each prompt its `responses`, `finish_reasons`, `token_counts`, `rewards` and `failures`, lists of n.
        """
        rewards = np.array([row["rewards"] for row in results], dtype=np.float64)
        scores = metric_values(self._metric, rewards)
        new_entries = []
        for prompt, result, score in zip(prompts, results, scores.tolist(), strict=True):
            name, is_scored = prompt.row["prompt_id"], np.isfinite(score)
            self._journal.add(
                "uses", {**result, "step": step, "prompt_id": name, "origin": prompt.origin, "score": score if is_scored else None}
            )
            if is_scored:
                self._buffer.note_score(name, score)
            if is_scored and self._is_warm_up and name not in self._buffer:
                new_entries.append(Entry(prompt.row, score, step, step))
        self._buffer.note_uses(step, [prompt.row["prompt_id"] for prompt in prompts])
        self._buffer.insert(step, new_entries)
        self._counts.update(REASON + plain(failure) for row in results for failure in row["failures"] if failure is not None)
        self._counts["kept_scores"] += int(np.isnan(scores).sum())
        if self._evolving is not None:
            self._evolve(step, prompts, results, scores)
        return self._figures(prompts)

    def save(self, step: int, folder: Path, journal: Path, is_end: bool) -> None:
        """Save the state after a step to the checkpoint's folder, and the rows since the last checkpoint to the journal.

        Evolutions under way are waited for; at the end of an interval all of them enter the buffer.
        """
        for batch in self._pending:
            batch.wait()
        if is_end:
            while self._pending:
                self._enter(step, self._pending.pop(0))
            self._journal.add("buffer", *({**row, "origin": _origin(row)} for row in self._buffer.table().to_pylist()))
        self._journal.write(step, journal)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(self._buffer.table(), folder / BUFFER, compression="zstd")
        batches = [{"step": batch.step, "evolutions": batch.wait()} for batch in self._pending]
        state = {
            "step": step,
            "positions": {name: originals.position for name, originals in self._originals.items()},
            "counts": self._counts,
            "pending": batches,
        }
        (folder / STATE).write_text(json.dumps(state), encoding="utf-8")
        if self._evolving is not None:
            self._evolving.save(folder)

    def close(self) -> tuple[dict[str, float], dict[str, int]]:
        """Unload the evolver; returns the interval's counts, and the reasons of failures with their numbers."""
        if self._thread is not None:
            self._thread.close()
        counts, failures = split(self._counts)
        return {**counts, "buffer": len(self._buffer)}, failures

    def _read(self, folder: Path, is_new: bool) -> int:
        """Go on from a state; returns its step."""
        state = read_json(folder / STATE, dict)
        for name, position in state["positions"].items():
            if name in self._originals and not (is_new and name == "fresh"):
                self._originals[name].position = position
        self._buffer = PromptBuffer(self._settings)
        self._buffer.insert(state["step"], read_entries(folder / BUFFER))
        if is_new:
            return int(state["step"])
        self._counts.update(state["counts"])
        for batch in state["pending"]:
            self._pending.append(Batch(batch["step"], evolutions=batch["evolutions"]))
            self._pending[-1].return_event.set()
        return int(state["step"])

    def _evolve(self, step: int, prompts: Sequence[StepPrompt], results: Sequence[Row], scores: np.ndarray) -> None:
        """Draw prompts of the step and evolve them, unless earlier evolutions are overdue."""
        assert self._thread is not None
        if self._lag and any(batch.step + self._lag <= step for batch in self._pending):
            self._counts["busy"] += 1
            return
        parents = self._parents(step, prompts, results, scores)
        if not parents:
            self._counts["nothing_to_evolve"] += 1
            return
        batch = Batch(step, parents)
        self._thread.submit(batch)
        if self._lag:
            self._pending.append(batch)
        else:
            batch.wait()
            self._enter(step, batch)

    def _parents(self, step: int, prompts: Sequence[StepPrompt], results: Sequence[Row], scores: np.ndarray) -> list[Row]:
        """Draw the prompts of a step that are evolved, as `Select` draws from a set; those without a score cannot be drawn."""
        assert self._selection is not None
        places = np.flatnonzero(np.isfinite(scores)).tolist()
        count = min(round(self._selection["fraction"] * len(prompts)), len(places))
        if not count:
            return []
        step_weights = weights(scores[places])
        step_weights = step_weights if step_weights.any() else np.ones(len(places))
        probabilities = step_weights / step_weights.sum()
        draws = uniforms(derive_seed(self._seed, "select", step), pa.array([prompts[place].row["prompt_id"] for place in places]))
        selection = load_choice(self._selection["kind"], SELECTION)
        parents = []
        for draw, chosen in enumerate(selected_places(selection, step_weights, draws, count).tolist()):
            place = places[chosen]
            parents.append({**results[place], **prompts[place].row, "score": float(scores[place])})
            figures = {"weight": float(step_weights[chosen]), "probability": float(probabilities[chosen])}
            self._journal.add("selections", {"step": step, "prompt_id": parents[-1]["prompt_id"], "draw": draw, **figures})
        return parents

    def _enter_due(self, step: int) -> None:
        """Let the evolutions enter that are due and there, in the order of their parents' steps."""
        while self._pending and self._pending[0].step + self._lag <= step and self._pending[0].return_event.is_set():
            self._enter(step, self._pending.pop(0))

    def _enter(self, step: int, batch: Batch) -> None:
        """Insert the evolutions of a batch that passed everything, unless they are too late, and write their fates."""
        evolutions = batch.wait()
        for row in evolutions:
            if row["fate"] is None:
                row["fate"] = FATE_INSERTED if step <= batch.step + 2 * self._lag else FATE_LATE
            self._counts.update({OF_EVOLVER.get(name, name): value for name, value in row.pop(STATISTICS, {}).items()})
            self._counts[f"fate_{row['fate'].partition(':')[0]}"] += 1
            self._journal.add("evolutions", {**row, "step": batch.step, "inserted_step": step if row["fate"] == FATE_INSERTED else None})
        inserted_rows = [row for row in evolutions if row["fate"] == FATE_INSERTED]
        entries = [Entry({name: row[name] for name in SCHEMAS["prompts"].names}, row["score"], step, step) for row in inserted_rows]
        self._buffer.insert(step, entries)

    def _figures(self, prompts: Sequence[StepPrompt]) -> dict[str, float]:
        """Figures of the step and of the interval so far, as they are logged."""
        figures = {f"{origin}_share": sum(prompt.origin == origin for prompt in prompts) / len(prompts) for origin in ("buffer", "fresh")}
        figures["evolved_share"] = sum(prompt.row["parent_id"] is not None for prompt in prompts) / len(prompts)
        counts = {
            name: self._counts[key]
            for name, key in (("inserted", f"fate_{FATE_INSERTED}"), ("late", f"fate_{FATE_LATE}"), ("busy", "busy"))
        }
        return {**figures, **counts, "failed_calls": self._counts[FAILED_CALLS], "buffer": len(self._buffer)}


def _origin(row: Row) -> str:
    return "original" if row["parent_id"] is None else "evolved"
