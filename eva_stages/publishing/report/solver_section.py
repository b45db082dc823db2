"""The solver: rewards on the same prompts before and after training on them, training curves, margins of the pairs."""

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from eva_stages.core.numeric import drawable
from eva_stages.core.ourfiles import read_json
from eva_stages.core.prompt_references import SOURCES, source_counts
from eva_stages.publishing.report.numbers import Rewards, mean_interval, n_of, rewards, rewards_around_training, sizes, table
from eva_stages.publishing.report.palette import CHOSEN, MUTED_COLOUR, REJECTED, iteration_style
from eva_stages.publishing.report.plots import BINS, Plot, draw, histograms, iteration_points
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.views.history import History

CURVES = (
    ("loss", "Training loss", "loss (nats)"),
    ("rewards/margins", "Implicit reward margin while training", "margin (beta x log ratio)"),
    ("rewards/accuracies", "Pairs ranked right while training", "share of pairs, 0 to 1"),
    ("reward", "Reward while training on-policy", "mean reward"),
    ("kl", "Distance to the reference while training", "KL divergence (nats)"),
    ("grad_norm", "Gradient norm while training", "norm before clipping"),
)
MOST_STEPS = 400


def solver(history: History) -> Section:
    rewards_by_iteration = {
        artifact.iteration: reward_values for artifact in history.every("reward") if (reward_values := rewards(artifact))
    }
    plots = [_training_effect_plot(history, rewards_by_iteration, name) for name in ("mean", "gap")] if rewards_by_iteration else []
    logs = {artifact.iteration: log for artifact in history.every("train") if (log := training_log(artifact.content))}
    plots += [_curve(logs, *curve) for curve in CURVES if any(curve[0] in entry for log in logs.values() for entry in log)]
    plots += _implicit_rewards(logs)
    margins = {artifact.iteration: values for artifact in history.every("pair") if (values := _margins(artifact)) is not None}
    if margins:
        title, unit = "Reward margin of the pairs", "chosen - rejected (reward)"
        y, note = "share of pairs per bin, %", f"Histogram of {BINS} equal bins."
        plots.append(draw("margins", title, sizes(margins, "pairs"), unit, y, lambda axes: histograms(axes, margins), note))
    lead = [
        "Before: responses of the policy before its training on the prompts. After: responses of the trained policy to these prompts, at "
        "the start of the next iteration; so the last iteration has no after."
    ]
    tables = [
        entry
        for entry in (_rewards_table(history, rewards_by_iteration), _references_table(history), _training_table(history))
        if entry.rows
    ]
    missing = [] if logs else ["No policy is trained yet."]
    return Section("solver", "Solver", lead if plots else [], plots, tables, missing)


def training_log(model: Any) -> list[dict[str, Any]]:
    """The metrics of every optimiser step, from the log beside a checkpoint."""
    path = model / "training_log.json"
    log: list[dict[str, Any]] = read_json(path, list) if path.is_file() else []
    return log


def _margins(artifact: Any) -> np.ndarray | None:
    pair_rewards = table(artifact, ["chosen_reward", "rejected_reward"])
    if pair_rewards is None or len(pair_rewards.column_names) < 2:
        return None
    chosen, rejected = (
        drawable(pair_rewards[name].to_numpy(zero_copy_only=False).astype(float)) for name in ("chosen_reward", "rejected_reward")
    )
    margin: np.ndarray = chosen - rejected
    return margin


def _values(reward_values: Rewards, name: str) -> np.ndarray:
    return reward_values.mean if name == "mean" else reward_values.gap


def _training_effect_plot(history: History, rewards_by_iteration: dict[int, Rewards], name: str) -> Plot:
    pairs = {iteration: rewards_around_training(history, iteration) for iteration in rewards_by_iteration}
    old_means = {number: mean_interval(_values(reward_values, name)) for number, reward_values in rewards_by_iteration.items()}
    no_interval = (np.nan, np.nan, np.nan)
    new_means = {number: no_interval if pair is None else mean_interval(_values(pair[1], name)) for number, pair in pairs.items()}

    def paint(axes: Axes) -> None:
        iteration_points(axes, old_means, -0.08, "before training on them", is_hollow=True)
        iteration_points(axes, new_means, 0.08, "after")

    n = n_of((len(reward_values.ids) for reward_values in rewards_by_iteration.values()), "prompts")
    title = {"mean": "Mean reward on the training prompts", "gap": "Reward gap on the training prompts"}[name]
    unit = {"mean": "mean reward", "gap": "mean gap (reward)"}[name]
    return draw(f"solver-{name}", title, n, "iteration, whose prompts", unit, paint, "Bars: 95 % over prompts.")


