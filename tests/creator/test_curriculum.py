"""The curriculum of online training without a trainer: what a step draws, what becomes of its scores, and resumption."""

import fcntl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distilabel.pipeline import Pipeline

from eva_stages.core.rows import SCHEMAS, Message, prompt_row
from eva_stages.core.tables import write_rows
from eva_stages.creator import seen_prompts
from eva_stages.creator.curation import Curate
from eva_stages.creator.curriculum import Curriculum, StepPrompt
from eva_stages.creator.function_evolver import EvolveByFunction
from eva_stages.creator.gate import JudgeValidity
from eva_stages.creator.online_journal import journal_files
from eva_stages.creator.step_evolving import StepEvolving
from tests.conftest import function_code

SIZE, SEEDS = 4, 10


def add_word(text: str, reference: str | None, rng: np.random.Generator) -> tuple[str, None, str] | None:
    """A longer prompt; every eighth call fails. The reference, if any, is a file whose lock the call waits for."""
    if reference is not None:
        with Path(reference).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
    return None if rng.integers(8) == 0 else (f"{text} {rng.integers(5)}", None, "add_word")


def is_even(messages: Sequence[Message], reference: str | None) -> bool:
    """Prompts that end with an even number are valid."""
    return messages[-1]["content"][-1] in "02468"


def prompt_set(folder: Path, name: str = "seed", count: int = SEEDS, reference: str | None = None) -> str:
    rows = [prompt_row([{"role": "user", "content": f"{name} {number}"}], "test", reference=reference) for number in range(count)]
    write_rows([pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])], SCHEMAS["prompts"], folder)
    return str(folder)


def evolving(**settings: Any) -> StepEvolving:
    with Pipeline(name="test"):
        evolver = EvolveByFunction(name="evolve", function=function_code(__file__, "add_word"), generations=2, shape="siblings")
        gate = JudgeValidity(name="gate", answerable=function_code(__file__, "is_even"), max_length_ratio=2.5)
    return StepEvolving(evolver, seed=5, near_duplicate=None, gate=gate, **settings)


def curriculum(prompts: str, **settings: Any) -> Curriculum:
    choices = {"share": 0.5, "buffer": {"size": 12}, "selection": {"kind": "weighted", "fraction": 0.5}, **settings}
    return Curriculum(prompts, seed=3, size=SIZE, metric="reward_gap", **choices)


def fits(messages: Sequence[Message]) -> bool:
    return len(messages[-1]["content"]) < 12


def results(step: int, prompts: Sequence[StepPrompt]) -> list[dict[str, Any]]:
    """Two responses to each prompt, with rewards from the text; every fifth is missing."""
    rows = []
    for prompt in prompts:
        text = prompt.row["messages"][0]["content"]
        rewards = [
            None if (sum(text.encode()) + step + number) % 5 == 0 else (sum(text.encode()) % 7 + number * step) % 4 / 4
            for number in range(2)
        ]
        failures = ["no number" if reward is None else None for reward in rewards]
        texts = {"responses": ["a", "b"], "finish_reasons": ["stop", "length"], "token_counts": [2, 3]}
        rows.append({**texts, "rewards": rewards, "failures": failures})
    return rows


