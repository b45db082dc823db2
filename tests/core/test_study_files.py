"""Reading studies: what is allowed, and that every error names its place, the value, what is allowed and what to do."""

from pathlib import Path

import pytest

from eva_stages.api.study_preparing import prepare_study, read_request
from eva_stages.core.errors import ConfigError
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.study_files import LoadedStudy, find_study, load_study, varied_study
from pipelines.ablation import arm_runs

STUDY = """\
question: Does it help?
base: quickstart
set: {iterations: 1}
seeds: 2
arms:
  eva: {}
  uniform: {creator.metric: uniform}
"""


def load(folder: Path, text: str, **changes: object) -> LoadedStudy:
    (folder / "test.yaml").write_text(text)
    return load_study(str(folder / "test.yaml"), changes)


def test_a_study_is_a_recipe_for_every_arm_and_compares_the_first_arm_with_every_other_one(tmp_path: Path) -> None:
    loaded_study = load(tmp_path, STUDY + "  late: {iterations: 2}\n")
    assert loaded_study.name == "test" and loaded_study.seeds == (42, 43)
    assert loaded_study.study.pairs == (("eva", "uniform"), ("eva", "late"))
    assert {arm: (recipe.creator.metric, recipe.iterations) for arm, recipe in loaded_study.recipes.items()} == {
        "eva": ("reward_gap", 1),
        "uniform": ("uniform", 1),
        "late": ("reward_gap", 2),
    }
    assert load(tmp_path, STUDY, seeds=[7, 3]).seeds == (7, 3)


def test_runs_of_the_first_contrast_come_first(tmp_path: Path) -> None:
    text = STUDY + "  late: {iterations: 2}\ncontrasts: [[late, uniform], [eva, uniform]]\n"
    prepared_study = prepare_study(load(tmp_path, text), tmp_path)
    assert [run.label for run in prepared_study.runs] == ["late/42", "uniform/42", "late/43", "uniform/43", "eva/42", "eva/43"]
    assert prepared_study.record.measure == "lettercraft.sampled" and prepared_study.record.runs[0].folder == "eva/42"
    assert [run.recipe.seed for run in prepared_study.runs] == [42, 42, 43, 43, 42, 43]
    assert arm_runs.__module__ == "pipelines.ablation"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "creator.metric",
            "creator.metrik",
            r"test.yaml:7: arm uniform: creator.metrik: unknown field; known here: .*Did you mean metric\?",
        ),
        (
            "creator.metric: uniform",
            "creatr.metric: uniform",
            r"test.yaml:7: arm uniform: creatr: unknown field; .* Did you mean creator\?",
        ),
        ("metric: uniform", "metric: unifrm", r"test.yaml:7: arm uniform: creator.metric: is 'unifrm'; known: .*Did you mean uniform\?"),
        ("{iterations: 1}", "{iterations: -1}", r"test.yaml:3: set: iterations: is -1"),
        ("creator.metric: uniform", "creator.metric: reward_gap", "eva and uniform are the same recipe; their difference would be 0"),
        ("creator.metric: uniform", "seed: 7", "arm uniform: sets the seed"),
        ("uniform: {", "../uniform: {", "test.yaml:7: arms.../uniform: the name '../uniform' cannot be that of a folder; use at most 64"),
        ("uniform: {", "lock: {", "lock: files of the study have this name"),
        ("uniform: {", "EVA: {", "arms: eva and EVA are one folder"),
        ("seeds: 2", "seeds: 0", "test.yaml:4: seeds: is 0; expected the number of seeds, from 1"),
        ("seeds: 2", "seeds: [1, 1]", "seeds: has 1 more than once"),
        (
            "seeds: 2",
            "seeds: 2\ncontrasts: [[eva, unifrm]]",
            r"contrasts: 'unifrm' is not an arm; arms: eva, uniform. Did you mean uniform\?",
        ),
        ("seeds: 2", "seeds: 2\ncontrasts: [[eva, eva]]", "compares an arm with itself"),
        ("seeds: 2", "seeds: 2\ncontrasts: [[eva, uniform], [uniform, eva]]", r"\[eva, uniform\] occurs twice, in this order or the other"),
        ("  eva: {}\n", "", "test.yaml:5: arms: has 1; a study compares at least two arms"),
        ("eva: {}", "eva: {", "test.yaml.*not valid YAML"),
        ("{iterations: 1}\nseeds: 2", "{seed: 1}\nseeds: [1, 2]", "seed is set for all arms, and seeds is a list of seeds; remove one"),
        (
            "seeds: 2",
            "seeds: 2\ncontrasts: [eva, uniform]",
            r"contrasts: is .*; expected a list of pairs of arms, as in \[\[eva, uniform\]\]",
        ),
        ("base: quickstart", "base: ./mine.yaml", "test.yaml:2: base: there is no file"),
        ("base: quickstart", "base: metrics", "test.yaml:2: base: metrics is a study, not a recipe"),
        ("seeds: 2", "seeds: 2\nbudget: {}", "test.yaml:5: budget: is empty; give generated_tokens, iterations or both"),
        ("creator.metric: uniform}", "iterations: 2}\nbudget: {iterations: 1}", "iterations is 2, and the study's budget compares after 1"),
        ("seeds: 2", "seed: 2", r"test.yaml:4: seed: unknown field; .* Did you mean seeds\?"),
        ("base: quickstart", "base: quickstrat", r"test.yaml:2: base: there is no recipe 'quickstrat': .*Did you mean quickstart\?"),
    ],
)
def test_an_error_names_place_value_and_fix(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert old in STUDY
    with pytest.raises(ConfigError, match=fault):
        load(tmp_path, STUDY.replace(old, new))


def test_errors_of_all_arms_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, STUDY.replace("eva: {}", "eva: {solver.loss.beta: -1}").replace("metric: uniform", "metric: unifrm"))
    assert [fault.partition(": ")[2].partition(":")[0] for fault in error.value.faults] == ["arm eva", "arm uniform"]


