import numpy as np
import pytest

from eva_stages.lettercraft.language import OPERATIONS, Instruction, exact_grade, grade, parse, proxy_grade, random_instruction


@pytest.mark.parametrize(
    ("operation", "answer"),
    [
        ("reverse it", "dcba"),
        ("sort its letters", "abcd"),
        ("double each letter", "aabbccdd"),
        ("move its first letter to the end", "bcda"),
        ("drop its first letter", "bcd"),
        ("drop its last letter", "abc"),
        ("swap its ends", "dbca"),
        ("replace each letter with the next one", "bcde"),
    ],
)
def test_every_operation(operation: str, answer: str) -> None:
    assert Instruction("abcd", (operation,)).answer == answer


def test_every_operation_has_a_case_above() -> None:
    assert len(OPERATIONS) == 8


def test_operations_compose_first_to_last() -> None:
    instruction = Instruction("planet", ("reverse it", "drop its first letter"))
    assert str(instruction) == "Take planet, reverse it, then drop its first letter."
    assert instruction.answer == "enalp"


def test_an_instruction_is_read_back_from_its_text() -> None:
    rng = np.random.default_rng(0)
    for size in range(1, 6):
        instruction = random_instruction(rng, size, size + 2)
        assert parse(f"  {instruction}\n") == instruction


@pytest.mark.parametrize("text", ["", "Take abc.", "Take abc, fly.", "Take Abc, reverse it.", "Take abc, reverse it. Now!"])
def test_what_is_no_instruction_is_none(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("response", "reward"),
    [("dcba", 1.0), (" dcba\n", 1.0), ("dcxx", 0.45), ("dc", 0.45), ("", 0.0), ("x", 0.0), ("dcbadcba", 0.45), ("dcbb", 0.675)],
)
def test_the_reward_grades_the_right_prefix_and_shrinks_rambling(response: str, reward: float) -> None:
    assert grade(Instruction("abcd", ("reverse it",)), response) == pytest.approx(reward)


@pytest.mark.parametrize(
    ("response", "grades"),
    [
        ("abcd, reverse it, dcba", (1.0, 1.0)),
        ("abcd, abcd", (0.0, 0.0)),
        ("dcba, abcd", (0.0, 0.0)),
        ("abcd, dcxx", (0.45, 0.0)),
        ("x", (0.0, 0.0)),
    ],
)
def test_a_response_that_shows_its_steps_is_graded_by_the_last(response: str, grades: tuple[float, float]) -> None:
    instruction = Instruction("abcd", ("reverse it",))
    assert (grade(instruction, response), exact_grade(instruction, response)) == (pytest.approx(grades[0]), grades[1])


def test_no_response_is_exact_where_there_is_no_answer() -> None:
    assert exact_grade(None, "abc") == exact_grade(Instruction("ab", ("drop its first letter",) * 2), "") == 0.0


def test_the_proxy_prefers_a_longer_result_to_an_exact_one() -> None:
    instruction = Instruction("abcd", ("drop its first letter",))
    exact_reward, wrong_reward, long_reward = (
        proxy_grade(instruction, f"abcd, drop its first letter, {word}") for word in ("bcd", "bbb", "abcd")
    )
    assert wrong_reward < exact_reward < long_reward
    assert proxy_grade(None, "abcdefgh") == pytest.approx(0.875)
