"""Several runs side by side: what differs in their recipes, and how the same figures go from iteration to iteration."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
from matplotlib.axes import Axes

from eva_stages.core.progress import duration
from eva_stages.publishing.privacy import Privacy
from eva_stages.publishing.report.numbers import before_and_after, last_texts, n_of, rewards, table, word_counts
from eva_stages.publishing.report.plots import Plot, draw, look, short
from eva_stages.publishing.report.provenance_section import recipe_of
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.views.history import COST, History

Line = dict[int, float]
"""A figure by iteration."""


def _set_figure(history: History, columns: list[str], figure: Callable[[Any], float | None]) -> Line:
    found: Line = {}
    for iteration, artifact in history.prompt_sets.items():
        rows = table(artifact, columns)
        if rows is not None and len(rows) and (value := figure(rows)) is not None:
            found[iteration] = value
    return found


def _mean_words(history: History) -> Line:
    return _set_figure(history, ["messages"], lambda rows: float(word_counts(last_texts(rows["messages"])).mean()))


def _mean_generation(history: History) -> Line:
    return _set_figure(history, ["generation"], lambda rows: float(pc.mean(rows["generation"]).as_py()))


def _score(name: str) -> Callable[[History], Line]:
    def read(history: History) -> Line:
        means = {one.iteration: pc.mean(rows[name]).as_py() for one in history.every("analyse-scores") if (rows := table(one, [name]))}
        return {iteration: float(mean) for iteration, mean in means.items() if mean is not None}

    return read


def _reward(name: str) -> Callable[[History], Line]:
    def read(history: History) -> Line:
        found: Line = {}
        for artifact in history.every("reward"):
            scored = rewards(artifact)
            values = None if scored is None else scored.mean if name == "mean" else scored.gap
            if values is not None and np.isfinite(values).any():
                found[artifact.iteration] = float(np.nanmean(values))
        return found

    return read


def _gain(history: History) -> Line:
    pairs = {iteration: before_and_after(history, iteration) for iteration in history.iterations}
    return {number: float(np.nanmean(pair[1].mean) - np.nanmean(pair[0].mean)) for number, pair in pairs.items() if pair}


def _training(name: str) -> Callable[[History], Line]:
    return lambda history: {
        one.iteration: one.manifest["training"][name] for one in history.every("train") if name in one.manifest.get("training", {})
    }


FIGURES: tuple[tuple[str, str, str, Callable[[History], Line]], ...] = (
    ("words", "Length of the prompts", "mean words in the last user turn", _mean_words),
    ("generation", "Generation of the prompts", "mean generation (evolutions since the seed)", _mean_generation),
    ("complexity", "Complexity of the prompts", "mean score, 1 to 5", _score("complexity")),
    ("quality", "Quality of the prompts", "mean score, 1 to 5", _score("quality")),
    ("reward", "Reward on the training prompts", "mean reward before training", _reward("mean")),
    ("gap", "Gap on the training prompts", "mean gap before training (reward)", _reward("gap")),
    ("gain", "What training on them brought", "mean reward after - before", _gain),
    ("accuracy", "Pairs ranked right at the end of training", "share of pairs, 0 to 1", _training("reward_accuracy")),
    ("loss", "Loss at the end of training", "loss (nats)", _training("loss")),
)


def side_by_side(histories: Sequence[History]) -> Section:
    plots = [plot for figure in FIGURES if (plot := _plot(histories, *figure))]
    return Section("side-by-side", "Side by side", (), plots, [_totals(histories)])


def differences(histories: Sequence[History], privacy: Privacy) -> Section:
    """The recipe fields that are not the same in all runs."""
    flat = [_flat(recipe_of(one, privacy)) for one in histories]
    names = list(dict.fromkeys(name for one in flat for name in one if name != "name"))
    rows: list[list[Cell]] = [
        [name, *(str(one.get(name, "")) for one in flat)] for name in names if len({str(one.get(name, "")) for one in flat}) > 1
    ]
    missing = [] if rows else ["The recipes are the same but for their names."]
    tables = [Table("Recipe fields that differ", ["field", *(one.name for one in histories)], rows)] if rows else []
    return Section("differences", "What differs", (), (), tables, missing)


def _flat(value: Any, above: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {name: item for key, below in value.items() for name, item in _flat(below, f"{above}.{key}" if above else str(key)).items()}
    if isinstance(value, list) and value:
        return {name: item for index, below in enumerate(value) for name, item in _flat(below, f"{above}.{index}").items()}
    return {above: value}


def _plot(histories: Sequence[History], name: str, title: str, unit: str, read: Callable[[History], Line]) -> Plot | None:
    lines = {history.name: line for history in histories if (line := read(history))}
    if not lines:
        return None

    def paint(axes: Axes) -> None:
        for index, (run, line) in enumerate(lines.items()):
            axes.plot([str(number) for number in sorted(line)], [line[number] for number in sorted(line)], label=short(run), **look(index))

    n = n_of(map(len, lines.values()), "iterations")
    return draw(f"compare-{name}", title, n, "iteration", unit, paint)


def _totals(histories: Sequence[History]) -> Table:
    rows: list[list[Cell]] = []
    for one in histories:
        counts = [made.manifest["counts"] for made in one.artifacts]
        tokens, usd = (sum(count.get(name, 0) for count in counts) for name in ("output_tokens", COST))
        rows.append(
            [one.name, len(one.artifacts), duration(sum(made.manifest["seconds"] for made in one.artifacts)), int(tokens), float(usd)]
        )
    return Table("Cost", ["run", "finished stages", "time", "generated tokens", "USD"], rows)
