"""All features of the creator in one run: feedback, several parents, decontamination, diversity, admission, replay, analysis."""

import json
import random
import zlib
from collections import Counter
from pathlib import Path

import pytest

from eva_stages.core.job_context import job
from eva_stages.core.run_folder import Run
from eva_stages.views.history import read_history
from eva_stages.views.prompt_lineage import Lineage
from tests.conftest import artifact_rows, manifests, overrides, run_eva
from tests.fault_server import chat_server
from tests.killing import rerun_with_kills
from tests.tiny_models import save_classifier, save_embedder, save_policy, save_reward, tokenizer

RECIPE = str(Path(__file__).parent / "recipes" / "tiny_text.yaml")
KEY = "sk-never-to-be-seen-4712"


def words_of(seed: int) -> str:
    """A prompt that is not similar to any other."""
    draw = random.Random(seed)
    return " ".join("".join(draw.choices("abcdefghij", k=5)) for _ in range(14))


KILLED_STAGES = ["1-critique", "1-parents", "1-analyse-scores"]
"""Stages that are rerun, with a kill in the middle."""
LABELS = ["mathematics", "writing", "travel"]
TEXTS = [words_of(seed) for seed in range(30)]


def made_rows(run: Path, label: str) -> int:
    return int(manifests(run)[label]["rows"])


def test_a_run_with_everything_that_the_creator_can_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = tokenizer(TEXTS)
    savers = {"policy": save_policy, "reward": save_reward, "embedder": save_embedder, "classifier": save_classifier}
    for name, save in savers.items():
        save(tmp_path / name, words)
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS))
    (tmp_path / "benchmark.jsonl").write_text(json.dumps({"question_id": "q1", "turns": [TEXTS[3].upper() + "!"]}) + "\n")
    settings = {
        "iterations": 2,
        "prompts.path": str(tmp_path / "prompts.jsonl"),
        "prompts.size": 24 + 6,
        "policy.model": str(tmp_path / "policy"),
        "reward.model": str(tmp_path / "reward"),
        "creator.selection": {"fraction": 0.5, "topic_share": 0.25},
        "creator.evolve.multi_shot": {"examples": 2, "by": "similar"},
        "creator.curate.decontaminate": {"against": [str(tmp_path / "benchmark.jsonl")], "overlap": 1.0},
        "creator.curate.diversity": {"model": str(tmp_path / "embedder")},
        "creator.curate.gate": {"min_zlib_ratio": 0.85},
        "creator.curate.admit": {"fraction": 0.5},
        "creator.replay": {"share": 0.1},
    }
    run = tmp_path / "run"
    monkeypatch.setenv("EVA_TEST_KEY", KEY)
    with chat_server() as server, job({"EVA_TEST_KEY": KEY}):
        server.reply = lambda body: words_of(body["seed"])
        model = {"kind": "litellm", "model": "openai/evolver", "api_base": server.base, "max_new_tokens": 64}
        model["runtime"] = {"api_key_env": "EVA_TEST_KEY", "price": {"input": 1.0, "output": 2.0}, "max_cost_usd": 5.0}
        settings |= {
            "creator.evolve.generator": model,
            "creator.evolve.feedback": {"critic": {"kind": "policy", "max_new_tokens": 16, "stop": ["zz"]}},
            "creator.analysis": {"scorer": {"kind": "lettercraft"}, "topics": {"model": str(tmp_path / "classifier"), "labels": LABELS}},
        }
        changes = overrides(settings)
        plan = json.loads(run_eva("plan", RECIPE, "--run-dir", str(run), *changes, "--json").stdout)
        arguments = ("run", RECIPE, "--run-dir", str(run), *changes, "--until", "2-replay", "--json")
        document = json.loads(run_eva(*arguments).stdout)
        assert len(server.requests) == made_rows(run, "1-evolve")
        meta_prompts = [body["messages"][-1]["content"] for body in server.requests]
        earlier_manifests = manifests(run)
        killed_labels = rerun_with_kills(run, KILLED_STAGES, arguments, tmp_path)
        assert len(killed_labels) > 1 and len(server.requests) == len(meta_prompts)
        assert {label: manifest["digest"] for label, manifest in manifests(run).items()} == {
            label: manifest["digest"] for label, manifest in earlier_manifests.items()
        }
    check_curating(run, document)
    check_evolving(run, meta_prompts)
    check_replay(run)
    check_analysis(run, document)
    planned_stages = {entry["stage"]: entry for entry in plan["stages"]}
    assert set(manifests(run)) <= set(planned_stages) and planned_stages["2-replay"]["rows"] == 3
    assert planned_stages["1-critique"]["tokens"] == 15 * 16 and planned_stages["1-analyse-scores"]["rows"] == 30
    assert not any(KEY.encode() in path.read_bytes() for path in run.rglob("*") if path.is_file())


