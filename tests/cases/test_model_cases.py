"""Downloaded models: the intended weights are loaded, or none; `validate` decides it from the headers of the files."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma2ForSequenceClassification,
    PreTrainedTokenizerFast,
)

from eva_stages.core.errors import ConfigError, DataError, EvaError
from eva_stages.core.packaged_files import packaged_recipes
from eva_stages.core.recipe_files import load_recipe
from eva_stages.creator.analysis import LabelTopics
from eva_stages.creator.diversity import Embed
from eva_stages.models.armorm import ASSISTANT_HEADER, ArmoRM, header_place
from eva_stages.models.divergence import TokenizedResponse, divergence
from eva_stages.models.loading import load_model
from eva_stages.models.pairwise import PairPreferenceReward, PairRMReward
from eva_stages.models.reward_models import ArmoRMReward, SequenceClassifierReward
from eva_stages.models.rewards import Conversation
from eva_stages.models.transformers_generator import TransformersGenerator
from eva_stages.models.weights import weight_faults
from eva_stages.solver.fitting import load_policy, load_reference
from eva_stages.solver.saving import merge_adapter
from tests.building import check
from tests.cases.models import (
    PROMPT,
    WORDS,
    Damage,
    assert_refused,
    change_config,
    claim_missing_shard,
    copy_damaged,
    cut,
    drop_weights,
    gpt2,
    recipe,
    rename_weights,
    reward,
    save_model,
    scores_of,
    training,
)
from tests.conftest import EVALDATA
from tests.tiny_models import (
    CHAT,
    save_gemma2,
)

# --- one strict loader

HEADLESS = ("score.weight", "1 of the 21 weights", "v_head.weight")
PEFT_NAMES = ("are missing", "base_model.model.")
BROKEN_MODELS: dict[str, tuple[str, Damage, tuple[str, ...]]] = {
    "head-under-another-name": ("reward", rename_weights(lambda name: name.replace("score.", "v_head.")), HEADLESS),
    "peft-prefix-reward": ("reward", rename_weights(lambda name: f"base_model.model.{name}"), PEFT_NAMES),
    "peft-prefix-policy": ("policy", rename_weights(lambda name: f"base_model.model.{name}"), PEFT_NAMES),
    "no-lm-head": ("policy", drop_weights("lm_head.weight"), ("lm_head.weight", "1 of the")),
    "one-layer-missing": ("policy", rename_weights(lambda name: None if ".layers.1." in name else name), ("9 of the", "and 5 more")),
    "other-shape": ("policy", change_config(intermediate_size=48), ("another shape", "[64, 32], expected [48, 32]")),
    "cut-off": ("policy", cut, ("model.safetensors cannot be read", "cut off or damaged")),
    "missing-shard": ("policy", claim_missing_shard, ("names model-00002-of-00003.safetensors, which is missing",)),
    "unknown-architecture": ("policy", change_config(model_type="nowhere"), ("no model can be built", "nowhere")),
    "no-json": ("policy", lambda folder: (folder / "config.json").write_text("{"), ("config.json is not JSON",)),
    "adapter": ("policy", lambda folder: (folder / "adapter_config.json").write_text("{}"), ("LoRA adapter", "merge_and_unload")),
}


@pytest.mark.parametrize("name", BROKEN_MODELS)
def test_a_checkpoint_that_is_not_the_model_is_refused_by_validate_and_by_the_loader(whole_models: Path, tmp_path: Path, name: str) -> None:
    kind, damage, says = BROKEN_MODELS[name]
    folder = copy_damaged(whole_models / kind, tmp_path / "model", damage)
    settings = {"policy__model": str(folder)} if kind == "policy" else {"reward": reward("sequence_classifier", folder)}
    place = "policy.model: " if kind == "policy" else "reward.model: "
    assert place in assert_refused(*says, **settings)
    loader = TransformersGenerator(model=str(folder)) if kind == "policy" else SequenceClassifierReward(model=str(folder))
    with pytest.raises((EvaError, ValueError)):
        loader.load()


def test_a_causal_model_and_a_classifier_with_two_labels_are_refused_as_rewards(whole_models: Path, tmp_path: Path) -> None:
    assert_refused("score.weight", "has 2 labels", reward=reward("sequence_classifier", whole_models / "policy"))
    labels = {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
    assert_refused(
        "has 2 labels",
        reward=reward("sequence_classifier", copy_damaged(whole_models / "reward", tmp_path / "two", change_config(**labels))),
    )
    assert_refused("are missing", "gating", reward=reward("armorm", whole_models / "reward"))
    assert_refused("are missing", "lm_head.weight", reward=reward("pair_preference", whole_models / "reward"))


def test_a_prefix_that_transformers_removes_changes_nothing(whole_models: Path, tmp_path: Path) -> None:
    folder = copy_damaged(whole_models / "reward", tmp_path / "prefixed", rename_weights(lambda name: f"model.{name}"))
    check(recipe(reward=reward("sequence_classifier", folder)))
    scores = [scores_of(SequenceClassifierReward(model=str(place))) for place in (folder, whole_models / "reward")]
    assert scores[0] == scores[1]


def test_tied_weights_are_not_missing_and_unused_weights_are_reported(
    whole_models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tied_model = save_model(tmp_path / "tied", gpt2(128))
    capsys.readouterr()
    check(recipe(policy__model=str(tied_model)))
    assert capsys.readouterr().err == ""

    def extra(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors") | {"value.bias": torch.zeros(1)}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    folder = copy_damaged(whole_models / "policy", tmp_path / "more", extra)
    check(recipe(policy__model=str(folder)))
    assert "policy.model" in (message := capsys.readouterr().err) and "has 1 weights that are not used: value.bias" in message
    load_model(AutoModelForCausalLM, str(folder), "auto", "cpu")


LOADERS: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "generator": ("policy", "lm_head.weight", lambda folder: TransformersGenerator(model=folder).load()),
    "classifier": ("reward", "score.weight", lambda folder: SequenceClassifierReward(model=folder).load()),
    "armorm": ("armorm", "gating.layers.1.weight", lambda folder: ArmoRMReward(model=folder).load()),
    "pairrm": ("pairrm", "head_layer.1.weight", lambda folder: PairRMReward(model=folder).load()),
    "pair-preference": ("policy", "lm_head.weight", lambda folder: PairPreferenceReward(model=folder).load()),
    "embedder": ("embedder", "encoder.layer.0.output.dense.bias", lambda folder: Embed(model=folder).load()),
    "topics": ("classifier", "classifier.weight", lambda folder: LabelTopics(model=folder, labels=["sea"]).load()),
    "trained-policy": ("policy", "lm_head.weight", lambda folder: load_policy(training(folder))),
    "reference": ("policy", "lm_head.weight", lambda folder: load_reference(training(folder))),
    "divergence": ("policy", "lm_head.weight", lambda folder: divergence(folder, folder, [ANSWER], None, None, "auto", "cpu")),
}
ANSWER = TokenizedResponse(PROMPT, [5, 6])


@pytest.mark.parametrize("name", LOADERS)
def test_every_loader_refuses_weights_that_would_be_random(whole_models: Path, tmp_path: Path, name: str) -> None:
    kind, weight, load = LOADERS[name]
    load(str(whole_models / kind))
    folder = copy_damaged(whole_models / kind, tmp_path / "model", drop_weights(weight))
    with pytest.raises(DataError, match=rf"1 of the \d+ weights of a \w+ are missing: {weight}"):
        load(str(folder))


def test_an_adapter_is_merged_only_into_complete_weights(whole_models: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    lora_model = get_peft_model(AutoModelForCausalLM.from_pretrained(whole_models / "policy"), LoraConfig(target_modules="all-linear"))
    lora_model.save_pretrained(tmp_path / "saved")
    base = copy_damaged(whole_models / "policy", tmp_path / "base", drop_weights("lm_head.weight"))
    with pytest.raises(DataError, match=r"are missing: lm_head\.weight"):
        merge_adapter(base, tmp_path / "saved")


def test_validate_refuses_classifiers_and_embedders_without_their_weights(whole_models: Path, tmp_path: Path) -> None:
    topics = copy_damaged(whole_models / "classifier", tmp_path / "topics", drop_weights("classifier.weight"))
    embedder = copy_damaged(whole_models / "embedder", tmp_path / "embedder", drop_weights("embeddings.LayerNorm.bias"))
    message = assert_refused(
        creator__analysis={"topics": {"model": str(topics), "labels": ["sea", "sky"]}},
        creator__curate={"diversity": {"model": str(embedder), "min_distance": 0.1}},
    )
    assert "creator.analysis.topics.model" in message and "classifier.weight" in message
    assert "creator.curate.diversity.model" in message and "embeddings.LayerNorm.bias" in message
    pooler_embedder = copy_damaged(
        whole_models / "embedder", tmp_path / "no-pooler", drop_weights("pooler.dense.weight", "pooler.dense.bias")
    )
    check(recipe(creator__curate={"diversity": {"model": str(pooler_embedder), "min_distance": 0.1}}))


def test_a_model_of_nine_billion_weights_is_checked_without_its_weights(tmp_path: Path) -> None:
    settings = Gemma2Config(vocab_size=256000, hidden_size=3584, intermediate_size=14336, num_hidden_layers=42, head_dim=256)
    settings.save_pretrained(tmp_path)
    with torch.device("meta"):
        shapes = {name: list(value.shape) for name, value in Gemma2ForCausalLM(settings).state_dict().items() if name != "lm_head.weight"}
    assert weight_faults(AutoModelForCausalLM, sparse(tmp_path, shapes)) == []
    del shapes["model.layers.41.mlp.up_proj.weight"]
    assert "model.layers.41.mlp.up_proj.weight" in weight_faults(AutoModelForCausalLM, sparse(tmp_path, shapes))[0]


def sparse(folder: Path, shapes: dict[str, list[int]]) -> Path:
    """Write a file of weights of which only the header takes disk space."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    content = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(content)) + content)
        stream.truncate(8 + len(content) + end)
    return folder


