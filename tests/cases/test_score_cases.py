"""Scores name their judge and their rule: one judge per score, one outcome per judgment, official figures and ours apart."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from scipy.special import expit

from benchmarks.synthetic_run import SyntheticRun
from eva_stages.core.errors import ConfigError
from eva_stages.core.planned_stages import stage_of_folder
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import Context
from eva_stages.core.tables import read_table, write_rows
from eva_stages.core.text_table import as_markdown
from eva_stages.evaluation import arena_style
from eva_stages.evaluation.alpaca import HubFiles
from eva_stages.evaluation.answers import STYLE, Answer, by_model, parse_answer
from eva_stages.evaluation.arena_hard import battle_file
from eva_stages.evaluation.arena_style import _fit, _official_steps, standardised_features
from eva_stages.evaluation.file_scores import score_files
from eva_stages.evaluation.judgment_files import Record
from eva_stages.evaluation.measures import score
from eva_stages.evaluation.mt_bench import rating
from eva_stages.evaluation.statistics import question_values
from eva_stages.models.instructions import instruction, instruction_loosely
from eva_stages.publishing.cards import model_card
from eva_stages.publishing.report.examples_section import examples
from eva_stages.publishing.report.judging_section import _lettercraft, judged_rows, judging
from eva_stages.publishing.story import Base, Story
from eva_stages.views.comparison import Measurement, compare, compare_iterations, file_values
from eva_stages.views.history import Artifact, History, read_history
from eva_stages.views.score_tables import comparison_tables, score_tables
from tests.building import build_rounds, check
from tests.evaluation.official import annotation_row, judged_v2, judgment_row, rating_row, write_lines
from tests.hub_cards_check import card_faults

BASELINE = "o3-mini-2025-01-31"


# --- one judge per score


def by_judge(row: dict[str, Any], judge: str) -> dict[str, Any]:
    """A row of official judgments, attributed to another judge."""
    return {**row, "judge": [judge, row["judge"][1]] if isinstance(row.get("judge"), list) else judge}


def rows_of(bench: str, judge: str, good: bool) -> list[dict[str, Any]]:
    """Judgments of a model `m` by a judge that rates it high or low."""
    numbers = range(81, 101)
    match bench:
        case "mt-bench":
            rows = [rating_row("m", number, turn, (8 if good else 2) + number % 2) for number in numbers for turn in (1, 2)]
        case "arena-hard":
            rows = [judgment_row("m", f"q{n}", *(("B>A", "A>B") if good else ("A>>B", "B>>A"))) for n in numbers]
        case "arena-hard-v2":
            rows = [judged_v2("m", f"q{n}", *(("B>A", "A>B") if good else ("A>>B", "B>>A"))) for n in numbers]
        case _:
            rows = [annotation_row("m", f"i{n}", 2.0 if good else 1.0) for n in numbers]
    return [by_judge(row, judge) for row in rows]


@pytest.mark.parametrize("bench", ["mt-bench", "arena-hard", "arena-hard-v2", "alpaca-eval"])
def test_judgments_of_two_judges_give_two_scores_that_are_never_compared(bench: str, tmp_path: Path) -> None:
    name = bench.removesuffix("-v2")
    first_file = write_lines(tmp_path / "one.jsonl", rows_of(bench, "strict", False))
    two = write_lines(tmp_path / "two.jsonl", rows_of(bench, "kind", True))
    files = HubFiles()
    document = score_files(name, [first_file, two], hub_files=files)
    assert [(first_file["model"], first_file["judge"]) for first_file in document["models"]] in (
        [("m", "kind"), ("m", "strict")],
        [("m", "strict"), ("m", "kind")],  # without its files AlpacaEval has no score to sort by
    )
    key = "win_rate" if name == "alpaca-eval" else "score"
    two_scores = {2.5, 8.5} if name == "mt-bench" else {0.0, 100.0}
    assert {first_file[key] for first_file in document["models"]} == two_scores
    assert document["differences"] == []
    table = as_markdown(score_tables(document))
    assert "judge" in table and "| m " in table and "strict" in table and "kind" in table
    if name != "alpaca-eval":
        with pytest.raises(ConfigError, match="judged by strict on one side and by kind on the other; not compared"):
            compare([file_values(name, first_file), file_values(name, two)])


def test_a_comparison_uses_a_judge_that_judged_both_sides(tmp_path: Path) -> None:
    rows = rows_of("mt-bench", "strict", False)
    first_file = write_lines(tmp_path / "one.jsonl", rows + rows_of("mt-bench", "kind", True))
    two = write_lines(tmp_path / "two.jsonl", [{**row, "score": row["score"] + 1} for row in rows])
    document = compare([file_values("mt-bench", first_file), file_values("mt-bench", two)])
    (difference,) = document["differences"]
    assert (difference["judge"], difference["value"]) == ("strict", pytest.approx(1))
    assert document["notes"] == ["mt-bench, m: judged by kind on one side and by strict on the other; not compared"]
    assert "strict" in as_markdown(comparison_tables(document))
    judgeless_file = write_lines(
        tmp_path / "unnamed.jsonl", [{name: value for name, value in row.items() if name != "judge"} for row in rows]
    )
    document = compare([file_values("mt-bench", two), file_values("mt-bench", judgeless_file)])
    assert document["differences"][0]["value"] == pytest.approx(-1) and "the judge is recorded on one side only" in document["notes"][0]


def test_one_of_several_runs_without_a_common_benchmark_is_a_note_and_not_the_end() -> None:
    values = question_values({str(number): float(number % 3) for number in range(9)})
    first, second = ([Measurement(run, "mt-bench", "base", "gpt-4", values)] for run in ("one", "two"))
    uncommon_side = [Measurement("three", "gsm8k", policy, None, values) for policy in ("base", "iteration 0")]
    document = compare([first, uncommon_side, second])
    assert [entry["b"] for entry in document["differences"]] == ["two"] and document["b"] == "three, two"
    (note,) = document["notes"]
    assert note.startswith("one and three") and "mt-bench of base" in note and "gsm8k of iteration 0" in note
    (table,) = comparison_tables(compare([first, second, [first[0]._replace(run="four")]]))
    assert table.heads[0] == "b is" and [row[0] for row in table.rows] == ["two", "four"]
    with pytest.raises(ConfigError, match="one and three"):
        compare([first, uncommon_side])


def test_iterations_are_compared_with_the_base_policy_by_the_same_judge_only() -> None:
    worse, better = (question_values({str(n): base + n % 3 for n in range(30)}) for base in (1.0, 2.0))
    values = [
        Measurement("run", "mt-bench", "base", "gpt-4", worse),
        Measurement("run", "mt-bench", "iteration 0", "gpt-4", better),
        Measurement("run", "mt-bench", "iteration 1", "gpt-4.1", better),
    ]
    document = compare_iterations(values)
    assert [(entry["policy"], entry["value"]) for entry in document["differences"]] == [("iteration 0", pytest.approx(1))]
    assert document["notes"] == ["mt-bench, iteration 1: judged by gpt-4 on one side and by gpt-4.1 on the other; not compared"]


# --- one outcome per judgment


OF_0_1_0 = pa.schema(
    [field.with_name("score") if field.name == "rating" else field for field in SCHEMAS["judgments"] if field.name != "outcome"]
)
"""Judgments as 0.1.0 wrote them: no outcome, and MT-Bench's rating and AlpacaEval's preference in one column."""


def judgment(question: str, game: int, verdict: str | None = None, preference: float | None = None, **columns: Any) -> dict[str, Any]:
    row = dict.fromkeys(SCHEMAS["judgments"].names)
    common = {"prompt_id": question, "question_id": question, "category": "hard_prompt", "model": "m", "baseline": "b", "judge": "j"}
    return {**row, **common, "game": game, "verdict": verdict, "score": preference, "raw": "because", "attempts": 1, **columns}


def artifact(folder: Path, stage: str, rows: list[dict[str, Any]], schema: pa.Schema, inputs: dict[str, str] | None = None) -> Artifact:
    place = folder / f"0-{stage}-000000000000"
    write_rows([pa.Table.from_pylist(rows, schema=schema)], schema, place / "data")
    inputs_of_manifest = {name: {"artifact": artifact_name} for name, artifact_name in (inputs or {}).items()}
    return Artifact(stage_of_folder(place.name), place, {"counts": {}, "inputs": inputs_of_manifest, "rows": len(rows)})


@pytest.mark.parametrize("column", [True, False])
@pytest.mark.parametrize(
    ("stage", "rows", "outcomes"),
    [
        ("eval-alpaca-eval-judge", [judgment("q", 1, None, 1.9), judgment("r", 0, None, 1.2), judgment("s", 0)], [0.9, 0.2, None]),
        ("eval-arena-hard-v2.0-judge", [judgment("q", 0, "A<<B"), judgment("q", 1, "B=A"), judgment("r", 0, "A>>A")], [1.0, 0.5, None]),
        ("eval-arena-hard-v0.1-judge", [judgment("q", 0, "B>A"), judgment("q", 1, "A<B"), judgment("r", 1, "B>>A")], [1.0, None, 0.0]),
        ("eval-mt-bench-judge", [judgment("q", 1, None, 8.0)], [None]),
    ],
)
def test_outcomes_come_from_the_judging_steps_and_old_runs_have_them_too(
    stage: str, rows: list[dict[str, Any]], outcomes: list[float | None], column: bool, tmp_path: Path
) -> None:
    schema = SCHEMAS["judgments"] if column else OF_0_1_0
    stored_rows = [{**row, **({"outcome": value} if column else {})} for row, value in zip(rows, outcomes, strict=True)]
    read_outcomes = judged_rows(artifact(tmp_path, stage, stored_rows, schema), [])
    if stage == "eval-mt-bench-judge" and not column:
        assert [row["verdict"] for row in read_outcomes] == [None]
    assert [row["outcome"] for row in read_outcomes] == [pytest.approx(value) if value is not None else None for value in outcomes]


def test_the_report_shows_wins_of_alpaca_eval_and_of_every_label_of_arena_hard_v2(tmp_path: Path) -> None:
    judgments = [judgment(f"q{n}", 1, None, preference) for n, preference in enumerate((1.9, 1.8, 1.2, None))]
    labels = [judgment(f"q{n}", game, label) for n, pair in enumerate((("A<B", "B<A"), ("A<<B", "B=A"))) for game, label in enumerate(pair)]
    questions = [{"prompt_id": f"q{n}", "question_id": f"q{n}", "turns": [f"Question {n}?"], "messages": []} for n in range(4)]
    responses = [{"prompt_id": f"q{n}", "responses": ["An answer."]} for n in range(4)]
    artifacts = []
    for bench, rows in (("alpaca-eval", judgments), ("arena-hard-v2.0", labels)):
        schemas = {"questions": (questions, SCHEMAS["questions"]), "answers": (responses, SCHEMAS["responses"])}
        stage_artifacts = {name: artifact(tmp_path, f"{bench}-{name}", *parts) for name, parts in schemas.items()}
        stage_artifacts["baseline"] = artifact(tmp_path, f"{bench}-baseline", responses, SCHEMAS["responses"])
        inputs = {name: entry.folder.name for name, entry in stage_artifacts.items()}
        stage_artifacts["judgments"] = artifact(tmp_path, f"eval-{bench}-judge", rows, OF_0_1_0, inputs)
        score_artifact = artifact(tmp_path, f"eval-{bench}-score", [], pa.schema([("question_id", pa.string())]))
        about = {"judge": "j", "judgments": len(rows), "failed_calls": 0, "no_verdict": 0, "first_place": 0.5}
        manifest = {
            **score_artifact.manifest,
            "scores": {"judging": about},
            "inputs": {"baseline": {}, "judgments": {"artifact": stage_artifacts["judgments"].folder.name}},
        }
        artifacts += [*stage_artifacts.values(), dataclasses.replace(score_artifact, manifest=manifest)]
    history = History(tmp_path, (), tuple(artifacts))
    titles = [example.title for example in examples(history).answers]
    assert {"alpaca-eval: a win", "alpaca-eval: a loss", "alpaca-eval: no verdict"} <= set(titles)
    assert "arena-hard-v2.0: a win in both orders" in titles and "arena-hard-v2.0: no verdict" not in titles
    verdict_labels = [verdict.label for example in examples(history).answers for verdict in example.verdicts]
    assert "j, policy first: 0.90 for the policy" in verdict_labels and "j, policy first: B<A" in verdict_labels
    assert "games" in {plot.name for plot in judging(history).plots}


def test_a_report_of_a_run_without_the_column_is_the_same(tmp_path: Path) -> None:
    root = SyntheticRun(tmp_path / "made", prompts=8, responses=2, iterations=1, words=4).write()
    section = _lettercraft(read_history(Run(root)))
    for file in (root / "stages").glob("*-eval-judge-*/data/*.parquet"):
        pq.write_table(pq.read_table(file).drop_columns(["outcome"]), file)
    assert _lettercraft(read_history(Run(root))) == section and section[0].games


# --- Arena-Hard v2.0's style control


def test_style_control_of_v2_equals_the_official_optimiser_and_the_converged_fit_is_reported_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arena_style, "ROUNDS", 5)
    random = np.random.default_rng(4)
    shares = {"even": 0.5, "strong": 0.97, "weak": 0.01}
    answers = [Answer(str(q), name, "", style_counts(random), True) for q in range(60) for name in (BASELINE, *shares)]
    rows = [(str(q), BASELINE, name, float(random.random() < share)) for q in range(60) for name, share in shares.items()]
    battles, _ = battle_file(rows)
    features = official_features(battles, by_model(answers))
    place = np.searchsorted(sorted(shares), battles.b)
    ours = expit(_official_steps(place, 3, features.double().numpy(), battles.outcome)[:3])
    assert ours == pytest.approx(official_rates(battles, features, sorted(shares)), abs=1e-3)
    converged_rates = expit(_fit(place, 3, features.double().numpy(), battles.outcome, np.ones(len(place)), "v2.0")[:3])
    assert abs(ours - converged_rates).max() > 1e-3, "the official optimiser has not converged"

    judgments = [judged_v2("weak", str(q), "A>B", "B>A" if q % 9 else "A>B") for q in range(60)]
    texts = [{"role": "assistant", "content": {"answer": "x"}}]
    answer_rows = [{"uid": answer.question, "model": answer.model, "messages": texts, "metadata": answer.counts} for answer in answers]
    files = [write_lines(tmp_path / f"{name}.jsonl", rows) for name, rows in (("judgments", judgments), ("answers", answer_rows))]
    document = score_files("arena-hard", files[:1], files[1:])
    (model,) = document["models"]
    assert model["style_controlled"]["score"] != model["style_controlled_converged"]["score"]
    assert "converged (eva's own)" in as_markdown(score_tables(document))


def style_counts(random: np.random.Generator) -> dict[str, Any]:
    return {"token_len": int(random.integers(20, 300)), **{name: {"all": int(random.integers(0, 9))} for name in STYLE}}


def official_features(battles: Any, answers: Any) -> torch.Tensor:
    """v2.0's style features by their formula: markdown per (tokens + 1)."""

    def counts(side: Any) -> torch.Tensor:
        style_counts = [answers[model][question].counts for model, question in zip(side, battles.question, strict=True)]
        return torch.tensor([[style["token_len"], *(style[name]["all"] for name in STYLE)] for style in style_counts], dtype=torch.float32)

    a, b = counts(battles.a), counts(battles.b)
    density_a, density_b = a[:, 1:] / (a[:, :1] + 1), b[:, 1:] / (b[:, :1] + 1)
    ratio = torch.cat([(b[:, :1] - a[:, :1]) / (b[:, :1] + a[:, :1]), (density_b - density_a) / (density_b + density_a + 1)], dim=1)
    features = (ratio - ratio.mean(dim=0)) / ratio.std(dim=0)
    assert features.numpy() == pytest.approx(standardised_features(a.double().numpy(), b.double().numpy(), "v2.0"), abs=1e-4)
    return features


