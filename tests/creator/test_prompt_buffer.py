"""The buffer draws with the frequencies of its formula, and evolutions replace the prompts of the lowest priority."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import chisquare

from eva_stages.core.config.online_config import Buffer
from eva_stages.core.rows import prompt_row
from eva_stages.creator.prompt_buffer import Entry, PromptBuffer, draw_probabilities, rank_weights, read_entries


def entry(number: int, score: float, birth: int = 0, last_use: int = 0) -> Entry:
    return Entry(prompt_row([{"role": "user", "content": f"prompt {number}"}], "test"), score, birth, last_use)


def buffer(*entries: Entry, **settings: object) -> PromptBuffer:
    return PromptBuffer(Buffer(**{"size": 100, **settings}), entries)


def test_the_probability_is_the_formula() -> None:
    scores, ages, rho, beta = np.array([0.1, 0.9, 0.5, 0.3]), np.array([0.0, 4.0, 1.0, 3.0]), 0.3, 0.5
    by_rank = np.array([1 / 16, 1, 1 / 4, 1 / 9])  # ranks 4, 1, 2, 3 to the power -1 / beta
    expected = (1 - rho) * by_rank / by_rank.sum() + rho * ages / 8
    assert draw_probabilities(scores, ages, rho, beta) == pytest.approx(expected, abs=1e-15)
    assert draw_probabilities(scores, 0 * ages, rho, beta) == pytest.approx(by_rank / by_rank.sum())


def test_prompts_of_equal_score_share_the_weight_of_their_ranks() -> None:
    weights = rank_weights(np.array([1.0, 0.0, 1.0, 0.0]), 1.0)
    total = 1 + 1 / 2 + 1 / 3 + 1 / 4
    assert weights == pytest.approx([3 / 4 / total, 7 / 24 / total, 3 / 4 / total, 7 / 24 / total])


@pytest.mark.parametrize("settings", [{"staleness": 0.3, "temperature": 0.8}, {"priority": "uniform"}])
def test_the_first_draws_have_the_frequencies_of_the_formula(settings: dict[str, object]) -> None:
    """Chi-square over draws with different seeds."""
    entries, choices, draws = [entry(number, score=number % 7, last_use=number % 5) for number in range(12)], Buffer(**settings), 2000
    counts = Counter(PromptBuffer(choices, entries).draw(step=8, count=1, seed=seed)[0].prompt_id for seed in range(draws))
    expected = draws * PromptBuffer(choices, entries).probabilities(8)
    assert chisquare([counts[item.prompt_id] for item in entries], expected).pvalue > 0.01


def test_a_step_draws_every_prompt_at_most_once_and_none_that_it_has() -> None:
    prompts = buffer(*(entry(number, score=number) for number in range(10)))
    known_ids = {prompts.entries[0].prompt_id, prompts.entries[9].prompt_id}
    drawn_entries = prompts.draw(3, 20, 1, known_ids)
    assert len({item.prompt_id for item in drawn_entries}) == len(drawn_entries) == 8 and known_ids.isdisjoint(
        item.prompt_id for item in drawn_entries
    )
    assert [item.last_use for item in prompts.entries] == [0, *[3] * 8, 0]
    assert prompts.draw(4, 0, 1) == [] == buffer().draw(1, 3, 1)


def test_a_draw_depends_on_seed_and_step_alone(tmp_path: Path) -> None:
    prompts = buffer(*(entry(number, score=number % 3, last_use=number) for number in range(30)))
    pq.write_table(prompts.table(), tmp_path / "buffer.parquet")
    same_buffer = buffer(*read_entries(tmp_path / "buffer.parquet"))
    for step in (40, 41):
        assert prompts.draw(step, 5, 7) == same_buffer.draw(step, 5, 7)
    assert prompts.draw(42, 5, 7) != same_buffer.draw(42, 5, 8)


def test_new_prompts_replace_those_of_the_lowest_priority_the_oldest_first() -> None:
    old = [entry(0, 0.1, birth=2, last_use=9), entry(1, 0.1, birth=1, last_use=9), entry(2, 0.9, last_use=9), entry(3, 0.0, last_use=1)]
    prompts = buffer(*old, size=4)
    assert prompts.insert(9, [entry(4, 0.0)]) == [old[1].prompt_id]  # the lowest score is kept because it was not used for long
    assert [item.score for item in prompts.entries] == [0.1, 0.9, 0.0, 0.0]
    new_entries = [entry(number, score=number) for number in range(10, 16)]
    assert len(prompts.insert(10, new_entries)) == 4
    assert [item.score for item in prompts.entries] == [12, 13, 14, 15]


def test_scores_and_uses_of_prompts_that_are_not_there_are_ignored() -> None:
    prompts = buffer(entry(0, 0.5))
    prompts.note_score("other", 1.0)
    prompts.note_uses(5, ["other", prompts.entries[0].prompt_id])
    prompts.note_score(prompts.entries[0].prompt_id, 0.25)
    assert prompts.entries == [entry(0, 0.25, last_use=5)]
