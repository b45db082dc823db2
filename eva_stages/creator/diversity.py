"""Distances between prompts: sentence embeddings, and the distance of every prompt to its nearest neighbour.

Embeddings come from a `sentence-transformers` model folder, from safetensors only and without the model's own code. Neighbours are exact,
by blocked matrix products; memory never holds a matrix of prompts by prompts.
"""

import json
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from distilabel.steps import StepInput
from distilabel.typing import StepOutput
from pydantic import PrivateAttr

from eva_stages.core.distil import TableStep
from eva_stages.core.errors import DataError, StageError
from eva_stages.core.parts import add_statistics
from eva_stages.core.pipeline_patches import LoudStep
from eva_stages.core.placing import BALANCED_DEVICE
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.tables import Rows, first_places, reward_matrix, take
from eva_stages.creator.curation import prompt_text
from eva_stages.models.architecture import attention_code
from eva_stages.models.batching import token_batches
from eva_stages.models.loading import pick_device
from eva_stages.models.weights import weight_faults

BLOCK = 1024


def transformer_folder(folder: Path) -> Path:
    """The folder of a sentence-embedding model's transformer: the model's folder, or the one in its list of modules."""
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8")) if (folder / "modules.json").is_file() else []
    return next((folder / module["path"] for module in modules if module["type"].endswith("Transformer")), folder)


def embedder_faults(folder: Path, on_unused_weights: Callable[[str], object] | None = None) -> list[str]:
    """Errors in the weights of a sentence-embedding model; see `weight_faults`."""
    # transformers loads safetensors only; the library's other modules would fall back to a pickle
    for pickle_file in folder.rglob("*.bin"):
        if not list(pickle_file.parent.glob("*.safetensors")):
            return [f"{pickle_file} contains pickled weights, which eva does not load; convert them to safetensors"]
    from transformers import AutoModel

    return weight_faults(AutoModel, transformer_folder(folder), on_unused_weights, optional="pooler.")  # embeddings are pooled from tokens


class Embed(LoudStep):
    """Embeds prompts: all turns joined, as a vector of unit length. Text beyond the model's length is cut and counted.

    Attributes:
        model: folder of a sentence-embedding model.
        tokens_per_batch: padded tokens per forward pass.
        device: auto, cpu, cuda, cuda:1, mps; `balanced` is auto, an embedding model is not spread.
        replicas: copies of the model; it is the step's resources that make them.

    Input columns:
        - prompt_id, messages
    Output columns:
        - embedding (`list[float]`)
    Categories:
        - embedding
    """

    model: str
    tokens_per_batch: int = 16384
    device: str = "auto"
    replicas: int | None = None
    _model: Any = PrivateAttr(None)

    @property
    def inputs(self) -> list[str]:
        return ["prompt_id", "messages"]

    @property
    def outputs(self) -> list[str]:
        return ["embedding"]

    def load(self) -> None:
        super().load()
        if faults := embedder_faults(Path(self.model)):
            raise DataError(f"{self.model}: {faults[0]}")
        from sentence_transformers import SentenceTransformer

        device = pick_device("auto" if self.device.startswith(BALANCED_DEVICE) else self.device)
        code = attention_code(transformer_folder(Path(self.model)))
        settings = {"use_safetensors": True, **({"attn_implementation": code} if code else {})}
        self._model = SentenceTransformer(self.model, device=device, trust_remote_code=False, model_kwargs=settings, local_files_only=True)

    def unload(self) -> None:
        self._model = None
        super().unload()

    def process(self, inputs: StepInput) -> StepOutput:
        texts = [prompt_text(row["messages"]) for row in inputs]
        lengths = [len(ids) for ids in self._model.tokenizer(texts)["input_ids"]]
        longest = self._model.max_seq_length or max(lengths)
        for batch in token_batches([min(length, longest) for length in lengths], self.tokens_per_batch):
            vectors = self._model.encode(
                [texts[i] for i in batch], batch_size=len(batch), normalize_embeddings=True, show_progress_bar=False
            )
            for index, vector in zip(batch, vectors, strict=True):
                if not np.isfinite(vector).all():
                    raise StageError(f"the embedding of prompt {inputs[index]['prompt_id']} is not finite")
                inputs[index]["embedding"] = vector.tolist()
                add_statistics(inputs[index], tokens=min(lengths[index], longest), cut=int(lengths[index] > longest))
        yield inputs


def nearest_cosine(vectors: np.ndarray, other_vectors: np.ndarray, own_rows: np.ndarray | None = None) -> np.ndarray:
    """The highest cosine similarity of each vector to any of `other_vectors`; -inf if there is none.

    Args:
        vectors: (n, d), of unit length.
        other_vectors: (m, d), of unit length.
        own_rows: (n,), the row of `other_vectors` that does not count for a vector, or -1.

    Returns:
        (n,)
    """
    best = np.full(len(vectors), -np.inf, dtype=np.float32)
    for start in range(0, len(other_vectors), BLOCK):
        similarities = vectors @ other_vectors[start : start + BLOCK].T
        if own_rows is not None:
            rows = np.flatnonzero((own_rows >= start) & (own_rows < start + BLOCK))
            similarities[rows, own_rows[rows] - start] = -np.inf
        np.maximum(best, similarities.max(axis=1), out=best)
    return best


