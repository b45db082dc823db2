"""No reference is lost or attached to another prompt: random prompt sets over five iterations, each table checked.

The reference of a prompt is a hash of its text, so that a wrong one shows wherever it is. The evolver raises if it gets a wrong one, and
the reward raises if it is to check a response against one.
"""

from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from eva_stages.core.parts import drop_failed, merge_parts, read_parts, settle_parts, write_part
from eva_stages.core.rows import SCHEMAS, last_user_text, prompt_row
from eva_stages.core.tables import joined_batches, read_table, write_rows
from eva_stages.creator.curation import Curate
from eva_stages.creator.function_evolver import EvolveByFunction
from eva_stages.creator.informativeness import Admit, Informativeness
from eva_stages.creator.mixture import Mix, Replay
from eva_stages.creator.utilities import Children
from eva_stages.models.rewards import RewardResponses, VerifierReward
from eva_stages.solver.pairing import MakePairs
from tests.conftest import function_code

CODE = '''
from hashlib import sha256
from pathlib import Path

def right_reference(text):
    return sha256(text.strip().encode()).hexdigest()[:12]

def grow(text, reference, rng):
    """Mostly a longer prompt; else nothing of use, one of two prompts that all share, or, while there is the file, an error."""
    assert reference == right_reference(text), (text, reference)
    kind = rng.integers(10)
    if kind == 9 and Path(__file__).with_name("down").exists():
        raise ConnectionError("down")
    useless = ["", f" {text} ", "x" * 2000, "Has no reference."]
    if kind < 4:
        return useless[kind], None if kind == 3 else right_reference(useless[kind]), "useless"
    evolved = f"Say {rng.integers(2)}." if kind == 4 else f"{text} Then say {rng.integers(100)}."
    return evolved, right_reference(evolved), "grow"

def check(messages, response, reference):
    assert reference == right_reference(messages[-1]["content"])
    return int(reference[:4], 16) + float(response)
'''
PROMPTS, ITERATIONS, RESPONSES = 40, 5, 2


def right_reference(text: str) -> str:
    return sha256(text.strip().encode()).hexdigest()[:12]


def checked_table(table: pa.Table) -> pa.Table:
    """The table, if every prompt has its own reference."""
    for row in table.to_pylist():
        assert row["reference"] == right_reference(last_user_text(row["messages"])), row
    return table


def saved_folder(table: pa.Table, folder: Path) -> Path:
    write_rows([table], table.schema, folder)
    return folder


