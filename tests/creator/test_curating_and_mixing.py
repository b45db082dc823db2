import json

import pyarrow as pa
import pytest

from eva_stages.core.errors import DataError
from eva_stages.core.rows import SCHEMAS, prompt_row
from eva_stages.creator.curation import Curate
from eva_stages.creator.mixture import Mix, Replay

LONG = "Explain in plain words how a suspension bridge carries the weight of the cars that cross it every single day"


def prompts(*texts: str) -> pa.Table:
    rows = [prompt_row([{"role": "user", "content": text}], "test") for text in texts]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["prompts"])


def evolutions(*texts: tuple[str, str | None]) -> pa.Table:
    rows = [prompt_row([{"role": "user", "content": text}], "test") | {"rejected": reason} for text, reason in texts]
    return pa.Table.from_pylist(rows, schema=SCHEMAS["evolutions"])


def texts(table: pa.Table) -> list[str]:
    return [messages[0]["content"] for messages in table["messages"].to_pylist()]


def test_rejects_duplicates_and_near_duplicates_go_and_are_counted() -> None:
    output = evolutions((LONG, None), (LONG + "?", None), ("other", None), ("other", None), ("bad", "refusal"), ("old", None))
    kept_rows, counts = Curate(name="curate", near_duplicate=0.8).transform(output, prompts("old"))
    assert texts(kept_rows) == [LONG, "other"]
    assert counts == {"evolved": 6, "kept": 2, "duplicate": 2, "near_duplicate": 1, "refusal": 1}
    assert counts["evolved"] == sum(count for reason, count in counts.items() if reason != "evolved")


def test_duplicates_with_another_reference_than_the_prompt_that_is_kept_are_counted_apart() -> None:
    def table(schema: str, *sums: tuple[str, str | None]) -> pa.Table:
        rows = [prompt_row([{"role": "user", "content": text}], "test", reference=reference) for text, reference in sums]
        return pa.Table.from_pylist([{**row, "rejected": None} for row in rows], schema=SCHEMAS[schema])

    tasks = [json.dumps({"family": "sums", "knobs": {}, "seed": seed, "answer": answer}) for seed, answer in enumerate("778")]
    new = [("1 + 2", "3"), ("old", "5"), ("1 + 2", "4"), ("no reference", None), ("1 + 2", "3"), ("no reference", "1"), ("old", "6")]
    evolved = table("evolutions", *new, *(("3 + 4", task) for task in tasks))
    kept_rows, counts = Curate(name="curate", near_duplicate=None).transform(evolved, table("prompts", ("x", "1"), ("old", "5")))
    assert list(zip(texts(kept_rows), kept_rows["reference"].to_pylist(), strict=True)) == [new[0], new[3], ("3 + 4", tasks[0])]
    assert counts == {"evolved": 10, "kept": 3, "duplicate": 4, "near_duplicate": 0, "reference_conflict": 3}


def test_near_duplicates_of_any_earlier_prompt_set_go() -> None:
    kept_rows, counts = Curate(name="curate", near_duplicate=0.8).transform(evolutions((LONG + ".", None)), prompts("x"), prompts(LONG))
    assert len(kept_rows) == 0 and counts["near_duplicate"] == 1


def test_without_a_threshold_only_exact_duplicates_go() -> None:
    kept_rows, _ = Curate(name="curate", near_duplicate=None).transform(evolutions((LONG, None), (LONG + "?", None)), prompts("x"))
    assert len(kept_rows) == 2


def test_the_mix_has_the_size_of_the_present_set_and_the_asked_shares() -> None:
    evolved, present = prompts(*(f"new {n}" for n in range(100))), prompts(*(f"old {n}" for n in range(100)))
    mixed_set, counts = Mix(name="mix", evolved_share=0.8, seed=3).transform(evolved, present)
    assert counts == {"evolved": 80, "buffer": 20, "evolved_short": 0} and len(mixed_set) == 100
    assert mixed_set["origin"].to_pylist() == ["evolved"] * 80 + ["buffer"] * 20
    assert len(set(mixed_set["prompt_id"].to_pylist())) == 100
    repeated_output, _ = Mix(name="mix", evolved_share=0.8, seed=4).transform(evolved, present)
    assert repeated_output["prompt_id"].to_pylist() != mixed_set["prompt_id"].to_pylist()


def test_a_shortfall_of_evolved_prompts_is_filled_from_the_buffer() -> None:
    mixed_set, counts = Mix(name="mix").transform(prompts("new"), prompts(*(f"old {n}" for n in range(10))))
    assert len(mixed_set) == 10 and counts == {"evolved": 1, "buffer": 9, "evolved_short": 7}


def test_no_evolved_prompt_at_all_is_an_error() -> None:
    with pytest.raises(DataError, match="all evolved prompts were rejected"):
        Mix(name="mix").transform(prompts(), prompts("old", "older"))


def info_of(table: pa.Table, *values: float | None) -> pa.Table:
    return pa.table({"prompt_id": table["prompt_id"], "reward_gap": pa.array(values, pa.float64())})


def test_replay_brings_back_what_was_most_informative_when_it_was_last_scored() -> None:
    first, second, present = prompts("a", "b", "c", "d"), prompts("b", "c", "e", "f"), prompts("c", "g", "h", "i")
    info = info_of(first, 0.9, 0.8, 0.7, 0.1), info_of(second, 0.2, 0.95, 0.5, None)
    replay = Replay(name="replay", share=0.5)
    replayed_rows, counts = replay.transform(present, first, info[0], second, info[1])
    assert texts(replayed_rows) == ["a", "e"] and replayed_rows["informativeness"].to_pylist() == [0.9, 0.5]
    assert counts == {"pool": 4, "replay_short": 0}  # c is still there, f was not scored
    rest, counts = Replay(name="replay", share=1.0).transform(prompts(*"uvwxyz"), first, info[0], second, info[1])
    assert texts(rest) == ["c", "a", "e", "b", "d"] and counts == {"pool": 5, "replay_short": 1}
    with pytest.raises(DataError, match="different prompt ids"):
        replay.transform(present, first, info[1])


def test_a_mix_with_replay_adds_up_and_has_no_prompt_twice() -> None:
    evolved, present = prompts(*(f"new {n}" for n in range(20))), prompts(*(f"old {n}" for n in range(20)))
    replayed_rows = prompts("new 3", "old 4", "back 1", "back 2")
    mixed_set, counts = Mix(name="mix", evolved_share=1.0, seed=3).transform(evolved, present, replayed_rows)
    assert counts == {"evolved": 20, "buffer": 0, "replay": 0, "evolved_short": 0}
    mixed_set, counts = Mix(name="mix", evolved_share=0.5, seed=3).transform(evolved, present, replayed_rows)
    assert len(set(mixed_set["prompt_id"].to_pylist())) == len(mixed_set) == 20 == counts["evolved"] + counts["buffer"] + counts["replay"]
    origins = dict(zip(texts(mixed_set), mixed_set["origin"].to_pylist(), strict=True))
    assert {text for text, origin in origins.items() if origin == "replay"} >= {"back 1", "back 2"} and origins.get("old 4") != "replay"
    plain, _ = Mix(name="mix", evolved_share=0.5, seed=3).transform(evolved, present)
    assert [text for text in texts(plain) if text.startswith("new")] == [text for text in texts(mixed_set) if origins[text] == "evolved"]
