"""Plans without rates, with given ones, from a run's own stages, and from a measurement."""

import io
import json
from pathlib import Path

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
from eva_stages.planning.rates import Line, Rate, Rates, rate_of, read_rates
from tests.building import built, planned
from tests.conftest import TINY, overrides, run_eva
from tests.tiny_models import save_reward, tokenizer

UNKNOWN = ("input_tokens", "output_tokens", "seconds_expected", "gpu_seconds", "gpu_hours")
PAID = {"kind": "litellm", "model": "openai/some-model", "max_new_tokens": 100, "runtime": {"price": {"input": 1.0, "output": 2.0}}}


def tiny(**changes: object) -> Recipe:
    settings = TINY | {name.replace("__", "."): value for name, value in changes.items()}
    return load_recipe("quickstart", [f"{name}={json.dumps(value)}" for name, value in settings.items()])


def test_what_is_not_measured_is_null_and_never_zero(tmp_path: Path) -> None:
    document = planned(tiny(), Run(tmp_path / "run"))
    for entry in (*document["stages"], *document["iterations"], document["to_do"]):
        assert [entry[name] for name in UNKNOWN] == [None] * 5
    assert document["to_do"]["wall_seconds_expected"] is None
    assert document["to_do"]["unmeasured"] == document["to_do"]["stages"] == len(document["stages"])
    assert document["to_do"]["tokens"] == sum(entry["tokens"] or 0 for entry in document["stages"])
    assert not (tmp_path / "run").exists()