def _curve(logs: dict[int, list[dict[str, Any]]], key: str, title: str, unit: str) -> Plot:
    lines = {iteration: [(entry["step"], entry[key]) for entry in log if key in entry] for iteration, log in logs.items()}
    lines = {iteration: line for iteration, line in lines.items() if line}
    every = max(1, max(len(line) for line in lines.values()) // MOST_STEPS)

    def paint(axes: Axes) -> None:
        for iteration, line in lines.items():
            steps, values = np.array(line[::every], dtype=float).T
            axes.plot(steps, values, label=f"iteration {iteration}", **{**iteration_style(iteration), "marker": None})

        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))

    n = n_of(map(len, lines.values()), "steps")
    note = f"The plot shows every {every}th step." if every > 1 else ""
    return draw(f"training-{key.replace('/', '-')}", title, n, "optimiser step", unit, paint, note)


def _implicit_rewards(logs: dict[int, list[dict[str, Any]]]) -> list[Plot]:
    """The implicit rewards of both responses by iteration, over the same range: the margin alone hides that both may fall."""
    sides = {"rewards/chosen": ("chosen", CHOSEN, "-"), "rewards/rejected": ("rejected", REJECTED, "--")}
    entries_by_iteration = {
        number: entries for number, log in logs.items() if (entries := [entry for entry in log if all(key in entry for key in sides)])
    }
    values = [entry[key] for entries in entries_by_iteration.values() for entry in entries for key in sides]
    if not values:
        return []
    margin = 0.05 * (max(values) - min(values)) or 0.01

    def paint(axes: Axes, entries: list[dict[str, Any]]) -> None:
        some_entries = entries[:: max(1, len(entries) // MOST_STEPS)]
        steps = [entry["step"] for entry in some_entries]
        for key, (label, colour, line) in sides.items():
            axes.plot(steps, [entry[key] for entry in some_entries], label=label, color=colour, linestyle=line)
        axes.axhline(0, color=MUTED_COLOUR, linewidth=1, linestyle=":", label="as the reference")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_ylim(min(*values, 0) - margin, max(*values, 0) + margin)

    note = "Implicit rewards while training, against the reference: below 0, the response became less likely."
    unit = "reward (beta x log ratio)"
    return [
        draw(
            f"training-sides-{number}",
            f"Chosen and rejected, iteration {number}",
            f"n = {len(entries):,} steps",
            "optimiser step",
            unit,
            partial(paint, entries=entries),
            note,
        )
        for number, entries in entries_by_iteration.items()
    ]


def _rewards_table(history: History, rewards_by_iteration: dict[int, Rewards]) -> Table:
    rows: list[list[Cell]] = []
    for iteration, old_rewards in rewards_by_iteration.items():
        pair = rewards_around_training(history, iteration)
        values = [_finite_mean(entry, name) for name in ("mean", "gap") for entry in (old_rewards, pair[1] if pair else None)]
        null_count = int((~np.isfinite(old_rewards.matrix)).sum())
        rows.append([iteration, len(old_rewards.ids), old_rewards.matrix.shape[1], *values, null_count])
    heads = ["iteration", "prompts", "responses each", "reward before", "reward after", "gap before", "gap after", "unscored responses"]
    return Table("Rewards", heads, rows)


def _references_table(history: History) -> Table:
    """Where the references come from that a verifier checked against, for rewards that count it."""
    rows: list[list[Cell]] = []
    for artifact in history.artifacts:
        if counts := source_counts(artifact.counts):
            rows.append([artifact.iteration, artifact.stage, *(counts.get(source, 0) for source in SOURCES)])
    note = "A majority is the most frequent final answer of a prompt's responses; it may be wrong. Without a reference there is no reward."
    return Table("References of the rewards, in prompts", ["iteration", "stage", *SOURCES], rows, note)


def _finite_mean(reward_values: Rewards | None, name: str) -> float | None:
    if reward_values is None or not np.isfinite(_values(reward_values, name)).any():
        return None
    return float(np.nanmean(_values(reward_values, name)))


def _training_table(history: History) -> Table:
    rows: list[list[Cell]] = []
    for artifact in history.every("train"):
        training, counts = artifact.manifest.get("training", {}), artifact.manifest["counts"]
        pair = history.find("pair", artifact.iteration)
        removed_counts = {name: count for name, count in pair.counts.items() if name != "pair" and count} if pair else {}
        words = ", ".join(f"{name.replace('_', ' ')} {count:,.0f}" for name, count in removed_counts.items())
        figures = [training.get(name) for name in ("loss", "reward_margin", "reward_accuracy")]
        rows.append([artifact.iteration, counts.get("pairs"), counts.get("too_long"), words, counts.get("steps"), *figures])
    heads = ["iteration", "pairs", "too long", "prompts without a pair", "steps", "loss", "margin", "accuracy"]
    return Table("Training", heads, rows, "Loss, margin and accuracy: mean over the last quarter of the steps.")