def neighbour_distances(
    vectors: np.ndarray, earlier: np.ndarray, own_rows: np.ndarray, min_distance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cosine distances to the nearest neighbour among earlier prompts and the kept prompts before each prompt.

    d_i = min over j of 1 - <v_i, v_j>. A prompt is kept if d_i >= min_distance, so the order of the prompts matters.

    Args:
        vectors: (n, d), of unit length.
        earlier: (m, d), of unit length.
        own_rows: (n,), the row of `earlier` that is the prompt itself, or -1.
        min_distance: in [0, 2].

    Returns:
        Distances, shape (n,), inf where there is no neighbour; which ones are kept, shape (n,).
    """
    distances, is_kept = np.empty(len(vectors)), np.zeros(len(vectors), dtype=bool)
    chosen, count = np.empty_like(vectors), 0
    for start in range(0, len(vectors), BLOCK):
        rows = slice(start, start + BLOCK)
        block, keep = vectors[rows], is_kept[rows]
        nearest = np.maximum(nearest_cosine(block, earlier, own_rows[rows]), nearest_cosine(block, chosen[:count]))
        block_similarities = block @ block.T
        for row in range(len(block)):
            similarity = max(nearest[row], block_similarities[row, keep].max(initial=-np.inf))
            distances[start + row] = max(0.0, 1.0 - similarity)
            keep[row] = distances[start + row] >= min_distance
        chosen[count : count + keep.sum()] = block[keep]
        count += keep.sum()
    return distances, is_kept


class Diversify(TableStep):
    """Measures each prompt's distance to its nearest neighbour, and leaves out prompts that are too close.

    Inputs: the prompts, their embeddings, the embeddings of earlier prompt sets. A prompt in an earlier set is not its own neighbour.

    Attributes:
        min_distance: cosine distance below which a prompt is left out.

    Input columns:
        - the columns of a prompt row (first input); prompt_id, embedding (the others)
    Output columns:
        - the columns of a prompt row, neighbour_distance (cosine distance in [0, 2]; null where there is no other prompt)
    Categories:
        - filtering
    """

    min_distance: float = 0.0

    reads = [*SCHEMAS["prompts"].names, "embedding"]
    writes = [*SCHEMAS["prompts"].names, "neighbour_distance"]

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        prompts, own_embeddings, *other_embeddings = sources
        prompt_ids = prompts["prompt_id"]
        ids, matrix = embedding_matrix([own_embeddings])
        places = pc.index_in(prompt_ids, value_set=ids)
        if places.null_count:
            missing = prompt_ids.filter(pc.is_null(places))[0].as_py()
            raise DataError(f"{places.null_count} of {len(prompts)} prompts have no embedding, the first is {missing}")
        earlier_ids, earlier = embedding_matrix(other_embeddings)
        if len(earlier) and len(matrix) and earlier.shape[1] != matrix.shape[1]:
            raise DataError(f"embeddings of {matrix.shape[1]} and of {earlier.shape[1]} numbers cannot be compared; use the same model")
        own_rows = pc.fill_null(pc.index_in(prompt_ids, value_set=earlier_ids), -1).to_numpy()
        distances, is_kept = neighbour_distances(matrix[places.to_numpy()], earlier, own_rows, self.min_distance)
        column = pa.array(distances[is_kept], mask=np.isinf(distances[is_kept]))
        row = 0
        for table in prompts.take(np.flatnonzero(is_kept)):
            yield table.append_column("neighbour_distance", column.slice(row, len(table)))
            row += len(table)
        return {"too_similar": len(prompts) - row, "kept": row}


def embedding_matrix(sources: Sequence[Rows]) -> tuple[pa.Array, np.ndarray]:
    """The prompts of several artifacts with embeddings, each prompt once: ids, and a float32 matrix of shape (prompts, d).

    Raises:
        DataError: if an embedding is null or they differ in length.
    """
    ids = pa.concat_arrays([pa.array([], pa.string()), *(rows["prompt_id"] for rows in sources)])
    if not len(ids):
        return ids, np.empty((0, 0), dtype=np.float32)
    first = first_places(ids)
    matrix = np.empty((0, 0), dtype=np.float32)
    lengths: set[int | None] = set()
    row = 0
    for table in take(sources, first, ["embedding"]):
        lengths |= set(pc.unique(pc.list_value_length(table["embedding"])).to_pylist())
        if len(lengths) > 1 or None in lengths:
            raise DataError(f"embeddings have the lengths {', '.join(map(str, lengths))} (None = no embedding); all need the same")
        rows = reward_matrix(table["embedding"])
        if not row:
            matrix = np.empty((len(first), rows.shape[1]), dtype=np.float32)
        matrix[row : row + len(rows)] = rows
        row += len(rows)
    return ids.take(pa.array(first)), matrix