def official_rates(battles: Any, features: torch.Tensor, models: list[str]) -> list[float]:
    """Win rates after 50 steps of LBFGS, as the official procedure describes them."""
    columns = [BASELINE, *models]
    design = torch.zeros(len(battles.b), len(columns) + 4)
    for row, model in enumerate(battles.b):
        design[row, columns.index(model)], design[row, 0] = 1.0, -1.0
    design[:, len(columns) :] = features
    weights = torch.nn.Parameter(torch.full((design.shape[1],), 0.5))
    optimizer = torch.optim.LBFGS([weights], lr=0.1, max_iter=50, tolerance_grad=1e-9, tolerance_change=1e-9)
    outcomes = torch.from_numpy(battles.outcome).float()

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(design @ weights, outcomes, reduction="sum")
        value.backward()
        return value

    optimizer.step(loss)
    coefficients = weights.detach()
    return [float(torch.sigmoid(coefficients[columns.index(model)] - coefficients[0])) for model in models]


# --- MT-Bench and IFEval


@pytest.mark.parametrize("text", ["Rating: [[80]]", "Rating: [[0]]", "[[10.5]]", "Rating: [11]", "[[0.5]]", "[[007]] [[80]]"])
def test_a_rating_outside_1_to_10_is_null(text: str) -> None:
    assert rating(text) == (7 if "007" in text else None)


