"""What an evolver is shown beside the prompt it evolves: how the policy fared on it, and other informative prompts [paper, D.1].

Both are chosen before evolving, in tables of their own, so that a resumed run shows what an unbroken one shows and a person can look it
up. They describe the drawn prompt: its later generations have no answers yet, and are shown those of the prompt they grew from. Texts
of data are only ever put after each other, never into a template that is filled again. Long ones are cut, and say so.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from distilabel.steps import StepInput
from distilabel.steps.tasks import Task
from distilabel.typing import StepOutput

from eva_stages.core.distil import TableStep
from eva_stages.core.errors import DataError
from eva_stages.core.failures import add_calls, add_reasons
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.generating import ask, reply_of, totals
from eva_stages.core.parts import add_statistics
from eva_stages.core.rows import MESSAGES, Message
from eva_stages.core.tables import BATCH, Rows, aligned, check_same_order, picked, reward_matrix
from eva_stages.creator.contamination import words_of
from eva_stages.creator.curation import prompt_text
from eva_stages.creator.diversity import embedding_matrix

CHARACTERS = 2000
"""Of a response, a critique or an example; what is longer is cut."""
POOL = 8
"""Candidates per diverse example: enough to be apart, few enough that not every prompt gets the same outliers."""


def cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]} [...]"


def transcript(messages: Sequence[Message]) -> str:
    """A conversation as text: a single user turn as it is, several turns with their roles."""
    if [message["role"] for message in messages] == ["user"]:
        return messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


# --- feedback --------------------------------------------------------------------------------------------------------------------

FEEDBACK = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("messages", MESSAGES),
        ("best", pa.string()),
        ("worst", pa.string()),
        ("best_reward", pa.float64()),
        ("worst_reward", pa.float64()),
    ]
)


class Feedback(TableStep):
    """The best and the worst response to every drawn prompt. Inputs: the drawn prompts; prompts, responses and rewards in one order.

    Input columns:
        - prompt_id (drawn); prompt_id, messages (prompts); prompt_id, responses; prompt_id, rewards
    Output columns:
        - prompt_id, messages, best, worst, best_reward, worst_reward; worst is null where all responses have one reward, and all four
          are where a reward is missing
    """

    reads = ["prompt_id", "messages", "responses", "rewards"]
    writes = FEEDBACK.names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        drawn, *answered = sources
        check_same_order(answered, "prompts, responses and rewards")
        counts = {"unscored": 0, "all_equal": 0}
        whole = (
            pa.table({name: table[name] for table in batch for name in table.column_names})
            for batch in aligned(answered, (("prompt_id", "messages"), ("responses",), ("rewards",)))
        )
        for table in picked(whole, _places(drawn, answered[0]), drawn.scratch):
            matrix = reward_matrix(table["rewards"])
            scored = np.isfinite(matrix).all(axis=1)
            safe = np.where(scored[:, None], matrix, 0.0)
            best, worst, rows = safe.argmax(axis=1), safe.argmin(axis=1), np.arange(len(safe))
            differ = safe[rows, best] > safe[rows, worst]
            texts = table["responses"].combine_chunks().flatten()
            made = {
                "prompt_id": table["prompt_id"],
                "messages": table["messages"],
                "best": _where(scored, texts.take(pa.array(rows * safe.shape[1] + best))),
                "worst": _where(scored & differ, texts.take(pa.array(rows * safe.shape[1] + worst))),
                "best_reward": _where(scored, pa.array(safe[rows, best])),
                "worst_reward": _where(scored & differ, pa.array(safe[rows, worst])),
            }
            counts["unscored"] += int((~scored).sum())
            counts["all_equal"] += int((scored & ~differ).sum())
            yield pa.table(made).cast(FEEDBACK)
        return counts


def _places(drawn: Rows, prompts: Rows) -> np.ndarray:
    places = pc.index_in(drawn["prompt_id"], value_set=prompts["prompt_id"])
    if places.null_count:
        raise DataError(f"{places.null_count} of the {len(drawn)} drawn prompts are not among the {len(prompts)} prompts")
    return places.to_numpy()


def _where(keep: np.ndarray, values: pa.Array) -> pa.Array:
    return pc.if_else(pa.array(keep), values, pa.scalar(None, values.type))


CRITIQUE_TEMPLATE = (
    "You are a teacher who looks for what a model has yet to learn. Below are a conversation and answers of the model to its last "
    "message, with their rewards. In at most five sentences: what does the worse answer lack, which skill is behind it, and what would "
    "a prompt have to ask for to bring that weakness out? Do not answer the conversation."
)


class Critique(Task):
    """A generator's critique of a prompt's best and worst response.

    Attributes:
        seed: from the recipe, the stage and the iteration; each row's own seed derives from it and the prompt id.

    Input columns:
        - the columns of `FEEDBACK`
    Output columns:
        - critique (null where there is none), failure (why)
    """

    seed: int = 0

    @property
    def inputs(self) -> list[str]:
        return FEEDBACK.names

    @property
    def outputs(self) -> list[str]:
        return ["critique", "failure"]

    def format_input(self, input: dict[str, Any]) -> list[Message]:
        shown = f"#Conversation#:\n{transcript(input['messages'])}\n{answers(input)}"
        return [{"role": "user", "content": f"{CRITIQUE_TEMPLATE}\n\n{shown}\n#Critique#:\n"}]

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"critique": output}

    def process(self, inputs: StepInput) -> StepOutput:
        asked = [row for row in inputs if row["best"] is not None]
        for row in inputs:
            row["critique"], row["failure"] = None, "no response with a reward"
            add_reasons(row, *([row["failure"]] if row["best"] is None else []))
        if asked:
            seeds = [derive_seed(self.seed, row["prompt_id"]) for row in asked]
            outputs = ask(self.llm, [self.format_input(row) for row in asked], seeds)
            for row, output in zip(asked, outputs, strict=True):
                reply, failure = reply_of(output)
                row["critique"] = (reply or "").strip() or None
                row["failure"] = failure if reply is None or row["critique"] else "the reply is empty"
                add_calls(row, row["failure"])
                add_statistics(row, critiques=int(row["critique"] is not None), **totals(output["statistics"]))
        yield inputs


def answers(row: dict[str, Any]) -> str:
    """The best and the worst response of a `FEEDBACK` row under headings."""
    if row["worst"] is None:
        return f"#Response# (reward {row['best_reward']:.3g}, like all others):\n{cut(row['best'])}"
    return (
        f"#Best Response# (reward {row['best_reward']:.3g}):\n{cut(row['best'])}\n"
        f"#Worst Response# (reward {row['worst_reward']:.3g}):\n{cut(row['worst'])}"
    )


def feedback_text(row: dict[str, Any], evolved: bool) -> str | None:
    """What goes before the meta-prompt about the policy's answers; None if there are none.

    Args:
        row: the drawn prompt with the columns of `FEEDBACK`, and perhaps its critique.
        evolved: whether the prompt to evolve is one that grew out of it.
    """
    if row.get("best") is None:
        return None
    turns = row["messages"] if evolved else row["messages"][:-1]
    of = "the prompt that the one below grew out of" if evolved else "the prompt below"
    parts = [
        f"A model is trained on the prompts that you write. This is how it answered {of}, with rewards for its answers: the further they "
        "lie apart, the more there is to learn. Use this to bring out what the model cannot yet do reliably, and mention none of it.",
        f"#Conversation#:\n{cut(transcript(turns))}" if turns else None,
        answers(row),
        f"#Critique#:\n{cut(row['critique'])}" if row.get("critique") else None,
    ]
    return "\n".join(part for part in parts if part)


# --- several parents -------------------------------------------------------------------------------------------------------------


def vectorize(texts: Iterable[str]) -> Any:
    """TF-IDF vectors of unit length over words, a sparse matrix of shape (texts, words)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    # a text without a word is a word of its own, so that there always is one
    return TfidfVectorizer(analyzer=lambda text: words_of(text) or (text,), sublinear_tf=True).fit_transform(texts)


