"""Which stages train the creator, from what they start, and what `eva validate` says about recipes that cannot."""

import json
import math
from pathlib import Path

import pytest

from eva_stages.core.errors import ConfigError
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.rounds import Iteration
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import Outside, Stage, closure
from tests.building import build_rounds, check, plan_of

POLICY = {"kind": "policy"}
OWN_MODEL = {"kind": "transformers", "model": "lettercraft"}


def changes(training: dict[str, object] | None, generator: dict[str, object], **other_fields: object) -> list[str]:
    settings = {"creator.evolve.shape": "siblings", "creator.evolve.generator": generator, "creator.training": training, **other_fields}
    return [f"{name}={json.dumps(value)}" for name, value in settings.items()]


def rounds(training: dict[str, object] | None, generator: dict[str, object], **other_fields: object) -> list[Iteration]:
    return build_rounds(load_recipe("quickstart", changes(training, generator, **other_fields)))


def stage(iteration: Iteration, name: str) -> Stage:
    return next(stage for stage in (*iteration.creator, *iteration.solver) if stage.name == name)


def test_each_network_starts_from_the_present_creator() -> None:
    own_rounds, shared_rounds, adapter_rounds = (
        rounds({"network": name}, OWN_MODEL if name == "own" else POLICY) for name in ("own", "shared", "adapter")
    )
    for iterations in (own_rounds, shared_rounds, adapter_rounds):
        training = stage(iterations[2], "creator-train")
        assert training.inputs["policy"] is training.inputs["reference"]
    first, second = (stage(own_rounds[number], "creator-train") for number in (1, 2))
    assert isinstance(first.inputs["policy"], Outside) and second.inputs["policy"] is first
    assert stage(own_rounds[2], "evolve").inputs["evolver"] is first and isinstance(
        stage(own_rounds[1], "evolve").inputs["evolver"], Outside
    )
    assert stage(own_rounds[2], "train").inputs["policy"] is stage(own_rounds[1], "train"), "the policies have a chain of their own"

    first, second = (stage(shared_rounds[number], "creator-train") for number in (1, 2))
    assert second.inputs["policy"] is stage(shared_rounds[1], "train") and stage(shared_rounds[1], "train").inputs["policy"] is first
    assert stage(shared_rounds[1], "respond").inputs["policy"] is first

    first, second = (stage(adapter_rounds[number], "creator-train") for number in (1, 2))
    assert (
        second.inputs["policy"] is stage(adapter_rounds[1], "train") and second.inputs["adapter"] is first and "adapter" not in first.inputs
    )
    evolved = stage(adapter_rounds[2], "evolve")
    assert evolved.inputs["adapter"] is first and evolved.inputs["policy"] is stage(adapter_rounds[1], "train")
    assert stage(adapter_rounds[2], "train").inputs["policy"] is stage(adapter_rounds[1], "train")


def test_pairs_are_replayed_from_earlier_iterations_except_for_rloo() -> None:
    replaying = stage(rounds({"network": "own"}, OWN_MODEL, iterations=3)[3], "creator-pair")
    assert [name for name in replaying.inputs if name.startswith("pairs_")] == ["pairs_1", "pairs_2"]
    on_policy = stage(rounds({"network": "own", "objective": "rloo"}, OWN_MODEL, iterations=3)[3], "creator-pair")
    assert not any(name.startswith("pairs_") for name in on_policy.inputs)


def test_without_training_nothing_changes_and_with_it_the_base_round_does_not() -> None:
    admit = {"creator.curate.admit": {"fraction": 0.5}}
    plain_rounds, trained_rounds = rounds(None, OWN_MODEL, **admit), rounds({"network": "own"}, OWN_MODEL, **admit)
    assert not any(stage.name.startswith("creator-t") for stage in closure([stage for entry in plain_rounds for stage in entry.stages]))
    assert [stage.fingerprint for stage in plain_rounds[0].stages] == [stage.fingerprint for stage in trained_rounds[0].stages]
    assert stage(plain_rounds[1], "select").fingerprint == stage(trained_rounds[1], "select").fingerprint
    assert stage(trained_rounds[1], "admit-respond").inputs["prompts"] is stage(trained_rounds[1], "creator-children")
    assert stage(plain_rounds[1], "admit-respond").inputs["prompts"] is stage(plain_rounds[1], "curate")
    gated_round = rounds({"network": "own"}, OWN_MODEL, **{"creator.curate.gate": {"min_zlib_ratio": 0.2}})[1]
    assert stage(gated_round, "admit-respond").inputs["prompts"] is stage(gated_round, "gate")
    assert stage(gated_round, "creator-utility").inputs["verdicts"] is stage(gated_round, "gate-verdicts")


def test_the_training_of_the_creator_is_planned(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart", changes({"network": "own", "batch_size": 8, "pairs_per_parent": 2, "replay": 0.5}, OWN_MODEL))
    plan = {entry["stage"]: entry for entry in plan_of(recipe, Run(tmp_path))["stages"]}
    parents = plan["1-select"]["rows"]
    assert plan["1-creator-utility"]["rows"] == 4 * parents and plan["1-creator-pair"]["rows"] == 2 * parents
    assert plan["2-creator-pair"]["rows"] == 4 * parents, "half of them are replayed"
    assert plan["1-creator-train"]["steps"] == math.ceil(2 * parents / 8)
    assert plan["1-creator-train"]["bytes"] == plan["1-train"]["bytes"] > 0 and plan["1-creator-train"]["checkpoint_bytes"] > 0


@pytest.mark.parametrize(
    ("training", "generator", "other_fields", "says"),
    [
        ({}, OWN_MODEL, {"creator.evolve.shape": "chain"}, r"evolve.shape: is chain, .* give siblings"),
        ({}, OWN_MODEL, {"creator.evolve.generations": 1}, r"generations: is 1, .* give at least 2"),
        ({}, {"kind": "lettercraft"}, {}, r"generator.kind: lettercraft is no network that eva can train; give transformers or vllm"),
        ({}, {**OWN_MODEL, "temperature": 0}, {}, r"temperature: is 0, so all siblings would be equal"),
        ({}, POLICY, {}, r"network: `own` trains the model of .*, which is the policy; give shared or adapter"),
        ({"network": "shared"}, OWN_MODEL, {}, r"network: `shared` trains the policy as evolver, .* give policy, or network own"),
        ({"network": "shared"}, POLICY, {"solver.training.start": "scratch"}, r"solver.training.start: scratch would throw away"),
        ({}, OWN_MODEL, {"creator.control": "longer"}, r"creator.control `longer` evolves nothing"),
        ({"batch_size": 12}, OWN_MODEL, {}, r"creator.training.batch_size: 12 pairs are not a multiple of 8"),
        ({"objective": "rloo", "replay": 0.5}, OWN_MODEL, {}, r"rloo does not read replay; leave it out"),
    ],
)
def test_a_recipe_whose_creator_cannot_be_trained_is_refused_with_the_fix(
    training: dict[str, object], generator: dict[str, object], other_fields: dict[str, object], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        check(load_recipe("quickstart", changes(training, generator, **other_fields)), keys=False)