def run_rows(step: Any, schema: str, sources: list[Path], folder: Path, rng: np.random.Generator, fates: Counter[str]) -> pa.Table:
    """What a row stage does, in random batches and order; one attempt is killed, and the next one, with other batches, resumes it."""
    parts = folder / "parts"
    parts.mkdir(parents=True)
    (folder / "scratch").mkdir()
    step.load()
    for attempt in range(2):
        assert not settle_parts(parts)
        fates["run again"] += drop_failed(parts)
        done_rows, _ = read_parts(parts)
        batches = list(joined_batches(sources, [""] * len(sources), done_rows, int(rng.integers(4, 14)), folder / "scratch"))
        order = rng.permutation(len(batches))
        for number in order if attempt else order[: len(order) // 2]:
            numbers, rows = batches[number]
            inputs = [{**row, "_row": int(row_number)} for row_number, row in zip(numbers, rows, strict=True)]
            write_part(parts, SCHEMAS[schema], next(step.process(inputs)))
        (folder.parents[1] / "down").unlink(missing_ok=True)
    merge_parts(parts, SCHEMAS[schema], folder / "artifact")
    return read_table(folder / "artifact")


def responses_and_rewards(
    prompts: pa.Table, folder: Path, code: Path, rng: np.random.Generator, fates: Counter[str]
) -> tuple[pa.Table, pa.Table]:
    """Responses to the prompts, in another order than the prompts, and their rewards."""
    texts = [[str(number) for number in rng.permutation(RESPONSES)] for _ in range(len(prompts))]
    responses = pa.table({"prompt_id": prompts["prompt_id"], "responses": texts})
    sources = [saved_folder(prompts, folder / "prompts"), saved_folder(responses.take(rng.permutation(len(prompts))), folder / "responses")]
    step = RewardResponses(name="reward", reward=VerifierReward(function=function_code(code, "check")))
    rewards = run_rows(step, "rewards", sources, folder, rng, fates)
    for row, prompt in zip(rewards.to_pylist(), prompts.to_pylist(), strict=True):
        assert row["failures"] == [None] * RESPONSES
        assert min(row["rewards"]) == int(right_reference(last_user_text(prompt["messages"]))[:4], 16)
    return responses, rewards


@pytest.mark.parametrize("shape", ["chain", "siblings"])
def test_no_reference_is_lost_or_attached_to_another_prompt_over_five_iterations(tmp_path: Path, shape: str) -> None:
    rng = np.random.default_rng(16)
    code = tmp_path / "functions.py"
    code.write_text(CODE)
    turns = [{"role": "user", "content": "Say 0."}, {"role": "assistant", "content": "0"}]
    seeds = [
        prompt_row([*turns[: 2 * (n % 2)], {"role": "user", "content": f"Say {n}."}], "test", reference=right_reference(f"Say {n}."))
        for n in range(PROMPTS)
    ]
    sets = [checked_table(pa.Table.from_pylist(seeds, schema=SCHEMAS["prompts"]))]
    infos: list[pa.Table] = []
    fates: Counter[str] = Counter()
    for iteration in range(ITERATIONS):
        folder, present = tmp_path / str(iteration), sets[-1]
        _, rewards = responses_and_rewards(present, folder / "respond", code, rng, fates)
        infos.append(Informativeness(name="inform").transform(rewards)[0])
        selected = pa.table({"prompt_id": present["prompt_id"].take(rng.permutation(PROMPTS)[: PROMPTS // 2])})
        settings = {"generations": 3, "shape": shape, "max_characters": 1000, "returns": "prompt_and_reference", "seed": iteration}
        step = EvolveByFunction(name="evolve", function=function_code(code, "grow"), **settings)
        sources = [saved_folder(selected, folder / "selected"), saved_folder(present, folder / "present")]
        (tmp_path / "down").touch()
        evolutions = run_rows(step, "evolutions", sources, folder / "evolve", rng, fates)
        fates.update(str(reason) for reason in evolutions["rejected"].to_pylist())
        usable = checked_table(evolutions.filter(evolutions["rejected"].is_null()))
        assert set(usable["root_id"].to_pylist()) <= set(present["root_id"].to_pylist())
        checked_table(Children(name="children").transform(evolutions)[0])
        curated_table, counts = Curate(name="curate", near_duplicate=None).transform(evolutions, *sets[::-1])
        fates.update(duplicate=counts["duplicate"])
        assert len(checked_table(curated_table)) == len(usable) - counts["duplicate"] > 8
        _, new_rewards = responses_and_rewards(curated_table, folder / "admit", code, rng, fates)
        admitted_table, _ = Admit(name="admit", fraction=0.8).transform(curated_table, new_rewards)
        earlier = [table for pair in zip(sets[:-1], infos[:-1], strict=True) for table in pair]
        replays = [checked_table(Replay(name="replay", share=0.2, seed=iteration).transform(present, *earlier)[0])] if earlier else []
        mixed_table, _ = Mix(name="mix", evolved_share=0.5, seed=iteration).transform(checked_table(admitted_table), present, *replays)
        assert len(set(mixed_table["prompt_id"].to_pylist())) == PROMPTS
        sets.append(checked_table(mixed_table.select(SCHEMAS["prompts"].names)))
        responses, rewards = responses_and_rewards(sets[-1], folder / "solve", code, rng, fates)
        pairs, _ = MakePairs(name="pair").transform(sets[-1], responses, rewards)
        for pair in pairs.to_pylist():
            reference = right_reference(last_user_text(pair["prompt"]))
            assert pair["chosen_reward"] == int(reference[:4], 16) + float(pair["chosen"][0]["content"])
    assert min(fates[name] for name in ("empty", "unchanged", "too_long", "no_prompt_and_reference", "duplicate", "run again")) > 3
    assert fates["failed"] == 0 and {row["generation"] for row in sets[-1].to_pylist()} > {0, 1, 2, 3}
