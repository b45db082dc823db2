"""Checking instructions that a program can verify: the 25 kinds of IFEval (Zhou et al. 2023, arXiv:2311.07911), strictly.

Each check is a pure function `(response, **kwargs) -> bool` with IFEval's semantics. Known differences: sentences are counted by the rule
in `count_sentences` and capital words by `WORD` (IFEval uses nltk's models, which need a download); a response whose language cannot be
detected fails the language check (IFEval passes it); keywords are plain text, not regular expressions.
"""

import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from eva_stages.core.rows import Message

CONSTRAINED_RESPONSES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
WORD = re.compile(r"\w+(?:[-'’.]\w+)*")  # noqa: RUF001
LIST_NUMBER = re.compile(r"^\s*\d+\.\s", re.MULTILINE)
ABBREVIATION = re.compile(r"\b(Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|vs|e\.g|i\.e|cf|approx|[A-HJ-Z](?:\.[A-Z])*)\.(?=\s+\S)")
SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]*_]*(?:\s+|$)|[。！？।]+")  # noqa: RUF001


def instruction(messages: list[Message], response: str, reference: str | None) -> float:
    """The share of a prompt's instructions that a response follows, in [0, 1]; an empty response follows none.

    Args:
        messages: not used.
        response: the text to check, unchanged (strict: no line is dropped).
        reference: JSON text with `instruction_id_list` and `kwargs`, one entry per instruction, as in IFEval's input data.

    Raises:
        ValueError: a missing or malformed reference, or an unknown instruction.
    """
    return _followed_share([response], reference)


def instruction_loosely(response: str, reference: str | None) -> float:
    """`instruction` by IFEval's loose rule: an instruction is followed if any variant of the response follows it. Variants omit the
    first line, the last line or both, each also without asterisks (Zhou et al. 2023, section 2.2).

    Raises:
        ValueError: as `instruction`.
    """
    lines = response.split("\n")
    shorter_texts = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    return _followed_share([variant for text in (response, *shorter_texts) for variant in (text, text.replace("*", ""))], reference)


def _followed_share(variants: list[str], reference: str | None) -> float:
    """The share of instructions that at least one variant of a response follows; empty variants follow none."""
    checks = _instructions(reference)
    present = [variant for variant in variants if variant.strip()]
    return sum(any(CHECKS[name](variant, **arguments) for variant in present) for name, arguments in checks) / len(checks)


def _instructions(reference: str | None) -> list[tuple[str, dict[str, Any]]]:
    """The instructions of a reference with their arguments; null arguments (from tables) are omitted."""
    if reference is None or not reference.strip():
        raise ValueError("no reference to check against; give IFEval's instruction_id_list and kwargs in the reference column")
    try:
        fields = json.loads(reference)
        names, arguments = fields["instruction_id_list"], fields["kwargs"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"the reference {reference[:80]!r} is not a JSON object with instruction_id_list and kwargs") from error
    if not names or len(names) != len(arguments):
        raise ValueError(
            f"{len(names)} instructions with {len(arguments)} kwargs; give one entry of kwargs per instruction, and at least one"
        )
    if unknown := sorted(set(names) - set(CHECKS)):
        raise ValueError(f"unknown instructions {', '.join(unknown)}; expected: {', '.join(CHECKS)}")
    present = [{name: value for name, value in (entry or {}).items() if value is not None} for entry in arguments]
    return list(zip(names, present, strict=True))


def _holds(count: int, relation: str, threshold: int) -> bool:
    if relation not in ("at least", "less than"):
        raise ValueError(f"unknown relation {relation!r}; expected: 'at least' or 'less than'")
    return count >= threshold if relation == "at least" else count < threshold


@cache
def _languages() -> Any:
    """Language profiles, once per process; the fixed seed makes detection repeatable."""
    from langdetect import DetectorFactory
    from langdetect.detector_factory import PROFILES_DIRECTORY

    factory = DetectorFactory()
    factory.set_seed(0)
    factory.load_profile(PROFILES_DIRECTORY)
    return factory


def _language(text: str) -> str | None:
    """ISO 639-1 code of a text's language, None if it cannot be detected. Texts in capitals are lowered: langdetect skips them."""
    from langdetect.lang_detect_exception import LangDetectException

    detector = _languages().create()
    detector.append(text.lower() if text.isupper() else text)
    try:
        return detector.detect()
    except LangDetectException:
        return None


def count_sentences(text: str) -> int:
    """Number of sentences. A sentence ends at . ! ? or … before white space or the end, or at a full-width mark or danda anywhere; not
    after a list's number, an initial, a common abbreviation or at a line break. A remainder counts if it contains a word."""
    plain = ABBREVIATION.sub(r"\1", LIST_NUMBER.sub(" ", text))
    return sum(bool(re.search(r"\w", part)) for part in SENTENCE_END.split(plain))


# --- the checks; those without a docstring are described by their name and arguments ----------------------------------------


def keyword_existence(response: str, keywords: list[str]) -> bool:
    return all(keyword.lower() in response.lower() for keyword in keywords)


