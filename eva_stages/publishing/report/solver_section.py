"""The solver: rewards on the same prompts before and after training on them, training curves, margins of the pairs."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from eva_stages.core.numeric import drawable
from eva_stages.core.ourfiles import read_json
from eva_stages.publishing.report.numbers import Rewards, before_and_after, mean_interval, n_of, rewards, sizes, table
from eva_stages.publishing.report.plots import Plot, draw, histograms, interval_points, look
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
    scored = {one.iteration: found for one in history.every("reward") if (found := rewards(one))}
    plots = [_before_after(history, scored, name) for name in ("mean", "gap")] if scored else []
    logs = {one.iteration: log for one in history.every("train") if (log := training_log(one.content))}
    plots += [_curve(logs, *curve) for curve in CURVES if any(curve[0] in entry for log in logs.values() for entry in log)]
    margins = {f"iteration {one.iteration}": values for one in history.every("pair") if (values := _margins(one)) is not None}
    if margins:
        title, unit = "Reward margin of the pairs", "chosen - rejected (reward)"
        plots.append(draw("margins", title, sizes(margins, "pairs"), unit, "share of pairs, %", lambda axes: histograms(axes, margins)))
    lead = [
        "Before: the policy that trains on the prompts answers them. After: the policy that was trained on them answers the same prompts "
        "anew, at the start of the next iteration; so the last iteration has no after."
    ]
    tables = [one for one in (_rewards_table(history, scored), _training_table(history)) if one.rows]
    missing = [] if logs else ["No policy is trained yet."]
    return Section("solver", "Solver", lead if plots else [], plots, tables, missing)


def training_log(model: Any) -> list[dict[str, Any]]:
    """The metrics of every optimiser step, as they lie beside a checkpoint."""
    path = model / "training_log.json"
    log: list[dict[str, Any]] = read_json(path, list) if path.is_file() else []
    return log


def _margins(artifact: Any) -> np.ndarray | None:
    found = table(artifact, ["chosen_reward", "rejected_reward"])
    if found is None or len(found.column_names) < 2:
        return None
    chosen, rejected = (drawable(found[name].to_numpy(zero_copy_only=False).astype(float)) for name in ("chosen_reward", "rejected_reward"))
    margin: np.ndarray = chosen - rejected
    return margin


def _values(found: Rewards, name: str) -> np.ndarray:
    return found.mean if name == "mean" else found.gap


def _before_after(history: History, scored: dict[int, Rewards], name: str) -> Plot:
    labels = [str(iteration) for iteration in scored]
    both = {iteration: before_and_after(history, iteration) for iteration in scored}
    before = [mean_interval(_values(found, name)) for found in scored.values()]
    nothing = (np.nan, np.nan, np.nan)
    after = [nothing if pair is None else mean_interval(_values(pair[1], name)) for pair in both.values()]

    def paint(axes: Axes) -> None:
        interval_points(axes, labels, before, 0, "before training on them", -0.08)
        interval_points(axes, labels, after, 1, "after", 0.08)

    n = n_of((len(found.ids) for found in scored.values()), "prompts")
    title = {"mean": "Mean reward on the training prompts", "gap": "Reward gap on the training prompts"}[name]
    unit = {"mean": "mean reward", "gap": "mean gap (reward)"}[name]
    return draw(f"solver-{name}", title, n, "iteration, whose prompts", unit, paint, "Bars: 95 % over prompts.")


def _curve(logs: dict[int, list[dict[str, Any]]], key: str, title: str, unit: str) -> Plot:
    lines = {iteration: [(entry["step"], entry[key]) for entry in log if key in entry] for iteration, log in logs.items()}
    lines = {iteration: line for iteration, line in lines.items() if line}
    every = max(1, max(len(line) for line in lines.values()) // MOST_STEPS)

    def paint(axes: Axes) -> None:
        for index, (iteration, line) in enumerate(lines.items()):
            steps, values = np.array(line[::every], dtype=float).T
            axes.plot(steps, values, label=f"iteration {iteration}", **{**look(index), "marker": None})

    n = n_of(map(len, lines.values()), "steps")
    note = f"Every {every}. step is drawn." if every > 1 else ""
    return draw(f"training-{key.replace('/', '-')}", title, n, "optimiser step", unit, paint, note)


def _rewards_table(history: History, scored: dict[int, Rewards]) -> Table:
    rows: list[list[Cell]] = []
    for iteration, before in scored.items():
        pair = before_and_after(history, iteration)
        values = [_known(one, name) for name in ("mean", "gap") for one in (before, pair[1] if pair else None)]
        unscored = int((~np.isfinite(before.matrix)).sum())
        rows.append([iteration, len(before.ids), before.matrix.shape[1], *values, unscored])
    heads = ["iteration", "prompts", "answers each", "reward before", "reward after", "gap before", "gap after", "unscored answers"]
    return Table("Rewards", heads, rows)


def _known(found: Rewards | None, name: str) -> float | None:
    if found is None or not np.isfinite(_values(found, name)).any():
        return None
    return float(np.nanmean(_values(found, name)))


def _training_table(history: History) -> Table:
    rows: list[list[Cell]] = []
    for artifact in history.every("train"):
        training, counts = artifact.manifest.get("training", {}), artifact.manifest["counts"]
        pair = history.find("pair", artifact.iteration)
        left = {name: count for name, count in pair.counts.items() if name != "pair" and count} if pair else {}
        words = ", ".join(f"{name.replace('_', ' ')} {count:,.0f}" for name, count in left.items())
        figures = [training.get(name) for name in ("loss", "reward_margin", "reward_accuracy")]
        rows.append([artifact.iteration, counts.get("pairs"), counts.get("too_long"), words, counts.get("steps"), *figures])
    heads = ["iteration", "pairs", "too long", "prompts without a pair", "steps", "loss", "margin", "accuracy"]
    return Table("Training", heads, rows, "Loss, margin and accuracy: mean over the last quarter of the steps.")
