"""Checking final answers to mathematics problems against a reference.

A verifier is a function `f(messages, response, reference) -> float | None`. If a row cannot be scored it raises, and the message is the
reason of a null; a response without a readable answer is a wrong answer. math-verify parses and compares numbers, fractions, percentages
and LaTeX. This file selects the final answer in a response, and rejects expressions that take too long to evaluate, so that no time limit
is needed and any thread can call it.
"""

import logging
import math as mathematics
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from eva_stages.core.rows import Message

GSM8K_ANSWER = re.compile(r"^####[ \t]*(\S*\d\S*)[ \t]*$", re.MULTILINE)
MARK = re.compile(r"\\boxed|answer[*_\s]*(?:is\b|:|=)", re.IGNORECASE)
REWRITES = [
    (re.compile(r"[−–](?=[$\d])"), "-"),  # noqa: RUF001
    (re.compile(r"-\$(?=\d)"), "$-"),
    (re.compile(r"\b[A-Z]{1,3}\$(?=\d)"), "$"),
    (re.compile(r"\\\$"), ""),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"(?<![\d.,/])(-?)(\d+) (\d+)/(\d+)(?![\d/])"), r"\1(\2+\3/\4)"),
    (re.compile(r"[`\"~≈“”]"), " "),
]
"""Spellings that math-verify does not read: other minus signs, currencies, mixed numbers (2 1/2), quotes."""
PLAIN_WORD = re.compile(r"(?<![\\A-Za-z])(?<!\\begin\{)(?<!\\end\{)[A-Za-z]{3,}")
EAGER = re.compile(r"(?=.*(?:\^|\d{5}|!)).*(?:binom|gcd|lcm)|\\sqrt\[[^\]]*[\^!]", re.DOTALL)
"""Functions that the parser evaluates, with possibly huge numbers."""
MAX_DIGITS = 20_000
"""Numbers with more digits, such as 9^9^9, are not evaluated."""
SUM_TERMS = 200
"""Factor for the cost of a power of a sum with variables, because comparing expands it."""
MAX_CHARACTERS = 1000
MAX_DEPTH = 12
"""Of nested brackets; parsing time grows exponentially with it."""


def math(messages: list[Message], response: str, reference: str | None) -> float:
    """1.0 if the response's final answer equals the reference, else 0.0.

    Args:
        messages: not used.
        response: ends in an answer; `final_answer` selects it.
        reference: the bare answer, or GSM8K's worked text that ends in `#### 72`.

    Raises:
        ValueError: a missing reference, a reference that is not a mathematical expression, or an answer too large to evaluate.
    """
    reference_answer = _reference(reference)
    response_answer = final_answer(response)
    return 0.0 if response_answer is None else float(_are_equal(reference_answer, response_answer))


def answer_text(response: str) -> str | None:
    """The final answer of a response as a reference for `math`; None if there is none, or none that reads back as the same answer.

    Raises:
        ValueError: as `math`, for an answer that is too large to evaluate.
    """
    from sympy import latex

    answer = final_answer(response)
    text = None if answer is None else str(latex(answer))
    return text if text is not None and _are_equal(_reference(text), answer) else None


def equal_answers(reference: str, other_reference: str) -> bool:
    """Whether two references are equal answers."""
    return _are_equal(_reference(reference), _reference(other_reference))


def _are_equal(reference_answer: Any, other_answer: Any) -> bool:
    from math_verify import verify

    _check_size(reference_answer)
    _check_size(other_answer)
    return bool(verify(reference_answer, other_answer, timeout_seconds=None, raise_on_error=True))


def final_answer(response: str) -> Any | None:
    """The final answer as a SymPy expression: GSM8K's `#### 72`, else the last line with a \\boxed or "answer is", else the last
    line with a number; None if there is none. The last marked line has priority over all unmarked lines."""
    return next((answer for text in _candidates(response) if (answer := _parse(text)) is not None), None)


def _candidates(response: str) -> Iterator[str]:
    """Texts that may state the final answer, most likely first."""
    yield from reversed(GSM8K_ANSWER.findall(response))
    lines = [line for line in reversed(response.splitlines()) if line.strip()]
    for line in lines:
        marks = list(MARK.finditer(line))
        if marks and marks[-1][0] == r"\boxed":
            yield _without_words(line[marks[-1].start() :][:MAX_CHARACTERS])
        elif marks:
            yield line[marks[-1].start() :][:MAX_CHARACTERS]
    # "to find the answer, add 5 ..." does not announce an answer, but math-verify reads it as such
    yield from (re.sub("answer", "result", line[-MAX_CHARACTERS:], flags=re.IGNORECASE) for line in lines)


def _reference(reference: str | None) -> Any:
    if reference is None or not reference.strip():
        raise ValueError("no reference answer to check against; give one in the prompts' reference column")
    bare = next(reversed(GSM8K_ANSWER.findall(reference)), reference).strip()
    boxed_text = bare if r"\boxed" in bare else rf"\boxed{{{bare.strip('$')}}}"
    expression = _parse(_without_words(boxed_text))
    if expression is None:
        raise ValueError(f"the reference answer {bare[:60]!r} is not a mathematical expression; give a number, a fraction or LaTeX")
    return expression


def _without_words(text: str) -> str:
    """LaTeX without plain words such as units, which would be parsed as products of variables."""
    return PLAIN_WORD.sub("", re.sub(r"\s*per ?cent\b", "%", text))


def _parse(text: str) -> Any | None:
    """The answer that math-verify reads in a text; None if there is none."""
    from math_verify import parse

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns about absent time limits
    for pattern, plain in REWRITES:
        text = pattern.sub(plain, text)
    if EAGER.search(text) or _depth(text) > MAX_DEPTH:
        raise ValueError(f"{text[:60]!r} takes too long to parse: huge numbers or more than {MAX_DEPTH} levels of brackets")
    return next(iter(parse(text, fallback_mode="no_fallback", parsing_timeout=None, raise_on_error=True)), None)


def _depth(text: str) -> int:
    """The largest number of open brackets."""
    return max(accumulate(((character in "([{") - (character in ")]}") for character in text), initial=0))


def _check_size(expression: Any) -> None:
    digits = _digits(expression)
    if digits > MAX_DIGITS:
        raise ValueError(f"{str(expression)[:60]} has about {digits:.3g} digits; at most {MAX_DIGITS} are evaluated")


def _digits(expression: Any) -> float:
    """A rough upper bound of the decimal digits of an evaluation; infinite for sums, integrals and derivatives."""
    from sympy import Derivative, MatrixBase, Number, Pow, gamma
    from sympy.concrete.expr_with_limits import ExprWithLimits
    from sympy.functions.combinatorial.factorials import CombinatorialFunction

    if isinstance(expression, Number):
        return float(len(str(expression)))
    if isinstance(expression, ExprWithLimits | Derivative):
        return mathematics.inf
    if isinstance(expression, CombinatorialFunction | gamma):
        return float(10 ** min(8, _digits(expression.args[0])))
    if isinstance(expression, Pow) and expression.exp.is_number:
        terms = SUM_TERMS if expression.base.is_Add and expression.base.free_symbols else 1
        return terms * _digits(expression.base) * _exponent(expression.exp)
    parts = expression.flat() if isinstance(expression, MatrixBase) else expression.args
    return sum(map(_digits, parts), start=0.0) or 1.0


def _exponent(exponent: Any) -> float:
    """The size of a power's exponent, at least 1; infinite for a large exponent."""
    return max(1.0, abs(complex(exponent))) if _digits(exponent) < 20 else mathematics.inf