def keyword_frequency(response: str, keyword: str, frequency: int, relation: str) -> bool:
    return _holds(response.lower().count(keyword.strip().lower()), relation, frequency)


def forbidden_words(response: str, forbidden_words: list[str]) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", response, re.IGNORECASE) for word in forbidden_words)


def letter_frequency(response: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _holds(response.lower().count(letter.strip().lower()), let_relation, let_frequency)


def response_language(response: str, language: str) -> bool:
    return _language(response) == language


def number_sentences(response: str, num_sentences: int, relation: str) -> bool:
    return _holds(count_sentences(response), relation, num_sentences)


def number_words(response: str, num_words: int, relation: str) -> bool:
    return _holds(len(re.findall(r"\w+", response)), relation, num_words)


def number_paragraphs(response: str, num_paragraphs: int) -> bool:
    """Paragraphs are separated by ***; an empty paragraph fails the check, except at either end."""
    paragraphs = [part.strip() for part in re.split(r"\s?\*\*\*\s?", response)]
    return all(paragraphs[1:-1]) and sum(map(bool, paragraphs)) == num_paragraphs


def nth_paragraph_first_word(response: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Paragraphs are separated by an empty line; the word is compared without leading quotes and trailing punctuation."""
    paragraphs = [part.strip() for part in response.split("\n\n")]
    filled_count = sum(map(bool, paragraphs))
    if nth_paragraph > filled_count or not paragraphs[nth_paragraph - 1]:
        return False
    word = re.split(r"[.,?!'\"]", paragraphs[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"'))[0]
    return filled_count == num_paragraphs and word.lower() == first_word.lower()


def number_placeholders(response: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", response)) >= num_placeholders


def postscript(response: str, postscript_marker: str) -> bool:
    spellings = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(spellings.get(postscript_marker, re.escape(postscript_marker)), response, re.IGNORECASE) is not None


def number_bullet_lists(response: str, num_bullets: int) -> bool:
    """Exactly that many Markdown bullets, * or -; ** starts bold text."""
    bullets = re.findall(r"^\s*\*[^*].*$", response, re.MULTILINE) + re.findall(r"^\s*-.*$", response, re.MULTILINE)
    return len(bullets) == num_bullets


def constrained_response(response: str) -> bool:
    return any(answer in response for answer in CONSTRAINED_RESPONSES)


def number_highlighted_sections(response: str, num_highlights: int) -> bool:
    """Sections are *highlighted* or **highlighted** within a line."""
    highlighted_texts = re.findall(r"\*[^\n*]*\*", response) + re.findall(r"\*\*[^\n*]*\*\*", response)
    return sum(bool(text.strip("*").strip()) for text in highlighted_texts) >= num_highlights


def multiple_sections(response: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"\s?{re.escape(section_spliter.strip())}\s?\d+\s?", response)) >= num_sections


def json_format(response: str) -> bool:
    """The complete response is JSON, optionally in a code fence."""
    text = re.sub(r"^```(?:json|Json|JSON)?", "", response.strip()).removesuffix("```")
    try:
        json.loads(text.strip())
    except ValueError:
        return False
    return True


def title(response: str) -> bool:
    return any(text.lstrip("<").rstrip(">").strip() for text in re.findall(r"<<[^\n]+>>", response))


def two_responses(response: str) -> bool:
    """Two different responses separated by six asterisks; no empty part between separators."""
    parts = [part.strip() for part in response.split("******")]
    filled_parts = [part for part in parts if part]
    return all(parts[1:-1]) and len(filled_parts) == 2 and filled_parts[0] != filled_parts[1]


def repeat_prompt(response: str, prompt_to_repeat: str) -> bool:
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def end_checker(response: str, end_phrase: str) -> bool:
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def capital_word_frequency(response: str, capital_frequency: int, capital_relation: str) -> bool:
    return _holds(sum(word.isupper() for word in WORD.findall(response)), capital_relation, capital_frequency)


def english_capital(response: str) -> bool:
    return response.isupper() and _language(response) == "en"


def english_lowercase(response: str) -> bool:
    return response.islower() and _language(response) == "en"


def no_comma(response: str) -> bool:
    return "," not in response


def quotation(response: str) -> bool:
    text = response.strip()
    return len(text) > 1 and text.startswith('"') and text.endswith('"')


CHECKS: dict[str, Callable[..., bool]] = {
    "keywords:existence": keyword_existence,
    "keywords:frequency": keyword_frequency,
    "keywords:forbidden_words": forbidden_words,
    "keywords:letter_frequency": letter_frequency,
    "language:response_language": response_language,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:number_words": number_words,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "detectable_content:number_placeholders": number_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:constrained_response": constrained_response,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:json_format": json_format,
    "detectable_format:title": title,
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": repeat_prompt,
    "startend:end_checker": end_checker,
    "startend:quotation": quotation,
    "change_case:capital_word_frequency": capital_word_frequency,
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "punctuation:no_comma": no_comma,
}