# --- ArmoRM

OFFICIAL = EVALDATA / "armorm"


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the official scores are not beside the repository")
@pytest.mark.parametrize("tokens_per_batch", [1, 64, 10**6])
def test_armorm_gives_the_official_scores_and_objectives_one_by_one_and_in_batches(tokens_per_batch: int) -> None:
    official = json.loads((OFFICIAL / "official.json").read_text())
    conversations = [Conversation(messages, response) for messages, response in official["convs"]]
    for order in (conversations, conversations[::-1]):
        model = ArmoRMReward(model=str(OFFICIAL / "model"), tokens_per_batch=tokens_per_batch)
        model.load()
        expected = official["official"] if order is conversations else official["official"][::-1]
        for score, (value, objectives) in zip(model.score(order), expected, strict=True):
            assert score.value == pytest.approx(value, abs=1e-5) and score.objectives == pytest.approx(objectives, abs=1e-5)
    check(recipe(reward=reward("armorm", OFFICIAL / "model")))


def test_the_gate_reads_the_last_assistant_header() -> None:
    header = list(ASSISTANT_HEADER)
    assert header_place([1, *header, 2, *header, 3]) == 7 and header_place([1, *header]) == 1
    assert header_place(header[:-1]) is None and header_place([]) is None


def test_conversations_that_armorm_cannot_read_are_null_with_the_reason(whole_models: Path, tmp_path: Path) -> None:
    def no_headers(folder: Path) -> None:
        (folder / "chat_template.jinja").write_text(CHAT)

    folder = copy_damaged(whole_models / "armorm", tmp_path / "chat", no_headers)
    assert all(score.value is None and "no assistant header" in score.failure for score in scores_of(ArmoRMReward(model=str(folder))))
    short, long = scores_of(ArmoRMReward(model=str(whole_models / "armorm")), "blue", "sea " * 1100)
    assert short.value is not None and long.value is None and "more than max_length = 1024" in long.failure