def check_curating(run: Path, document: dict) -> None:
    stage_manifests = manifests(run)

    (match,) = [row for row in artifact_rows(run, "0-contamination") if row["overlap"] == 1.0]
    assert (match["benchmark"], match["question_id"], match["prompt"]) == ("benchmark.jsonl", "q1", TEXTS[3])
    seeds = artifact_rows(run, "0-decontaminate")
    assert TEXTS[3] not in {row["messages"][-1]["content"] for row in seeds}
    assert stage_manifests["0-decontaminate"]["counts"]["contaminated"] + len(seeds) == 30 == stage_manifests["0-prompts"]["rows"]

    evolved, clean_counts = stage_manifests["1-evolve"]["rows"], stage_manifests["1-decontaminate"]["counts"]
    assert clean_counts["contaminated"] + clean_counts["kept"] == evolved
    counts = stage_manifests["1-curate"]["counts"]
    assert counts["evolved"] == clean_counts["kept"] == sum(count for reason, count in counts.items() if reason != "evolved")
    distances = [row["neighbour_distance"] for row in artifact_rows(run, "1-diversify")]
    assert len(distances) == counts["kept"] and all(0 <= distance <= 2 for distance in distances)

    admit_counts = stage_manifests["1-admit"]["counts"]
    passed_count = check_gate(run, document)
    assert admit_counts["admitted"] == round(0.5 * passed_count) and sum(admit_counts.values()) == passed_count
    gaps = {row["prompt_id"]: max(row["rewards"]) - min(row["rewards"]) for row in artifact_rows(run, "1-admit-reward")}
    admitted_ids = {row["prompt_id"] for row in artifact_rows(run, "1-admit")}
    assert min(gaps[name] for name in admitted_ids) >= max(gap for name, gap in gaps.items() if name not in admitted_ids)
    origins = [row["origin"] for row in artifact_rows(run, "1-mix")]
    assert origins.count("evolved") <= admit_counts["admitted"] and len(origins) == len(seeds)
    assert document["iterations"][1]["rejected"].keys() <= {*counts, "contaminated"}
    assert stage_manifests["1-evolve"]["counts"]["cost_usd"] > 0


def check_gate(run: Path, document: dict) -> int:
    """Prompts that compress well are left out, which summary and lineage show; returns the number of the others."""
    prompts = artifact_rows(run, "1-diversify")
    compressible_ids = set()
    for row in prompts:
        content = row["messages"][-1]["content"].encode()
        if len(zlib.compress(content, 9)) / len(content) < 0.85:
            compressible_ids.add(row["prompt_id"])
    passing_ids = [row["prompt_id"] for row in artifact_rows(run, "1-gate")]
    assert passing_ids == [row["prompt_id"] for row in prompts if row["prompt_id"] not in compressible_ids]
    gate = document["iterations"][1]["gate"]
    assert (gate["prompts"], gate["passed"], gate["audit"]) == (len(prompts), len(passing_ids), None)
    assert gate["left_out"] == {"min_zlib_ratio": len(compressible_ids)} and 0 < len(passing_ids) < len(prompts)
    lineage = Lineage(read_history(Run(run)))
    fates = {lineage.trace(name)["lineage"][-1]["fate"] for name in compressible_ids}
    assert fates == {"left out by the gate: min zlib ratio"}
    return len(passing_ids)