def test_ratings_outside_1_to_10_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [
        rating_row("m", 81, 1, 8),
        rating_row("m", 81, 2, 80),
        rating_row("m", 82, 1, 0),
        rating_row("m", 82, 2, -1),
        rating_row("m", 83, 1, 6),
    ]
    del rows[1]["score"]
    (model,) = (document := score_files("mt-bench", [write_lines(tmp_path / "a.jsonl", rows)]))["models"]
    assert (model["score"], model["n"], model["unrated"], model["out_of_range"]) == (7.0, 2, 3, 2)
    assert "outside 1 to 10" in as_markdown(score_tables(document))


@pytest.mark.parametrize(
    ("bench", "row", "says"),
    [
        ("mt-bench", {"question_id": 81, "model": "m", "turn": 1, "judgment": 7}, "judgment is 7; expected the judge's text"),
        ("mt-bench", {"question_id": "\ud800", "model": "m", "turn": 1, "score": 7}, r"question_id is .*ud800.*; expected a name or an id"),
        (
            "arena-hard",
            {"uid": "q", "model": "m", "games": [{"judgment": {"answer": ["A>B"]}}]},
            "judgment is .*; expected the judge's text",
        ),
        ("arena-hard", {"question_id": "q", "model_a": "gpt-4-0314", "model_b": "m", "winner": ["tie"]}, "winner is .*; expected model_a"),
        (
            "alpaca-eval",
            {"instruction": "i", "generator_1": "a", "generator_2": "b", "preference": 1, "annotator": ["x"]},
            "expected a name",
        ),
    ],
)
def test_a_judgment_of_another_type_is_named_with_its_line(bench: str, row: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"a.jsonl, line 1: .*{says}"):
        score_files(bench, [write_lines(tmp_path / "a.jsonl", [row])])