def test_a_gate_without_a_bias_in_its_last_layer_uses_zeros(whole_models: Path, tmp_path: Path) -> None:
    folder = copy_damaged(whole_models / "armorm", tmp_path / "model", drop_weights("gating.layers.2.bias"))
    check(recipe(reward=reward("armorm", folder)))
    assert load_model(ArmoRM, str(folder), "auto", "cpu").gating.layers[2].bias.abs().max() == 0


def test_no_recipe_runs_a_models_code_and_none_can_request_it() -> None:
    recipes = [recipe for recipe in packaged_recipes() if load_recipe(recipe.name).reward.kind == "armorm"]
    assert len(recipes) == 14 and not any("trust_remote_code" in recipe.text for recipe in packaged_recipes())
    with pytest.raises(ConfigError, match=r"reward.trust_remote_code: unknown field; known here: dtype, kind, "):
        recipe(reward={"kind": "armorm", "model": "org/armorm", "trust_remote_code": True})


# --- Gemma 2


def test_soft_capped_attention_is_eager_in_every_loader_and_scores_accordingly(tmp_path: Path) -> None:
    save_gemma2(tmp_path / "policy", WORDS)
    settings = Gemma2Config.from_pretrained(tmp_path / "policy", num_labels=1, attn_logit_softcapping=0.5, initializer_range=0.5)
    torch.manual_seed(0)
    save_model(tmp_path / "reward", Gemma2ForSequenceClassification(settings), PreTrainedTokenizerFast.from_pretrained(tmp_path / "policy"))
    model = SequenceClassifierReward(model=str(tmp_path / "reward"))
    model.load()
    eager, sdpa = (
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward", attn_implementation=code) for code in ("eager", "sdpa")
    )
    ids = model._tokenizer.apply_chat_template([*PROMPT, {"role": "assistant", "content": "blue"}], return_tensors="pt", return_dict=True)
    value = model.score([Conversation(PROMPT, "blue")])[0].value
    with torch.no_grad():
        assert value == pytest.approx(eager(**ids).logits.item(), abs=1e-5) != pytest.approx(sdpa(**ids).logits.item(), abs=1e-3)
    generator = TransformersGenerator(model=str(tmp_path / "policy"))
    generator.load()
    job_of = training(str(tmp_path / "policy"))
    models = [
        generator._model,
        load_policy(job_of),
        load_reference(job_of),
        load_model(AutoModelForCausalLM, str(job_of.policy), "auto", "cpu"),
    ]
    assert {model.config._attn_implementation for model in models} == {"eager"}
    sdpa_training = job_of.training.model_copy(update={"attention": "sdpa"})
    assert load_policy(job_of.model_copy(update={"training": sdpa_training})).config._attn_implementation == "sdpa"
