"""lm-evaluation-harness on a tiny policy, with a local task, so nothing is downloaded."""

import json
from pathlib import Path

import pytest

from eva_stages.core.progress import Reporter
from eva_stages.core.runner import Context
from eva_stages.evaluation.harness import score
from tests.official_files import lines
from tests.tiny_models import save_policy, tokenizer

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is an extra: pip install 'eva-align[eval]'")

TASK = """
task: tiny_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: ["yes", "no"]
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


def test_a_task_runs_and_its_main_metric_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    save_policy(tmp_path / "policy", tokenizer(["Is it 1? yes no"] * 5))
    (tmp_path / "tasks").mkdir()
    file = lines(tmp_path / "tasks" / "tiny.jsonl", [{"question": f"Is it {n}?", "answer": n % 2} for n in range(4)])
    (tmp_path / "tasks" / "tiny.yaml").write_text(TASK.format(file=file))
    inputs = {"policy": tmp_path / "policy", "include": tmp_path / "tasks"}
    (tmp_path / "work").mkdir()
    with Reporter().task("harness", "rows") as task:
        context = Context(tmp_path / "work", tmp_path / "work" / "data", inputs, task, tmp_path)
        result = score(context, ["tiny_choice"], None, True, "auto", 1, {"batch_size": 2, "device": "cpu"})
    figures = result["scores"]["official"]["tasks"]["tiny_choice"]
    assert figures["metric"] == "acc,none" and 0 <= figures["value"] <= 1 and figures["stderr"] > 0
    results = json.loads((context.artifact / "results.json").read_text())
    assert results["results"]["tiny_choice"]["acc,none"] == figures["value"]
