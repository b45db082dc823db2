"""Analysis of prompts: quality and complexity by a scorer [paper, table 15], topics by a zero-shot classifier [paper, figures 6 and 10].

The report shows them; only a recipe that balances topics uses them otherwise. distilabel's scorers rank several texts against each other,
so their scores cannot be compared between prompts or iterations; the rubric here is absolute. A prompt without a score is null, with the
reason.
"""

import math
import re
from pathlib import Path
from typing import Any

from distilabel.steps import StepInput
from distilabel.typing import StepOutput
from pydantic import PrivateAttr

from eva_stages.core.failures import add_calls, add_reasons
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.generating import ask, reply_of, totals
from eva_stages.core.parts import add_statistics
from eva_stages.core.pipeline_patches import LoudStep
from eva_stages.core.rows import Message, transcript
from eva_stages.core.tasks import OneReplyTask
from eva_stages.creator.curation import prompt_text
from eva_stages.models.architecture import position_count
from eva_stages.models.batching import token_batches
from eva_stages.models.loading import load_model, load_tokenizer

SCORE_TEMPLATE = (
    "Judge the prompt below as a task for an assistant. Do not carry it out.\n"
    "Quality, from 1 to 5: 1 = cannot be understood or answered; 2 = vague or flawed; 3 = clear, but ordinary or partly underspecified; "
    "4 = clear, specific and worth answering; 5 = precise, complete and of real use.\n"
    "Complexity, from 1 to 5: 1 = a fact or one step; 2 = a few simple steps; 3 = needs some knowledge or several steps; 4 = needs "
    "expert knowledge, or many constraints that work together; 5 = hard for an expert.\n"
    "Reply with two lines and nothing else:\nQuality: <number>\nComplexity: <number>\n\n"
)
HYPOTHESIS = "This text is about {}."
SCORE_NAMES = ("quality", "complexity")
_SCORE_PATTERNS = {
    name: re.compile(rf"^\W*{name}\W*(?:1\W+(?:to\W+)?5\W+)?(\d+(?:\.\d+)?)\b", re.IGNORECASE | re.MULTILINE) for name in SCORE_NAMES
}


def score_question(messages: list[Message]) -> str:
    """The scorer's prompt about a conversation."""
    return f"{SCORE_TEMPLATE}<|The Start of the Prompt|>\n{transcript(messages)}\n<|The End of the Prompt|>"


def read_score(reply: str | None, name: str) -> float | None:
    """The last score of that name in a reply; None if there is none from 1 to 5."""
    scores = _SCORE_PATTERNS[name].findall(reply or "")
    return float(scores[-1]) if scores and 1 <= float(scores[-1]) <= 5 else None


class ScorePrompts(OneReplyTask):
    """A generator scores prompts.

    Attributes:
        seed: from the recipe; each row's own seed derives from it and the prompt id, so a prompt has the same score in every iteration.

    Input columns:
        - prompt_id, messages
    Output columns:
        - quality, complexity (1 to 5, or null), failure (why)
    Categories:
        - scorer
    """

    seed: int = 0

    @property
    def inputs(self) -> list[str]:
        return ["prompt_id", "messages"]

    @property
    def outputs(self) -> list[str]:
        return [*SCORE_NAMES, "failure"]

    def format_input(self, input: dict[str, Any]) -> list[Message]:
        return [{"role": "user", "content": score_question(input["messages"])}]

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        return {name: read_score(output, name) for name in SCORE_NAMES}

    def process(self, inputs: StepInput) -> StepOutput:
        seeds = [derive_seed(self.seed, row["prompt_id"]) for row in inputs]
        outputs = ask(self.llm, self._format_inputs(inputs), seeds)
        for row, output in zip(inputs, outputs, strict=True):
            reply, failure = reply_of(output)
            row |= self.format_output(reply)
            add_calls(row, failure)
            missing = [name for name in SCORE_NAMES if row[name] is None]
            if missing and failure is None:
                failure = f"no {' and no '.join(missing)} from 1 to 5 in the scorer's reply"
                add_reasons(row, failure)
            row["failure"] = failure
            add_statistics(row, prompts=1, unscored=int(bool(missing)), **totals(output["statistics"]))
        yield inputs


class LabelTopics(LoudStep):
    """Finds each prompt's topic with a zero-shot classifier: a model of natural-language inference, asked for every label whether the
    prompt is about it (Yin et al. 2019). Prompts beyond the model's length are cut and counted.

    Attributes:
        model: folder of a sequence classifier with an entailment label.
        labels: the topics.
        tokens_per_batch: padded tokens per forward pass.
        replicas: copies of the model; it is the step's resources that make them.

    Input columns:
        - prompt_id, messages
    Output columns:
        - topic, topic_score (its probability among the labels), failure (why they are null)
    Categories:
        - text-classification
    """

    model: str
    labels: list[str]
    dtype: str = "auto"
    tokens_per_batch: int = 16384
    device: str = "auto"
    replicas: int | None = None
    _pipeline: Any = PrivateAttr(None)
    _longest: int = PrivateAttr(0)

    @property
    def inputs(self) -> list[str]:
        return ["prompt_id", "messages"]

    @property
    def outputs(self) -> list[str]:
        return ["topic", "topic_score", "failure"]

    def load(self) -> None:
        super().load()
        from transformers import AutoModelForSequenceClassification, pipeline

        tokenizer = load_tokenizer(self.model)
        model = load_model(AutoModelForSequenceClassification, self.model, self.dtype, self.device)
        # tokenizers that do not know their model's length would not cut anything
        tokenizer.model_max_length = min(tokenizer.model_max_length, position_count(Path(self.model)) or tokenizer.model_max_length)
        question = max(len(tokenizer(HYPOTHESIS.format(label))["input_ids"]) for label in self.labels)
        self._longest = tokenizer.model_max_length - question
        self._pipeline = pipeline("zero-shot-classification", model=model, tokenizer=tokenizer)

    def unload(self) -> None:
        self._pipeline = None
        super().unload()

    def process(self, inputs: StepInput) -> StepOutput:
        texts = [prompt_text(row["messages"]) for row in inputs]
        lengths = [len(ids) for ids in self._pipeline.tokenizer(texts, truncation=False, verbose=False)["input_ids"]]
        room = self._pipeline.tokenizer.model_max_length - self._longest
        for batch in token_batches([min(length, self._longest) + room for length in lengths], self.tokens_per_batch, len(self.labels)):
            size = max(1, len(batch) * len(self.labels))
            results = self._pipeline([texts[i] for i in batch], self.labels, hypothesis_template=HYPOTHESIS, batch_size=size)
            for index, result in zip(batch, results, strict=True):
                inputs[index] |= _topic(result["labels"][0], result["scores"][0])
                failure = inputs[index]["failure"]
                add_calls(inputs[index], failure)
                add_statistics(inputs[index], prompts=1, unlabelled=int(failure is not None), cut=int(lengths[index] > self._longest))
        yield inputs


def _topic(label: str, score: float) -> dict[str, Any]:
    if not math.isfinite(score):
        return {"topic": None, "topic_score": None, "failure": f"the classifier's score is {score}"}
    return {"topic": label, "topic_score": score, "failure": None}
