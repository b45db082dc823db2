"""What an evolver reads beside the prompt that it evolves: the policy's responses to it, and other informative prompts [paper, D.1].

Both are selected before evolving, in separate tables: a resumed run uses the same ones, and a person can read them. They describe the
selected prompt; the later generations of a chain have no responses yet and use those of the prompt they came from. Texts from data are
concatenated, never formatted into a template that is formatted again. Long texts are cut and marked.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from distilabel.steps import StepInput
from distilabel.typing import StepOutput

from eva_stages.core.distil import TableStep
from eva_stages.core.errors import DataError
from eva_stages.core.failures import add_calls, add_reasons
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.generating import ask, reply_of, totals
from eva_stages.core.parts import add_statistics
from eva_stages.core.rows import MESSAGES, Message, transcript
from eva_stages.core.tables import BATCH, Rows, aligned_batches, check_same_order, pick_rows, reward_matrix
from eva_stages.core.tasks import OneReplyTask
from eva_stages.creator.contamination import words_of
from eva_stages.creator.curation import prompt_text
from eva_stages.creator.diversity import embedding_matrix

CHARACTERS = 2000
"""Longest response, critique or example; the rest is cut."""
POOL = 8
"""Candidates per diverse example: enough for a large distance, few enough that prompts do not all get the same outliers."""


def cut(text: str) -> str:
    return text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]} [...]"


FEEDBACK = pa.schema(
    {"prompt_id": pa.string(), "messages": MESSAGES, "best": pa.string(), "worst": pa.string()}
    | dict.fromkeys(("best_reward", "worst_reward"), pa.float64())
)


class Feedback(TableStep):
    """The best and the worst response to every selected prompt.

    Input columns:
        - prompt_id (selected prompts); prompt_id, messages; prompt_id, responses; prompt_id, rewards, these three in one order
    Output columns:
        - prompt_id, messages, best, worst, best_reward, worst_reward. Where all rewards are equal, worst and its reward are null; where a
          reward is missing, all four are
    Categories:
        - columns
    """

    reads = ["prompt_id", "messages", "responses", "rewards"]
    writes = FEEDBACK.names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        selected_rows, *response_sources = sources
        check_same_order(response_sources, "prompts, responses and rewards")
        counts = {"unscored": 0, "all_equal": 0}
        joined_tables = (
            pa.table({name: table[name] for table in batch for name in table.column_names})
            for batch in aligned_batches(response_sources, (("prompt_id", "messages"), ("responses",), ("rewards",)))
        )
        for table in pick_rows(joined_tables, _places(selected_rows, response_sources[0]), selected_rows.scratch):
            matrix = reward_matrix(table["rewards"])
            is_scored = np.isfinite(matrix).all(axis=1)
            rewards, rows = np.where(is_scored[:, None], matrix, 0.0), np.arange(len(matrix))
            texts = table["responses"].combine_chunks().flatten()
            columns = {"prompt_id": table["prompt_id"], "messages": table["messages"]}
            best, worst = rewards.argmax(axis=1), rewards.argmin(axis=1)
            differ = is_scored & (rewards[rows, best] > rewards[rows, worst])
            for name, place, keep in (("best", best, is_scored), ("worst", worst, differ)):
                columns[name] = _where(keep, texts.take(pa.array(rows * rewards.shape[1] + place)))
                columns[f"{name}_reward"] = _where(keep, pa.array(rewards[rows, place]))
            counts["unscored"] += int((~is_scored).sum())
            counts["all_equal"] += int((is_scored & ~differ).sum())
            yield pa.table(columns).select(FEEDBACK.names).cast(FEEDBACK)
        return counts


def _places(selected_rows: Rows, prompts: Rows) -> np.ndarray:
    places = pc.index_in(selected_rows["prompt_id"], value_set=prompts["prompt_id"])
    if places.null_count:
        raise DataError(f"{places.null_count} of the {len(selected_rows)} selected prompts are not among the {len(prompts)} prompts")
    return places.to_numpy()


def _where(keep: np.ndarray, values: pa.Array) -> pa.Array:
    return pc.if_else(pa.array(keep), values, pa.scalar(None, values.type))


CRITIQUE_TEMPLATE = (
    "You are a teacher who looks for what a model has yet to learn. Below are a conversation and answers of the model to its last "
    "message, with their rewards. In at most five sentences: what does the worse answer lack, which skill is behind it, and what would "
    "a prompt have to ask for to bring that weakness out? Do not answer the conversation."
)


class Critique(OneReplyTask):
    """A generator's critique of a prompt's best and worst response.

    Attributes:
        seed: from the recipe, the stage and the iteration; each row's own seed derives from it and the prompt id.

    Input columns:
        - the columns of `FEEDBACK`
    Output columns:
        - critique (null where there is none), failure (why)
    Categories:
        - critique
    """

    seed: int = 0

    @property
    def inputs(self) -> list[str]:
        return FEEDBACK.names

    @property
    def outputs(self) -> list[str]:
        return ["critique", "failure"]

    def format_input(self, input: dict[str, Any]) -> list[Message]:
        text = f"#Conversation#:\n{transcript(input['messages'])}\n{responses_text(input)}"
        return [{"role": "user", "content": f"{CRITIQUE_TEMPLATE}\n\n{text}\n#Critique#:\n"}]

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"critique": output}

    def process(self, inputs: StepInput) -> StepOutput:
        scored_rows = [row for row in inputs if row["best"] is not None]
        for row in inputs:
            row["critique"], row["failure"] = None, "no response with a reward"
            add_reasons(row, *([row["failure"]] if row["best"] is None else []))
        if scored_rows:
            seeds = [derive_seed(self.seed, row["prompt_id"]) for row in scored_rows]
            outputs = ask(self.llm, [self.format_input(row) for row in scored_rows], seeds)
            for row, output in zip(scored_rows, outputs, strict=True):
                reply, failure = reply_of(output)
                row["critique"] = (reply or "").strip() or None
                row["failure"] = failure if reply is None or row["critique"] else "the reply is empty"
                add_calls(row, row["failure"])
                add_statistics(row, critiques=int(row["critique"] is not None), **totals(output["statistics"]))
        yield inputs


def responses_text(row: dict[str, Any]) -> str:
    """The best and the worst response of a `FEEDBACK` row under headings."""
    if row["worst"] is None:
        return f"#Response# (reward {row['best_reward']:.3g}, like all others):\n{cut(row['best'])}"
    return (
        f"#Best Response# (reward {row['best_reward']:.3g}):\n{cut(row['best'])}\n"
        f"#Worst Response# (reward {row['worst_reward']:.3g}):\n{cut(row['worst'])}"
    )


def feedback_text(row: dict[str, Any], evolved: bool) -> str | None:
    """The policy's responses as text in front of the meta-prompt; None if there are none.

    Args:
        row: the selected prompt with the columns of `FEEDBACK`, and optionally its critique.
        evolved: whether the prompt to evolve is a later generation of it.
    """
    if row.get("best") is None:
        return None
    turns = row["messages"] if evolved else row["messages"][:-1]
    of = "the prompt that the one below grew out of" if evolved else "the prompt below"
    parts = [
        f"A model is trained on the prompts that you write. This is how it answered {of}, with rewards for its answers: the further they "
        "lie apart, the more there is to learn. Use this to bring out what the model cannot yet do reliably, and mention none of it.",
        f"#Conversation#:\n{cut(transcript(turns))}" if turns else None,
        responses_text(row),
        f"#Critique#:\n{cut(row['critique'])}" if row.get("critique") else None,
    ]
    return "\n".join(part for part in parts if part)


def vectorize(texts: Iterable[str]) -> Any:
    """TF-IDF vectors of unit length over words, a sparse matrix of shape (texts, words)."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    # a text without words counts as one word: the vocabulary must not be empty
    return TfidfVectorizer(analyzer=lambda text: words_of(text) or (text,), sublinear_tf=True).fit_transform(texts)


