"""The paper's controls and training from scratch: which prompts and pairs each iteration trains on, in plans and in runs."""

import json
from itertools import pairwise
from pathlib import Path

import pytest

from eva_stages.core.errors import ConfigError
from eva_stages.core.progress import Reporter
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.rounds import Iteration
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import execute
from eva_stages.core.stage import Outside, Stage
from eva_stages.creator.prompt_loading import held_out_instructions
from tests.building import build_rounds, check
from tests.conftest import TINY, artifact_folder, artifact_rows, manifests, overrides, run_eva
from tests.killing import assert_same_weights, rerun_with_kills


def rounds(recipe: str, **settings: object) -> list[Iteration]:
    return build_rounds(load_recipe(recipe, [f"{name}={json.dumps(value)}" for name, value in settings.items()]))


def names(stages: tuple[Stage, ...]) -> list[str]:
    return [stage.name for stage in stages]


def test_each_control_replaces_the_creator_and_nothing_else() -> None:
    eva = rounds("quickstart")
    for control in ("longer", "human", "no_evolve"):
        control_rounds = rounds(f"controls/{control}")
        assert control_rounds[0].solver[-1].fingerprint == eva[0].solver[-1].fingerprint, "the base round is eva's"
        assert [names(training_round.solver) for training_round in control_rounds] == [
            names(training_round.solver) for training_round in eva
        ]
        for earlier_round, training_round in pairwise(control_rounds):
            assert training_round.solver[-1].inputs["policy"] is earlier_round.solver[-1] is training_round.solver[-1].inputs["reference"]
    longer, human, subset = (rounds(f"controls/{control}") for control in ("longer", "human", "no_evolve"))
    assert [training_round.prompts.fingerprint for training_round in longer] == [longer[0].prompts.fingerprint] * 3
    assert [training_round.prompts.label for training_round in human] == ["0-prompts", "1-prompts", "2-prompts"]
    assert names(subset[2].creator) == ["creator-respond", "creator-reward", "inform", "select", "subset"]
    assert subset[2].creator[-1].inputs["prompts"] is subset[0].prompts, "the subset is drawn from the seed prompts, in every iteration"


def test_scratch_starts_from_the_base_policy_on_the_pairs_of_all_iterations() -> None:
    eva, scratch = rounds("quickstart"), rounds("controls/scratch")
    assert scratch[0].solver[-1].fingerprint == eva[0].solver[-1].fingerprint, "the base round is the same"
    last = scratch[2].solver
    assert names(last)[-2:] == ["pool", "train"]
    assert isinstance(last[-1].inputs["policy"], Outside) and last[-1].inputs["reference"] is last[-1].inputs["policy"]
    assert [stage.label for stage in last[-2].inputs.values() if isinstance(stage, Stage)] == ["0-pair", "1-pair", "2-pair"]
    answering = next(stage for stage in last if stage.name == "respond").inputs["policy"]
    assert answering is scratch[1].solver[-1], "the policy of the last iteration answers"


def write_prompts(folder: Path, usable: int) -> dict[str, object]:
    texts = [f"Take {word}, reverse it." for word in ("".join(chr(97 + (n * k) % 26) for k in (1, 3, 7, 9)) for n in range(usable))]
    lines = [*texts, texts[0], "x" * 9000]
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": line}) + "\n" for line in lines))
    return {"prompts": {"kind": "file", "path": str(folder / "prompts.jsonl"), "size": 8}, "creator.control": "human"}


def test_the_human_control_uses_disjoint_prompts_and_reports_early_if_there_are_too_few(tmp_path: Path) -> None:
    settings = write_prompts(tmp_path, 24)
    check(load_recipe("quickstart", [f"{name}={json.dumps(value)}" for name, value in settings.items()]))
    short_file = write_prompts(tmp_path, 23)
    for changes, says in (
        (short_file, "24 in all, and .* has 23 that can be used; give at most 7"),
        (short_file | {"prompts.size": None}, "give their number"),
    ):
        with pytest.raises(ConfigError, match=says):
            check(load_recipe("quickstart", [f"{name}={json.dumps(value)}" for name, value in changes.items()]))

    write_prompts(tmp_path, 24)
    held_out_texts = {str(instruction) for instruction in held_out_instructions(300)}
    for name, source in (("file", settings), ("lettercraft", {"creator.control": "human", "prompts.size": 8})):
        run = Run(tmp_path / name)
        run.create()
        execute(run, [iteration.prompts for iteration in rounds("quickstart", **source)], Reporter())
        parts = [[row["messages"][-1]["content"] for row in artifact_rows(run.root, f"{part}-prompts")] for part in range(3)]
        all_texts = [text for part in parts for text in part]
        assert [len(part) for part in parts] == [8, 8, 8] and len(set(all_texts)) == 24 and not set(all_texts) & held_out_texts


def test_fresh_prompts_that_nothing_would_take_are_an_error() -> None:
    check(load_recipe("quickstart", ["prompts.fresh=deep_target", "creator.control=human"]))
    with pytest.raises(ConfigError, match=r"prompts.fresh: is deep_target, and only creator.control `human` takes .* is not set; leave"):
        check(load_recipe("quickstart", ["prompts.fresh=deep_target"]))