def similar(vectors: Any, size: int, seeds: Sequence[int]) -> list[list[int]]:
    """For every row its `size` nearest other rows by cosine, the nearest first."""
    from sklearn.neighbors import NearestNeighbors

    found = NearestNeighbors(n_neighbors=size, metric="cosine", algorithm="brute").fit(vectors).kneighbors(return_distance=False)
    return found.tolist()


def diverse(vectors: Any, size: int, seeds: Sequence[int]) -> list[list[int]]:
    """For every row `size` others far from it and from each other: farthest-first by cosine among a random few."""
    return [_farthest(vectors, row, size, seed) for row, seed in enumerate(seeds)]


def _farthest(vectors: Any, row: int, size: int, seed: int) -> list[int]:
    from sklearn.metrics.pairwise import cosine_distances

    others = np.random.default_rng(seed).choice(vectors.shape[0] - 1, size=min(POOL * size, vectors.shape[0] - 1), replace=False)
    pool = np.concatenate([[row], others + (others >= row)])
    distances = cosine_distances(vectors[pool])
    chosen: list[int] = []
    nearest = distances[0].copy()
    for _ in range(size):
        nearest[[0, *chosen]] = -1.0
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, distances[chosen[-1]])
    return pool[chosen].tolist()


NEIGHBOURS: dict[str, Callable[[Any, int, Sequence[int]], list[list[int]]]] = {"similar": similar, "diverse": diverse}


