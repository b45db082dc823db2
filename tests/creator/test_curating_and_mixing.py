import pyarrow as pa
import pytest

from eva_stages.core.errors import DataError
from eva_stages.core.rows import SCHEMAS, prompt_row
from eva_stages.creator.curating import Curate, NearDuplicates
from eva_stages.creator.mixing import Mix

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
    made = evolutions((LONG, None), (LONG + "?", None), ("other", None), ("other", None), ("bad", "refusal"), ("old", None))
    kept, counts = Curate(name="curate", near_duplicate=0.8).transform(made, prompts("old"))
    assert texts(kept) == [LONG, "other"]
    assert counts == {"evolved": 6, "kept": 2, "duplicate": 2, "near_duplicate": 1, "refusal": 1}
    assert counts["evolved"] == sum(count for reason, count in counts.items() if reason != "evolved")


def test_near_duplicates_of_any_earlier_prompt_set_go() -> None:
    kept, counts = Curate(name="curate", near_duplicate=0.8).transform(evolutions((LONG + ".", None)), prompts("x"), prompts(LONG))
    assert len(kept) == 0 and counts["near_duplicate"] == 1


def test_without_a_threshold_only_exact_duplicates_go() -> None:
    kept, _ = Curate(name="curate", near_duplicate=None).transform(evolutions((LONG, None), (LONG + "?", None)), prompts("x"))
    assert len(kept) == 2


def test_different_short_texts_are_not_near_duplicates() -> None:
    near = NearDuplicates(0.8)
    assert all(near.add(text, text) for text in ("", "a", "b", "ab", "Take abc, reverse it.", "Take abd, sort its letters."))


def test_the_mix_has_the_size_of_the_present_set_and_the_asked_shares() -> None:
    evolved, present = prompts(*(f"new {n}" for n in range(100))), prompts(*(f"old {n}" for n in range(100)))
    mixed, counts = Mix(name="mix", evolved_share=0.8, seed=3).transform(evolved, present)
    assert counts == {"evolved": 80, "buffer": 20, "evolved_short": 0} and len(mixed) == 100
    assert mixed["origin"].to_pylist() == ["evolved"] * 80 + ["buffer"] * 20
    assert len(set(mixed["prompt_id"].to_pylist())) == 100
    again, _ = Mix(name="mix", evolved_share=0.8, seed=4).transform(evolved, present)
    assert again["prompt_id"].to_pylist() != mixed["prompt_id"].to_pylist()


def test_a_shortfall_of_evolved_prompts_is_filled_from_the_buffer() -> None:
    mixed, counts = Mix(name="mix").transform(prompts("new"), prompts(*(f"old {n}" for n in range(10))))
    assert len(mixed) == 10 and counts == {"evolved": 1, "buffer": 9, "evolved_short": 7}


def test_no_evolved_prompt_at_all_is_an_error() -> None:
    with pytest.raises(DataError, match="no evolved prompt survived"):
        Mix(name="mix").transform(prompts(), prompts("old", "older"))
