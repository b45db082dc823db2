"""The shipped creator network of Lettercraft deep."""

import json
from collections import Counter
from dataclasses import asdict
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from eva_stages.lettercraft.creator_policy import CreatorPolicyRecipe, demonstration_batches, kind_of_evolution, train_creator
from eva_stages.lettercraft.distributions import deep_instruction, operation_frequencies
from eva_stages.lettercraft.language import parse
from eva_stages.models.transformers_generator import TransformersGenerator

CREATOR = Path(str(resources.files("eva_stages.lettercraft") / "base_creator_deep"))
USELESS = {"unreadable", "contradictory", "out of reach", "unchanged"}


def kind_shares(pairs: list[tuple[str, str]]) -> dict[str, float]:
    kinds: Counter[str] = Counter()
    for prompt, text in pairs:
        parent = parse(prompt)
        assert parent is not None
        kinds[kind_of_evolution(parent, text)] += 1
    return {kind: count / len(pairs) for kind, count in kinds.items()}


def test_its_teacher_is_the_deep_evolver_with_its_errors() -> None:
    recipe = CreatorPolicyRecipe(batch_size=64)
    shares = kind_shares(next(demonstration_batches(recipe)) + next(demonstration_batches(recipe)))
    assert {"another word", "longer word", "another operation more", "one of its operations once more"} <= set(shares)
    tokenizer = AutoTokenizer.from_pretrained(CREATOR)
    for prompt, text in next(demonstration_batches(recipe)):
        assert tokenizer.decode(tokenizer(prompt + text)["input_ids"]) == prompt + text


def test_it_is_what_its_recipe_describes_and_can_be_trained() -> None:
    assert json.loads((CREATOR / "lettercraft_recipe.json").read_text()) == json.loads(json.dumps(asdict(CreatorPolicyRecipe())))
    assert (CREATOR / "model.safetensors").stat().st_size < 0.6 * 2**20
    model, tokenizer = train_creator(CreatorPolicyRecipe(steps=1, batch_size=8))
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(CREATOR).get_vocab()
    assert sum(parameter.numel() for parameter in model.parameters()) < 300_000


def test_its_siblings_differ_and_some_are_of_no_use() -> None:
    generator = TransformersGenerator(model=str(CREATOR), max_new_tokens=72, temperature=1.0, top_p=1.0)
    generator.load()
    rng = np.random.default_rng(3)
    parents = [deep_instruction(rng, int(rng.integers(1, 4)), int(rng.integers(3, 6)), operation_frequencies(0.1)) for _ in range(50)]
    outputs = generator.generate([[{"role": "user", "content": str(parent)}] for parent in parents], 8, seeds=list(range(50)))
    siblings = [[text or "" for text in output["generations"]] for output in outputs]
    shares = kind_shares([(str(parent), text) for parent, texts in zip(parents, siblings, strict=True) for text in texts])
    assert 0.08 < sum(shares.get(kind, 0.0) for kind in USELESS) < 0.25
    assert np.mean([len(set(texts)) for texts in siblings]) == pytest.approx(8, abs=1)
