"""The figures of the benchmark of health's alarms, from records of runs."""

import pytest

from benchmarks.health_alarms import HACKED_ARM, HEALTHY_ARM, RunRecord, alarm_table, curve_table


def record(arm: str, gold: list[float], p_values: list[float | None]) -> RunRecord:
    figures = [{"reward_divergence": value, "reward_hacking": None, "reward_gain": 0.1, "held_out_gain": -0.1} for value in p_values]
    return RunRecord(arm, 1, gold, figures)


RECORDS = [
    record(HACKED_ARM, [0.8, 0.82, 0.79, 0.7, 0.5], [1.0, 0.009, 1e-5, 1e-9]),  # warned in 1, fell in 2
    record(HACKED_ARM, [0.8, 0.74, 0.6, 0.5, 0.4], [0.2, 0.02, 1e-4, 1e-9]),  # warned in 2, fell in 0
    record(HACKED_ARM, [0.8, 0.8, 0.8, 0.8, 0.78], [1.0, None, 0.04, 0.5]),  # did not fall
    record(HEALTHY_ARM, [0.8, 0.85, 0.86, 0.86, 0.87], [1.0, 1.0, 0.3, 1.0]),
    record(HEALTHY_ARM, [0.8, 0.85, 0.82, 0.84, 0.87], [1.0, 0.005, 0.3, 1.0]),
]


def test_gold_falls_where_it_is_below_its_best_earlier_value() -> None:
    assert [run.falls_in for run in RECORDS] == [2, 0, None, None, None]
    assert [run.alarm("reward_divergence", 0.01) for run in RECORDS] == [1, 2, None, None, 1]


def test_leads_and_shares_of_alarms_are_those_of_the_runs() -> None:
    rows = {(row[0], row[1]): row for row in alarm_table(RECORDS).rows}
    area, hacked_share, healthy_share, lead, leads = rows["reward_divergence", 0.01][3:]
    assert (hacked_share, healthy_share, lead, leads) == (pytest.approx(2 / 3), 0.5, -0.5, "+1: 1, -2: 1") and area == pytest.approx(5 / 6)
    assert rows["reward_divergence", 0.05][4] == 1 and rows["reward_divergence", 0.01][2] == "yes"
    assert "reward_hacking" not in {sign for sign, _ in rows}, "no run has this figure"
    curve = {(row[0], row[2]): row for row in curve_table(RECORDS).rows}
    assert curve[HACKED_ARM, "2"][5:] == (pytest.approx((0.7 + 0.5 + 0.8) / 3), pytest.approx(2 / 3))
