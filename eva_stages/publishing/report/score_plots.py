"""A measure of the policies, iteration by iteration: of one run, or of arms side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from eva_stages.evaluation.study_statistics import CONFIDENCE, t_interval
from eva_stages.publishing.report.numbers import n_of
from eva_stages.publishing.report.palette import MUTED_COLOUR, START, arm_colour, iteration_of
from eva_stages.publishing.report.plots import Interval, Plot, arm_points, draw, iteration_points
from eva_stages.views.recorded_scores import Score

QUESTION_BARS = "Bars: 95 % intervals over questions."
SEED_BARS = "Points: means over an arm's runs, where all have a score; bars: 95 % intervals of Student's t; thin lines: the runs."
MISSING: Interval = (np.nan, np.nan, np.nan)


def score_plot(
    about: tuple[str, str, float | None],
    key: tuple[str, str],
    by_run: Mapping[str, Sequence[Score]],
    groups: Mapping[str, Sequence[str]] | None,
) -> Plot:
    """A plot of one measure.

    Args:
        about: title, unit, and the value that stands for as good as the baseline.
        by_run: the run's scores, in the order of the policies.
        groups: the runs of each arm; None for the report of one run.
    """
    title, unit, level = about
    all_scores = [score for of_run in by_run.values() for score in of_run]
    numbers = sorted({iteration_of(score.policy) for score in all_scores})
    counts = sorted({score.n for score in all_scores if score.n is not None})
    lines = {run: {iteration_of(score.policy): score for score in of_run} for run, of_run in by_run.items()}

    def paint(axes: Axes) -> None:
        if groups is None:
            (line,) = lines.values()
            iteration_points(axes, {number: _interval(line.get(number)) for number in numbers})
            base = line[-1].value if -1 in line else level
        else:
            _paint_arms(axes, numbers, {arm: [lines[run] for run in runs if run in lines] for arm, runs in groups.items()})
            base = level
        if base is not None:
            label = "base policy" if level is None else "baseline"
            axes.axhline(base, color=START if level is None else MUTED_COLOUR, linewidth=1, linestyle=":", label=label)

    has_means = groups is not None and any(len(runs) > 1 for runs in groups.values())
    name = f"result-{key[0]}-{key[1]}".replace(" ", "-").replace(".", "-")
    caption = SEED_BARS if has_means else QUESTION_BARS
    n = n_of(counts, "questions") + (f"; {n_of((len(runs) for runs in groups.values()), 'runs')}" if has_means and groups else "")
    return draw(name, title, n, "policy after iteration", unit, paint, caption)


def _paint_arms(axes: Axes, numbers: Sequence[int], lines_by_arm: Mapping[str, Sequence[Mapping[int, Score]]]) -> None:
    labels = ["base" if number < 0 else str(number) for number in numbers]
    for index, (arm, lines) in enumerate(lines_by_arm.items()):
        shift = 0.12 * (index - (len(lines_by_arm) - 1) / 2)
        if len(lines) > 1:
            for line in lines:
                values = [line[number].value if number in line else np.nan for number in numbers]
                axes.plot(np.arange(len(numbers)) + shift, values, color=arm_colour(index), linewidth=0.6, alpha=0.5)
        if lines:
            arm_points(axes, labels, [_mean_interval(lines, number) for number in numbers], index, arm, shift)


def _mean_interval(lines: Sequence[Mapping[int, Score]], number: int) -> Interval:
    """Of one run its score and interval over questions; of several the mean over runs, where all of them have a score."""
    scores_of_runs = [line[number] for line in lines if number in line]
    if len(scores_of_runs) < len(lines):
        return MISSING
    if len(lines) == 1:
        return _interval(scores_of_runs[0])
    values = np.array([score.value for score in scores_of_runs])
    mean = float(values.mean())
    return (mean, *t_interval(values, CONFIDENCE)) if np.ptp(values) > 0 else (mean, mean, mean)


def _interval(score: Score | None) -> Interval:
    if score is None:
        return MISSING
    return score.value, score.value if score.low is None else score.low, score.value if score.high is None else score.high