def test_the_disk_that_training_takes_is_known_without_a_rate(tmp_path: Path) -> None:
    folder = find_checkpoint("lettercraft", None, "policy.model").path
    weights = sum(tensor.size for tensor in load_file(folder / "model.safetensors").values())
    entries = {entry["stage"]: entry for entry in planned(tiny(), Run(tmp_path))["stages"]}
    assert entries["0-train"]["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    assert entries["0-train"]["checkpoint_bytes"] == 3 * weights * 4 * 3  # float32 and the two moments of Adam, three checkpoints
    adapter = tiny(solver__training__adapter={"kind": "lora"})
    assert {entry["checkpoint_bytes"] for entry in planned(adapter, Run(tmp_path))["stages"]} == {None}


def test_given_rates_are_added_up_by_iteration_and_in_all(tmp_path: Path) -> None:
    respond = Rate(
        fixed_seconds=10, seconds_per_unit=0.5, input_tokens=20, output_tokens=30, bytes=100, gpus=2, slowest=Line(seconds_per_unit=2)
    )
    train = Rate(fixed_seconds=5, seconds_per_unit=2, gpus=4)
    rates = Rates(
        start_seconds=3, between_seconds=0.5, stages={"respond": respond, "train": train, "pair": Rate(seconds_per_unit=0, rows=0.5)}
    )
    document = planned(tiny(), Run(tmp_path), rates)
    entries = {entry["stage"]: entry for entry in document["stages"]}
    told = entries["1-respond"]
    assert (told["seconds_expected"], told["seconds_low"], told["seconds_high"]) == (30, 30, 80)
    assert (told["input_tokens"], told["output_tokens"], told["bytes"], told["gpu_seconds"]) == (800, 1200, 4000, 60)
    assert entries["0-train"]["steps"] == 3  # 20 pairs of 40 prompts in steps of 8
    assert entries["0-train"]["seconds_expected"] == 11 and entries["1-creator-respond"]["seconds_expected"] is None
    todo = document["to_do"]
    assert todo["seconds_expected"] == sum(one["seconds_expected"] for one in document["iterations"]) == 82
    assert todo["wall_seconds_expected"] == 82 + 3 + 0.5 * todo["stages"] and todo["unmeasured"] == todo["stages"] - 6
    assert todo["gpu_hours"] == pytest.approx((2 * 60 + 2 * 44) / 3600)


def test_each_iteration_has_a_size_of_its_own(tmp_path: Path) -> None:
    subset = planned(tiny(creator__control="no_evolve"), Run(tmp_path))["stages"]
    rows = {entry["stage"]: entry["rows"] for entry in subset}
    assert [rows[f"0-{name}"] for name in ("respond", "reward", "pair")] == [40] * 3
    assert [rows[f"1-{name}"] for name in ("creator-respond", "creator-reward")] == [40] * 2
    assert [rows[f"1-{name}"] for name in ("select", "subset", "respond", "reward", "pair")] == [10] * 5
    scratch = planned(tiny(solver__training__start="scratch"), Run(tmp_path))["stages"]
    assert [entry["steps"] for entry in scratch if entry["stage"].endswith("-train")] == [5, 10]


def test_a_stage_goes_by_its_own_rate_then_by_the_iterations_before_it() -> None:
    stages = {stage.label: stage for stage in closure([stage for one in built(tiny(iterations=2)) for stage in one.stages])}
    labels = ("respond", "0-respond", "1-respond")
    rates = Rates(stages={label: Rate(seconds_per_unit=index) for index, label in enumerate(labels)})

    def found(label: str, table: Rates) -> float | None:
        rate = table.of(stages[label])
        return rate and rate.seconds_per_unit

    assert [found(f"{number}-respond", rates) for number in (0, 1, 2)] == [1, 2, 2]
    assert found("1-creator-respond", rates) is None
    later = Rates(stages={"1-respond": Rate(seconds_per_unit=7)})
    assert found("0-respond", later) == 7
    given = Rates(start_seconds=9, stages={"respond": Rate(seconds_per_unit=5)}).or_else(rates)
    assert [found(f"{number}-respond", given) for number in (0, 2)] == [5, 5] and given.start_seconds == 9
    assert [found(f"{number}-respond", later.or_else(rates)) for number in (0, 1)] == [1, 7]


def test_a_rate_from_a_manifest_separates_the_start_from_the_work_where_that_was_followed() -> None:
    manifest = {"stage": "evolve", "rows": 40, "seconds": 10.0, "counts": {"output_tokens": 80}, "bytes": 400}
    pace = {"units": 10, "total": 10, "seconds_per_unit": 0.6, "fastest": 0.5, "slowest": 0.9}
    followed = rate_of({**manifest, "pace": pace}, 40)
    assert followed is not None and followed.slowest and followed.fastest
    assert (followed.fixed_seconds, followed.seconds(80)) == (4.0, pytest.approx(16.0))
    assert followed.slowest.seconds(80) == pytest.approx(22.0) and (followed.output_tokens, followed.bytes) == (2.0, 10.0)
    other = rate_of(manifest, 40)
    assert other is not None and other.slowest and other.fastest
    assert [line.seconds(80) for line in (other.fastest, other, other.slowest)] == [10, 15, 20]
    assert rate_of(manifest, None) is None
    assert rate_of({**manifest, "computed_share": 0.5}, 40) is None, "what an earlier attempt made took longer than the last one tells"
    trained = rate_of({**manifest, "stage": "train", "rows": None, "pace": pace, "reference_seconds": 2.0, "counts": {"steps": 10}}, None)
    assert trained is not None and (trained.fixed_seconds, trained.seconds(100)) == (2.0, pytest.approx(2 + 60 + 20))


def test_what_a_language_model_says_as_reward_and_to_admit_prompts_is_counted_at_most(tmp_path: Path) -> None:
    judge = {"kind": "llm_judge", "judge": PAID}
    recipe = tiny(reward=judge, creator__curate__admit={"fraction": 0.5}, evaluation__benchmarks=[], health__answers=0)
    limit = recipe.policy.generator.max_new_tokens
    entries = {entry["stage"]: entry for entry in planned(recipe, Run(tmp_path))["stages"]}
    assert entries["0-reward"]["tokens"] == 40 * 4 * 100 and entries["1-admit-reward"]["tokens"] == 40 * 4 * 100
    assert entries["1-admit-respond"]["tokens"] == 40 * 4 * limit
    rates = Rates(stages={"reward": Rate(seconds_per_unit=1, input_tokens=900, output_tokens=50)})
    told = next(entry for entry in planned(recipe, Run(tmp_path), rates)["stages"] if entry["stage"] == "0-reward")
    assert told["usd"] == pytest.approx(40 * 900e-6 + 40 * 400 * 2e-6) and told["usd_expected"] == pytest.approx(40 * (900e-6 + 100e-6))


def test_a_sum_of_what_is_known_in_part_is_told_as_one(tmp_path: Path) -> None:
    rates = Rates(stages={"respond": Rate(seconds_per_unit=1, input_tokens=10, output_tokens=20, gpus=0)})
    document = planned(tiny(creator__evolve__generator=PAID), Run(tmp_path), rates)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(plan_tables(document))
    (told,) = [line.split() for line in console.export_text().splitlines() if line.strip().startswith("all to do")]
    assert told[4:8] == [">=", "800", ">=", "1,600"] and told[-1] == "-" and "CPU" not in told and "0.00" not in told


def test_a_training_by_rewards_takes_the_disk_of_its_policy_and_not_of_its_reward(tmp_path: Path) -> None:
    plain = {entry["stage"]: entry for entry in planned(tiny(), Run(tmp_path))["stages"]}["0-train"]
    save_reward(tmp_path / "reward", tokenizer(["a b c"]))
    reward = {"kind": "sequence_classifier", "model": str(tmp_path / "reward")}
    recipe = tiny(reward=reward, solver__loss={"kind": "rloo"}, evaluation__benchmarks=[])
    online = {entry["stage"]: entry for entry in planned(recipe, Run(tmp_path))["stages"]}["0-train"]
    assert [online[name] for name in ("bytes", "checkpoint_bytes")] == [plain[name] for name in ("bytes", "checkpoint_bytes")]


def test_a_bad_table_of_rates_is_refused_with_every_fault_and_its_place(tmp_path: Path) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text("start_seconds: -1\nstages:\n  respond: {seconds_per_unit: 1, gpu: 2}\n  train: {fixed_seconds: 2}\n")
    said = run_eva("plan", "quickstart", "--rates", str(path), "--run-dir", str(tmp_path / "run"), code=2).stderr
    assert f"{path}:1: start_seconds: is -1; input should be greater than or equal to 0" in said
    assert f"{path}:3: stages.respond.gpu: unknown field; known here: bytes, fastest, fixed_seconds, gpus" in said
    assert f"{path}:4: stages.train.seconds_per_unit: is required and missing" in said
    for text, word in (("- respond", "a table of rates is a mapping"), ("a: [", "not valid YAML")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=word):
            read_rates(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_rates(tmp_path / "gone.yaml")


def test_nothing_that_costs_money_is_measured_and_its_price_is_not_known_without_tokens(tmp_path: Path) -> None:
    recipe = tiny(creator__evolve__generator=PAID)
    measured = {stage.label for stage in free_stages([stage for one in built(reduced_recipe(recipe)) for stage in one.stages])}
    assert {"0-train", "1-creator-respond", "1-select"} <= measured
    assert not measured & {"1-evolve", "1-curate", "1-mix", "1-respond", "1-train"}
    run = Run(tmp_path)
    unknown = planned(recipe, run)
    assert {entry["stage"] for entry in unknown["stages"] if entry["usd"] is None} == {"1-evolve"} and unknown["to_do"]["unpriced"] == 1
    rates = Rates(stages={"evolve": Rate(seconds_per_unit=1, input_tokens=300, output_tokens=50)})
    told = next(entry for entry in planned(recipe, run, rates)["stages"] if entry["stage"] == "1-evolve")
    assert told["usd_expected"] == pytest.approx(40 * (300 * 1e-6 + 50 * 2e-6))
    assert told["usd"] == pytest.approx(40 * (300 * 1e-6 + 100 * 2e-6))


def test_public_benchmarks_are_answered_at_the_rate_of_responding(tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"question": f"{n} + 1?", "answer": f"#### {n + 1}"}) + "\n" for n in range(8)))
    benchmark = {"kind": "gsm8k", "questions": str(questions), "max_new_tokens": 64}
    rates = Rates(
        stages={"respond": Rate(fixed_seconds=4, seconds_per_unit=2, output_tokens=100, gpus=1, slowest=Line(seconds_per_unit=6))}
    )
    document = planned(tiny(evaluation__benchmarks=[benchmark]), Run(tmp_path), rates)
    told = next(entry for entry in document["stages"] if entry["stage"] == "1-eval-gsm8k-answer")
    assert (told["seconds_expected"], told["seconds_high"]) == (4 + 8 * 2 / 4, 8 * 6 / 4)  # one answer against four responses
    assert (told["output_tokens"], told["tokens"]) == (200, 8 * 64)


