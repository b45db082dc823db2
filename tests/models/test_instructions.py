"""IFEval's checks: each with a response that follows it and ones that do not, and IFEval's own inputs."""

import json
from typing import Any

import pytest

from eva_stages.models.instructions import CHECKS, count_sentences, instruction
from tests.conftest import EVALDATA

IFEVAL = EVALDATA / "verifiable" / "ifeval_input_data.jsonl"
ENGLISH = "the weather was lovely this morning and everybody went outside for a long walk"

CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("keywords:existence", {"keywords": ["cat", "Dog"]}, ["Cats and a dog"], ["a cat", "c.t and dog"]),
    ("keywords:frequency", {"keyword": "war", "frequency": 2, "relation": "at least"}, ["War, no war"], ["one war"]),
    ("keywords:frequency", {"keyword": "war", "frequency": 2, "relation": "less than"}, ["one war"], ["War, no war"]),
    ("keywords:forbidden_words", {"forbidden_words": ["rock", "can"]}, ["rockets cannot"], ["They Rock!", "yes we can."]),
    ("keywords:letter_frequency", {"letter": "Q", "let_frequency": 2, "let_relation": "at least"}, ["Quite quick"], ["quite"]),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 1, "let_relation": "less than"}, ["none"], ["# Title"]),
    ("language:response_language", {"language": "pt"}, ["Hoje o tempo está muito bom e vamos passear na praia."], [ENGLISH, "123 !!"]),
    ("language:response_language", {"language": "hi"}, ["आज मौसम बहुत अच्छा है और हम बाहर घूमने जाएंगे।"], [ENGLISH]),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "at least"}, ["One. Two! Three?"], ["One. Two!"]),
    ("length_constraints:number_sentences", {"num_sentences": 3, "relation": "less than"}, ["One. Two!"], ["One. Two! Three?"]),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, ["a\n***\nb", "***\na\n***\nb\n***"], ["a\n\nb", "a *** *** b"]),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, ["one two, three"], ["one two"]),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, ["one two"], ["one two three"]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "it"},
        ["One.\n\nIt's here.", 'One.\n\n"It, too."'],
        ["One.\n\nItem.", "It is one.", "One.\n\nIt.\n\nThree.", "One.\n\n\n\nIt is."],
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[name], [address]"], ["[name]"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["Bye.\nP.S. Call me", "p. s. call"], ["Bye. PS call"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["Bye.\nP.P.S call"], ["Bye.\nP.S. call"]),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, ["* a\n* b", "- a\n  * b"], ["* a", "* a\n* b\n- c", "**a**\n* b"]),
    ("detectable_format:constrained_response", {}, ["My answer is maybe."], ["Maybe.", "My answer is yes"]),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, ["*a* and **b**"], ["**a**", "* a\n* b", "** ** *a*"]),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Day", "num_sections": 2},
        ["Day 1\na\nDay 2\nb"],
        ["Day 1\na", "Day one Day two"],
    ),
    ("detectable_format:json_format", {}, ['{"a": 1}', '```json\n{"a": 1}\n```', '```\n["a"]\n```'], ["{a: 1}", 'JSON: {"a": 1}']),
    ("detectable_format:title", {}, ["<<A poem>>\nText"], ["<A poem>", "<< >>", "<<A\npoem>>"]),
    ("combination:two_responses", {}, ["One\n******\nTwo"], ["One", "One\n******\nOne", "One******  ******Two", "1******2******3"]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Name a bird."}, ["  name a bird.\nWren"], ["Wren. Name a bird."]),
    ("startend:end_checker", {"end_phrase": "Peace!"}, ['He said: "so, peace!"', "Peace! "], ["Peace! Bye."]),
    ("startend:quotation", {}, [' "Quoted." '], ['"Quoted.', '"', "'Quoted.'"]),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "at least"}, ["NASA and ESA"], ["NASA and Esa"]),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "less than"}, ["NASA and Esa"], ["NASA and ESA"]),
    ("change_case:english_capital", {}, [ENGLISH.upper()], [ENGLISH, "HOJE O TEMPO ESTÁ MUITO BOM E VAMOS PASSEAR NA PRAIA"]),
    ("change_case:english_lowercase", {}, [ENGLISH], [ENGLISH.upper(), "hoje o tempo está muito bom e vamos passear na praia"]),
    ("punctuation:no_comma", {}, ["No comma; none."], ["One, two"]),
]


