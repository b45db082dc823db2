"""Everything that curating can do, in one run: decontamination, diversity, admission."""

import json
import random
from pathlib import Path

from eva_stages.core.tables import read_table
from tests.conftest import manifests, overrides, run_eva
from tests.fault_server import chat_server
from tests.tiny_models import save_embedder, save_policy, save_reward, tokenizer

RECIPE = str(Path(__file__).parent / "recipes" / "tiny_text.yaml")
KEY = "sk-never-to-be-seen-4712"


def words_of(seed: int) -> str:
    """A prompt unlike any other."""
    draw = random.Random(seed)
    return " ".join("".join(draw.choices("abcdefghij", k=5)) for _ in range(14))


TEXTS = [words_of(seed) for seed in range(30)]


def rows(run: Path, label: str) -> list[dict]:
    (folder,) = run.glob(f"stages/{label}-????????????/data")
    return read_table(folder).to_pylist()


def made_rows(run: Path, label: str) -> int:
    return int(manifests(run)[label]["rows"])


def test_a_run_with_everything_that_curating_can_do(tmp_path: Path) -> None:
    words = tokenizer(TEXTS)
    for name, save in (("policy", save_policy), ("reward", save_reward), ("embedder", save_embedder)):
        save(tmp_path / name, words)
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in TEXTS))
    (tmp_path / "benchmark.jsonl").write_text(json.dumps({"question_id": "q1", "turns": [TEXTS[3].upper() + "!"]}) + "\n")
    settings = {
        "prompts.path": str(tmp_path / "prompts.jsonl"),
        "prompts.size": 24 + 6,
        "policy.model": str(tmp_path / "policy"),
        "reward.model": str(tmp_path / "reward"),
        "creator.selection.fraction": 0.5,
        "creator.curate.decontaminate": {"against": [str(tmp_path / "benchmark.jsonl")], "overlap": 1.0},
        "creator.curate.diversity": {"model": str(tmp_path / "embedder")},
        "creator.curate.admit": {"fraction": 0.5},
    }
    run = tmp_path / "run"
    with chat_server() as server:
        server.reply = lambda body: words_of(body["seed"])
        evolver = {"kind": "litellm", "model": "openai/evolver", "api_base": server.base, "max_new_tokens": 64}
        evolver["runtime"] = {"api_key_env": "EVA_TEST_KEY", "price": {"input": 1.0, "output": 2.0}, "max_cost_usd": 5.0}
        changes = overrides({**settings, "creator.evolve.generator": evolver})
        document = json.loads(run_eva("run", RECIPE, "--run-dir", str(run), *changes, "--json", EVA_TEST_KEY=KEY).stdout)
        assert len(server.requests) == made_rows(run, "1-evolve")
    made = manifests(run)

    (match,) = [row for row in rows(run, "0-contamination") if row["overlap"] == 1.0]
    assert (match["benchmark"], match["question_id"], match["prompt"]) == ("benchmark.jsonl", "q1", TEXTS[3])
    seeds = rows(run, "0-decontaminate")
    assert TEXTS[3] not in {row["messages"][-1]["content"] for row in seeds}
    assert made["0-decontaminate"]["counts"]["contaminated"] + len(seeds) == 30 == made["0-prompts"]["rows"]

    evolved, kept = made["1-evolve"]["rows"], made["1-decontaminate"]["counts"]
    assert kept["contaminated"] + kept["kept"] == evolved
    counts = made["1-curate"]["counts"]
    assert counts["evolved"] == kept["kept"] == sum(count for reason, count in counts.items() if reason != "evolved")
    distances = [row["neighbour_distance"] for row in rows(run, "1-diversify")]
    assert len(distances) == counts["kept"] and all(0 <= distance <= 2 for distance in distances)

    admitted = made["1-admit"]["counts"]
    assert admitted["admitted"] == round(0.5 * counts["kept"]) and sum(admitted.values()) == counts["kept"]
    gaps = {row["prompt_id"]: max(row["rewards"]) - min(row["rewards"]) for row in rows(run, "1-admit-reward")}
    inside = {row["prompt_id"] for row in rows(run, "1-admit")}
    assert min(gaps[name] for name in inside) >= max(gap for name, gap in gaps.items() if name not in inside)
    origins = [row["origin"] for row in rows(run, "1-mix")]
    assert origins.count("evolved") <= admitted["admitted"] and len(origins) == len(seeds)
    assert document["iterations"][1]["rejected"].keys() <= {*counts, "contaminated"}
    assert made["1-evolve"]["counts"]["cost_usd"] > 0
    assert not any(KEY.encode() in path.read_bytes() for path in run.rglob("*") if path.is_file())
