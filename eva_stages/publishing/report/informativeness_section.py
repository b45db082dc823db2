"""How informative the prompts were: densities, gap against variance, topics, and what each metric would have selected."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from eva_stages.core.numeric import drawable
from eva_stages.core.tables import read_table
from eva_stages.publishing.report.numbers import rewards, sizes, table
from eva_stages.publishing.report.palette import INK, MUTED_COLOUR, iteration_colour
from eva_stages.publishing.report.plots import BINS, Plot, draw, grouped_points, histograms
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.views.history import History

NOT_METRICS = ("prompt_id", "weight", "uniform")
MOST_POINTS = 800
MOST_TOPICS = 12
NAMES = {
    "reward_gap": "reward gap, max - min",
    "reward_max_minus_mean": "max - mean",
    "reward_best_minus_second": "best - second best",
    "reward_variance": "variance",
    "reward_mean": "mean reward",
    "reward_mean_inverse": "1 - scaled mean",
    "reward_gap_inverse": "1 - scaled gap",
    "learnability": "learnability, p (1 - p)",
    "spread_at_median": "spread, lower far from the median",
}
UNITS = {
    "reward_variance": "reward squared",
    "reward_mean_inverse": "no unit, 0 to 1",
    "reward_gap_inverse": "no unit, 0 to 1",
    "learnability": "no unit, 0 to 0.25",
}
LEAD = "Iteration t selects among the prompts of iteration t - 1, by the responses of the policy trained there."
ONLINE_LEAD = "By the rewards of each prompt's last use in an iteration; every step selects among the prompts that it has just used."


def informativeness(history: History) -> Section:
    values = metric_values(history)
    if not values:
        missing = ["This run selected no prompts, so their informativeness was not computed."]
        return Section("informativeness", "Informativeness", missing=missing)
    names = list(dict.fromkeys(name for metric_arrays in values.values() for name in metric_arrays))
    plots = [_density(name, values) for name in names]
    plots += [
        _gap_and_variance(iteration, metric_arrays) for iteration, metric_arrays in values.items() if "reward_variance" in metric_arrays
    ]
    plots += [plot for iteration in list(values)[-1:] if (plot := _overlap(history, iteration, values[iteration]))]
    topics = _topic_rewards(history)
    plots += topics
    lead = [f"{ONLINE_LEAD if history.is_online else LEAD} A prompt with a response that could not be scored has no value."]
    missing = [] if topics else ["No topics, so no gap and mean reward by topic; `creator.analysis.topics` in the recipe finds them."]
    return Section("informativeness", "Informativeness", lead, plots, [selection_table(history)], missing)


def metric_values(history: History) -> dict[int, dict[str, np.ndarray]]:
    """Every metric of every prompt by iteration, NaN where not known."""
    values_by_iteration: dict[int, dict[str, np.ndarray]] = {}
    for artifact in history.every("inform"):
        if artifact.rows is None:
            continue
        rows = read_table(artifact.rows.parent)
        metrics = [name for name in rows.column_names if name not in NOT_METRICS]
        values_by_iteration[artifact.iteration] = {
            name: drawable(rows[name].to_numpy(zero_copy_only=False).astype(float)) for name in metrics
        }
    return values_by_iteration


def _density(name: str, values: dict[int, dict[str, np.ndarray]]) -> Plot:
    samples = {iteration: metric_arrays[name] for iteration, metric_arrays in values.items() if name in metric_arrays}
    title = NAMES.get(name, name.replace("_", " "))
    return draw(
        f"density-{name}",
        f"Distribution: {title}",
        sizes(samples, "prompts"),
        f"{title} ({UNITS.get(name, 'reward')})",
        "share of prompts per bin, %",
        lambda axes: histograms(axes, samples),
        f"Histogram of {BINS} equal bins.",
    )


def _gap_and_variance(iteration: int, metric_arrays: dict[str, np.ndarray]) -> Plot:
    gap, variance = metric_arrays["reward_gap"], metric_arrays["reward_variance"]
    finite_places = np.flatnonzero(np.isfinite(gap) & np.isfinite(variance))
    has_variance = len(finite_places) > 1 and gap[finite_places].std() > 0 and variance[finite_places].std() > 0
    correlation = (
        f"Pearson r = {np.corrcoef(gap[finite_places], variance[finite_places])[0, 1]:.3f}"
        if has_variance
        else "no correlation: no variation"
    )
    places_shown = (
        finite_places
        if len(finite_places) <= MOST_POINTS
        else np.sort(np.random.default_rng(0).choice(finite_places, MOST_POINTS, replace=False))
    )

    def paint(axes: Axes) -> None:
        axes.scatter(gap[places_shown], variance[places_shown], s=9, alpha=0.45, color=iteration_colour(iteration), edgecolors="none")
        axes.annotate(correlation, (0.03, 0.93), xycoords="axes fraction", color=INK)

    note = f"The plot shows {MOST_POINTS:,} random prompts; r is over all prompts." if len(places_shown) < len(finite_places) else ""
    title = f"Gap against variance, iteration {iteration}"
    return draw(
        f"gap-variance-{iteration}",
        title,
        f"n = {len(finite_places):,} prompts",
        "reward gap (reward)",
        "variance (reward squared)",
        paint,
        note,
    )


def selected_sets(metric_arrays: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """The `size` best prompts by each metric, as sorted row numbers; of equals the first."""
    return {name: np.sort(np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:size]) for name, values in metric_arrays.items()}


def jaccard(sets: dict[str, np.ndarray]) -> np.ndarray:
    """|A and B| / |A or B| of every two sets, shape (sets, sets)."""
    values = list(sets.values())
    return np.array([[len(np.intersect1d(a, b)) / max(len(np.union1d(a, b)), 1) for b in values] for a in values])


def _overlap(history: History, iteration: int, metric_arrays: dict[str, np.ndarray]) -> Plot | None:
    selection = history.find("select", iteration)
    if selection is None:
        return None
    size = history.size(selection)
    overlaps = jaccard(selected_sets(metric_arrays, size))
    names = [NAMES.get(name, name).removesuffix(", max - min") for name in metric_arrays]

    def paint(axes: Axes) -> None:
        # blank below the diagonal: the matrix is symmetric
        axes.grid(visible=False)
        for row in range(len(names)):
            for column in range(row, len(names)):
                share = overlaps[row, column]
                axes.add_patch(_square(column, row, share))
                axes.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=8)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
        axes.set_yticks(range(len(names)), names)

    title = f"Overlap of what each metric would select, iteration {iteration}"
    note = "Jaccard index of the greedy choices (the highest values); 1 = the same prompts. The fuller the colour, the more overlap."
    n = f"n = {size:,} of {len(next(iter(metric_arrays.values()))):,} prompts per metric"
    return draw("overlap", title, n, "metric", "metric", paint, note, height=3.6)


def _square(column: int, row: int, share: float) -> Rectangle:
    return Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, facecolor=MUTED_COLOUR, alpha=0.05 + 0.5 * share, edgecolor="none")


def _topic_rewards(history: History) -> list[Plot]:
    """Mean reward and gap by topic, for the iterations that have topics and rewards."""
    rewards_by_iteration: dict[int, dict[str, tuple[float, float, int]]] = {}
    for artifact in history.every("analyse-topics"):
        topics, reward_rows = table(artifact, ["prompt_id", "topic"]), rewards(history.find("reward", artifact.iteration))
        if topics is None or reward_rows is None or not topics["prompt_id"].combine_chunks().equals(reward_rows.ids):
            continue
        labels = np.array(topics["topic"].fill_null("").to_pylist())
        rewards_by_iteration[artifact.iteration] = {
            str(topic): (float(np.nanmean(reward_rows.mean[of])), float(np.nanmean(reward_rows.gap[of])), int(of.sum()))
            for topic in np.unique(labels[labels != ""])
            if np.isfinite(reward_rows.mean[of := labels == topic]).any()
        }
    if not any(rewards_by_iteration.values()):
        return []
    totals: dict[str, int] = {}
    for by_topic in rewards_by_iteration.values():
        for topic, (_, _, count) in by_topic.items():
            totals[topic] = totals.get(topic, 0) + count
    names = sorted(totals, key=lambda topic: -totals[topic])[:MOST_TOPICS]
    note = f"The {len(totals) - len(names)} rarest topics are left out." if len(totals) > len(names) else ""
    titles = (("topic-gap", "Reward gap by topic", "mean gap (reward)", 1), ("topic-reward", "Mean reward by topic", "mean reward", 0))
    return [
        _by_topic(name, title, unit, rewards_by_iteration, names, place, sum(totals.values()), note) for name, title, unit, place in titles
    ]


def _by_topic(
    name: str,
    title: str,
    unit: str,
    rewards_by_iteration: dict[int, dict[str, tuple[float, float, int]]],
    names: list[str],
    place: int,
    n: int,
    note: str,
) -> Plot:
    def paint(axes: Axes) -> None:
        groups = {
            iteration: [by_topic[topic][place] if topic in by_topic else np.nan for topic in names]
            for iteration, by_topic in rewards_by_iteration.items()
        }
        grouped_points(axes, names, groups)

    return draw(name, title, f"n = {n:,} prompts in all iterations", unit, "topic", paint, note, height=1.7 + 0.22 * len(names))


def selection_table(history: History) -> Table:
    """How much better than the rest the drawn prompts were by their gap."""
    rows: list[list[Cell]] = []
    archived_counts: dict[int, int] = {}
    for artifact in history.every("select"):
        selected_rows = table(artifact, ["prompt_id"])
        info_rows = table(history.find("inform", artifact.iteration), ["prompt_id", "reward_gap", "weight"])
        if selected_rows is None or info_rows is None:
            continue
        chosen = np.isin(info_rows["prompt_id"].to_numpy(zero_copy_only=False), selected_rows["prompt_id"].to_numpy(zero_copy_only=False))
        archived_counts[artifact.iteration] = len(selected_rows) - int(chosen.sum())
        gap = drawable(info_rows["reward_gap"].to_numpy(zero_copy_only=False).astype(float))
        flat = int((gap == 0).sum())
        rows.append([artifact.iteration, len(chosen), int(chosen.sum()), _mean(gap[chosen]), _mean(gap[~chosen]), flat])
    heads = ["iteration", "prompts", "selected", "mean gap, selected", "mean gap, others", "prompts without a gap"]
    counts = ", ".join(f"iteration {iteration}: {count:,}" for iteration, count in archived_counts.items() if count)
    note = f"Prompts that the archive drew from earlier sets were not scored again and are not counted here: {counts}." if counts else ""
    return Table("Selected prompts", heads, rows, note)


def _mean(values: np.ndarray) -> float | None:
    finite_values = values[np.isfinite(values)]
    return float(finite_values.mean()) if len(finite_values) else None
