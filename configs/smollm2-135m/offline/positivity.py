"""A reward of one's own, for the recipe `smollm2-135m/offline`: how positive a response sounds. Needs `pip install vaderSentiment`."""

import re
from functools import cache
from statistics import fmean
from typing import Any

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def positivity(messages: list[dict[str, str]], response: str, reference: str | None) -> float:
    """The mean of VADER's compound scores of the response's sentences, from -1 (negative) to 1 (positive); 0 for a response without words.

    By the sentence, because the compound score of a whole text comes close to 1 or -1 with its length.
    """
    sentences = [sentence for sentence in SENTENCE_END.split(response.strip()) if sentence]
    return fmean(_analyzer().polarity_scores(sentence)["compound"] for sentence in sentences) if sentences else 0.0


@cache
def _analyzer() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()
