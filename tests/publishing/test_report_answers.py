"""What a report says first, how it groups runs, and what its colours mean."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.synthetic_run import SyntheticRun
from eva_stages.core.run_folder import Run
from eva_stages.publishing.report.answer_sentences import comparison_answer, comparison_sentences, run_answer
from eva_stages.publishing.report.page import comparison_contents, privacy_of
from eva_stages.publishing.report.palette import ARMS, DARK_VALUES, ITERATIONS, LIGHT_VALUES, RUN_KEY, VARIABLES, iteration_colour
from eva_stages.views.history import History, read_history
from eva_stages.views.run_groups import omitted_runs, partial_study, runs_by_arm
from tests.study_folder import plant_study


def difference(bench: str, policy: str, value: float, p: float, b: str = "run") -> dict[str, Any]:
    figures = {"score_a": 0.5, "score_b": 0.5 + value, "value": value, "low": value - 0.1, "high": value + 0.1, "p_holm": p, "n": 48}
    return {"bench": bench, "policy": policy, "b": b, **figures}


def document_of(*differences: dict[str, Any]) -> dict[str, Any]:
    return {"a": "run, base policy", "b": "run", "differences": list(differences), "notes": ["no judge"]}


def empty_history(root: Path) -> History:
    return History(root, [], ())


def test_the_answer_is_about_the_last_policy_and_names_what_became_better_and_worse(tmp_path: Path) -> None:
    history = empty_history(tmp_path)
    early = difference("mt-bench", "iteration 0", 0.9, 0.001)
    better, worse = difference("lettercraft, sampled", "iteration 1", 0.2, 0.004), difference("mt-bench", "iteration 1", -0.3, 0.01)
    unclear = difference("ifeval", "iteration 1", 0.3, 0.3)
    answers = [
        (
            [early, better, unclear],
            "better than the base policy in mean reward of sampled responses; no significant difference in 1 of 2",
        ),
        ([better, worse], "is better than the base policy in mean reward of sampled responses, and worse in MT-Bench ("),
        ([worse], "is worse than the base policy in MT-Bench (paired test over questions, p at most 0.05 after Holm's correction)."),
        ([unclear], "does not differ significantly from the base policy in 1 measure ("),
    ]
    for differences, words in answers:
        (answer,) = run_answer(history, document_of(*differences))
        assert answer.startswith("The policy of iteration 1 ") and words in answer
    assert run_answer(history, document_of()) == ["Not known yet: no evaluation is complete.", "no judge"]


def test_every_other_run_is_compared_with_the_first_at_the_last_policy_of_both() -> None:
    tests = [difference("ifeval", f"iteration {t}", 0.1 * t, 0.01, run) for run, last in (("b", 2), ("c", 1)) for t in range(last + 1)]
    document = {**document_of(*tests), "a": "a"}
    answers = comparison_answer(document)
    assert [answer.partition(" than")[0] for answer in answers[:2]] == ["b, iteration 2, is better", "c, iteration 1, is better"]
    assert "another seed" in answers[2]
    sentences = comparison_sentences(document)
    assert len(sentences) == 2
    assert sentences[0] == (
        "IFEval, strict, iteration 2: 0.5000 for a, 0.7000 for b; difference +0.2000, 95 % interval +0.1000 to +0.3000, "
        "corrected p 0.01, 48 questions: significant."
    )


def test_runs_of_a_study_are_arms_and_the_seeds_that_all_of_them_have_are_tested(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    curves: dict = {arm: {seed: [0.1, 0.2 + gain + 0.01 * rng.random()] for seed in range(1, 8)} for arm, gain in (("a", 0.2), ("b", 0.0))}
    study = plant_study(tmp_path / "planted", {**curves, "c": {1: [0.1, 0.1]}})
    histories = [read_history(Run(study / arm / str(seed))) for arm, seeds in (("a", range(1, 8)), ("b", range(2, 8))) for seed in seeds]
    assert {arm: len(runs) for arm, runs in runs_by_arm(histories).items()} == {"a": 7, "b": 6}
    document = partial_study(histories)
    assert document is not None and document["seeds"] == [2, 3, 4, 5, 6, 7]
    assert [(entry["a"], entry["b"], entry["verdict"]) for entry in document["contrasts"]] == [("a", "b", "effect")]
    assert omitted_runs(document, histories) == ["planted/a/1"]
    contents = comparison_contents(histories, privacy_of(histories))
    assert contents.answer[0].startswith("Effect found: a scores 0.1991 more than b") and "planted/a/1" in contents.answer[-1]
    assert [meaning for meaning, _ in contents.key] == ["a", "b"] and contents.sections[0].id == "contrasts"
    (plot,) = [plot for section in contents.sections if section.id == "result" for plot in section.plots]
    assert "n = 7, 6 runs" in plot.n.replace("\n", " ") and "Student" in plot.caption
    assert partial_study([histories[0], histories[8]]) is None  # one seed each: the runs are compared, not the arms
    other_run = read_history(Run(SyntheticRun(tmp_path / "other", prompts=4, responses=2, iterations=0, words=3).write()))
    assert partial_study([*histories, other_run]) is None
    assert list(runs_by_arm([*histories, other_run])) == ["planted/a", "planted/b", "other"]


def test_a_colour_means_one_thing_and_every_colour_has_a_dark_one() -> None:
    colours = [colour for _, meanings in RUN_KEY for colour in meanings]
    assert len(colours) == len(set(colours))
    assert {*colours, *ARMS} <= set(VARIABLES) and LIGHT_VALUES.keys() == DARK_VALUES.keys()
    assert [iteration_colour(number) for number in range(6)] == list(ITERATIONS) and iteration_colour(-1) == RUN_KEY[0][1][0]
    pages = [*(Path(__file__).parents[2] / "eva_stages/publishing/report").glob("*.py")]
    stray_colours = {path.name for path in pages if path.name != "palette.py" and re.search(r'"#[0-9a-f]{6}"', path.read_text())}
    assert stray_colours == set()
