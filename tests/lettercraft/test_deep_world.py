import json
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from eva_stages.core.runner import Context
from eva_stages.core.tables import read_table
from eva_stages.creator.prompt_loading import held_out_instructions, load_held_out, load_lettercraft, seed_instructions
from eva_stages.lettercraft.deep_policy import DeepPolicyRecipe, demonstration_batches, slip_probability
from eva_stages.lettercraft.distributions import WEAK_OPERATIONS, is_within_reach
from eva_stages.lettercraft.language import OPERATIONS, STEP, exact_grade, parse
from eva_stages.lettercraft.policy import build_model, build_tokenizer, train
from eva_stages.models.transformers_generator import TransformersGenerator

DEEP_POLICY = Path(str(resources.files("eva_stages.lettercraft") / "base_policy_deep"))


def weak_share(instructions: list) -> float:
    return float(np.mean([name in WEAK_OPERATIONS for instruction in instructions for name in instruction.operations]))


def test_weak_operations_are_rare_in_the_seed_prompts_and_frequent_in_the_target() -> None:
    seeds, target = seed_instructions(1, 500, "deep"), held_out_instructions(500, "deep_target")
    assert {len(instruction.operations) for instruction in seeds} == {1, 2}
    assert {len(instruction.operations) for instruction in target} == {4, 5}
    assert all(is_within_reach(instruction) for instruction in (*seeds, *target))
    assert weak_share(seeds) < 0.15 and weak_share(target) > 0.45


def test_fresh_prompts_of_the_target_are_not_those_of_the_benchmark() -> None:
    fresh = {str(instruction) for instruction in seed_instructions(3, 600, "deep_target")}
    assert len(fresh) == 600 and not fresh & {str(instruction) for instruction in held_out_instructions(2000, "deep_target")}


def test_a_teacher_slips_only_by_copying_and_as_often_as_the_recipe_says() -> None:
    recipe = DeepPolicyRecipe(batch_size=128)
    slips, expected = [], []
    for prompt, response in next(demonstration_batches(recipe)):
        instruction = parse(prompt)
        assert instruction is not None
        word, *parts = response.split(STEP)
        assert word == instruction.word and tuple(parts[::2]) == instruction.operations
        for step, (name, result) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
            assert result in (word, OPERATIONS[name](word))
            if OPERATIONS[name](word) not in ("", word):
                slips.append(result == word)
                expected.append(slip_probability(recipe, instruction.operations, step))
            word = result
    assert np.mean(slips) == pytest.approx(np.mean(expected), abs=0.1)


def test_the_shipped_deep_policy_is_what_its_recipe_describes() -> None:
    assert json.loads((DEEP_POLICY / "lettercraft_recipe.json").read_text()) == json.loads(json.dumps(asdict(DeepPolicyRecipe())))
    packaged_model, recipe_model = AutoModelForCausalLM.from_pretrained(DEEP_POLICY), build_model(DeepPolicyRecipe(), build_tokenizer())
    assert {name: value.shape for name, value in packaged_model.state_dict().items()} == {
        name: value.shape for name, value in recipe_model.state_dict().items()
    }
    assert AutoTokenizer.from_pretrained(DEEP_POLICY).get_vocab() == build_tokenizer().get_vocab()
    assert sum(path.stat().st_size for path in DEEP_POLICY.iterdir()) < 3 * 2**20


def test_the_deep_policy_can_be_trained() -> None:
    recipe = DeepPolicyRecipe(steps=2, batch_size=8)
    model, _ = train(recipe, demonstration_batches(recipe))
    assert sum(parameter.numel() for parameter in model.parameters()) < 500_000


def test_the_deep_policy_solves_most_seed_prompts_and_hardly_any_of_the_target() -> None:
    generator = TransformersGenerator(model=str(DEEP_POLICY), max_new_tokens=72, temperature=1.0, top_p=1.0)
    generator.load()
    shares = []
    for instructions in (seed_instructions(42, 100, "deep"), held_out_instructions(100, "deep_target")):
        outputs = generator.generate([[{"role": "user", "content": str(item)}] for item in instructions], 6, seeds=list(range(100)))
        grades = [[exact_grade(i, text or "") for text in output["generations"]] for i, output in zip(instructions, outputs, strict=True)]
        shares.append(np.array(grades))
    seeds, target = shares
    assert 0.75 < seeds.mean() < 0.95 and (seeds.max(axis=1) > seeds.min(axis=1)).mean() > 0.15
    assert target.mean() < 0.05 and target.max(axis=1).mean() < 0.14


def test_prompts_have_their_answers_as_references_only_where_the_recipe_requests_it(tmp_path: Path) -> None:
    for references in (False, True):
        for number, load in enumerate((load_lettercraft, load_held_out)):
            folder = tmp_path / f"{number}-{references}"
            context = Context(folder, folder / "data", {}, cast(Any, None), folder)
            settings: dict[str, Any] = {"seed": 1} if load is load_lettercraft else {}
            load(context, size=8, distribution="deep", **settings, **({"references": True} if references else {}))
            for row in read_table(folder / "data").to_pylist():
                instruction = parse(row["messages"][0]["content"])
                assert instruction is not None and row["reference"] == (instruction.answer if references else None)
