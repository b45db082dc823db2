import json
from dataclasses import asdict
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from eva_stages.creator.prompt_loading import held_out_instructions, seed_instructions
from eva_stages.lettercraft.language import grade
from eva_stages.lettercraft.policy import PolicyRecipe, build_model, build_tokenizer, demonstration, measure, sloppy_batches, train
from eva_stages.models.transformers_generator import TransformersGenerator

PACKAGED_POLICY = Path(str(resources.files("eva_stages.lettercraft") / "base_policy"))


def test_the_shipped_policy_is_what_the_recipe_describes() -> None:
    assert json.loads((PACKAGED_POLICY / "lettercraft_recipe.json").read_text()) == asdict(PolicyRecipe())
    packaged_model = AutoModelForCausalLM.from_pretrained(PACKAGED_POLICY)
    recipe_model = build_model(PolicyRecipe(), build_tokenizer())
    ours, recipe_settings = packaged_model.config.to_dict(), recipe_model.config.to_dict()
    for record in (ours, recipe_settings):
        for key in ("dtype", "architectures", "_name_or_path", "transformers_version"):
            record.pop(key, None)
    assert ours == recipe_settings
    assert {name: value.shape for name, value in packaged_model.state_dict().items()} == {
        name: value.shape for name, value in recipe_model.state_dict().items()
    }


def test_the_shipped_tokenizer_is_the_built_one() -> None:
    packaged_tokenizer, new_tokenizer = AutoTokenizer.from_pretrained(PACKAGED_POLICY), build_tokenizer()
    assert packaged_tokenizer.get_vocab() == new_tokenizer.get_vocab() and packaged_tokenizer.chat_template == new_tokenizer.chat_template


def test_the_files_are_small_and_safetensors() -> None:
    assert sum(path.stat().st_size for path in PACKAGED_POLICY.iterdir()) < 3 * 2**20
    assert [path.name for path in PACKAGED_POLICY.iterdir() if path.suffix in (".safetensors", ".bin", ".pt")] == ["model.safetensors"]


def test_training_from_a_seed_is_reproducible() -> None:
    recipe = PolicyRecipe(steps=3, batch_size=8)
    first, _ = train(recipe, sloppy_batches(recipe))
    second, _ = train(recipe, sloppy_batches(recipe))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_text_survives_the_tokenizer() -> None:
    tokenizer = build_tokenizer()
    rng = np.random.default_rng(0)
    for _ in range(50):
        prompt, answer = demonstration(rng, PolicyRecipe())
        for text in (prompt, answer):
            ids = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in ids and tokenizer.decode(ids) == text


def test_the_policy_is_a_mediocre_start() -> None:
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(PACKAGED_POLICY, dtype=torch.float32),
        AutoTokenizer.from_pretrained(PACKAGED_POLICY),
    )
    held_out_texts = [str(item) for item in held_out_instructions(200)]
    assert 0.45 < measure(model, tokenizer, held_out_texts, sample=True) < 0.62
    assert 0.72 < measure(model, tokenizer, held_out_texts, sample=False) < 0.9


def test_seed_prompts_have_a_wide_spread_of_reward_gaps() -> None:
    generator = TransformersGenerator(model=str(PACKAGED_POLICY), max_new_tokens=40)
    generator.load()
    instructions = seed_instructions(42, 100)
    answers = generator.generate([[{"role": "user", "content": str(item)}] for item in instructions], 6, seeds=list(range(100)))
    rewards = np.array(
        [[grade(item, text or "") for text in answer["generations"]] for item, answer in zip(instructions, answers, strict=True)]
    )
    gaps = np.ptp(rewards, axis=1)
    assert gaps.std() > 0.25
    assert (gaps == 0).mean() > 0.08 and (gaps > 0.9).mean() > 0.08
    assert ((gaps > 0.2) & (gaps < 0.9)).mean() > 0.2


@pytest.mark.parametrize("seed", [0, 42])
def test_held_out_prompts_are_disjoint_from_the_seed_prompts_and_harder(seed: int) -> None:
    held_out_texts, seeds = held_out_instructions(2000), seed_instructions(seed, 1000)
    assert not {str(item) for item in held_out_texts} & {str(item) for item in seeds}
    sizes = [np.mean([len(item.operations) * len(item.word) for item in some]) for some in (held_out_texts, seeds)]
    assert sizes[0] > 1.5 * sizes[1]
    assert len({str(item) for item in seeds}) == 1000 and all(item.answer for item in (*held_out_texts, *seeds))
