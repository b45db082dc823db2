"""Which stages two recipes have in common, and so compute once in one store."""

import json
from pathlib import Path

from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.stage import RowStage, Stage, closure, uses
from tests.building import build_rounds

CREATOR = {"creator.responses": 3, "creator.metric": "reward_variance", "creator.selection.fraction": 0.5, "creator.evolve.generations": 2}


def stages_of(recipe: str = "quickstart", **settings: object) -> dict[str, Stage]:
    """The stages of a recipe by label."""
    loaded_recipe = load_recipe(recipe, [f"{name}={json.dumps(value)}" for name, value in settings.items()])
    return {stage.label: stage for stage in closure([stage for iteration in build_rounds(loaded_recipe) for stage in iteration.stages])}


def common(first_stages: dict[str, Stage], second_stages: dict[str, Stage]) -> set[str]:
    assert first_stages.keys() == second_stages.keys()
    return {label for label, stage in first_stages.items() if stage.fingerprint == second_stages[label].fingerprint}


def test_recipes_that_differ_in_one_creator_setting_have_the_whole_base_round_in_common() -> None:
    plain = stages_of()
    base_round = {label for label in plain if label.startswith("0-")}
    assert len(base_round) > 12
    for name, value in CREATOR.items():
        assert common(plain, stages_of(**{name: value})) >= base_round, name


def test_recipes_that_differ_in_the_seed_share_what_samples_nothing_and_needs_nothing_sampled(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": f"Say the word {number} backwards."}) for number in range(8)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    prompts = {"kind": "file", "path": str(tmp_path / "prompts.jsonl"), "column": "prompt", "size": None}
    judge = {"kind": "transformers", "model": load_recipe("quickstart", []).policy.model, "temperature": 0.0}
    (tmp_path / "questions.jsonl").write_text(json.dumps({"question": "What is 1 + 1?", "answer": "#### 2"}))
    gsm8k = {"kind": "gsm8k", "questions": str(tmp_path / "questions.jsonl"), "temperature": 0.0}
    lettercraft_benchmark = {"kind": "lettercraft", "judge": judge}
    settings = {"prompts": prompts, "iterations": 0, "evaluation.benchmarks": [lettercraft_benchmark, gsm8k]}
    first_stages, second_stages = (stages_of(**settings, seed=seed) for seed in (1, 2))
    seeded_labels = {label for label, stage in first_stages.items() if any("seed" in use.arguments for use in uses(stage))}
    assert {"0-respond", "0-base-answer", "0-train"} <= seeded_labels and not seeded_labels & {
        "0-prompts",
        "0-base-gsm8k-answer",
        "0-eval-judge",
    }
    depending = set(seeded_labels)
    for stage in first_stages.values():  # upstream first
        if any(isinstance(upstream, Stage) and upstream.label in depending for upstream in stage.inputs.values()):
            depending.add(stage.label)
    shared_labels = common(first_stages, second_stages)
    assert shared_labels == first_stages.keys() - depending
    assert shared_labels >= {"0-prompts", "0-questions", "0-gsm8k-questions", "0-base-gsm8k-answer"}
    drawn_stages = [stages_of(**settings | {"prompts": {**prompts, "size": 4}}, seed=seed) for seed in (1, 2)]
    assert "0-prompts" not in common(*drawn_stages)
    assert all(isinstance(first_stages[label], RowStage) for label in ("0-base-gsm8k-answer", "0-respond"))


def test_a_chain_has_the_identity_that_it_had_before_there_were_shapes() -> None:
    shape, method = "creator.evolve.shape", "creator.evolve.method"
    chain, siblings = stages_of(), stages_of(**{shape: "siblings"})
    assert not [use for use in uses(chain["1-evolve"]) if "shape" in use.arguments]
    assert common(chain, siblings) >= {"1-select", "1-creator-reward"}
    assert chain["1-evolve"].fingerprint != siblings["1-evolve"].fingerprint
    new_prompts = stages_of(**{method: "self_instruct"})
    assert common(new_prompts, stages_of(**{method: "self_instruct", shape: "siblings"})) == new_prompts.keys()
