"""Results of public benchmarks stand in the table of a run beside published scores."""

from dataclasses import asdict

from eva_stages.core.text_table import as_csv, as_markdown
from eva_stages.evaluation.statistics import Estimate
from eva_stages.views.run_scores import run_results, run_table


def test_published_scores_stand_below_the_runs_own_in_the_same_unit() -> None:
    estimate = {"score": asdict(Estimate(51.5, 48.0, 55.0, 500))}
    names = ("mt-bench", "arena-hard-v0.1", "arena-hard-v2.0", "alpaca-eval", "gsm8k")
    entries = [{"benchmark": name, "policy": "iteration 1", "scores": estimate} for name in names]
    entries.append({"benchmark": "gsm8k", "policy": "iteration 2", "scores": None})
    document = run_results({"run": "runs/a|b", "base": None, "iterations": [], "benchmarks": entries})
    assert [result["score"] for result in document["results"]] == [51.5] * 5 + [None]
    published_scores = {(score["benchmark"], score["model"]): score["score"] for score in document["published"]}
    assert published_scores["arena-hard-v0.1", "gpt-4-0314"] == 50 and published_scores["mt-bench", "gpt-4"] == 8.99
    assert published_scores["arena-hard-v2.0", "o3-2025-04-16"] == 85.9 and published_scores["alpaca-eval", "gpt4_1106_preview"] == 50
    assert not [name for name, _ in published_scores if name == "gsm8k"]
    tables = run_table(document)
    assert "gsm8k,iteration 2,,,,,,this run" in as_csv(tables[0])
    assert "| arena-hard-v0.1 | iteration 1 |  | 51.50 | 48.00 | 55.00 | 500 | this run |" in as_markdown(tables)
