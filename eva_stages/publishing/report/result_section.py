"""The result: every score of every policy, with its interval, against the base policy and against other runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from eva_stages.core.kinds import BASE
from eva_stages.publishing.report.answer_sentences import comparison_sentences, difference_sentence
from eva_stages.publishing.report.measure_names import about_measure
from eva_stages.publishing.report.palette import iteration_of
from eva_stages.publishing.report.score_plots import score_plot
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.views.history import History
from eva_stages.views.recorded_scores import Score, scores
from eva_stages.views.run_groups import runs_by_arm

MOST_RUNS_IN_SENTENCES, MOST_ROWS = 4, 16
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
            of_run.sort(key=lambda score: iteration_of(score.policy))
    return scores_by_measure


def result(histories: Sequence[History], tests: Mapping[str, Any]) -> Section:
    """The first section.

    Args:
        histories: the run, and others to compare with.
        tests: the paired differences, from `paired_tests`.
    """
    scores_by_measure = measures(histories)
    groups = {arm: [history.name for history in of_arm] for arm, of_arm in runs_by_arm(histories).items()}
    is_comparison = len(histories) > 1
    plots = [score_plot(about_measure(*key), key, by_run, groups if is_comparison else None) for key, by_run in scores_by_measure.items()]
    tables = [_difference_table(tests)] if tests["differences"] else []
    tables += [_score_table(scores_by_measure, is_comparison)] if scores_by_measure else []
    official = _official(histories[0])
    tables += [official] if official else []
    if is_comparison:
        lead = comparison_sentences(tests) if len(histories) <= MOST_RUNS_IN_SENTENCES else []
    else:
        lead = _sentences(scores_by_measure, tests)
        lead.append("Controls (`creator.control`, or another `creator.metric`) are separate runs; `eva report RUN CONTROL` compares them.")
    missing = [] if scores_by_measure else ["No evaluation is finished yet."]
    return Section("result", "Result", lead, plots, tables, missing)


def _sentences(scores_by_measure: Mapping[tuple[str, str], Mapping[str, list[Score]]], tests: Mapping[str, Any]) -> list[str]:
    """The last policy against the base policy, in every measure; with the paired test where the questions have values."""
    last_tests = {entry["bench"]: entry for entry in tests["differences"]}  # the later policies come last
    sentences = []
    for key, by_run in scores_by_measure.items():
        for of_run in by_run.values():
            test = last_tests.get(f"{key[0]}, {key[1]}") or (last_tests.get(key[0]) if key[1] == "score" else None)
            if test is not None and test["policy"] == of_run[-1].policy:
                sentences.append(difference_sentence(test, about_measure(*key)[0], "the base policy", f"the policy of {test['policy']}"))
            elif len(of_run) > 1 and _comparable(key):
                sentences.append(_sentence(key, of_run))
    return sentences


def _comparable(key: tuple[str, str]) -> bool:
    """Whether the figure describes a policy alone, not a comparison with the base policy."""
    return key not in (("lettercraft", "sampled_gain"), ("lettercraft", "win_rate"))


def _sentence(key: tuple[str, str], of_run: list[Score]) -> str:
    first, last = of_run[0], of_run[-1]
    name = "the base policy" if first.policy == BASE else f"the policy of {first.policy}"
    scores_text = f"{_score_text(first)} for {name}, {_score_text(last)} after {last.policy}"
    return f"{about_measure(*key)[0]}: {scores_text}; 95 % intervals, without a paired test."


def _score_text(score: Score) -> str:
    return f"{score.value:.3g} [{score.low:.3g}, {score.high:.3g}]"


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


def _difference_table(document: Mapping[str, Any]) -> Table:
    keys = ("bench", "policy", "b", "score_a", "score_b", "value", "low", "high", "p_value", "p_holm", "n")
    heads = ["benchmark", "policy", "b is", "a", "b", "b - a", "low", "high", "p", "p (Holm)", "questions"]
    rows = [[difference[key] for key in keys] for difference in document["differences"]]
    note = (
        f"a: {document['a']}; b: {document['b']}. Paired bootstrap over the questions both answered, 95 %; p two-sided, adjusted for all "
        "rows by Holm. " + " ".join(document["notes"])
    )
    return Table("Differences, question by question", heads, rows, note.strip(), is_folded=len(rows) > MOST_ROWS)
