"""Several runs side by side: what differs in their recipes, and how the same figures go from iteration to iteration."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from eva_stages.core.progress import dollars, duration
from eva_stages.publishing.privacy import Privacy
from eva_stages.publishing.report.numbers import last_texts, n_of, rewards, rewards_around_training, table, word_counts
from eva_stages.publishing.report.palette import arm_colour, arm_style
from eva_stages.publishing.report.plots import Plot, draw, short
from eva_stages.publishing.report.provenance_section import recipe_of
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.views.history import COST, History
from eva_stages.views.run_groups import runs_by_arm

Line = dict[int, float]
"""A figure by iteration."""


def _set_figure(history: History, columns: list[str], figure: Callable[[Any], float | None]) -> Line:
    line_values: Line = {}
    for iteration, artifact in history.prompt_sets.items():
        rows = table(artifact, columns)
        if rows is not None and len(rows) and (value := figure(rows)) is not None:
            line_values[iteration] = value
    return line_values


def _mean_words(history: History) -> Line:
    return _set_figure(history, ["messages"], lambda rows: float(word_counts(last_texts(rows["messages"])).mean()))


def _mean_generation(history: History) -> Line:
    return _set_figure(history, ["generation"], lambda rows: float(pc.mean(rows["generation"]).as_py()))


def _score(name: str) -> Callable[[History], Line]:
    def read(history: History) -> Line:
        means = {
            artifact.iteration: pc.mean(rows[name]).as_py()
            for artifact in history.every("analyse-scores")
            if (rows := table(artifact, [name]))
        }
        return {iteration: float(mean) for iteration, mean in means.items() if mean is not None}

    return read


def _reward(name: str) -> Callable[[History], Line]:
    def read(history: History) -> Line:
        line_values: Line = {}
        for artifact in history.every("reward"):
            reward_rows = rewards(artifact)
            values = None if reward_rows is None else reward_rows.mean if name == "mean" else reward_rows.gap
            if values is not None and np.isfinite(values).any():
                line_values[artifact.iteration] = float(np.nanmean(values))
        return line_values

    return read


def _gain(history: History) -> Line:
    pairs = {iteration: rewards_around_training(history, iteration) for iteration in history.iterations}
    return {number: float(np.nanmean(pair[1].mean) - np.nanmean(pair[0].mean)) for number, pair in pairs.items() if pair}


def _training(name: str) -> Callable[[History], Line]:
    return lambda history: {
        artifact.iteration: artifact.manifest["training"][name]
        for artifact in history.every("train")
        if name in artifact.manifest.get("training", {})
    }


FIGURES: tuple[tuple[str, str, str, Callable[[History], Line]], ...] = (
    ("words", "Length of the prompts", "mean words in the last user turn", _mean_words),
    ("generation", "Generation of the prompts", "mean generation (evolutions since the seed)", _mean_generation),
    ("complexity", "Complexity of the prompts", "mean score, 1 to 5", _score("complexity")),
    ("quality", "Quality of the prompts", "mean score, 1 to 5", _score("quality")),
    ("reward", "Reward on the training prompts", "mean reward before training", _reward("mean")),
    ("gap", "Gap on the training prompts", "mean gap before training (reward)", _reward("gap")),
    ("gain", "Gain by training on the prompts", "mean reward after - before", _gain),
    ("accuracy", "Correctly ranked pairs at the end of training", "share of pairs, 0 to 1", _training("reward_accuracy")),
    ("loss", "Loss at the end of training", "loss (nats)", _training("loss")),
)


def side_by_side(histories: Sequence[History]) -> Section:
    plots = [plot for figure in FIGURES if (plot := _plot(histories, *figure))]
    return Section("side-by-side", "Side by side", (), plots, [_totals(histories)])


def differences(histories: Sequence[History], privacy: Privacy) -> Section:
    """The recipe fields that are not the same in all runs, with all their values in each arm."""
    arms = {arm: [_flat(recipe_of(history, privacy)) for history in of_arm] for arm, of_arm in runs_by_arm(histories).items()}
    flat = [entry for of_arm in arms.values() for entry in of_arm]
    names = list(dict.fromkeys(name for entry in flat for name in entry if name != "name"))
    rows: list[list[Cell]] = [
        [name, *(", ".join(_values_of(name, of_arm)) for of_arm in arms.values())] for name in names if len(_values_of(name, flat)) > 1
    ]
    missing = [] if rows else ["The recipes are the same but for their names."]
    tables = [Table("Recipe fields that differ", ["field", *arms], rows)] if rows else []
    return Section("differences", "What differs", (), (), tables, missing)


def _values_of(name: str, recipes: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(str(recipe.get(name, "")) for recipe in recipes))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {
            name: item
            for key, item_value in value.items()
            for name, item in _flat(item_value, f"{prefix}.{key}" if prefix else str(key)).items()
        }
    if isinstance(value, list) and value:
        return {name: item for index, item_value in enumerate(value) for name, item in _flat(item_value, f"{prefix}.{index}").items()}
    return {prefix: value}


def _plot(histories: Sequence[History], name: str, title: str, unit: str, read_line: Callable[[History], Line]) -> Plot | None:
    lines = {arm: [line for history in of_arm if (line := read_line(history))] for arm, of_arm in runs_by_arm(histories).items()}
    if not any(lines.values()):
        return None
    has_means = any(len(of_arm) > 1 for of_arm in lines.values())

    def paint(axes: Axes) -> None:
        for index, (arm, of_arm) in enumerate(lines.items()):
            for line in of_arm if len(of_arm) > 1 else ():
                axes.plot(sorted(line), [line[number] for number in sorted(line)], color=arm_colour(index), linewidth=0.6, alpha=0.5)
            means = _mean_line(of_arm)
            if means:
                axes.plot(list(means), list(means.values()), label=short(arm), **arm_style(index))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    n = n_of((len(line) for of_arm in lines.values() for line in of_arm), "iterations")
    note = "Thick: means over the runs of an arm, as far as all of them go. Thin: the runs." if has_means else ""
    return draw(f"compare-{name}", title, n, "iteration", unit, paint, note)


def _mean_line(lines: Sequence[Line]) -> Line:
    """The mean over lines, at the iterations that all of them have."""
    shared_iterations = sorted(set.intersection(*(set(line) for line in lines))) if lines else []
    return {number: float(np.mean([line[number] for line in lines])) for number in shared_iterations}


def _totals(histories: Sequence[History]) -> Table:
    rows: list[list[Cell]] = []
    for history in histories:
        counts = [artifact.manifest["counts"] for artifact in history.artifacts]
        tokens, usd = (sum(count.get(name, 0) for count in counts) for name in ("output_tokens", COST))
        rows.append(
            [
                history.name,
                len(history.artifacts),
                duration(sum(artifact.manifest["seconds"] for artifact in history.artifacts)),
                int(tokens),
                dollars(usd),
            ]
        )
    return Table("Cost", ["run", "finished stages", "time", "generated tokens", "USD"], rows)