def reference(*instructions: tuple[str, dict[str, Any] | None]) -> str:
    return json.dumps({"instruction_id_list": [name for name, _ in instructions], "kwargs": [arguments for _, arguments in instructions]})


@pytest.mark.parametrize(("name", "arguments", "following", "failing"), CASES, ids=[case[0] for case in CASES])
def test_each_check_tells_following_from_failing(name: str, arguments: dict[str, Any], following: list[str], failing: list[str]) -> None:
    instruction_reference = reference((name, arguments))
    assert {text: instruction([], text, instruction_reference) for text in following} == dict.fromkeys(following, 1.0)
    assert {text: instruction([], text, instruction_reference) for text in failing} == dict.fromkeys(failing, 0.0)


def test_every_check_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(CHECKS) and len(CHECKS) == 25


def test_the_value_is_the_share_of_instructions_followed() -> None:
    instruction_reference = reference(
        ("punctuation:no_comma", None), ("detectable_format:title", {"num_words": None}), ("startend:quotation", {})
    )
    assert instruction([], '"Plain text."', instruction_reference) == pytest.approx(2 / 3)
    assert instruction([], " \n", instruction_reference) == 0.0


@pytest.mark.parametrize("response", ["Certainly! Here is *one* answer, in brief.\n\n* It is [this].\n\nP.S. Bye.", "42", "好的。"])
def test_every_ifeval_input_can_be_scored(response: str) -> None:
    if not IFEVAL.exists():
        pytest.skip(f"needs IFEval's inputs at {IFEVAL.relative_to(EVALDATA)} under shared/evaldata")
    rows = [json.loads(line) for line in IFEVAL.read_text().splitlines()]
    assert len(rows) == 541
    assert {name for row in rows for name in row["instruction_id_list"]} == set(CHECKS)
    values = [instruction([{"role": "user", "content": row["prompt"]}], response, json.dumps(row)) for row in rows]
    assert all(0 <= value <= 1 for value in values) and 0 < sum(values) < 541


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", 3),
        ('One... two?! "Three." Four', 4),
        ("Dr. Smith met J. R. Miller, e.g. in the U.S. army. It cost $3.50.", 2),
        ("1. First point\n2. Second point", 1),
        ("你好。你好吗？好！", 3),  # noqa: RUF001
        ("--- ***", 0),
    ],
)
def test_sentences_are_counted_by_the_documented_rule(text: str, sentences: int) -> None:
    assert count_sentences(text) == sentences


def test_languages_are_told_the_same_every_time() -> None:
    instruction_reference = reference(("language:response_language", {"language": "en"}))
    assert len({instruction([], "ok no problem", instruction_reference) for _ in range(20)}) == 1


def test_an_unknown_instruction_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown instructions style:rhyme; expected: keywords:existence, .*punctuation:no_comma"):
        instruction([], "text", reference(("style:rhyme", {})))


@pytest.mark.parametrize(
    ("reference_text", "message"),
    [
        (None, "no reference"),
        (" ", "no reference"),
        ("not JSON", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ('{"kwargs": []}', "not a JSON object"),
        ('{"instruction_id_list": [], "kwargs": []}', "at least one"),
        ('{"instruction_id_list": ["punctuation:no_comma"], "kwargs": []}', "one entry of kwargs per instruction"),
        (reference(("length_constraints:number_words", {"num_words": 3, "relation": "at most"})), "relation 'at most'"),
    ],
)
def test_a_reference_that_is_no_instruction_is_refused(reference_text: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        instruction([], "text", reference_text)
