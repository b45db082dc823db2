"""What a page says first: whether the policy became better, or which run is better, by paired tests over questions or over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any

from eva_stages.core.errors import ConfigError
from eva_stages.core.text_table import count_text
from eva_stages.evaluation.study_statistics import LEVEL
from eva_stages.publishing.report.measure_names import about_tested
from eva_stages.views.comparison import compare, compare_iterations, measurements
from eva_stages.views.history import History
from eva_stages.views.recorded_scores import scores
from eva_stages.views.study_sentences import figure, p_text, signed_figure

RUN_QUESTION = "Is the trained policy better than the base policy?"
COMPARISON_QUESTION = "Which run has the better policy?"
ONE_RUN_NOTE = (
    "The tests are about these policies, over questions: another seed of the same recipe may give another result. `eva ablate` compares "
    "recipes over seeds."
)


UNTESTED_TEXT = "Not tested: no policy and the base policy have scores of the same questions."


def paired_tests(histories: Sequence[History]) -> dict[str, Any]:
    """Of one run, each iteration against the base policy; of several, each other run against the first; see `views.comparison`.

    `differences` is empty where nothing can be compared, and `notes` says why.
    """
    first, *other_runs = histories
    sides = [values for history in histories if (values := measurements([history]))]
    names = ", ".join(history.name for history in other_runs)
    empty_document: dict[str, Any] = {"a": first.name, "b": names, "differences": [], "notes": []}
    if not sides or sides[0][0].run != first.name:
        return empty_document
    try:
        return compare_iterations(sides[0]) if not other_runs else compare(sides) if len(sides) > 1 else empty_document
    except ConfigError as error:
        return {**empty_document, "notes": error.faults}


def run_answer(history: History, document: Mapping[str, Any]) -> list[str]:
    """Whether the last compared policy is better than the base policy, then what to be careful about."""
    differences = document["differences"]
    if not differences:
        has_scores = any(score.low is not None for score in scores(history.artifacts))
        return [UNTESTED_TEXT if has_scores else "Not known yet: no evaluation is complete.", *document["notes"]]
    last = differences[-1]["policy"]
    lines = [_verdict([entry for entry in differences if entry["policy"] == last], f"The policy of {last}", "the base policy")]
    if warnings := [warning for artifact in history.every("health") for warning in artifact.warnings]:
        lines.append(f"Careful, {count_text(len(warnings), 'health figure')} outside a limit: {'; '.join(warnings)}.")
    if remaining_count := len(history.stages) - len(history.artifacts):
        lines.append(f"Preliminary: {count_text(remaining_count, 'stage')} of {len(history.stages)} not done yet.")
    return lines


def comparison_answer(document: Mapping[str, Any]) -> list[str]:
    """Whether each other run is better than the first, by the last policy that both have."""
    differences = document["differences"]
    if not differences:
        return ["Not known: the runs have no evaluation in common.", *document["notes"]]
    last_tests = _last_tests(document)
    return [*(_verdict(tests, f"{run}, {tests[0]['policy']},", document["a"]) for run, tests in last_tests.items()), ONE_RUN_NOTE]


def comparison_sentences(document: Mapping[str, Any]) -> list[str]:
    """The figures behind `comparison_answer`."""
    return [
        difference_sentence(test, f"{about_tested(test['bench'])}, {test['policy']}", document["a"], run)
        for run, tests in _last_tests(document).items()
        for test in tests
    ]


def _last_tests(document: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The tests of the last policy that each other run has in common with the first, by the other run's name."""
    tests_by_run: dict[str, list[Mapping[str, Any]]] = {}
    for entry in document["differences"]:
        tests_by_run.setdefault(entry["b"], []).append(entry)
    return {run: [entry for entry in tests if entry["policy"] == tests[-1]["policy"]] for run, tests in tests_by_run.items()}


def difference_sentence(difference: Mapping[str, Any], title: str, name_a: str, name_b: str) -> str:
    """The scores of both sides and the paired test of their difference."""
    verdict = "significant" if difference["p_holm"] <= LEVEL else "not significant"
    return (
        f"{title}: {figure(difference['score_a'])} for {name_a}, {figure(difference['score_b'])} for {name_b}; difference "
        f"{signed_figure(difference['value'])}, 95 % interval {signed_figure(difference['low'])} to {signed_figure(difference['high'])}, "
        f"corrected p {p_text(difference['p_holm'])}, {count_text(difference['n'], 'question')}: {verdict}."
    )


def _verdict(differences: Sequence[Mapping[str, Any]], name: str, other_name: str) -> str:
    """One sentence about all measures of one policy against another."""
    significant = [entry for entry in differences if entry["p_holm"] <= LEVEL]
    better, worse = (_names([entry for entry in significant if entry["value"] * sign > 0]) for sign in (1, -1))
    measures_text = count_text(len(differences), "measure")
    test = f"paired test over questions, p at most {LEVEL} after Holm's correction"
    if better and worse:
        return f"{name} is better than {other_name} in {better}, and worse in {worse} ({test})."
    if better or worse:
        word, names = ("better", better) if better else ("worse", worse)
        other_count = len(differences) - len(significant)
        rest = f"; no significant difference in {other_count} of {measures_text}" if other_count else ""
        return f"{name} is {word} than {other_name} in {names}{rest} ({test})."
    return f"{name} does not differ significantly from {other_name} in {measures_text} ({test})."


def _names(tests: Sequence[Mapping[str, Any]]) -> str:
    """The measures in a sentence."""
    names = [_in_sentence(about_tested(test["bench"])) for test in tests]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _in_sentence(title: str) -> str:
    """A title that is not a benchmark's name, such as IFEval, begins with a small letter."""
    return title if any(letter.isupper() for letter in title[1:]) else title[:1].lower() + title[1:]
