"""Plans without rates, with given rates, from a run's own stages, and from a measurement."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors.numpy import load_file

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import closure
from eva_stages.models.loading import find_checkpoint
from eva_stages.planning.measured_rates import free_stages, reduced_recipe
from eva_stages.planning.plan_tables import plan_tables
from eva_stages.planning.rates import Line, Rate, Rates, rate_of, read_rates, write_rates
from tests.building import build_rounds, plan_of
from tests.conftest import TINY, manifests, overrides, run_eva
from tests.tiny_models import save_reward, tokenizer

UNKNOWN = ("input_tokens", "output_tokens", "seconds_expected", "gpu_seconds", "gpu_hours")
PAID_MODEL = {"kind": "litellm", "model": "openai/some-model", "max_new_tokens": 100, "runtime": {"price": {"input": 1.0, "output": 2.0}}}


def tiny(**changes: object) -> Recipe:
    settings = TINY | {name.replace("__", "."): value for name, value in changes.items()}
    return load_recipe("quickstart", [f"{name}={json.dumps(value)}" for name, value in settings.items()])


def test_unmeasured_figures_are_null_and_never_zero(tmp_path: Path) -> None:
    document = plan_of(tiny(), Run(tmp_path / "run"))
    for entry in (*document["stages"], *document["iterations"], document["to_do"]):
        assert [entry[name] for name in UNKNOWN] == [None] * 5
    assert document["to_do"]["wall_seconds_expected"] is None
    assert document["to_do"]["unmeasured"] == document["to_do"]["stages"] == len(document["stages"])
    assert document["to_do"]["tokens"] == sum(entry["tokens"] or 0 for entry in document["stages"])
    assert not (tmp_path / "run").exists()


def test_the_disk_size_of_training_needs_no_rate(tmp_path: Path) -> None:
    folder = find_checkpoint("lettercraft", None, "policy.model").path
    weights = sum(tensor.size for tensor in load_file(folder / "model.safetensors").values())
    entries = {entry["stage"]: entry for entry in plan_of(tiny(), Run(tmp_path))["stages"]}
    assert entries["0-train"]["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    assert entries["0-train"]["checkpoint_bytes"] == 3 * weights * 4 * 3  # float32 and the two moments of Adam, three checkpoints
    adapter = tiny(solver__training__adapter={"kind": "lora"})
    assert {entry["checkpoint_bytes"] for entry in plan_of(adapter, Run(tmp_path))["stages"]} == {None}


def test_given_rates_are_summed_by_iteration_and_in_total(tmp_path: Path) -> None:
    respond = Rate(
        fixed_seconds=10, seconds_per_unit=0.5, input_tokens=20, output_tokens=30, bytes=100, gpus=2, slowest=Line(seconds_per_unit=2)
    )
    train = Rate(fixed_seconds=5, seconds_per_unit=2, gpus=4)
    rates = Rates(
        start_seconds=3, between_seconds=0.5, stages={"respond": respond, "train": train, "pair": Rate(seconds_per_unit=0, rows=0.5)}
    )
    document = plan_of(tiny(), Run(tmp_path), rates)
    entries = {entry["stage"]: entry for entry in document["stages"]}
    planned_entry = entries["1-respond"]
    assert (planned_entry["seconds_expected"], planned_entry["seconds_low"], planned_entry["seconds_high"]) == (30, 30, 80)
    assert (planned_entry["input_tokens"], planned_entry["output_tokens"], planned_entry["bytes"], planned_entry["gpu_seconds"]) == (
        800,
        1200,
        4000,
        60,
    )
    assert entries["0-train"]["steps"] == 3  # 20 pairs of 40 prompts in steps of 8
    assert entries["0-train"]["seconds_expected"] == 11 and entries["1-creator-respond"]["seconds_expected"] is None
    todo = document["to_do"]
    assert todo["seconds_expected"] == sum(iteration["seconds_expected"] for iteration in document["iterations"]) == 82
    assert todo["wall_seconds_expected"] == 82 + 3 + 0.5 * todo["stages"] and todo["unmeasured"] == todo["stages"] - 6
    assert todo["gpu_hours"] == pytest.approx((2 * 60 + 2 * 44) / 3600)


def test_each_iteration_has_a_size_of_its_own(tmp_path: Path) -> None:
    subset = plan_of(tiny(creator__control="no_evolve"), Run(tmp_path))["stages"]
    rows = {entry["stage"]: entry["rows"] for entry in subset}
    assert [rows[f"0-{name}"] for name in ("respond", "reward", "pair")] == [40] * 3
    assert [rows[f"1-{name}"] for name in ("creator-respond", "creator-reward")] == [40] * 2
    assert [rows[f"1-{name}"] for name in ("select", "subset", "respond", "reward", "pair")] == [10] * 5
    probes = plan_of(tiny(evaluation__benchmarks=[]), Run(tmp_path))["stages"]
    assert {entry["rows"] for entry in probes if "probe" in entry["stage"]} == {40}  # 64, or all prompts where there are fewer
    scratch = plan_of(tiny(solver__training__start="scratch"), Run(tmp_path))["stages"]
    assert [entry["steps"] for entry in scratch if entry["stage"].endswith("-train")] == [5, 10]


def test_a_stage_has_its_own_rate_else_that_of_the_iteration_before() -> None:
    stages = {
        stage.label: stage for stage in closure([stage for iteration in build_rounds(tiny(iterations=2)) for stage in iteration.stages])
    }
    labels = ("respond", "0-respond", "1-respond")
    rates = Rates(stages={label: Rate(seconds_per_unit=index) for index, label in enumerate(labels)})

    def expected_rate(label: str, table: Rates) -> float | None:
        rate = table.of(stages[label])
        return rate and rate.seconds_per_unit

    assert [expected_rate(f"{number}-respond", rates) for number in (0, 1, 2)] == [1, 2, 2]
    assert expected_rate("1-creator-respond", rates) is None
    later = Rates(stages={"1-respond": Rate(seconds_per_unit=7)})
    assert expected_rate("0-respond", later) == 7
    given_rates = Rates(start_seconds=9, stages={"respond": Rate(seconds_per_unit=5)}).complete_with(rates)
    assert [expected_rate(f"{number}-respond", given_rates) for number in (0, 2)] == [5, 5] and given_rates.start_seconds == 9
    assert [expected_rate(f"{number}-respond", later.complete_with(rates)) for number in (0, 1)] == [1, 7]


def test_a_rate_from_a_manifest_with_a_pace_separates_start_and_work() -> None:
    manifest = {"stage": "evolve", "rows": 40, "seconds": 10.0, "counts": {"output_tokens": 80}, "bytes": 400}
    pace = {"units": 10, "total": 10, "seconds_per_unit": 0.6, "fastest": 0.5, "slowest": 0.9}
    followed_rate = rate_of({**manifest, "pace": pace}, 40)
    assert followed_rate is not None and followed_rate.slowest and followed_rate.fastest
    assert (followed_rate.fixed_seconds, followed_rate.seconds(80)) == (4.0, pytest.approx(16.0))
    assert followed_rate.slowest.seconds(80) == pytest.approx(22.0) and (followed_rate.output_tokens, followed_rate.bytes) == (2.0, 10.0)
    unfollowed_rate = rate_of(manifest, 40)
    assert unfollowed_rate is not None and unfollowed_rate.slowest and unfollowed_rate.fastest
    assert [line.seconds(80) for line in (unfollowed_rate.fastest, unfollowed_rate, unfollowed_rate.slowest)] == [10, 15, 20]
    assert rate_of(manifest, None) is None
    assert rate_of({**manifest, "computed_share": 0.5}, 40) is None, "what an earlier attempt made took longer than the last one tells"
    training_rate = rate_of(
        {**manifest, "stage": "train", "rows": None, "pace": pace, "reference_seconds": 2.0, "counts": {"steps": 10}}, None
    )
    assert training_rate is not None and (training_rate.fixed_seconds, training_rate.seconds(100)) == (2.0, pytest.approx(2 + 60 + 20))


def test_tokens_of_llm_judges_in_rewards_are_counted_at_most(tmp_path: Path) -> None:
    judge = {"kind": "llm_judge", "judge": PAID_MODEL}
    recipe = tiny(reward=judge, creator__curate__admit={"fraction": 0.5}, evaluation__benchmarks=[], health__answers=0)
    limit = recipe.policy.generator.max_new_tokens
    entries = {entry["stage"]: entry for entry in plan_of(recipe, Run(tmp_path))["stages"]}
    assert entries["0-reward"]["tokens"] == 40 * 4 * 100 and entries["1-admit-reward"]["tokens"] == 40 * 4 * 100
    assert entries["1-admit-respond"]["tokens"] == 40 * 4 * limit
    rates = Rates(stages={"reward": Rate(seconds_per_unit=1, input_tokens=900, output_tokens=50)})
    planned_entry = next(entry for entry in plan_of(recipe, Run(tmp_path), rates)["stages"] if entry["stage"] == "0-reward")
    assert planned_entry["usd"] == pytest.approx(40 * 900e-6 + 40 * 400 * 2e-6) and planned_entry["usd_expected"] == pytest.approx(
        40 * (900e-6 + 100e-6)
    )


def test_a_sum_with_unknown_parts_is_shown_as_a_lower_bound(tmp_path: Path) -> None:
    rates = Rates(stages={"respond": Rate(seconds_per_unit=1, input_tokens=10, output_tokens=20, gpus=0)})
    document = plan_of(tiny(creator__evolve__generator=PAID_MODEL), Run(tmp_path), rates)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(plan_tables(document))
    (words,) = [line.split() for line in console.export_text().splitlines() if line.strip().startswith("all to do")]
    assert words[4:8] == [">=", "800", ">=", "1,600"] and words[-1] == "-" and "CPU" not in words and "0.00" not in words


def test_on_policy_training_has_the_disk_size_of_its_policy_not_of_its_reward(tmp_path: Path) -> None:
    plain = {entry["stage"]: entry for entry in plan_of(tiny(), Run(tmp_path))["stages"]}["0-train"]
    save_reward(tmp_path / "reward", tokenizer(["a b c"]))
    reward = {"kind": "sequence_classifier", "model": str(tmp_path / "reward")}
    recipe = tiny(reward=reward, solver__loss={"kind": "rloo"}, evaluation__benchmarks=[])
    online = {entry["stage"]: entry for entry in plan_of(recipe, Run(tmp_path))["stages"]}["0-train"]
    assert [online[name] for name in ("bytes", "checkpoint_bytes")] == [plain[name] for name in ("bytes", "checkpoint_bytes")]


def test_every_error_in_a_table_of_rates_is_reported_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text("start_seconds: -1\nstages:\n  respond: {seconds_per_unit: 1, gpu: 2}\n  train: {fixed_seconds: 2}\n")
    message = run_eva("plan", "quickstart", "--rates", str(path), "--run-dir", str(tmp_path / "run"), code=2).stderr
    assert f"{path}:1: start_seconds: is -1; input should be greater than or equal to 0" in message
    assert f"{path}:3: stages.respond.gpu: unknown field; known here: bytes, fastest, fixed_seconds, gpus" in message
    assert f"{path}:4: stages.train.seconds_per_unit: is required and missing" in message
    for text, word in (("- respond", "a table of rates is a mapping"), ("a: [", "not valid YAML")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=word):
            read_rates(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_rates(tmp_path / "gone.yaml")


def test_paid_stages_are_not_measured_and_have_no_price_without_tokens(tmp_path: Path) -> None:
    recipe = tiny(creator__evolve__generator=PAID_MODEL)
    labels = {
        stage.label for stage in free_stages([stage for iteration in build_rounds(reduced_recipe(recipe)) for stage in iteration.stages])
    }
    assert {"0-train", "1-creator-respond", "1-select"} <= labels
    assert not labels & {"1-evolve", "1-curate", "1-mix", "1-respond", "1-train"}
    run = Run(tmp_path)
    unknown = plan_of(recipe, run)
    assert {entry["stage"] for entry in unknown["stages"] if entry["usd"] is None} == {"1-evolve"} and unknown["to_do"]["unpriced"] == 1
    rates = Rates(stages={"evolve": Rate(seconds_per_unit=1, input_tokens=300, output_tokens=50)})
    planned_entry = next(entry for entry in plan_of(recipe, run, rates)["stages"] if entry["stage"] == "1-evolve")
    assert planned_entry["usd_expected"] == pytest.approx(40 * (300 * 1e-6 + 50 * 2e-6))
    assert planned_entry["usd"] == pytest.approx(40 * (300 * 1e-6 + 100 * 2e-6))


def test_public_benchmarks_have_the_rate_of_responding(tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": f"{n} + 1?", "answer": f"#### {n + 1}"}) + "\n" for n in range(8)))
    benchmark = {"kind": "gsm8k", "questions": str(questions), "max_new_tokens": 64}
    rates = Rates(
        stages={"respond": Rate(fixed_seconds=4, seconds_per_unit=2, output_tokens=100, gpus=1, slowest=Line(seconds_per_unit=6))}
    )
    document = plan_of(tiny(evaluation__benchmarks=[benchmark]), Run(tmp_path), rates)
    planned_entry = next(entry for entry in document["stages"] if entry["stage"] == "1-eval-gsm8k-answer")
    assert (planned_entry["seconds_expected"], planned_entry["seconds_high"]) == (
        4 + 8 * 2 / 4,
        8 * 6 / 4,
    )  # one answer against four responses
    assert (planned_entry["output_tokens"], planned_entry["tokens"]) == (200, 8 * 64)


def test_finished_stages_predict_the_time_of_later_ones(tiny_run: Path) -> None:
    document = plan_of(tiny(iterations=2), Run(tiny_run))
    todo = [entry for entry in document["stages"] if entry["state"] == "to do"]
    assert {entry["iteration"] for entry in todo} == {2} and document["to_do"]["unmeasured"] == 0
    assert all(entry["seconds_low"] <= entry["seconds_expected"] <= entry["seconds_high"] for entry in todo)
    entries = {entry["stage"]: entry for entry in document["stages"]}
    assert entries["2-respond"]["output_tokens"] == entries["1-respond"]["output_tokens"] > 0
    assert entries["1-respond"]["seconds_expected"] == entries["1-respond"]["seconds"] > 0 and entries["2-respond"]["seconds"] is None
    assert plan_tables(document).renderables


def test_lengths_are_those_of_the_responses_at_hand_and_not_of_a_probe(tiny_run: Path, tmp_path: Path) -> None:
    probe = Rate(fixed_seconds=1, seconds_per_unit=2, fastest=Line(seconds_per_unit=1), slowest=Line(seconds_per_unit=3), output_tokens=200)
    new_run = Run(tmp_path / "run", Run(tiny_run).store.root)
    write_rates(new_run, Rates(stages={"respond": probe}))

    def planned_entries(rates: Rates | None = None, **changes: object) -> dict[str, dict[str, Any]]:
        return {entry["stage"]: entry for entry in plan_of(tiny(**changes), new_run, rates)["stages"]}

    entries = planned_entries(solver__responses=2)
    counts = manifests(tiny_run)["0-respond"]["counts"]
    length = counts["output_tokens"] / counts["responses"]
    assert entries["0-respond"]["state"] == "to do" and entries["0-respond"]["output_tokens"] == round(40 * 2 * length)
    assert entries["0-respond"]["seconds_expected"] == pytest.approx(1 + 2 * 40 * 2 * length / 200, abs=1e-3)
    assert entries["0-respond"]["seconds_high"] == pytest.approx(3 * 40 * 2 * length / 200, abs=1e-3)
    assert entries["1-respond"]["output_tokens"] == 40 * 200  # its policy and its prompts do not exist yet
    assert planned_entries(policy__generator__temperature=0.5)["0-respond"]["output_tokens"] == 40 * 200
    given_rates = Rates(stages={"respond": Rate(seconds_per_unit=1, output_tokens=5)})
    assert planned_entries(given_rates, solver__responses=2)["0-respond"]["output_tokens"] == 40 * 5


def test_measuring_times_every_stage_and_saves_the_rates_in_the_run(tmp_path: Path) -> None:
    settings = overrides(TINY | {"iterations": 0, "evaluation.benchmarks": []})
    run = tmp_path / "run"
    document = json.loads(run_eva("plan", "quickstart", "--run-dir", str(run), *settings, "--measure", "--json").stdout)
    assert document["measured_on"] and document["to_do"]["unmeasured"] == 0
    assert all(entry["state"] == "to do" and entry["gpus"] is not None for entry in document["stages"])
    walls = [document["to_do"][f"wall_seconds_{name}"] for name in ("low", "expected", "high")]
    assert walls == sorted(walls) and walls[1] > document["to_do"]["seconds_expected"] > 0
    assert [path.name for path in run.iterdir()] == ["rates.json"]
    document_after = plan_of(tiny(iterations=0, evaluation__benchmarks=[]), Run(run))
    assert document_after["to_do"] == document["to_do"]


def test_rates_of_an_unknown_stage_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text("stages: {respnd: {seconds_per_unit: 3}, 1-respond: {seconds_per_unit: 1}, train: {seconds_per_unit: 1}}")
    result = run_eva("plan", "quickstart", "--rates", str(path), "--run-dir", str(tmp_path / "run"), "--json")
    assert "quickstart has no stage respnd\n" in result.stderr and json.loads(result.stdout)["to_do"]["unmeasured"] > 0


def test_an_interval_of_online_training_has_the_calls_of_its_models_and_their_price(tmp_path: Path) -> None:
    online_recipe = load_recipe("lettercraft/online")
    entries = {entry["stage"]: entry for entry in plan_of(online_recipe, Run(tmp_path))["stages"]}
    assert entries["0-train"]["calls"] == {"rewards": 16 * 16 * 6}
    assert entries["1-train"]["calls"] == {"rewards": 16 * 16 * 6, "evolver": 16 * 4 * 4}
    assert (entries["1-train"]["steps"], entries["1-train"]["tokens"], entries["1-train"]["usd"]) == (16, 16 * 16 * 6 * 72, 0)
    assert (entries["1-select"]["rows"], entries["1-evolve"]["rows"], entries["1-mix"]["rows"]) == (64, 256, 256)
    assert all(entry["tokens"] == 0 for name, entry in entries.items() if name.endswith(("respond", "evolve")))
    judge = {"kind": "litellm", "model": "openai/gpt-4.1-mini", "max_new_tokens": 200}
    changes = {"creator.evolve.generator": judge, "creator.curate.gate": {"answerable": "judge", "judge": judge}}
    paid_recipe = load_recipe("lettercraft/online", [f"{name}={json.dumps(value)}" for name, value in changes.items()])
    document = plan_of(paid_recipe, Run(tmp_path))
    paid_entries = {entry["stage"]: entry for entry in document["stages"]}
    assert paid_entries["1-train"]["calls"]["gate"] == 2 * 256 and paid_entries["0-train"]["usd"] == 0
    assert 0 < paid_entries["1-train"]["usd_expected"] < paid_entries["1-train"]["usd"]
    assert document["to_do"]["usd"] == pytest.approx(2 * paid_entries["1-train"]["usd"])
    assert paid_entries["1-train"]["tokens"] == entries["1-train"]["tokens"] + 200 * (256 + 512)