class Parents(TableStep):
    """Other drawn prompts to show beside each drawn prompt. Inputs: the drawn prompts, all prompts, and perhaps their embeddings.

    Without embeddings prompts are compared by TF-IDF over words.

    Attributes:
        examples: how many; fewer if fewer are drawn.
        by: key of `NEIGHBOURS`.
        seed: from the recipe, the stage and the iteration.

    Input columns:
        - prompt_id (drawn); prompt_id, messages (prompts); prompt_id, embedding
    Output columns:
        - prompt_id, parent_ids, examples (their texts)
    """

    examples: int = 3
    by: str = "similar"
    seed: int = 0

    reads = ["prompt_id", "messages", "embedding"]
    writes = ["prompt_id", "parent_ids", "examples"]

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        drawn, prompts, *embeddings = sources
        places, ids = _places(drawn, prompts), drawn["prompt_id"]
        size = min(self.examples, len(ids) - 1)
        if size:
            vectors = _embedded(drawn, embeddings) if embeddings else vectorize(map(prompt_text, _conversations(prompts, places)))
            chosen = np.array(NEIGHBOURS[self.by](vectors, size, [derive_seed(self.seed, one.as_py()) for one in ids]))
        else:
            chosen = np.empty((len(ids), 0), dtype=np.int64)
        texts = map(transcript, _conversations(prompts, places[chosen.reshape(-1)]))
        for start in range(0, len(ids), BATCH):
            others = chosen[start : start + BATCH]
            offsets = pa.array(np.arange(len(others) + 1) * size, pa.int32())
            made = {
                "prompt_id": ids.slice(start, BATCH),
                "parent_ids": pa.ListArray.from_arrays(offsets, ids.take(pa.array(others.reshape(-1)))),
                "examples": pa.ListArray.from_arrays(offsets, pa.array(list(islice(texts, others.size)), pa.string())),
            }
            yield pa.table(made)
        return {"examples": size}


def _conversations(prompts: Rows, places: np.ndarray) -> Iterator[list[Message]]:
    for table in prompts.take(places, ["messages"]):
        yield from table["messages"].to_pylist()


def _embedded(drawn: Rows, embeddings: Sequence[Rows]) -> np.ndarray:
    ids, matrix = embedding_matrix(embeddings)
    places = pc.index_in(drawn["prompt_id"], value_set=ids)
    if places.null_count:
        raise DataError(f"{places.null_count} of the {len(drawn)} drawn prompts have no embedding")
    return matrix[places.to_numpy()]


def examples_text(examples: Sequence[str]) -> str | None:
    """What goes before the meta-prompt about other informative prompts; None if there are none."""
    if not examples:
        return None
    listed = "\n".join(f"#Example Prompt#:\n{cut(example)}" for example in examples)
    return (
        "These are other prompts from which a model has much to learn. Let what makes them demanding, or an idea from one of them, go into "
        f"what you write; copy none of them, and do not answer them.\n{listed}"
    )
