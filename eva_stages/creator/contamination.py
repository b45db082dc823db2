"""Which prompts are questions of an evaluation set: word n-gram overlap, and a near-duplicate test for what n-grams miss.

Texts are compared as words: lower case, without punctuation and white space; a character of a script that does not part words
(Chinese, Japanese, Thai, ...) counts as a word. A prompt is contaminated

- if it contains at least the share `overlap` of the distinct n-grams (13 words, as GPT-3 did [arXiv:2005.14165, appendix C]) of a
  question;
- if it contains a complete question of 8 to n - 1 words, or equals a shorter question;
- if it is nearly a question of at least 8 words: one word replaced in the middle of a 20-word question leaves no 13-gram of it, so
  the MinHash sketches of `sketching.py` look at what the n-grams do not find.

`NEAR_COPY` was chosen by measuring: of the questions of 15 words and more in AlpacaEval, MT-Bench and Arena-Hard with two words replaced
it finds at least 98 % of each set (n-grams alone 57 to 85 %, a similarity of 0.6 90 %), and of 2058 unrelated prompts it flags one, a
variant of an MT-Bench question (`tests/creator/test_contamination.py`).

It does not find translations or paraphrases, nor a near copy of a short question inside a longer prompt.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.distil import TableStep
from eva_stages.core.errors import DataError
from eva_stages.core.question_files import read_questions as read_questions
from eva_stages.core.rows import SCHEMAS, Message
from eva_stages.core.tables import Rows
from eva_stages.creator.curation import prompt_text
from eva_stages.creator.sketching import sketches

MATCHES = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("benchmark", pa.string()),
        ("question_id", pa.string()),
        ("overlap", pa.float64()),
        ("prompt", pa.string()),
        ("question", pa.string()),
    ]
)
MIN_CONTAINED_WORDS = 8
"""Fewest words of a question shorter than an n-gram that a prompt may not contain; shorter questions are common phrases."""
NEAR_COPY = 0.5
"""Estimated Jaccard similarity of character 5-grams, spaces left out, from which a prompt is a near copy."""

# Thai to Burmese and Khmer, kana, ideographs: scripts that do not put spaces between words
UNSPACED_SCRIPTS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORD = re.compile(f"(?=\\w)[{UNSPACED_SCRIPTS}]|[^\\W_{UNSPACED_SCRIPTS}]+")
APOSTROPHES = re.compile("['\u2018\u2019\u02bc`]")

Words = tuple[str, ...]


class Match(NamedTuple):
    """A prompt's nearest question. `overlap` is the share of its n-grams, or of a near copy the estimated Jaccard similarity."""

    benchmark: str
    question_id: str
    overlap: float
    question: str


def words_of(text: str) -> Words:
    """The words of a text without case, punctuation and white space; "don't" is one word."""
    return tuple(WORD.findall(APOSTROPHES.sub("", unicodedata.normalize("NFKC", text)).lower()))


def _grams(words: Words, n: int) -> set[Words]:
    return {words[start : start + n] for start in range(len(words) - n + 1)}


def _sketch(words: Words) -> np.ndarray:
    return sketches(["".join(words)])[0]