def test_a_huge_rating_is_outside_the_scale(tmp_path: Path) -> None:
    replied_row = {name: value for name, value in rating_row("m", 83, 1, 8).items() if name != "score"}
    replied_row["judgment"] = f"[[{10**400}]]"
    rows = [rating_row("m", 81, 1, 8), rating_row("m", 82, 1, 10**400), replied_row]
    (model,) = score_files("mt-bench", [write_lines(tmp_path / "a.jsonl", rows)])["models"]
    assert (model["score"], model["out_of_range"]) == (8.0, 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("messages", ["a"]),
        ("metadata", True),
        ("metadata", {"bold_count": {"**": ["x"]}}),
        ("metadata", [1]),
        ("metadata", {"token_len": 10**400}),
    ],
)
def test_a_response_file_of_another_format_is_refused(field: str, value: Any) -> None:
    row = {"uid": "q", "model": "m", "messages": [{"role": "assistant", "content": "x"}], field: value}
    with pytest.raises(ValueError, match="expected"):
        parse_answer(Record(Path("a"), "line 1", row))


REFERENCE = json.dumps(
    {"instruction_id_list": ["startend:end_checker", "punctuation:no_comma"], "kwargs": [{"end_phrase": "the end."}, {}]}
)


@pytest.mark.parametrize(
    ("response", "strict", "loose"),
    [
        ("A tale, the end.", 0.5, 0.5),
        ("A tale. **The end.**", 0.5, 1.0),
        ("Sure, here it is:\nA tale. The end.", 0.5, 1.0),
        ("A tale. The end.\nI hope, you like it.", 0.0, 1.0),
        ("Sure, here:\n*A tale. The end.*\nI hope, you like it.", 0.0, 1.0),
        ("", 0.0, 0.0),
        ("**", 0.5, 0.5),
    ],
)
def test_ifevals_loose_rule_ignores_first_and_last_lines_and_asterisks(response: str, strict: float, loose: float) -> None:
    assert (instruction([], response, REFERENCE), instruction_loosely(response, REFERENCE)) == (strict, loose)