def test_a_run_without_evolving_trains_from_scratch_on_rewritten_responses(tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = {
        "creator.control": "no_evolve",
        "solver.training.start": "scratch",
        "solver.rewrite": {"generator": {"kind": "lettercraft"}, "keep": "if_no_worse", "longest": 2.0},
        "evaluation.benchmarks": [],
    }
    changes = overrides({**TINY, **settings} | {"runtime.rows_per_part": 64})
    output = run_eva("run", "quickstart", "--until", "1-pool", "--run-dir", str(run), *changes).stdout
    stage_manifests = manifests(run)
    drawn_ids, subset = {row["prompt_id"] for row in artifact_rows(run, "1-select")}, artifact_rows(run, "1-subset")
    assert {row["prompt_id"] for row in subset} == drawn_ids and len(subset) == 10 == stage_manifests["1-respond"]["rows"]
    assert {row["prompt_id"] for row in subset} <= {row["prompt_id"] for row in artifact_rows(run, "0-prompts")}

    for label in ("0", "1"):
        pairs, rewritten_pairs = artifact_rows(run, f"{label}-pair"), artifact_rows(run, f"{label}-rewritten")
        counts = stage_manifests[f"{label}-rewritten"]["counts"]
        assert counts["pair"] == len(rewritten_pairs) == sum(count for reason, count in counts.items() if reason != "pair")
        for old, new in zip(pairs, rewritten_pairs, strict=True):
            if new["rewritten"]:
                assert new["original_chosen"] == old["chosen"] != new["chosen"] and new["original_reward"] == old["chosen_reward"]
                assert new["chosen_reward"] == 1.0, "Lettercraft's player rewrites to the right answer"
            else:
                assert new["chosen"] == old["chosen"] and new["original_reward"] is None
    assert stage_manifests["0-rewritten"]["counts"]["rewritten"] > 0
    assert (
        f"chosen responses rewritten: {stage_manifests['0-rewritten']['counts']['rewritten']} of {stage_manifests['0-pair']['rows']}"
        in output
    )

    pool = artifact_rows(run, "1-pool")
    first = {row["prompt_id"] for row in artifact_rows(run, "0-rewritten")}
    assert {row["prompt_id"] for row in pool} == first | {row["prompt_id"] for row in artifact_rows(run, "1-rewritten")}
    assert len(pool) == stage_manifests["1-pool"]["counts"]["pair"] and stage_manifests["0-train"]["counts"]["pairs"] == len(first)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"reward.kind": "lettercraft_judge"}, "reward.kind: rloo scores every response by itself"),
        ({"solver.rewrite": {}}, "solver.rewrite: rloo leaves no pairs"),
        ({"solver.training.start": "scratch"}, "solver.training.start: rloo leaves no pairs"),
        ({"policy.generator.temperature": 0}, "policy.generator.temperature: is 0"),
        ({"solver.loss": {"kind": "rloo", "runtime": {"vllm": True}}}, "solver.loss.runtime.vllm: needs vLLM"),
        ({"solver.training.max_length": 45}, "solver.training.max_length: 45 tokens leave none of the prompts room"),
        ({"solver.loss": {"kind": "grpo", "runtime": {"vllm": True}}}, "solver.loss.runtime.vllm: sends the weights from a GPU"),
        ({"solver.pairs.min_gap": 0.5}, "solver.pairs.min_gap: rloo makes no pairs"),
        ({"solver.training.too_long": "truncate"}, "solver.training.too_long: rloo samples its responses"),
        ({"solver.loss": {"kind": "grpo", "beta": 0}, "solver.reference": "initial"}, "solver.reference: is initial, and grpo with beta 0"),
        ({"solver.loss": {"kind": "online_dpo"}, "reward.kind": "lettercraft_judge"}, "reward.kind: online_dpo scores every response"),
        ({"policy.generator.stop": ["x"]}, "policy.generator.stop: rloo"),
        ({"policy.generator.max_new_tokens": 128}, "policy.generator.max_new_tokens: 128 leave no room"),
        ({"solver.responses": 5}, "solver.training.batch_size: 32 responses are not a multiple of 5"),
        ({"solver.reference": "initial", "solver.training.adapter": {"kind": "lora"}}, "solver.reference: under an adapter"),
        (
            {"solver.loss": {"kind": "dpo"}, "reward.kind": "lettercraft_judge", "solver.rewrite": {}},
            "solver.rewrite: a rewrite is scored by itself",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_reported_before_anything_runs(settings: dict[str, object], says: str) -> None:
    changes = {"solver.loss": {"kind": "rloo"}, "solver.responses": 4} | settings
    with pytest.raises(ConfigError) as error:
        check(load_recipe("quickstart", [f"{name}={json.dumps(value)}" for name, value in changes.items()]))
    assert [fault for fault in error.value.faults if fault.startswith(says)], error.value.faults


def test_an_on_policy_run_has_no_pairs_and_its_table_and_plan_show_its_figures(tmp_path: Path) -> None:
    settings = {"solver.loss": {"kind": "rloo"}, "evaluation.benchmarks": [], "health.answers": 0, "iterations": 0, "prompts.size": 8}
    arguments = ("quickstart", "--run-dir", str(tmp_path / "run"), *overrides({**TINY, **settings}))
    planned_stages = json.loads(run_eva("plan", *arguments, "--json").stdout)["stages"]
    assert {entry["stage"]: entry["tokens"] for entry in planned_stages} == {"0-prompts": 0, "0-train": 8 * 4 * 40, "0-health": 0}
    document = json.loads(run_eva("run", *arguments, "--json").stdout)
    (iteration,) = document["iterations"]
    assert iteration["done"] and iteration["pairs"] is None and iteration["unscored"] == 0 and iteration["training"]["steps"] == 4
    assert rerun_with_kills(tmp_path / "run", ["0-train", "0-health"], ("run", *arguments), tmp_path) >= {"0-train"}
    assert_same_weights(artifact_folder(tmp_path / "run", "0-train"), tmp_path / "0-train")
    table = run_eva("run", *arguments).stdout
    assert f"{iteration['training']['reward']:.3f}" in table and "responses without a reward: 0" in table
