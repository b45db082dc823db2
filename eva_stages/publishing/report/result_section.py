"""The result: every score of every policy, with its interval, against the base policy and against other runs."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from eva_stages.core.kinds import BASE
from eva_stages.publishing.report.numbers import n_of
from eva_stages.publishing.report.plots import MUTED_COLOUR, Plot, draw, interval_points
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.views.history import History
from eva_stages.views.recorded_scores import Score, scores

UNITS = {
    ("lettercraft", "sampled"): ("Mean reward of sampled responses", "reward, 0 to 1", None),
    ("lettercraft", "greedy"): ("Mean reward of greedy responses", "reward, 0 to 1", None),
    ("lettercraft", "exact"): ("Exact sampled responses", "share, 0 to 1", None),
    ("lettercraft", "exact_greedy"): ("Exact greedy responses", "share, 0 to 1", None),
    ("lettercraft", "sampled_gain"): ("Gain in sampled reward over base", "reward difference", 0.0),
    ("lettercraft", "win_rate"): ("Judged win rate against base", "share of games won, 0 to 1", 0.5),
    ("reasoning-gym", "score"): ("reasoning-gym, sampled responses", "correct responses, %", None),
    ("reasoning-gym", "greedy"): ("reasoning-gym, greedy responses", "correct responses, %", None),
    ("mt-bench", "score"): ("MT-Bench", "rating, 1 to 10", None),
    ("alpaca-eval", "score"): ("AlpacaEval 2.0, raw win rate", "win rate, %", 50.0),
    ("gsm8k", "score"): ("GSM8K", "correct responses, %", None),
    ("ifeval", "score"): ("IFEval, strict", "prompts followed, %", None),
    ("arena-hard-v0.1", "score"): ("Arena-Hard v0.1", "win rate, %", 50.0),
    ("arena-hard-v2.0", "score"): ("Arena-Hard v2.0", "win rate, %", 50.0),
}
"""Title, unit, and the value that stands for as good as the baseline."""
NOT_SCORES = ("judging", "answer_tokens")


def measures(histories: Sequence[History]) -> dict[tuple[str, str], dict[str, list[Score]]]:
    """Scores with intervals by (benchmark, name), and there by run."""
    scores_by_measure: dict[tuple[str, str], dict[str, list[Score]]] = {}
    for history in histories:
        for score in scores(history.artifacts):
            if score.low is not None:
                scores_by_measure.setdefault((score.benchmark, score.name), {}).setdefault(history.name, []).append(score)
    for by_run in scores_by_measure.values():
        for of_run in by_run.values():
            of_run.sort(key=lambda score: _order(score.policy))
    return scores_by_measure


def result(histories: Sequence[History], differences: dict[str, Any] | None = None) -> Section:
    """The first section.

    Args:
        histories: the run, and others to compare with.
        differences: of the first run and each other run, question by question, if they were compared.
    """
    scores_by_measure = measures(histories)
    plots = [_plot(key, by_run) for key, by_run in scores_by_measure.items()]
    tables = [_score_table(scores_by_measure, len(histories) > 1)] if scores_by_measure else []
    tables += [_difference_table(differences)] if differences else []
    official = _official(histories[0])
    tables += [official] if official else []
    lead = [
        _sentence(key, of_run, f" of {run}" if len(histories) > 1 else "")
        for key, by_run in scores_by_measure.items()
        for run, of_run in by_run.items()
        if len(of_run) > 1 and _comparable(key)
    ]
    if len(histories) == 1:
        lead.append("Controls (`creator.control`, or another `creator.metric`) are separate runs; `eva report RUN CONTROL` compares them.")
    missing = [] if scores_by_measure else ["No evaluation is finished yet."]
    return Section("result", "Result", lead, plots, tables, missing)


def _comparable(key: tuple[str, str]) -> bool:
    """Whether the figure describes a policy alone, not a comparison with the base policy."""
    return key not in (("lettercraft", "sampled_gain"), ("lettercraft", "win_rate"))


def _about(key: tuple[str, str]) -> tuple[str, str, float | None]:
    return UNITS.get(key, (f"{key[0]}: {key[1].replace('_', ' ')}", "score, in the benchmark's unit", None))


def _sentence(key: tuple[str, str], of_run: list[Score], run: str) -> str:
    title = _about(key)[0]
    first, last = of_run[0], of_run[-1]
    intervals_differ = last.low is not None and first.high is not None and (last.low > first.high or (first.low or 0) > (last.high or 0))
    words = "the intervals do not overlap" if intervals_differ else "the intervals overlap"
    return f"{title}: {_score_text(first)} for {_score_name(first)}{run}, {_score_text(last)} after {last.policy}; {words}."


def _score_name(score: Score) -> str:
    return "the base policy" if score.policy == BASE else f"the policy of {score.policy}"


def _score_text(score: Score) -> str:
    return f"{score.value:.3g} [{score.low:.3g}, {score.high:.3g}]"


def _plot(key: tuple[str, str], by_run: dict[str, list[Score]]) -> Plot:
    title, unit, level = _about(key)
    policies = sorted({score.policy for scores_of_run in by_run.values() for score in scores_of_run}, key=_order)
    counts = sorted({score.n for scores_of_run in by_run.values() for score in scores_of_run if score.n is not None})

    def paint(axes: Axes) -> None:
        for index, (run, scores_of_run) in enumerate(by_run.items()):
            by_policy = {score.policy: score for score in scores_of_run}
            points = [_point(by_policy.get(policy)) for policy in policies]
            shift = 0.12 * (index - (len(by_run) - 1) / 2)
            interval_points(axes, [_tick(policy) for policy in policies], points, index, run if len(by_run) > 1 else "", shift)
        base = next((score.value for scores_of_run in by_run.values() for score in scores_of_run if score.policy == BASE), level)
        if base is not None:
            axes.axhline(
                base, color=MUTED_COLOUR, linewidth=1, linestyle=":", label="base policy" if level is None else "as good as the baseline"
            )

    name = f"result-{key[0]}-{key[1]}".replace(" ", "-").replace(".", "-")
    return draw(name, title, n_of(counts, "questions"), "policy after iteration", unit, paint, "Bars: 95 % intervals over questions.")


def _point(score: Score | None) -> tuple[float, float, float]:
    missing = float("nan")
    if score is None:
        return missing, missing, missing
    return score.value, score.value if score.low is None else score.low, score.value if score.high is None else score.high


def _order(policy: str) -> int:
    return -1 if policy == BASE else int(policy.rpartition(" ")[2])


def _tick(policy: str) -> str:
    return policy.removeprefix("iteration ")


def _score_table(scores_by_measure: dict[tuple[str, str], dict[str, list[Score]]], has_several_runs: bool) -> Table:
    rows: list[list[Cell]] = []
    for (benchmark, name), by_run in scores_by_measure.items():
        for run, scores_of_run in by_run.items():
            for score in scores_of_run:
                first: list[Cell] = [run] if has_several_runs else []
                rows.append([*first, benchmark, name.replace("_", " "), score.policy, score.value, score.low, score.high, score.n])
    heads = [*(["run"] if has_several_runs else []), "benchmark", "measure", "policy", "score", "low", "high", "questions"]
    return Table("All scores", heads, rows, "Intervals: 95 %, questions resampled.", is_folded=True)


def _official(history: History) -> Table | None:
    """The figures by the benchmarks' own rules, which have no interval of ours."""
    rows: list[list[Cell]] = [
        [score.benchmark, score.name.replace("_", " "), score.policy, score.value]
        for score in scores(history.artifacts)
        if score.low is None and not score.name.startswith(NOT_SCORES) and "categories" not in score.name
    ]
    return Table("Figures by the benchmarks' own rules", ["benchmark", "figure", "policy", "value"], rows, is_folded=True) if rows else None


def _difference_table(document: dict[str, Any]) -> Table:
    keys = ("bench", "policy", "b", "score_a", "score_b", "value", "low", "high", "p_value", "p_holm", "n")
    heads = ["benchmark", "policy", "b is", "a", "b", "b - a", "low", "high", "p", "p (Holm)", "questions"]
    rows = [[difference[key] for key in keys] for difference in document["differences"]]
    note = (
        f"a: {document['a']}; b: {document['b']}. Paired bootstrap over the questions both answered, 95 %; p two-sided, adjusted for all "
        "rows by Holm. " + " ".join(document["notes"])
    )
    return Table("Differences, question by question", heads, rows, note.strip())
