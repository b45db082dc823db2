"""Replicas of a generator's step: they work side by side, out of order, and each takes devices of its own."""

import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from distilabel.pipeline import Pipeline
from distilabel.steps import StepResources
from pydantic import PrivateAttr

from eva_stages.core.devices import free_devices, next_devices, take_turn
from eva_stages.core.distil import ArtifactSource, PartSink
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.generating import GeneratorOutput
from eva_stages.core.parts import read_parts
from eva_stages.core.responding import Respond
from eva_stages.core.rows import SCHEMAS, Message, prompt_id
from eva_stages.core.tables import write_rows
from eva_stages.lettercraft.player import LettercraftLLM

FORK = multiprocessing.get_context("fork")
SECOND_BATCH_DONE = FORK.Event()
BATCH, BATCHES = 4, 7


class NumberedLLM(LettercraftLLM):
    """Calls itself by its devices; the first batch waits for the second, which only another replica can be answering."""

    _devices: list[str] = PrivateAttr(default_factory=list)

    def load(self) -> None:
        super().load()
        self._devices = next_devices(["4", "5", "GPU-a", "GPU-b"], take_turn(2), 2)

    @property
    def model_name(self) -> str:
        return ",".join(self._devices)

    def generate(self, inputs: list[list[Message]], num_generations: int = 1, seeds: Sequence[int] | None = None) -> list[GeneratorOutput]:
        if inputs[0][-1]["content"].startswith("prompt 0 ") and not SECOND_BATCH_DONE.wait(timeout=60):
            raise TimeoutError("no other replica took the second batch")
        if inputs[0][-1]["content"].startswith(f"prompt {BATCH} "):
            SECOND_BATCH_DONE.set()
        return super().generate(inputs, num_generations, seeds)


def prompts(folder: Path) -> list[dict]:
    conversations = [[{"role": "user", "content": f"prompt {number} of a test"}] for number in range(BATCH * BATCHES - 1)]
    rows = [{"prompt_id": prompt_id(messages), "messages": messages} for messages in conversations]
    write_rows([pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])], SCHEMAS["prompts"], folder)
    return rows


def test_two_replicas_share_the_batches_and_every_row_is_written_once(tmp_path: Path) -> None:
    rows = prompts(tmp_path / "prompts")
    parts = tmp_path / "parts"
    parts.mkdir()
    free_devices()
    with Pipeline(name="replicas", cache_dir=tmp_path / "cache") as pipeline:
        source = ArtifactSource(name="source", folders=[str(tmp_path / "prompts")], prefixes=[""], parts=str(parts), batch_size=2 * BATCH)
        respond = Respond(
            name="respond", llm=NumberedLLM(), num_generations=2, seed=5, input_batch_size=BATCH, resources=StepResources(replicas=2)
        )
        (
            source
            >> respond
            >> PartSink(name="sink", parts=str(parts), rows="responses", required_columns=["responses"], input_batch_size=BATCH)
        )
    pipeline.run(use_cache=False)

    numbers, statistics = read_parts(parts)
    assert list(numbers) == list(range(len(rows))) and statistics["responses"] == 2 * len(rows)
    written_rows = pa.concat_tables([pq.read_table(path) for path in parts.glob("*.parquet")]).sort_by("_row").to_pylist()
    assert [row["prompt_id"] for row in written_rows] == [row["prompt_id"] for row in rows]
    assert [row["seed"] for row in written_rows] == [derive_seed(5, row["prompt_id"]) for row in rows]
    assert {row["generator"] for row in written_rows} == {"4,5", "GPU-a,GPU-b"}