def test_ifeval_reports_strict_and_loose_accuracy_of_prompts_and_of_instructions(tmp_path: Path) -> None:
    answers = ["A tale. The end.", "A tale. **The end.**", "A tale, the end.", "no"]
    ids = [f"p{n}" for n in range(4)]
    shares = [instruction([], text, REFERENCE) for text in answers[:3]]
    tables = {
        "questions": ([{"prompt_id": name, "question_id": name, "reference": REFERENCE} for name in ids], "questions"),
        "answers": ([{"prompt_id": n, "responses": [t], "token_counts": [3]} for n, t in zip(ids, answers, strict=True)], "responses"),
        "checks": ([{"prompt_id": name, "rewards": [share]} for name, share in zip(ids, [*shares, None], strict=True)], "rewards"),
    }
    inputs = {}
    for name, (rows, schema) in tables.items():
        write_rows([pa.Table.from_pylist(rows, schema=SCHEMAS[schema])], SCHEMAS[schema], tmp_path / name)
        inputs[name] = tmp_path / name
    context: Any = Context(tmp_path, tmp_path / "data", inputs, None, tmp_path)  # type: ignore[arg-type]
    official = score(context, "ifeval", 0)["scores"]["official"]
    assert official == {
        "score": pytest.approx(100 / 3),
        "n": 3,
        "instructions": pytest.approx(100 * 4 / 6),
        "loose": pytest.approx(200 / 3),
        "loose_instructions": pytest.approx(100 * 5 / 6),
    }
    assert len(read_table(tmp_path / "data")) == 4