class QuestionIndex:
    """The questions of evaluation sets, held in memory.

    Args:
        benchmarks: name -> (id, text) of every question; texts without a word are left out.
        ngram: words of an n-gram.
        overlap: share of a question's n-grams from which a prompt that contains them is contaminated.
    """

    def __init__(self, benchmarks: Mapping[str, Sequence[tuple[str, str]]], ngram: int = 13, overlap: float = 0.2) -> None:
        self._overlap = overlap
        self._questions = [
            Match(name, identity, 1.0, text) for name, questions in benchmarks.items() for identity, text in questions if words_of(text)
        ]
        words = [words_of(question.question) for question in self._questions]
        self._equal = {"".join(words[number]): number for number in reversed(range(len(words)))}
        self._shares: list[float] = []
        self._holders: defaultdict[Words, list[int]] = defaultdict(list)
        for number, question_words in enumerate(words):
            grams = (
                _grams(question_words, min(ngram, len(question_words))) if len(question_words) >= min(ngram, MIN_CONTAINED_WORDS) else set()
            )
            self._shares.append(1 / max(1, len(grams)))
            for gram in grams:
                self._holders[gram].append(number)
        self._lengths = sorted({len(gram) for gram in self._holders})
        self._long = [number for number, question_words in enumerate(words) if len(question_words) >= MIN_CONTAINED_WORDS]
        self._sketches = np.array([_sketch(words[number]) for number in self._long])

    def match(self, text: str) -> Match | None:
        """The question that the text holds most of, or None if it is not contaminated."""
        words = words_of(text)
        if not words:
            return None
        # without spaces: the words of "step-by-step" depend on its punctuation
        equal = self._equal.get("".join(words))
        return self._questions[equal] if equal is not None else self._overlapping(words) or self._near_copy(words)

    def _overlapping(self, words: Words) -> Match | None:
        gram_counts: Counter[int] = Counter()
        for length in self._lengths:
            for gram in _grams(words, length):
                gram_counts.update(self._holders.get(gram, ()))
        best = max(sorted(gram_counts), key=lambda number: gram_counts[number] * self._shares[number], default=None)
        if best is None or (share := gram_counts[best] * self._shares[best]) < self._overlap:
            return None
        return self._questions[best]._replace(overlap=min(1.0, share))

    def _near_copy(self, words: Words) -> Match | None:
        if not self._long:
            return None
        similarities = (self._sketches == _sketch(words)).mean(axis=1)
        best = int(similarities.argmax())
        if similarities[best] < NEAR_COPY:
            return None
        return self._questions[self._long[best]]._replace(overlap=float(similarities[best]))


class Contamination(TableStep):
    """Finds the prompts that are questions of evaluation sets, each with the question of which it contains the most.

    Attributes:
        benchmarks: name -> file that `read_questions` takes.
        ngram: words of an n-gram.
        overlap: share of a question's n-grams from which a prompt that contains them is contaminated.

    Input columns:
        - prompt_id, messages, and optionally rejected: rows with a reason are left out
    Output columns:
        - prompt_id, benchmark, question_id, overlap (share of the question's n-grams; of a near copy the estimated Jaccard
          similarity), prompt, question: the contaminated prompts only
    Categories:
        - filtering
    """

    benchmarks: dict[str, str]
    ngram: int = 13
    overlap: float = 0.2

    reads = {"prompt_id": True, "messages": True, "rejected": False}
    writes = MATCHES.names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        (prompts,) = sources
        questions = {name: read_questions(Path(file)) for name, file in self.benchmarks.items()}
        index = QuestionIndex(questions, self.ngram, self.overlap)
        counts = {"prompts": 0, "contaminated": 0}
        for table in prompts.batches():
            if "rejected" in prompts.names:
                table = table.filter(pc.is_null(table["rejected"]))
            matches = list(_matches(table, index))
            counts = {"prompts": counts["prompts"] + len(table), "contaminated": counts["contaminated"] + len(matches)}
            yield pa.Table.from_pylist(matches, schema=MATCHES)
        return counts


def best_match(index: QuestionIndex, messages: Sequence[Message]) -> Match | None:
    """The best match of any of a conversation's messages."""
    matches = [match for message in messages if (match := index.match(message["content"])) is not None]
    return max(matches, key=lambda match: match.overlap, default=None)


def _matches(prompts: pa.Table, index: QuestionIndex) -> Iterator[dict[str, Any]]:
    for row in prompts.select(["prompt_id", "messages"]).to_pylist():
        match = best_match(index, row["messages"])
        if match is not None:
            yield {"prompt_id": row["prompt_id"], "prompt": prompt_text(row["messages"]), **match._asdict()}


class DropMatches(TableStep):
    """Leaves out the prompts in a table of matches. Inputs: prompts, matches.

    Input columns:
        - the columns of a prompt row, and optionally rejected and failure (prompts); prompt_id (matches)
    Output columns:
        - the columns of the prompts
    Categories:
        - filtering
    """

    reads = {**dict.fromkeys(SCHEMAS["prompts"].names, True), "rejected": False, "failure": False}
    writes = SCHEMAS["prompts"].names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        prompts, matches = sources
        kept_places = np.flatnonzero(pc.invert(pc.is_in(prompts["prompt_id"], value_set=matches["prompt_id"])))
        if len(prompts) and not len(kept_places):
            raise DataError(f"all {len(prompts)} prompts are questions of the evaluation sets; see the contamination stage's matches")
        yield from prompts.take(kept_places)
        return {"contaminated": len(prompts) - len(kept_places), "kept": len(kept_places)}