def similar(vectors: Any, size: int, seeds: Sequence[int]) -> list[list[int]]:
    """For every row its `size` nearest other rows by cosine, the nearest first."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=size, metric="cosine", algorithm="brute").fit(vectors).kneighbors(return_distance=False).tolist()


def diverse(vectors: Any, size: int, seeds: Sequence[int]) -> list[list[int]]:
    """For every row `size` others far from it and from each other: farthest-first by cosine among random candidates."""
    return [_farthest(vectors, row, size, seed) for row, seed in enumerate(seeds)]


def _farthest(vectors: Any, row: int, size: int, seed: int) -> list[int]:
    from sklearn.metrics.pairwise import cosine_distances

    candidates = np.random.default_rng(seed).choice(vectors.shape[0] - 1, size=min(POOL * size, vectors.shape[0] - 1), replace=False)
    pool = np.concatenate([[row], candidates + (candidates >= row)])
    distances = cosine_distances(vectors[pool])
    places: list[int] = []
    nearest = distances[0].copy()
    for _ in range(size):
        nearest[[0, *places]] = -1.0
        places.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, distances[places[-1]])
    return pool[places].tolist()


class Parents(TableStep):
    """Other selected prompts as examples for each selected prompt. Without embeddings prompts are compared by TF-IDF over words.

    Attributes:
        examples: number of examples; fewer if fewer prompts are selected.
        by: `similar` or `diverse`.
        seed: from the recipe, the stage and the iteration.

    Input columns:
        - prompt_id (selected prompts); prompt_id, messages (all prompts); prompt_id, embedding (optional)
    Output columns:
        - prompt_id, parent_ids, examples (their texts)
    Categories:
        - columns
    """

    examples: int = 3
    by: str = "similar"
    seed: int = 0

    reads = {"prompt_id": True, "messages": True, "embedding": False}
    writes = ["prompt_id", "parent_ids", "examples"]

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        selected_rows, prompts, *embeddings = sources
        places, ids = _places(selected_rows, prompts), selected_rows["prompt_id"]
        size = min(self.examples, len(ids) - 1)
        neighbours = np.empty((len(ids), 0), dtype=np.int64)
        if size:
            vectors = _vectors(selected_rows, embeddings) if embeddings else vectorize(map(prompt_text, _conversations(prompts, places)))
            find = similar if self.by == "similar" else diverse
            neighbours = np.array(find(vectors, size, [derive_seed(self.seed, prompt_id.as_py()) for prompt_id in ids]))
        texts = map(transcript, _conversations(prompts, places[neighbours.reshape(-1)]))
        for start in range(0, len(ids), BATCH):
            batch = neighbours[start : start + BATCH]
            offsets = pa.array(np.arange(len(batch) + 1) * size, pa.int32())
            columns = {
                "prompt_id": ids.slice(start, BATCH),
                "parent_ids": pa.ListArray.from_arrays(offsets, ids.take(pa.array(batch.reshape(-1)))),
                "examples": pa.ListArray.from_arrays(offsets, pa.array(list(islice(texts, batch.size)), pa.string())),
            }
            yield pa.table(columns)
        return {"examples": size}


def _conversations(prompts: Rows, places: np.ndarray) -> Iterator[list[Message]]:
    for table in prompts.take(places, ["messages"]):
        yield from table["messages"].to_pylist()


def _vectors(selected_rows: Rows, embeddings: Sequence[Rows]) -> np.ndarray:
    ids, matrix = embedding_matrix(embeddings)
    places = pc.index_in(selected_rows["prompt_id"], value_set=ids)
    if places.null_count:
        raise DataError(f"{places.null_count} of the {len(selected_rows)} selected prompts have no embedding")
    return matrix[places.to_numpy()]


def examples_text(examples: Sequence[str]) -> str | None:
    """Other informative prompts as text in front of the meta-prompt; None if there are none."""
    if not examples:
        return None
    example_list = "\n".join(f"#Example Prompt#:\n{cut(example)}" for example in examples)
    return (
        "These are other prompts from which a model has much to learn. Let what makes them demanding, or an idea from one of them, go into "
        f"what you write; copy none of them, and do not answer them.\n{example_list}"
    )
