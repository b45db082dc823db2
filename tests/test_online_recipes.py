"""Recipes of mode online: what contradicts the mode is an error, all at once, and recipes of mode offline are as they were."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError
from eva_stages.core.recipe_files import dump_recipe, load_recipe
from eva_stages.core.stage import closure, uses
from tests.building import build_rounds, check


def recipe(name: str = "lettercraft/online", **changes: Any) -> Recipe:
    return load_recipe(name, [f"{field.replace('__', '.')}={json.dumps(value)}" for field, value in changes.items()])


def errors(**changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as error:
        check(recipe(**changes))
    return error.value.faults


def test_a_resolved_recipe_loads_as_itself(tmp_path: Any) -> None:
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe()))
    assert load_recipe(str(tmp_path / "recipe.yaml")) == recipe()


def test_a_recipe_of_mode_offline_has_no_trace_of_the_other_mode() -> None:
    assert not {"mode", "online"} & set(yaml.safe_load(dump_recipe(recipe("quickstart"))))


def test_all_choices_without_a_meaning_in_mode_online_are_reported_at_once() -> None:
    changes: dict[str, Any] = {
        "solver__loss": {"kind": "dpo"},
        "solver__reference": "previous",
        "solver__training__epochs": 1,
        "creator__responses": 4,
        "creator__evolve__shape": "chain",
        "creator__evolve__multi_shot": {},
        "creator__evolve__generator": {"kind": "vllm", "model": "lettercraft"},
        "creator__curate__novelty": {},
        "creator__curate__archive": {"cell": "lettercraft"},
        "creator__curate__admit": {},
        "creator__mix__evolved_share": 0.5,
        "creator__replay": {},
        "online__buffer__share": 0.01,
        "creator__selection__fraction": 0.01,
    }
    places = {fault.partition(":")[0] for fault in errors(**changes)}
    expected_places = {name.replace("__", ".") for name in changes} - {"solver.loss", "creator.evolve.generator"}
    assert places >= {*expected_places, "solver.loss.kind", "creator.evolve.generator.kind"}


def test_the_mode_and_its_section_come_together() -> None:
    assert errors(mode="offline", solver__loss={"kind": "dpo"})[0].startswith("online: has an effect only with mode online")
    assert any(fault.startswith("online: is missing") for fault in errors(online=None))
    assert any("online.buffer.share=0 with creator.control=no_evolve" in fault for fault in errors(creator__control="longer"))
    assert any(fault.startswith("online.lag: is 2") for fault in errors(creator__control="no_evolve", online__lag=2))


def test_sizes_that_would_leave_a_choice_without_effect_are_reported() -> None:
    faults = errors(online__buffer={"share": 0}, prompts__size=15)
    assert any(fault.startswith("online.buffer.share: is 0, so that no step trains on evolved prompts") for fault in faults)
    assert any(fault.startswith("prompts.size: is 15, and an optimiser step takes 16 prompts") for fault in faults)
    faults = errors(creator__control="human", online__buffer={"share": 0}, prompts__size=15)
    assert any(fault.startswith("online.buffer.share: is 0, so that no step trains on fresh prompts") for fault in faults)
    assert any(fault.startswith("online.buffer.size: is 7, and a step draws 8 prompts") for fault in errors(online__buffer__size=7))


def test_under_an_adapter_the_reference_may_be_named_and_a_share_of_0_is_training_on_seed_prompts() -> None:
    adapter = {"solver__training__adapter": {"kind": "lora"}, "solver__reference": "initial"}
    check(recipe(creator__control="no_evolve", online__buffer__share=0, **adapter))


def test_controls_share_the_warm_up_and_need_no_evolver(tmp_path: Path) -> None:
    rounds = {control: build_rounds(recipe(creator__control=control)) for control in (None, "no_evolve", "human")}
    trainings = {control: [part.solver[-1] for part in parts] for control, parts in rounds.items()}
    assert len({stages[0].fingerprint for stages in trainings.values()}) == 1
    assert len({stages[1].fingerprint for stages in trainings.values()}) == 3
    targets = {control: {use.target for use in uses(stages[1])} for control, stages in trainings.items()}
    evolver = "eva_stages.lettercraft.player:LettercraftLLM"
    assert evolver in targets[None] and not any(evolver in targets[control] for control in ("no_evolve", "human"))
    assert [stage.label for stage in closure(trainings["human"]) if stage.name == "prompts"] == ["0-prompts", "1-prompts", "2-prompts"]
    (tmp_path / "questions.jsonl").write_text('{"question": "Why?"}\n')
    curate = {"decontaminate": {"against": [str(tmp_path / "questions.jsonl")]}}
    clean = build_rounds(recipe(creator__control="human", creator__curate=curate))
    assert [part.solver[-1].inputs["fresh"].name for part in clean[1:]] == ["decontaminate"] * 2
    evolving_targets = {use.target.rpartition(":")[2] for use in uses(trainings[None][1])}
    assert evolving_targets >= {"Curriculum", "StepEvolving", "EvolvePrompts"}


def test_a_later_choice_leaves_finished_intervals_as_they_are() -> None:
    first, second = build_rounds(recipe()), build_rounds(recipe(online__lag=2, online__buffer__share=0.25))
    assert [a.solver[-1].fingerprint == b.solver[-1].fingerprint for a, b in zip(first, second, strict=True)] == [True, False, False]


def test_more_iterations_leave_finished_intervals_as_they_are_if_the_schedule_does() -> None:
    changes = {"constant": (0, 1), "cosine": ()}
    for scheduler, kept_intervals in changes.items():
        first, second = (build_rounds(recipe(iterations=count, solver__training__scheduler=scheduler)) for count in (1, 2))
        equal_intervals = [number for number in range(2) if first[number].solver[-1].fingerprint == second[number].solver[-1].fingerprint]
        assert equal_intervals == list(kept_intervals)
