"""300 real human prompts through creator and solver with tiny models of real architectures, by the real command line."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from eva_stages.core.rows import prompt_id
from tests.conftest import EVALDATA, artifact_rows, manifests, overrides, run_eva
from tests.tiny_models import save_policy, save_reward, tokenizer

RECIPE = str(Path(__file__).parent / "recipes" / "tiny_text.yaml")
PROMPTS = 300
POSITIONS = 1024
SETTINGS = {
    "prompts.size": None,
    "prompts.max_characters": 3000,
    "policy.generator.max_new_tokens": 3,
    "reward.max_length": POSITIONS,
    "creator.responses": 2,
    "creator.evolve.generator.max_new_tokens": 6,
    "creator.evolve.generator.stop": ["e", "a", " "],  # random weights hardly ever draw their end token
    "solver.responses": 2,
    "solver.training.max_length": 128,
    "solver.training.batch_size": 128,
    "solver.training.runtime.micro_batch_size": 64,
    "solver.training.checkpoints_per_epoch": 1,
    "runtime.rows_per_part": 150,
}


def lines(file: str) -> list[dict]:
    return [json.loads(line) for line in (EVALDATA / file).read_text().split("\n") if line]


def task(row: dict) -> str:
    """The prompt of a Self-Instruct task: the instruction and its input."""
    return "\n\n".join(filter(None, (row["instruction"], row["instances"][0]["input"])))


def human_prompts() -> Iterator[str]:
    yield from map(task, lines("prompts/self-instruct_user_oriented_instructions.jsonl"))
    yield from map(task, lines("prompts/self-instruct_seed_tasks.jsonl"))
    yield from (row["prompt"] for row in lines("prompts/koala_test_set.jsonl"))
    yield from (row["turns"][0] for row in lines("prompts/vicuna_bench_question.jsonl"))
    yield from (row["question"] for row in lines("verifiable/gsm8k_test.jsonl")[:113])
    yield from (row["prompt"] for row in lines("verifiable/ifeval_input_data.jsonl")[:100])


def test_300_real_prompts_are_all_counted_at_every_stage_and_record_their_origin(tmp_path: Path) -> None:
    if not (EVALDATA / "prompts").is_dir():
        pytest.skip("the real human prompts (shared/evaldata beside the checkout) are missing")
    texts = list(human_prompts())[::3]
    assert len(texts) == PROMPTS
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    words = tokenizer(texts)
    save_policy(tmp_path / "policy", words)
    save_reward(tmp_path / "reward", words)
    models = {name: str(tmp_path / name.partition(".")[0]) for name in ("policy.model", "reward.model")}
    run = tmp_path / "run"
    changes = overrides({**SETTINGS, **models, "prompts.path": str(tmp_path / "prompts.jsonl")})
    document = json.loads(run_eva("run", RECIPE, "--run-dir", str(run), *changes, "--json").stdout)
    stage_manifests = manifests(run)
    counts = {label: manifest["counts"] for label, manifest in stage_manifests.items()}

    prompts = artifact_rows(run, "0-prompts")
    reasons = {reason: count for reason, count in counts["0-prompts"].items() if reason != "read"}
    assert counts["0-prompts"]["read"] == PROMPTS == len(prompts) + sum(reasons.values()) and len(prompts) > 280
    prompts_of_stage = {"0-respond": prompts, "1-creator-respond": prompts, "1-respond": artifact_rows(run, "1-mix")}
    for label, stage_prompts in prompts_of_stage.items():
        check_answers(artifact_rows(run, label), stage_prompts, counts[label])
        check_rewards(
            artifact_rows(run, label), artifact_rows(run, label.replace("respond", "reward")), counts[label.replace("respond", "reward")]
        )
    unscored_ids = {row["prompt_id"] for row in artifact_rows(run, "1-creator-reward") if None in row["rewards"]}
    assert counts["1-inform"]["unscored"] == counts["1-select"]["not_selectable"] == len(unscored_ids) > 0

    drawn_ids, evolved = {row["prompt_id"] for row in artifact_rows(run, "1-select")}, artifact_rows(run, "1-evolve")
    assert len(drawn_ids) == round(len(prompts) / 4) and not drawn_ids & unscored_ids
    failed_rows = [row for row in evolved if row["failure"]]
    assert len(evolved) == 2 * len(drawn_ids) - sum(row["generation"] == 1 for row in failed_rows), (
        "a failed call ends a prompt's generations"
    )
    assert Counter(row["failure"] for row in failed_rows) == stage_manifests["1-evolve"]["failures"]
    rejected = Counter(row["rejected"] for row in evolved if row["rejected"])
    fates = counts["1-curate"]
    assert fates["evolved"] == len(evolved) == sum(count for reason, count in fates.items() if reason != "evolved")
    assert rejected.total() == counts["1-evolve"].get("rejected", 0) + len(failed_rows) and rejected == {
        reason: fates[reason] for reason in rejected
    }
    assert document["iterations"][1]["rejected"] == {
        reason: n for reason, n in fates.items() if n and reason not in ("evolved", "kept", "failed")
    }

    mixed_rows, mix = prompts_of_stage["1-respond"], counts["1-mix"]
    assert len(mixed_rows) == len({row["prompt_id"] for row in mixed_rows}) == len(prompts) == mix["evolved"] + mix["buffer"]
    assert mix["evolved"] + mix["evolved_short"] == round(0.8 * len(prompts)) and mix["evolved"] > 30
    usable = {(row["prompt_id"], row["root_id"]): row for row in evolved if row["rejected"] is None}
    check_lineage(mixed_rows, {row["prompt_id"] for row in prompts}, drawn_ids, usable)
    for iteration in "01":
        pairs, train_counts = artifact_rows(run, f"{iteration}-pair"), counts[f"{iteration}-train"]
        assert sum(counts[f"{iteration}-pair"].values()) == len(prompts) and counts[f"{iteration}-pair"]["pair"] == len(pairs)
        assert all(row["chosen_reward"] > row["rejected_reward"] for row in pairs)
        assert train_counts["pairs"] + train_counts["too_long"] == len(pairs) and train_counts["pairs"] > 120
    assert Path(document["policy"], "model.safetensors").is_file() and document["base"] is None


def check_answers(answers: list[dict], prompts: list[dict], counts: dict[str, int]) -> None:
    """Every prompt has responses, in its place; one that is too long for the model has none, and is counted."""
    assert [row["prompt_id"] for row in answers] == [row["prompt_id"] for row in prompts]
    assert counts["responses"] == 2 * len(prompts) == sum(len(row["responses"]) for row in answers)
    assert counts["empty"] == sum(not (text or "").strip() for row in answers for text in row["responses"])
    refused_rows = [row for row in answers if None in row["responses"]]
    assert 0 < len(refused_rows) < 20 and all(set(row["finish_reasons"]) == {"prompt_too_long"} for row in refused_rows)
    assert {reason for row in answers for reason in row["finish_reasons"]} <= {"stop", "length", "prompt_too_long"}


def check_rewards(answers: list[dict], reward_rows: list[dict], counts: dict[str, int]) -> None:
    """A response without a reward has a reason; every response that is not null has a reward."""
    assert [row["prompt_id"] for row in reward_rows] == [row["prompt_id"] for row in answers]
    for answer, row in zip(answers, reward_rows, strict=True):
        assert [reward is None for reward in row["rewards"]] == [failure is not None for failure in row["failures"]]
        assert all(reward is None or text is not None for reward, text in zip(row["rewards"], answer["responses"], strict=True))
    assert counts["responses"] == 2 * len(reward_rows) and counts.get("unscored", 0) == sum(
        row["rewards"].count(None) for row in reward_rows
    )


def check_lineage(mixed_rows: list[dict], seeds: set[str], drawn_ids: set[str], usable: dict[tuple[str, str], dict]) -> None:
    """The id of every prompt is the hash of its content, and its parents lead back to a seed."""
    for row in mixed_rows:
        assert row["prompt_id"] == prompt_id(row["messages"])
        if row["origin"] == "buffer":
            assert row["generation"] == 0 and row["prompt_id"] == row["root_id"] and row["prompt_id"] in seeds
            continue
        assert row["mutation"] and row["source"].startswith("evolved by")
        ancestor = row
        while ancestor["generation"] > 1:
            ancestor = usable[ancestor["parent_id"], row["root_id"]]
        assert ancestor["parent_id"] == row["root_id"] and row["root_id"] in drawn_ids
