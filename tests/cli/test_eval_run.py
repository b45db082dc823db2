"""What is asked for on the command line of `eva eval run`, and what is said of what does not fit; nothing is run."""

import json
from pathlib import Path

import pytest

from cli.eval_requests import is_model, model_overrides, requested_recipe
from eva_stages.core.config.evaluation_config import ArenaHard, MTBench, benchmark_name
from eva_stages.core.config.models_config import LiteLLMModel, TransformersModel
from eva_stages.core.errors import ConfigError
from eva_stages.core.recipe_files import dump_recipe, load_recipe
from tests.building import build_rounds, check
from tests.official_files import arena_hard, mt_bench


def test_a_folder_or_a_hub_id_is_a_model_and_a_recipe_is_none(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: x")
    assert is_model(str(tmp_path)) and is_model("lettercraft") and is_model("org/model-1.5")
    assert not is_model("recipes/missing.yaml")
    assert not is_model("quickstart") and not is_model("gemma-2-9b-it/dpo") and not is_model(str(tmp_path / "recipe.yaml"))
    recipe = load_recipe("evaluate", model_overrides(str(tmp_path)))
    assert recipe.policy.model == str(tmp_path) and recipe.evaluation.only and recipe.name.startswith("eval-")


def test_benchmarks_come_from_the_recipe_or_with_the_official_judge(tmp_path: Path) -> None:
    recipe_judge = load_recipe("quickstart", [f"evaluation.benchmarks=[{json.dumps({'kind': 'mt_bench', 'max_new_tokens': 7})}]"])
    recipe = requested_recipe(recipe_judge, "mt-bench,arena-hard,arena-hard-v2.0,gsm8k", None, None, 4.0)
    mt, old, new, math = recipe.evaluation.benchmarks
    assert [benchmark_name(benchmark) for benchmark in recipe.evaluation.benchmarks] == [
        "mt-bench",
        "arena-hard-v0.1",
        "arena-hard-v2.0",
        "gsm8k",
    ]
    assert isinstance(mt, MTBench) and mt.max_new_tokens == 7 and math.temperature == 0
    assert isinstance(old, ArenaHard) and isinstance(new, ArenaHard)
    for entry, model, length in ((mt, "gpt-4", 2048), (old, "gpt-4-1106-preview", 4096), (new, "gpt-4.1", 16000)):
        judge = entry.judge
        assert isinstance(judge, LiteLLMModel) and judge.model == model and judge.runtime.max_cost_usd == 4.0
        assert (judge.temperature, judge.top_p, judge.max_new_tokens) == (0, 1, length)
    recipe_file = tmp_path / "recipe.yaml"
    recipe_file.write_text(dump_recipe(recipe))
    assert load_recipe(str(recipe_file)) == recipe


def test_a_judge_is_a_name_a_folder_or_a_mapping(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart")
    judge_texts = ("openai/gpt-x", str(tmp_path), "{kind: litellm, model: openai/y, temperature: 0.5}")
    judges = [requested_recipe(recipe, "arena-hard", judge, "base", None).evaluation.benchmarks[0] for judge in judge_texts]
    judge_by_name, local, judge_by_mapping = (judge.judge for judge in judges if isinstance(judge, ArenaHard))
    assert isinstance(judge_by_name, LiteLLMModel) and judge_by_name.model == "openai/gpt-x" and judge_by_name.temperature == 0
    assert isinstance(local, TransformersModel) and local.max_new_tokens == 4096
    assert isinstance(judge_by_mapping, LiteLLMModel) and judge_by_mapping.temperature == 0.5 and judge_by_mapping.max_new_tokens == 4096
    assert {judge.baseline for judge in judges if isinstance(judge, ArenaHard)} == {"base"}


@pytest.mark.parametrize(
    ("judge_request", "says"),
    [
        (("arena-hard,gsm9k", None, None, None), "--bench: there is no benchmark 'gsm9k'; known: lettercraft, mt-bench"),
        (("mt-bench", "{kind: litellm", None, None), "--judge: .* not valid YAML"),
        (("mt-bench", "{kind: litelm}", None, None), "--judge: benchmarks.0.judge.kind: is 'litelm'; known: .* Did you mean litellm"),
        (("mt-bench", "{kind: litellm, modle: x}", None, None), "--judge: benchmarks.0.judge.modle: unknown field; known here: "),
        (("gsm8k", None, None, 3.0), "--max-cost: none of the benchmarks has a paid judge"),
        (("mt-bench", "policy", None, 3.0), "--max-cost: none of the benchmarks has a paid judge"),
        (("lettercraft", "gpt-4", "base", None), "--judge: none of the benchmarks takes .*\n--baseline: none of the benchmarks compares"),
    ],
)
def test_what_does_not_fit_is_said(judge_request: tuple[str, str | None, str | None, float | None], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        requested_recipe(load_recipe("quickstart"), *judge_request)


def test_every_fault_of_a_benchmarks_files_is_found_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (tmp_path / "questions.jsonl").write_text('{"question_id": 1, "category": "x", "turns": ["one"]}\n')
    mt = {"kind": "mt_bench", **mt_bench(tmp_path, 2), "questions": str(tmp_path / "questions.jsonl"), "judge": {"kind": "lettercraft"}}
    arena = {"kind": "arena_hard", **arena_hard(tmp_path, 2), "baseline": str(tmp_path / "questions.jsonl")}
    entry = {"kind": "gsm8k", "questions": "nowhere.jsonl"}
    recipe = load_recipe("quickstart", [f"evaluation.benchmarks={json.dumps([mt, arena, entry, entry])}"])
    with pytest.raises(ConfigError) as error:
        check(recipe)
    fault_text = "\n".join(error.value.faults)
    for words in (
        "evaluation.benchmarks.0: ",
        "is not a question file of mt_bench",
        "evaluation.benchmarks.1.judge.model: gpt-4-1106-preview needs OPENAI_API_KEY",
        "gsm8k is listed twice",
        f"evaluation.benchmarks.2.questions: there is no file {Path.cwd() / 'nowhere.jsonl'}",
    ):
        assert words in fault_text, fault_text


def test_base_policy_and_iterations_have_stages_of_their_own_and_share_questions_and_baseline(tmp_path: Path) -> None:
    judge = {"judge": {"kind": "policy"}}
    old = {"kind": "arena_hard", **arena_hard(tmp_path, 4), **judge}
    chosen = [old, {**old, "version": "v2.0", "baseline": "base"}, {"kind": "mt_bench", **mt_bench(tmp_path, 4), **judge}]
    recipe = load_recipe("quickstart", [f"evaluation.benchmarks={json.dumps(chosen)}", "iterations=1"])
    rounds = build_rounds(recipe)
    by_label = {stage.label: stage for round in rounds for stage in round.evaluation}
    assert len(by_label) == len({stage.fingerprint for round in rounds for stage in round.evaluation})
    for label in ("0-base-arena-hard-v0.1-score", "0-eval-mt-bench-score", "1-eval-arena-hard-v2.0-score"):
        assert label in by_label
    assert "0-base-arena-hard-v2.0-judge" not in by_label, "the baseline is not judged against itself"
    judgment_stage = by_label["1-eval-arena-hard-v2.0-judge"]
    assert judgment_stage.inputs["baseline"] is by_label["0-base-arena-hard-v2.0-answer"]
    policies = {stage.inputs["policy"].fingerprint for label, stage in by_label.items() if label.endswith("-judge")}
    assert len(policies) == 1, "every policy has the same judge"


def test_a_plan_needs_no_key_and_a_run_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    recipe = load_recipe("quickstart", [f"evaluation.benchmarks={json.dumps([{'kind': 'mt_bench', **mt_bench(tmp_path, 2)}])}"])
    check(recipe, keys=False)
    with pytest.raises(ConfigError, match="gpt-4 needs OPENAI_API_KEY"):
        check(recipe)
