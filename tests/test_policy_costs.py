"""What each policy of a run cost: tokens, GPU-hours and money up to it, with what was sent, estimated and paid before apart."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eva_stages.core.event_log import add_event
from eva_stages.core.planned_stages import PlannedStage
from eva_stages.core.run_folder import Run
from eva_stages.publishing.report.costs_section import costs
from eva_stages.views.history import Artifact, History, read_history
from eva_stages.views.policy_costs import cost_sentence, cost_table, policy_costs
from eva_stages.views.run_scores import run_results, run_table
from eva_stages.views.run_summary import summary

SCORES = {"sampled": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10}, "win_rate": {"value": 0.9, "low": 0.8, "high": 1.0, "n": 10}}


def artifact(label: str, counts: dict[str, Any], gpus: int = 0, scores: dict[str, Any] | None = None) -> Artifact:
    iteration, _, name = label.partition("-")
    manifest = {"iteration": int(iteration), "stage": name, "fingerprint": label, "counts": counts, "seconds": 1800.0, "rows": None}
    manifest |= {"devices": {"count": gpus, "names": []}, "scores": scores or {}, "inputs": {}}
    return Artifact(PlannedStage(f"{label}-x", int(iteration), name, label), Path("nowhere"), manifest)


@pytest.fixture
def history(tmp_path: Path) -> History:
    """A run whose evolver was paid for by another run of the store, and whose second evolutions partly were."""
    add_event(tmp_path, "reused", stage="1-evolve", fingerprint="1-evolve")
    artifacts = (
        artifact("0-respond", {"output_tokens": 100}, gpus=2),
        artifact("0-train", {}, gpus=4),
        artifact("0-base-score", {}, scores=SCORES),
        artifact("0-eval-score", {}, scores=SCORES),
        artifact("1-evolve", {"output_tokens": 30, "cost_usd": 2.5}),
        artifact("1-respond", {"output_tokens": 100}, gpus=2),
        artifact("1-reward", {"output_tokens": 7, "cost_usd": 1.204, "estimated_calls": 1, "estimated_usd": 0.004, "reused_usd": 0.3}),
        artifact("1-train", {}, gpus=4),
        artifact("1-eval-judge", {"output_tokens": 50, "cost_usd": 0.111}),
        artifact("1-eval-score", {}, scores=SCORES),
    )
    return History(tmp_path, [], artifacts)


def test_a_policy_costs_what_led_to_it(history: History) -> None:
    document = policy_costs(history)
    base, first, second = document["policies"]
    assert [entry["policy"] for entry in document["policies"]] == ["base", "iteration 0", "iteration 1"]
    assert (base["generated_tokens"], base["gpu_hours"], base["usd"]) == (0, 0, 0)
    assert (first["generated_tokens"], first["gpu_hours"], first["usd"]) == (100, 3.0, 0)
    assert (second["generated_tokens"], second["output_tokens"], second["gpu_hours"]) == (230, 237, 6.0)
    assert (second["usd"], second["estimated_usd"], second["reused_usd"], second["reused_stages"]) == (1.204, 0.004, 2.8, 1)
    assert document["evaluation"]["usd"] == 0.111 and document["total"]["usd"] == 1.315


def test_money_is_shown_with_cents_and_sent_estimated_and_reused_apart(history: History) -> None:
    document = policy_costs(history)
    table = cost_table(document)
    assert table.heads[1] == "lettercraft sampled"
    assert table.rows[2] == ("iteration 1", "0.500", "230", "6.00", "1.20", "0.004", "2.80")
    assert cost_sentence(document["total"]).endswith("1.31 USD sent to providers, 0.004 of it estimated, and 2.80 USD paid before")


def test_estimates_of_earlier_versions_have_no_amount(history: History) -> None:
    old_counts = {"cost_usd": 1.0, "estimated_calls": 3}
    artifacts = tuple(
        replace(stage, manifest={**stage.manifest, "counts": old_counts}) if stage.stage == "reward" else stage
        for stage in history.artifacts
    )
    document = policy_costs(replace(history, artifacts=artifacts))
    assert document["policies"][2]["estimated_usd"] is None and cost_table(document).rows[2][5] == "3 calls"


def test_every_view_shows_scores_against_costs(tiny_run: Path) -> None:
    history = read_history(Run(tiny_run))
    document = summary(history)
    tokens = [entry["generated_tokens"] for entry in document["costs"]["policies"]]
    assert tokens[0] == 0 < tokens[1] < tokens[2]
    table = run_table(run_results(document))[1]
    assert [row[0] for row in table.rows] == ["base", "iteration 0", "iteration 1", "evaluation"]
    section = costs(history)
    assert section.plots[0].name == "score-over-generated-tokens" and section.tables[0].title == "Held-out score against cost"


def test_without_benchmarks_the_table_says_where_to_name_some(history: History) -> None:
    assert cost_table(policy_costs(history)).title == "held-out score against cost"
    unscored_stages = tuple(stage for stage in history.artifacts if not stage.stage.endswith("-score"))
    table = cost_table(policy_costs(replace(history, artifacts=unscored_stages)))
    assert table.title == "cost" and "evaluation.benchmarks" in table.notes[-1]
