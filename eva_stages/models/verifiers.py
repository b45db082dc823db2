"""Checking final answers to mathematics problems against a reference.

A verifier is a function `f(messages, response, reference) -> float | None`. What cannot be scored raises, and the message is the
reason of a null; a response without a readable answer, however, is a wrong answer. Parsing and comparison of numbers, fractions,
percentages and LaTeX are math-verify's; this file only says which part of a response is its final answer, and turns down
expressions that would take for ever to evaluate, so that no time limit is needed and any thread may call.
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
"""Spellings that math-verify does not know: other minus signs, currencies, mixed numbers (2 1/2), quotes."""
PLAIN_WORD = re.compile(r"(?<![\\A-Za-z])(?<!\\begin\{)(?<!\\end\{)[A-Za-z]{3,}")
EAGER = re.compile(r"(?=.*(?:\^|\d{5}|!)).*(?:binom|gcd|lcm)|\\sqrt\[[^\]]*[\^!]", re.DOTALL)
"""Functions that are evaluated while they are parsed, of numbers that may be huge."""
MAX_DIGITS = 20_000
"""Numbers with more digits than that, such as 9^9^9, are not evaluated."""
SUM_TERMS = 200
"""What a power of a sum with variables counts more, since comparing expands it."""
MAX_CHARACTERS = 1000
MAX_DEPTH = 12
"""Of brackets in brackets; the parser's time grows exponentially with it."""


def math(messages: list[Message], response: str, reference: str | None) -> float:
    """1.0 if the response's final answer equals the reference, else 0.0.

    Args:
        messages: not used.
        response: ends in an answer; which part of it counts is told by `final_answer`.
        reference: the bare answer, or GSM8K's worked text that ends in `#### 72`.

    Raises:
        ValueError: no reference, one that is no mathematical expression, or an answer too large to evaluate.
    """
    from math_verify import verify

    reference_answer = _reference(reference)
    response_answer = final_answer(response)
    if response_answer is None:
        return 0.0
    _check_size(reference_answer)
    _check_size(response_answer)
    return float(verify(reference_answer, response_answer, timeout_seconds=None, raise_on_error=True))


def final_answer(response: str) -> Any | None:
    """The final answer as a SymPy expression: GSM8K's `#### 72`, else the last line with a \\boxed or "answer is", else the last
    line with a number; None if there is none. A last marked line outranks all unmarked ones, wherever it stands."""
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
    # a mere "to find the answer, add 5 ..." does not announce it, though math-verify takes it so
    yield from (re.sub("answer", "result", line[-MAX_CHARACTERS:], flags=re.IGNORECASE) for line in lines)


def _reference(reference: str | None) -> Any:
    if reference is None or not reference.strip():
        raise ValueError("no reference answer to check against; give one in the prompts' reference column")
    bare = next(reversed(GSM8K_ANSWER.findall(reference)), reference).strip()
    boxed_text = bare if r"\boxed" in bare else rf"\boxed{{{bare.strip('$')}}}"
    expression = _parse(_without_words(boxed_text))
    if expression is None:
        raise ValueError(f"the reference answer {bare[:60]!r} is no mathematical expression; give a number, a fraction or LaTeX")
    return expression


def _without_words(text: str) -> str:
    """LaTeX without plain words, such as units, which would be read as products of variables."""
    return PLAIN_WORD.sub("", re.sub(r"\s*per ?cent\b", "%", text))


def _parse(text: str) -> Any | None:
    """The answer in a text as math-verify reads it; None where it sees none."""
    from math_verify import parse

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns about absent time limits
    for pattern, plain in REWRITES:
        text = pattern.sub(plain, text)
    if EAGER.search(text) or _depth(text) > MAX_DEPTH:
        raise ValueError(f"{text[:60]!r} may take for ever to parse: huge numbers or more than {MAX_DEPTH} brackets in brackets")
    return next(iter(parse(text, fallback_mode="no_fallback", parsing_timeout=None, raise_on_error=True)), None)


def _depth(text: str) -> int:
    """How many brackets are open at once."""
    return max(accumulate(((character in "([{") - (character in ")]}") for character in text), initial=0))


def _check_size(expression: Any) -> None:
    digits = _digits(expression)
    if digits > MAX_DIGITS:
        raise ValueError(f"{str(expression)[:60]} has some {digits:.3g} digits; at most {MAX_DIGITS} are evaluated")


def _digits(expression: Any) -> float:
    """Roughly how many decimal digits evaluating takes, from above; infinite for sums, integrals and the like."""
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
    """The size of a power's exponent, at least 1; infinite if it is large itself."""
    return max(1.0, abs(complex(exponent))) if _digits(exponent) < 20 else mathematics.inf
