"""Embeddings of a tiny real model, and neighbour distances against the definition."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from distilabel.pipeline import Pipeline
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import BertConfig, BertModel

from eva_stages.core.distil import run_table_step
from eva_stages.core.errors import DataError
from eva_stages.core.rows import SCHEMAS, prompt_row
from eva_stages.core.stage import Use
from eva_stages.core.tables import read_table, write_rows
from eva_stages.creator.diversity import BLOCK, Diversify, Embed, neighbour_distances
from tests.tiny_models import tokenizer

TEXTS = [
    "Name three rivers of Europe.",
    "name three rivers of Europe",
    "Write a poem about rain.",
    "What is 12 times 7?",
    "Explain how a bicycle stays upright " * 30,
]
EMBEDDINGS = pa.schema([("prompt_id", pa.string()), ("embedding", pa.list_(pa.float32()))])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with mean pooling, as sentence-transformers saves it."""
    folder = tmp_path_factory.mktemp("model")
    words = tokenizer(TEXTS)
    words.model_max_length = 64
    words.chat_template = None
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 64}
    BertModel(BertConfig(vocab_size=len(words), pad_token_id=words.pad_token_id, initializer_range=0.3, **sizes)).save_pretrained(
        folder / "bert"
    )
    words.save_pretrained(folder / "bert")
    SentenceTransformer(str(folder / "bert"), device="cpu").save_pretrained(str(folder / "sentences"))
    return folder / "sentences"


def prompt_rows(*texts: str) -> list[dict]:
    return [prompt_row([{"role": "user", "content": text}], "test") for text in texts]


def prompts(*texts: str) -> pa.Table:
    return pa.Table.from_pylist(prompt_rows(*texts), schema=SCHEMAS["prompts"])


def embeddings(table: pa.Table, vectors: np.ndarray) -> pa.Table:
    ids = table["prompt_id"].to_pylist()
    rows = [{"prompt_id": identity, "embedding": vector} for identity, vector in zip(ids, vectors.tolist(), strict=True)]
    return pa.Table.from_pylist(rows, schema=EMBEDDINGS)


def unit(*angles: float) -> np.ndarray:
    """Points on the unit circle, shape (n, 2), at angles in degrees."""
    return np.stack([np.cos(np.radians(angles)), np.sin(np.radians(angles))], axis=1).astype(np.float32)


def embed(model: Path, texts: list[str], tokens_per_batch: int) -> tuple[np.ndarray, list[dict]]:
    with Pipeline(name="test"):
        step = Embed(name="embed", model=str(model), tokens_per_batch=tokens_per_batch, device="cpu")
    step.load()
    rows = next(step.process(prompt_rows(*texts)))
    step.unload()
    return np.array([row["embedding"] for row in rows]), rows


def test_embeddings_are_mean_pooled_unit_vectors_that_do_not_depend_on_the_batch(model: Path) -> None:
    vectors, rows = embed(model, TEXTS, tokens_per_batch=16384)
    single_vectors, _ = embed(model, TEXTS, tokens_per_batch=1)
    assert vectors.shape == (5, 32) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors, single_vectors, atol=1e-5)
    assert [row["_statistics"].get("cut", 0) for row in rows] == [0, 0, 0, 0, 1] and rows[4]["_statistics"]["tokens"] == 64
    bert, words = BertModel.from_pretrained(model), tokenizer(TEXTS)
    with torch.inference_mode():
        pooled_vectors = bert(**words(TEXTS[0], return_tensors="pt", return_token_type_ids=False)).last_hidden_state[0].mean(dim=0)
    assert np.allclose(vectors[0], (pooled_vectors / pooled_vectors.norm()).numpy(), atol=1e-5)


