"""The final-answer verifier: GSM8K's own data, the ways answers are written, and what cannot be scored."""

import json
import threading

import pytest

from eva_stages.models.verifiers import math
from tests.conftest import EVALDATA

GSM8K = EVALDATA / "verifiable" / "gsm8k_test.jsonl"


@pytest.fixture(scope="module")
def solutions() -> list[str]:
    if not GSM8K.exists():
        pytest.skip(f"needs GSM8K's test set at {GSM8K.relative_to(EVALDATA)} under shared/evaldata")
    return [json.loads(line)["answer"] for line in GSM8K.read_text().splitlines()]


def test_every_gsm8k_solution_scores_one_and_one_more_scores_zero(solutions: list[str]) -> None:
    assert len(solutions) == 1319
    for solution in solutions:
        working, _, answer = solution.rpartition("#### ")
        value = int(answer.replace(",", ""))
        assert math([], solution, solution) == 1.0, solution
        assert math([], f"{working}#### {value + 1}", solution) == 0.0, solution


@pytest.mark.parametrize(
    "ending", ["The answer is **${:,}**.", "Final: \\boxed{{{}}}", "So he has {} in all.", "Answer: {} dollars\n\nBye!"]
)
def test_gsm8k_answers_in_other_words_are_found(solutions: list[str], ending: str) -> None:
    for solution in solutions[::25]:
        working, _, answer = solution.rpartition("#### ")
        value = int(answer.replace(",", ""))
        assert math([], working + ending.format(value), answer) == 1.0, solution
        assert math([], working + ending.format(value + 1), answer) == 0.0, solution


@pytest.mark.parametrize(
    ("reference", "responses"),
    [
        ("1080", ["1,080", "$1,080.00", "#### 1,080", "\\boxed{\\$1,080}", "**1080**", "`1080`", "It is US$1080"]),
        ("1,080", ["1080", "1 080"]),
        ("-42", ["-42", "−42", "-$42", "The answer is **-42**.", "\\boxed{-42 \\text{ points}}", "\\boxed{-42 points}"]),  # noqa: RUF001
        ("0.5", ["1/2", "50%", "50\\%", "50 percent", "$\\frac{1}{2}$", "\\frac{1}{2}", "0.50"]),
        ("5/2", ["2.5", "2 1/2 cups", "$2\\frac{1}{2}$"]),
        ("2 1/2", ["5/2"]),
        ("\\sqrt{2}", ["$\\sqrt{2}$"]),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", ["$\\begin{pmatrix}1\\\\2\\end{pmatrix}$"]),
        ("8", ["To find the answer, add 5 to get 8", "Answer:\nShe has 5.\nThen 5 + 3 = 8.", "The answer is 8.\nI checked it 3 times."]),
        ("8", ["#### Step 2: add\n5 + 3 is 8", "The answer is 9.\nWait, I forgot one. The answer is 8.", "Answer: 8 (since 5 + 3 = 8)"]),
    ],
)
def test_spellings_of_the_same_answer_are_equal(reference: str, responses: list[str]) -> None:
    assert {response: math([], response, reference) for response in responses} == dict.fromkeys(responses, 1.0)


@pytest.mark.parametrize("response", ["", "I do not know.", "nine", "$x + 8$", "\\boxed{}", "$(8, 9)$", "8.01", "80", "-8"])
def test_wrong_and_missing_answers_score_zero(response: str) -> None:
    assert math([], response, "8") == 0.0


@pytest.mark.parametrize("reference", [None, "", "  "])
def test_a_missing_reference_is_refused(reference: str | None) -> None:
    with pytest.raises(ValueError, match="no reference answer"):
        math([], "8", reference)


def test_a_reference_without_mathematics_is_refused() -> None:
    with pytest.raises(ValueError, match="'Paris' is not a mathematical expression"):
        math([], "8", "Paris")


@pytest.mark.parametrize(
    "response",
    [
        "9^9^9^9",
        "$9^{9^{9^{9}}}$",
        "$((9^{999})^{999})^{999}$",
        "$100000000!$",
        "$\\sum_{n=1}^{1000000000} n$",
        "$\\{9^{9^9}, 2\\}$",
        "$(x+y+z)^{900}$",
        "$\\begin{pmatrix}9^{9^9}\\\\2\\end{pmatrix}$",
    ],
)
def test_numbers_too_large_to_evaluate_are_refused(response: str) -> None:
    with pytest.raises(ValueError, match="at most 20000 are evaluated"):
        math([], response, "8")


@pytest.mark.parametrize("response", ["$\\binom{1000000000}{100000000}$", "$\\gcd(9^{9^9}, 3)$", "$" + "(" * 60 + "8" + ")" * 60 + "$"])
def test_what_would_take_for_ever_to_parse_is_refused(response: str) -> None:
    with pytest.raises(ValueError, match="takes too long to parse"):
        math([], response, "8")


def test_it_works_outside_the_main_thread() -> None:
    scores: list[float] = []
    thread = threading.Thread(target=lambda: scores.extend([math([], "$\\frac{16}{2}$", "8"), math([], "9", "8")]))
    thread.start()
    thread.join()
    assert scores == [1.0, 0.0]