def test_the_stages_that_a_run_has_done_tell_how_long_further_ones_will_take(tiny_run: Path) -> None:
    document = planned(tiny(iterations=2), Run(tiny_run))
    todo = [entry for entry in document["stages"] if entry["state"] == "to do"]
    assert {entry["iteration"] for entry in todo} == {2} and document["to_do"]["unmeasured"] == 0
    assert all(entry["seconds_low"] <= entry["seconds_expected"] <= entry["seconds_high"] for entry in todo)
    made = {entry["stage"]: entry for entry in document["stages"]}
    assert made["2-respond"]["output_tokens"] == made["1-respond"]["output_tokens"] > 0
    assert made["1-respond"]["seconds_expected"] == made["1-respond"]["seconds"] > 0 and made["2-respond"]["seconds"] is None
    assert plan_tables(document).renderables


def test_measuring_times_every_stage_and_keeps_the_rates_with_the_run(tmp_path: Path) -> None:
    settings = overrides(TINY | {"iterations": 0, "evaluation.benchmarks": []})
    run = tmp_path / "run"
    document = json.loads(run_eva("plan", "quickstart", "--run-dir", str(run), *settings, "--measure", "--json").stdout)
    assert document["measured_on"] and document["to_do"]["unmeasured"] == 0
    assert all(entry["state"] == "to do" and entry["gpus"] is not None for entry in document["stages"])
    walls = [document["to_do"][f"wall_seconds_{name}"] for name in ("low", "expected", "high")]
    assert walls == sorted(walls) and walls[1] > document["to_do"]["seconds_expected"] > 0
    assert [path.name for path in run.iterdir()] == ["rates.json"]
    again = planned(tiny(iterations=0, evaluation__benchmarks=[]), Run(run))
    assert again["to_do"] == document["to_do"]


def test_rates_of_a_stage_that_the_recipe_does_not_have_are_told(tmp_path: Path) -> None:
    path = tmp_path / "rates.yaml"
    path.write_text("stages: {respnd: {seconds_per_unit: 3}, 1-respond: {seconds_per_unit: 1}, train: {seconds_per_unit: 1}}")
    done = run_eva("plan", "quickstart", "--rates", str(path), "--run-dir", str(tmp_path / "run"), "--json")
    assert "quickstart has no stage respnd\n" in done.stderr and json.loads(done.stdout)["to_do"]["unmeasured"] > 0