def test_pickled_weights_are_refused(model: Path, tmp_path: Path) -> None:
    torch.save(load_file(model / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with Pipeline(name="test"):
        step = Embed(name="embed", model=str(tmp_path))
    with pytest.raises(DataError, match=r"pytorch_model\.bin contains pickled weights"):
        step.load()


def test_the_distance_is_to_the_nearest_kept_or_earlier_prompt() -> None:
    table, earlier = prompts("a", "b", "c", "d"), prompts("x", "y")
    own_embeddings = embeddings(table, unit(0, 10, 20, 100))
    output, counts = Diversify(name="diversify", min_distance=1 - np.cos(np.radians(15))).transform(
        table, own_embeddings, embeddings(earlier, unit(180, 270)), embeddings(prompts("z"), unit(60))
    )
    assert output["prompt_id"].to_pylist() == [table["prompt_id"][row].as_py() for row in (0, 2, 3)]
    expected = [1 - np.cos(np.radians(angle)) for angle in (60, 20, 40)]
    assert np.allclose(output["neighbour_distance"].to_numpy(), expected, atol=1e-6)
    assert counts == {"too_similar": 1, "kept": 3}
    assert output.schema == SCHEMAS["prompts"].append(pa.field("neighbour_distance", pa.float64()))


def test_a_first_prompt_without_any_other_has_no_distance_and_stays() -> None:
    table = prompts("a", "b")
    output, counts = Diversify(name="diversify", min_distance=0.5).transform(table, embeddings(table, unit(0, 0)))
    assert output["neighbour_distance"].to_pylist() == [None] and counts == {"too_similar": 1, "kept": 1}
    all_rows, _ = Diversify(name="diversify").transform(table, embeddings(table, unit(0, 0)))
    assert all_rows["neighbour_distance"].to_pylist() == [None, pytest.approx(0, abs=1e-6)]


def test_a_prompt_is_not_its_own_neighbour_in_earlier_sets() -> None:
    table = prompts("a")
    other_prompts = prompts("x", "a", "y")
    both_sets = [embeddings(other_prompts, unit(90, 0, 120)), embeddings(other_prompts, unit(90, 0, 120))]
    output, _ = Diversify(name="diversify", min_distance=0.5).transform(table, embeddings(table, unit(0)), *both_sets)
    assert output["neighbour_distance"].to_pylist() == [pytest.approx(1)]


def test_embeddings_are_found_by_id_and_missing_or_unequal_ones_are_errors() -> None:
    table = prompts("a", "b", "c")
    own_embeddings = embeddings(table, unit(0, 90, 180))
    output, _ = Diversify(name="diversify").transform(table, own_embeddings.take([2, 0, 1]))
    assert output["neighbour_distance"].to_pylist() == [None, pytest.approx(1), pytest.approx(1)]
    with pytest.raises(DataError, match="1 of 3 prompts have no embedding"):
        Diversify(name="diversify").transform(table, own_embeddings.slice(1))
    with pytest.raises(DataError, match="embeddings of 2 and of 3 numbers"):
        Diversify(name="diversify").transform(table, own_embeddings, embeddings(prompts("x"), np.eye(3)[:1]))
    with pytest.raises(DataError, match="None = no embedding"):
        Diversify(name="diversify").transform(
            table, pa.table({**own_embeddings.to_pydict(), "embedding": [[1.0], None, [1.0]]}, schema=EMBEDDINGS)
        )


def test_blocks_give_what_the_definition_gives() -> None:
    rng = np.random.default_rng(0)
    vectors, earlier = (rng.normal(size=(size, 8)).astype(np.float32) for size in (BLOCK + 300, BLOCK + 200))
    vectors, earlier = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (vectors, earlier))
    own_rows = np.full(len(vectors), -1)
    own_rows[:2] = [0, BLOCK + 100]
    earlier[own_rows[:2]] = vectors[:2]
    distances, kept_rows = neighbour_distances(vectors, earlier, own_rows, 0.1)
    for row in (0, 1, 2, 500, BLOCK, BLOCK + 299):
        other_prompts = np.concatenate(
            [np.delete(earlier, own_rows[row], axis=0) if own_rows[row] >= 0 else earlier, vectors[:row][kept_rows[:row]]]
        )
        assert distances[row] == pytest.approx(1 - (other_prompts @ vectors[row]).max(), abs=1e-5)
        assert kept_rows[row] == (distances[row] >= 0.1)
    assert 0 < kept_rows[BLOCK:].sum() < kept_rows.sum() < len(vectors)


def test_the_steps_run_on_artifacts_and_on_no_prompts(model: Path, tmp_path: Path) -> None:
    table = prompts(*TEXTS)
    vectors, _ = embed(model, TEXTS, tokens_per_batch=256)
    write_rows([table], SCHEMAS["prompts"], tmp_path / "prompts")
    write_rows([embeddings(table, vectors)], EMBEDDINGS, tmp_path / "own")
    write_rows([table.slice(0, 0)], SCHEMAS["prompts"], tmp_path / "none")
    folders = {name: tmp_path / name for name in ("prompts", "own", "none", "out", "empty")}
    step = Use("eva_stages.creator.diversity:Diversify", {"name": "diversify", "min_distance": 0.0})
    assert run_table_step(folders, ["prompts", "own"], step, folders["out"]) == {"too_similar": 0, "kept": 5}
    assert read_table(folders["out"]).column_names == [*SCHEMAS["prompts"].names, "neighbour_distance"]
    assert run_table_step(folders, ["none", "own"], step, folders["empty"]) == {"too_similar": 0, "kept": 0}