# --- AlpacaEval's files, and cards without benchmarks


def alpaca_recipe(**benchmark: Any) -> Any:
    chosen = [{"kind": "alpaca_eval", "judge": {"kind": "lettercraft"}, **benchmark}]
    return load_recipe("quickstart", [f"evaluation.benchmarks={json.dumps(chosen)}"])


def test_the_recipe_and_not_the_hub_decides_alpaca_evals_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = tmp_path / "outputs.json"
    outputs.write_text(json.dumps([{"dataset": "made", "instruction": "i", "output": "o", "generator": "g"}]))
    paths = {"questions": str(outputs), "baseline": str(outputs)}
    (stage,) = [stage for stage in build_rounds(alpaca_recipe(**paths))[0].stages if stage.name == "base-alpaca-eval-score"]
    assert not {"gamed", "difficulty"} & set(stage.inputs)
    hub = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    gamed_file = tmp_path / "gamed.csv"
    gamed_file.write_text("model\n")
    (stage_with_file,) = [
        stage for stage in build_rounds(alpaca_recipe(**paths, gamed=str(gamed_file)))[0].stages if stage.name == "base-alpaca-eval-score"
    ]
    assert "gamed" in stage_with_file.inputs and stage_with_file.fingerprint != stage.fingerprint
    with pytest.raises(ConfigError, match=r"alpaca_eval at main cannot be fetched .+ give the path of a copy"):
        check(alpaca_recipe(), keys=False)


def test_a_policy_without_benchmarks_has_a_card_that_the_hub_accepts(tmp_path: Path) -> None:
    root = SyntheticRun(tmp_path / "made", prompts=8, responses=2, iterations=0, words=4).write()
    artifacts = tuple(entry for entry in read_history(Run(root)).artifacts if not entry.stage.endswith("-score"))
    (policy,) = [entry for entry in artifacts if entry.stage == "train"]
    recipe = load_recipe("quickstart").model_dump(mode="json")
    base = Base("org/base", "org/base", "0" * 40, {"license": "apache-2.0"})
    manifest = {**policy.manifest, "inputs": {**policy.manifest["inputs"], "policy": {"artifact": "org/base"}}}
    policy = dataclasses.replace(policy, manifest=manifest)
    card = model_card(Story(root, "made", "tester", recipe, artifacts, {0: policy}, base, {}), "tester/made-iter0")
    metadata = yaml.safe_load(card.split("---")[1])
    assert "model_name" not in metadata and "model-index" not in metadata
    assert card_faults(card, "model") == [] and ModelCard(card).data.base_model == "org/base"