def test_a_measure_that_an_arm_does_not_have_is_an_error(tmp_path: Path) -> None:
    loaded_study = load(tmp_path, STUDY, measure="lettercraft.exakt")
    with pytest.raises(ConfigError, match=r"measure: is 'lettercraft.exakt'; known: .*Did you mean lettercraft.exact\?"):
        prepare_study(loaded_study, tmp_path)


def test_arms_that_differ_in_nothing_that_is_computed_are_an_error(tmp_path: Path) -> None:
    loaded_study = load(tmp_path, STUDY.replace("creator.metric: uniform", "limits.empty: 0.6"))
    with pytest.raises(ConfigError, match="eva and uniform have the same stages"):
        prepare_study(loaded_study, tmp_path)


def test_vary_changes_one_field_at_a_time() -> None:
    loaded_study = varied_study("quickstart", ["creator.metric=reward_gap,uniform", "creator.responses=6,4"], {"seeds": 3})
    assert loaded_study.name == "quickstart-metric-responses" and loaded_study.seeds == (42, 43, 44)
    settings = {arm: (recipe.creator.metric, recipe.creator.responses) for arm, recipe in loaded_study.recipes.items()}
    assert settings == {"reward_gap-6": ("reward_gap", 6), "uniform-6": ("uniform", 6), "reward_gap-4": ("reward_gap", 4)}


@pytest.mark.parametrize(
    ("variations", "seeds", "fault"),
    [
        (["creator.metric=uniform"], "3", "expected a field and at least two values"),
        (["creator.metric=reward_gap,unifrm"], "3", r"--vary: arm unifrm: creator.metric: is 'unifrm'; .*Did you mean uniform\?"),
        (["creator.metric=reward_gap,uniform"], None, "--seeds: is missing"),
        (["creator.metric=reward_gap,uniform"], "many", "seeds: is 'many'; expected the number of seeds"),
        (["creator.metric=a,b", "creator.metric=c,d"], "3", "creator.metric is varied twice"),
        ([f"policy.model={'/model' * 20},other"], "3", "cannot be that of a folder; use at most 64"),
    ],
)
def test_a_wrong_variation_is_an_error(variations: list[str], seeds: str | None, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        read_request("quickstart", variations, [], seeds=seeds)


def test_names_of_studies_and_recipes_are_told_apart(tmp_path: Path) -> None:
    assert find_study("metrics") == find_study("studies/metrics") and find_study("metrics") is not None
    assert find_study("quickstart") is None
    with pytest.raises(ConfigError, match=r"there is no study 'metrcs': .*Did you mean metrics\?"):
        load_study("metrcs", {})
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    with pytest.raises(ConfigError, match="has no arms"):
        load_study(str(tmp_path / "recipe.yaml"), {})
    (tmp_path / "study.yaml").write_text("arms: [\n")
    with pytest.raises(ConfigError, match=r"study.yaml: not valid YAML: .* in line 2"):
        load_study(str(tmp_path / "study.yaml"), {})


def test_a_study_given_as_a_recipe_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.replace("arms:", "arm:"))
    for name in ("metrics", str(path)):
        with pytest.raises(ConfigError) as error:
            load_recipe(name)
        assert error.value.faults == [f"{name} is a study, not a recipe; run it with `eva ablate {name}`"]
    with pytest.raises(ConfigError, match=r"arm: unknown field; .*Did you mean arms"):
        load_study(str(path), {})