def check_evolving(run: Path, meta_prompts: list[str]) -> None:
    """Every evolution used the best and worst response, a critique and two neighbours, and records it."""
    drawn_ids = [row["prompt_id"] for row in artifact_rows(run, "1-select")]
    feedback = {row["prompt_id"]: row for row in artifact_rows(run, "1-feedback")}
    rewards = {row["prompt_id"]: row["rewards"] for row in artifact_rows(run, "1-creator-reward")}
    assert list(feedback) == drawn_ids == [row["prompt_id"] for row in artifact_rows(run, "1-critique")]
    for name, row in feedback.items():
        assert (row["best_reward"], row["worst_reward"]) == (max(rewards[name]), min(rewards[name]))
    critiques = {row["prompt_id"]: row["critique"] for row in artifact_rows(run, "1-critique")}
    assert sum(critique is not None for critique in critiques.values()) > len(drawn_ids) / 2
    parents = artifact_rows(run, "1-parents")
    assert all(len(set(row["parent_ids"]) & set(drawn_ids)) == 2 and row["prompt_id"] not in row["parent_ids"] for row in parents)
    assert all(row["mutation"].endswith("+multi_shot+feedback") for row in artifact_rows(run, "1-evolve"))
    assert all(text.count("#Example Prompt#") == 2 and "#Best Response#" in text for text in meta_prompts)
    assert all(any(text in meta_prompt for meta_prompt in meta_prompts) for text in critiques.values() if text)
    assert manifests(run)["1-parents"]["inputs"].keys() == {"selected", "prompts", "embeddings"}


def check_replay(run: Path) -> None:
    """Of the seeds that the first iteration dropped, those with the largest gap return in the second."""
    seeds, present, replay_rows = (artifact_rows(run, label) for label in ("0-decontaminate", "1-mix", "2-replay"))
    gaps = {row["prompt_id"]: row["reward_gap"] for row in artifact_rows(run, "1-inform")}
    lost_ids = {row["prompt_id"] for row in seeds} - {row["prompt_id"] for row in present}
    replayed_ids = [row["prompt_id"] for row in replay_rows]
    assert replayed_ids == sorted(lost_ids, key=lambda name: -gaps[name])[:3] and manifests(run)["2-replay"]["counts"]["pool"] == len(
        lost_ids
    )
    assert all(row["informativeness"] == gaps[row["prompt_id"]] for row in replay_rows)


def check_analysis(run: Path, document: dict) -> None:
    """Every prompt of both sets has scores and a topic, and the summary has their averages."""
    for iteration, label in enumerate(("0-decontaminate", "1-mix")):
        scores, topics = artifact_rows(run, f"{iteration}-analyse-scores"), artifact_rows(run, f"{iteration}-analyse-topics")
        ids = [row["prompt_id"] for row in artifact_rows(run, label)]
        assert ids == [row["prompt_id"] for row in scores] == [row["prompt_id"] for row in topics]
        assert all((row["quality"], row["complexity"], row["failure"]) == (1, 1, None) for row in scores)  # no Lettercraft
        analysis = document["iterations"][iteration]["analysis"]
        assert (analysis["quality"], analysis["complexity"], analysis["unscored"], analysis["unlabelled"]) == (1, 1, 0, 0)
        assert analysis["topics"] == Counter(row["topic"] for row in topics) and set(analysis["topics"]) <= set(LABELS)
    assert document["iterations"][2]["analysis"] is None and "topics" in manifests(run)["1-select"]["inputs"]