def run_steps(part: Curriculum, first: int, last: int) -> list[list[str]]:
    drawn_ids = []
    for step in range(first, last + 1):
        prompts = part.draw(step)
        drawn_ids.append([prompt.row["prompt_id"] for prompt in prompts])
        part.record(step, prompts, results(step, prompts))
    return drawn_ids


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The seed prompts, and the state after a warm-up of three steps."""
    folder = tmp_path_factory.mktemp("warm")
    prompts = prompt_set(folder / "prompts")
    first = Curriculum(prompts, seed=3, size=SIZE, metric="reward_gap")
    first.begin(fits, None, folder / "journal", is_new=True)
    drawn_ids = run_steps(first, 1, 3)
    first.save(3, folder / "state", folder / "journal", is_end=True)
    order = [np.random.default_rng([3, epoch]).permutation(SEEDS) for epoch in (0, 1)]
    ids = pq.read_table(folder / "prompts" / "rows.parquet")["prompt_id"].to_pylist()
    assert drawn_ids == [[ids[place] for place in places] for places in (order[0][:4], order[0][4:8], order[1][:4])]  # as offline
    scored_ids = {row["prompt_id"] for row in pq.read_table(folder / "journal" / "uses-3.parquet").to_pylist() if row["score"] is not None}
    assert set(pq.read_table(folder / "state" / "buffer.parquet")["prompt_id"].to_pylist()) == scored_ids
    return prompts, folder / "state"


def new_interval(warm: tuple[str, Path], **settings: Any) -> Curriculum:
    """The interval after the warm-up."""
    part = curriculum(warm[0], **settings)
    part.begin(fits, warm[1], warm[1] / "none", is_new=True)
    return part


def tables(journal: Path, name: str) -> list[dict[str, Any]]:
    return [row for _, path in journal_files(journal, name) for row in pq.read_table(path).to_pylist()]


def test_half_of_a_step_comes_from_the_buffer_and_every_evolution_has_a_fate(warm: tuple[str, Path], tmp_path: Path) -> None:
    part = new_interval(warm, evolving=evolving())
    run_steps(part, 4, 12)
    part.save(12, tmp_path / "state", tmp_path / "journal", is_end=True)
    uses, draws, evolutions, buffer = (tables(tmp_path / "journal", name) for name in ("uses", "selections", "evolutions", "buffer"))
    assert {step: [row["origin"] for row in uses if row["step"] == step].count("buffer") for step in range(4, 13)} == dict.fromkeys(
        range(4, 13), 2
    )
    assert all(len({row["prompt_id"] for row in uses if row["step"] == step}) == SIZE for step in range(4, 13))
    assert len(evolutions) == 2 * len(draws) and {row["parent_id"] for row in evolutions} == {row["prompt_id"] for row in draws}
    fates = {row["fate"] for row in evolutions}
    assert {"inserted", "duplicate", "failed", "gate:answerable", "rejected:exceeds_max_length"} >= fates >= {"inserted", "failed"}
    inserted_rows = [row for row in evolutions if row["fate"] == "inserted"]
    assert all(row["inserted_step"] == row["step"] and row["messages"][0]["content"][-1] in "02468" for row in inserted_rows)
    assert all(row["failure"] is not None for row in evolutions if row["fate"] == "failed")
    assert len(buffer) == 12 and {row["prompt_id"] for row in buffer if row["origin"] == "evolved"} <= {
        row["prompt_id"] for row in inserted_rows
    }
    counts, failures = part.close()
    assert counts["fate_inserted"] == len(inserted_rows) and counts["calls"] == len(evolutions) and failures["no number"] > 0
    assert counts["kept_scores"] == sum(row["score"] is None for row in uses)


def test_an_evolution_has_its_parents_score_until_it_has_its_own(warm: tuple[str, Path], tmp_path: Path) -> None:
    part = new_interval(warm, evolving=evolving())
    run_steps(part, 4, 7)
    part.save(7, tmp_path / "state", tmp_path / "journal", is_end=True)
    scores = {(row["step"], row["prompt_id"]): row["score"] for row in tables(tmp_path / "journal", "uses")}
    unused_scores = {row["prompt_id"]: row["score"] for row in tables(tmp_path / "journal", "buffer") if row["birth"] == row["last_use"]}
    children = [row for row in tables(tmp_path / "journal", "evolutions") if row["prompt_id"] in unused_scores]
    assert children and all(unused_scores[row["prompt_id"]] == scores[row["step"], row["parent_id"]] for row in children)


def test_a_curriculum_that_resumes_goes_on_as_an_unbroken_one(warm: tuple[str, Path], tmp_path: Path) -> None:
    first_run = new_interval(warm, evolving=evolving())
    drawn_ids = run_steps(first_run, 4, 6)
    first_run.save(6, tmp_path / "a6", tmp_path / "a", is_end=False)
    drawn_ids += run_steps(first_run, 7, 10)
    first_run.save(10, tmp_path / "a10", tmp_path / "a", is_end=True)

    killed_run = curriculum(warm[0], evolving=evolving())
    killed_run.begin(fits, warm[1], tmp_path / "b", is_new=True)
    run_steps(killed_run, 4, 6)
    killed_run.save(6, tmp_path / "b6", tmp_path / "b", is_end=False)
    run_steps(killed_run, 7, 8)
    killed_run.save(8, tmp_path / "b8", tmp_path / "b", is_end=False)  # of a checkpoint that was not completed
    second_attempt = curriculum(warm[0], evolving=evolving())
    second_attempt.begin(fits, tmp_path / "b6", tmp_path / "b", is_new=False)
    assert run_steps(second_attempt, 7, 10) == drawn_ids[3:]
    second_attempt.save(10, tmp_path / "b10", tmp_path / "b", is_end=True)
    for name in ("state.json", "buffer.parquet"):
        assert (tmp_path / "a10" / name).read_bytes() == (tmp_path / "b10" / name).read_bytes()
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()
    }


def test_training_does_not_wait_for_a_slow_evolver_and_late_evolutions_are_dropped(warm: tuple[str, Path], tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    prompts = prompt_set(tmp_path / "prompts", reference=str(tmp_path / "lock"))
    part = Curriculum(prompts, 3, SIZE, "reward_gap", None, 0.5, {"size": 12}, {"kind": "weighted", "fraction": 0.25}, evolving(), lag=1)
    part.begin(fits, None, tmp_path / "journal", is_new=True)
    with (tmp_path / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run_steps(part, 1, 2)  # what step 1 evolves is due at step 2, which goes on without it, and evolves nothing
        fcntl.flock(lock, fcntl.LOCK_UN)
        part.save(2, tmp_path / "2", tmp_path / "journal", is_end=False)  # a checkpoint waits for it
        fcntl.flock(lock, fcntl.LOCK_EX)
        run_steps(part, 3, 6)
    part.save(6, tmp_path / "6", tmp_path / "journal", is_end=False)
    run_steps(part, 7, 7)
    part.save(7, tmp_path / "7", tmp_path / "journal", is_end=True)
    assert part.close()[0]["busy"] == 4
    evolutions = tables(tmp_path / "journal", "evolutions")
    fates = {step: {row["fate"] for row in evolutions if row["step"] == step} for step in {row["step"] for row in evolutions}}
    assert "late" not in fates[1] and all(row["inserted_step"] == 3 for row in evolutions if row["step"] == 1 and row["fate"] == "inserted")
    assert "inserted" not in fates[3] and "late" in fates[3]
    assert len(evolutions) == 2 * len(tables(tmp_path / "journal", "selections"))


def test_prompts_of_another_part_of_the_source_take_the_place_of_the_buffer(warm: tuple[str, Path], tmp_path: Path) -> None:
    fresh = prompt_set(tmp_path / "fresh", "fresh", 6)
    part = Curriculum(warm[0], 3, SIZE, "reward_gap", fresh=fresh, share=0.5)
    part.begin(fits, warm[1], tmp_path / "journal", is_new=True)
    for step in (4, 5):
        prompts = part.draw(step)
        assert [prompt.origin for prompt in prompts] == ["original", "original", "fresh", "fresh"]
        assert [prompt.row["messages"][0]["content"].split()[0] for prompt in prompts] == ["seed", "seed", "fresh", "fresh"]
        part.record(step, prompts, results(step, prompts))


@pytest.mark.parametrize("unsorted_count", [seen_prompts.UNSORTED_SKETCHES, 5])
def test_curating_batch_by_batch_keeps_what_curating_everything_at_once_keeps(unsorted_count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen_prompts, "UNSORTED_SKETCHES", unsorted_count)
    rng = np.random.default_rng(0)
    words = list("abcdefghijklmnopqrstuvwxyz")
    texts = [" ".join(rng.choice(words, 12)) for _ in range(20)]
    texts += [f"{text} {'again' if number % 2 else 'x'}" for number, text in enumerate(texts)]
    rows = [prompt_row([{"role": "user", "content": texts[place]}], "test") for place in rng.integers(len(texts), size=120)]
    seeds, children = rows[:3], rows[3:]
    table = pa.Table.from_pylist([{**row, "rejected": None} for row in children], schema=SCHEMAS["evolutions"])
    kept_rows, counts = Curate(name="curate", near_duplicate=0.8).transform(table, pa.Table.from_pylist(seeds, SCHEMAS["prompts"]))
    known_prompts = seen_prompts.SeenPrompts(0.8)
    known_prompts.add(seeds)
    reasons = [reason for start in range(0, len(children), 7) for reason in known_prompts.duplicates(children[start : start + 7])]
    kept_ids = [row["prompt_id"] for row, reason in zip(children, reasons, strict=True) if reason is None]
    assert kept_ids == kept_rows["prompt_id"].to_pylist()
    assert [reasons.count(name) for name in ("duplicate", "near_duplicate")] == [counts[name] for name in ("duplicate", "near_duplicate")]
    assert counts["near_duplicate"] > 3
