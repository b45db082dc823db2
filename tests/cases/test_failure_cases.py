"""A failure is never data, and a retry really retries: failing calls of every role, through real stages and servers."""

import inspect
import io
import json
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from distilabel.pipeline import Pipeline
from rich.console import Console

from eva_stages.checking.function_checks import call_fault
from eva_stages.checking.resolution import resolve
from eva_stages.core.config.function_fields import METRIC, VERIFIER
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError, StageError
from eva_stages.core.failures import LONGEST, MOST_REASONS, add_calls, error_reason, split
from eva_stages.core.harmless import finite_json
from eva_stages.core.health_signs import checks
from eva_stages.core.named_functions import known_functions
from eva_stages.core.numeric import LARGEST, drawable
from eva_stages.core.parts import ROW, STATISTICS, drop_failed, merge_parts, read_parts, write_part
from eva_stages.core.progress import Reporter
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.rows import SCHEMAS, prompt_row
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import execute
from eva_stages.core.stage import RUN, WORK, Outside, Stage, load_attribute
from eva_stages.core.tables import joined_batches, per_prompt_mean, read_table, write_rows
from eva_stages.creator.context import FEEDBACK
from eva_stages.creator.curation import Curate
from eva_stages.creator.function_calls import metric_values
from eva_stages.creator.gate import PARENTS
from eva_stages.creator.informativeness import weights
from eva_stages.evaluation.health_figures import evolved
from eva_stages.models.ensemble import standardise
from eva_stages.models.rewards import Score, as_score, finite
from eva_stages.publishing.report.numbers import mean_interval
from eva_stages.publishing.report.plots import draw, histograms, iteration_points
from eva_stages.solver.online import _trainable
from pipelines.analysis_stages import analysing
from pipelines.evaluation import evaluation_stages
from pipelines.evolution_stages import ScoredPrompts, evolving
from pipelines.gate_stages import gate_stages
from pipelines.response_stages import rewarding
from pipelines.rewrite_stages import rewriting
from tests.building import build_rounds, check
from tests.fault_server import ChatServer, serving

ROWS = 4
TEXTS = [f"Name the {word} of a river that flows to the sea." for word in ("source", "mouth", "length", "colour")]


def recipe_of(**settings: Any) -> Recipe:
    fields = {"runtime.rows_per_part": ROWS, **settings}
    return load_recipe("quickstart", [f"{name}={json.dumps(value)}" for name, value in fields.items()])


def asking(server: ChatServer) -> dict[str, Any]:
    runtime = {"attempts": 1, "concurrency": 1, "timeout": 60, "price": {"input": 0, "output": 0}}
    return {"kind": "litellm", "model": "openai/some", "api_base": server.base, "runtime": runtime}


def artifact(folder: Path, name: str, rows: list[dict[str, Any]], schema: pa.Schema) -> Any:
    """Save rows as an input of a stage."""
    write_rows([pa.Table.from_pylist(rows, schema=schema)], schema, folder / name)
    return Outside(name, folder / name, name)


def stage_of(role: str, server: ChatServer, folder: Path, **settings: Any) -> Stage:
    """The stage of a recipe in which `role` calls the server, with inputs of four rows."""
    role_settings = asking(server)
    prompts = [prompt_row([{"role": "user", "content": text}], "test") for text in TEXTS]
    ids = [row["prompt_id"] for row in prompts]
    prompt_stage = artifact(folder, "prompts", prompts, SCHEMAS["prompts"])
    response_rows = [{"prompt_id": prompt_id, "responses": ["good"], "generator": "new"} for prompt_id in ids]
    responses = artifact(folder, "responses", response_rows, SCHEMAS["responses"])
    baseline = artifact(folder, "baseline", [{**row, "generator": "old"} for row in response_rows], SCHEMAS["responses"])
    policy = Outside("policy", folder, "policy")
    of_base = (prompt_stage, baseline, artifact(folder, "base-rewards", [], SCHEMAS["answer_rewards"]), prompt_stage)
    match role:
        case "evolver" | "critic":
            shows = {"feedback": {"critic": role_settings}} if role == "critic" else {}
            evolve = {"generator": role_settings if role == "evolver" else {"kind": "lettercraft"}, "generations": 2, **shows}
            recipe = recipe_of(**{"creator.evolve": evolve, **settings})
            selected = artifact(
                folder, "selected", [{"prompt_id": prompt_id, "probability": 1.0, "draw": 0} for prompt_id in ids], SCHEMAS["selected"]
            )
            rewards = artifact(folder, "rewards", [{"prompt_id": prompt_id, "rewards": [1.0]} for prompt_id in ids], SCHEMAS["rewards"])
            evolve_stages = evolving(recipe, resolve(recipe), 1, selected, ScoredPrompts(prompt_stage, responses, rewards, policy, 0))
            if role == "evolver":
                return evolve_stages[-1]
            rows = [{**row, "best": "good", "worst": "bad", "best_reward": 1.0, "worst_reward": 0.0} for row in prompts]
            return replace(evolve_stages[1], inputs={"feedback": artifact(folder, "feedback", rows, FEEDBACK)})
        case "gate":
            gate = {"answerable": "judge", "judge": role_settings, "max_length_ratio": None}
            recipe = recipe_of(**{"creator.curate.gate": gate, **settings})
            stages = gate_stages(recipe, resolve(recipe), 1, prompt_stage, prompt_stage, prompt_stage, policy)
            parents = artifact(folder, "parents", [{"prompt_id": row["prompt_id"]} for row in prompts], PARENTS)
            return replace(stages[1], inputs={**stages[1].inputs, "parents": parents})
        case "scorer":
            recipe = recipe_of(**{"creator.analysis": {"scorer": role_settings}, **settings})
            return analysing(recipe, resolve(recipe), 1, prompt_stage, policy)[0]
        case "rewriter":
            recipe = recipe_of(**{"solver.rewrite": {"generator": role_settings, "shortest": 0.1, "longest": 100}, **settings})
            pairs = [
                {
                    "prompt_id": row["prompt_id"],
                    "prompt": row["messages"],
                    "chosen": [{"role": "assistant", "content": "good"}],
                    "rejected": [{"role": "assistant", "content": "bad"}],
                    "chosen_reward": 1.0,
                    "rejected_reward": 0.0,
                }
                for row in prompts
            ]
            return rewriting(recipe, resolve(recipe), 1, prompt_stage, artifact(folder, "pairs", pairs, SCHEMAS["pairs"]), policy)[0]
        case "judge":
            recipe = recipe_of(**{"evaluation.benchmarks": [{"kind": "lettercraft", "judge": role_settings}], **settings})
            stages = evaluation_stages(
                recipe, resolve(recipe), recipe.evaluation.benchmarks[0], 1, policy, of_base, "evaluation.benchmarks.0"
            )
            judge_stage = next(stage for stage in stages if stage.name == "eval-judge")
            return replace(judge_stage, inputs={**judge_stage.inputs, "answers": responses})
        case _:
            recipe = recipe_of(**{"reward": {"kind": "llm_judge", "judge": role_settings}, **settings})
            return rewarding(recipe, resolve(recipe), "reward", 1, prompt_stage, responses, policy)


REPLIES = {"gate": "[[A]]", "scorer": "Quality: 4\nComplexity: 2", "judge": "[[A=B]]", "llm_judge reward": "[[7]]"}
SAYS = {
    "evolver": ("evolver calls failed", "limits.unevolved"),
    "critic": ("critic calls failed", "limits.uncriticised"),
    "scorer": ("scorer calls failed", "limits.unanalysed"),
    "gate": ("gate calls failed", "limits.ungated"),
    "rewriter": ("rewriter calls failed", "limits.unrewritten"),
    "judge": ("judge calls failed", "limits.unjudged"),
    "llm_judge reward": ("responses have no reward", "limits.unscored"),
}


def reply_to(role: str, body: dict[str, Any]) -> str:
    return REPLIES.get(role, f"another text {len(body['messages'][-1]['content'])} with seed {body['seed']}")


def attempt(run: Run, stage: Stage) -> str:
    """Run a stage and return what the reporter printed."""
    reporter = Reporter()
    reporter.console = Console(file=(message := io.StringIO()), width=2000)
    execute(run, [stage], reporter)
    return message.getvalue()


def new_run(folder: Path) -> Run:
    run = Run(folder / "run")
    run.create()
    return run


def rows_of(stage: Any, folder: Path) -> list[dict[str, Any]]:
    """The rows of a row stage, computed by its own steps in this process."""
    places = {**{name: upstream.path for name, upstream in stage.inputs.items()}, WORK: folder, RUN: folder}
    with Pipeline(name="here"):
        steps = [use.build(places, name=f"step_{index}", input_batch_size=ROWS) for index, use in enumerate(stage.steps)]
    sources = [places[name] for name in stage.sources]
    prefixes = [stage.prefixes.get(name, "") for name in stage.sources]
    rows = [row for _, batch in joined_batches(sources, prefixes, np.array([]), ROWS, folder) for row in batch]
    for number, row in enumerate(rows):
        row[ROW] = number
    for step in steps:
        step.load()
        rows = [row for batch in step.process(rows) for row in batch]
        step.unload()
    return rows


@pytest.mark.parametrize("role", SAYS)
def test_a_failed_call_of_any_role_is_null_with_its_reason_counted_and_limited(role: str, tmp_path: Path) -> None:
    total = {"evolver": 6, "judge": 8, "gate": 8}.get(role, 4)  # a failed call ends a prompt's generations, so two calls are not made
    failure_count = {"judge": 4, "gate": 4}.get(role, 2)
    with serving(ChatServer()) as server:
        server.signs_replies = False
        server.reply = lambda body: reply_to(role, body)
        server.faults = ["500", "ok"] * failure_count
        stage: Any = stage_of(role, server, tmp_path)
        rows = rows_of(stage, tmp_path)
    statistics: Counter[str] = Counter()
    for row in rows:
        statistics.update(row[STATISTICS])
    counts, failures = split(statistics)
    assert (counts["calls"], counts["failed"], counts.get("rejected", 0)) == (total, failure_count, 0)
    ((reason, reason_count),) = failures.items()
    assert reason_count == failure_count and reason.startswith("gave up after 1 tries") and "500" in reason
    words, field = SAYS[role]
    sentences = [sentence for limit in stage.limits if (sentence := limit.excess(counts))]
    assert len(sentences) == 1 and f"{failure_count} of {total} {words}" in sentences[0] and f"above the limit {field} = " in sentences[0]
    column = {
        "gate": "valid",
        "rewriter": "responses",
        "judge": "verdict",
        "critic": "critique",
        "scorer": "quality",
        "evolver": "rejected",
    }.get(role, "rewards")
    null_value = {"rewriter": [None], "evolver": "failed", "llm_judge reward": [None]}.get(role)
    assert [row[column] == null_value for row in rows].count(True) == failure_count
    reasons = [row["failures"][0] if "failures" in row else row["failure"] for row in rows]
    assert [reason is not None for reason in reasons].count(True) == failure_count
    # the next attempt runs the rows again that have a failed call, and keeps all others
    (parts := tmp_path / "parts").mkdir()
    write_part(parts, SCHEMAS[stage.schema], rows)
    dropped_count = drop_failed(parts)
    assert (
        dropped_count == len({row[ROW] for row in rows if row[STATISTICS].get("failed")})
        and len(read_parts(parts)[0]) == ROWS - dropped_count
    )
    assert "failed" not in read_parts(parts)[1] and drop_failed(parts) == 0


def test_the_error_names_a_dead_evolver_and_the_next_attempt_retries_only_the_failed_rows(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with serving(ChatServer()) as server:
        port, stage = server.server_port, stage_of("evolver", server, tmp_path)
    with pytest.raises(StageError, match=r"4 of 4 evolver calls failed \(100.0%\).*limits.unevolved.*most often \(4\): .*[Cc]onnect"):
        attempt(run, stage)
    with serving(ChatServer(port)) as server:
        server.reply, server.faults = lambda body: reply_to("evolver", body), ["500", "ok"] * 2
        with pytest.raises(StageError, match=r"2 of 6 evolver calls failed.*reruns only the rows that failed"):
            attempt(run, stage)
        assert len(server.requests) == 6
        assert "rerunning 2 rows that failed before" in attempt(run, stage)
        assert len(server.requests) == 10, "what was answered is kept"
    manifest = run.manifest(stage)
    assert manifest["failures"] == {} and "failed" not in manifest["counts"] and manifest["counts"]["calls"] == 8


REWARD = """
from pathlib import Path

def score(messages, response, reference):
    with open({calls!r}, "a") as calls:
        calls.write("called\\n")
    word = messages[-1]["content"].split()[2]
    if not Path({ready!r}).exists() and word in ("source", "mouth"):
        raise OSError("the scorer's table is not there")
    return 1.0
"""


def test_a_fixed_reward_function_computes_only_the_failed_rows(tmp_path: Path) -> None:
    calls, ready, run = tmp_path / "calls", tmp_path / "ready", new_run(tmp_path)
    (tmp_path / "mended_reward.py").write_text(REWARD.format(calls=str(calls), ready=str(ready)))
    with serving(ChatServer()) as server:
        stage = stage_of("function", server, tmp_path, reward={"kind": "verifier", "function": f"{tmp_path}/mended_reward.py:score"})
    with pytest.raises(StageError, match=r"2 of 4 responses have no reward.*most often \(2\): OSError: the scorer's table is not there"):
        attempt(run, stage)
    assert len(calls.read_text().splitlines()) == 4
    ready.touch()
    attempt(run, stage)
    assert len(calls.read_text().splitlines()) == 6
    assert read_table(run.folder(stage))["rewards"].to_pylist() == [[1.0]] * ROWS


def test_the_result_of_a_function_is_a_number_or_null_with_a_reason() -> None:
    numbers = [1, 0.5, True, np.bool_(False), np.float32(0.25), np.int64(3), Fraction(1, 4)]
    assert [as_score(value).value for value in numbers] == [1, 0.5, 1, 0, 0.25, 3, 0.25]
    other_values = ["0.5", [1.0], (1.0,), {}, np.array([1.0]), np.array(1.0), None, 1j, object(), 10**400, -(10**400), Fraction(10**400)]
    for value in other_values:
        score = as_score(value)
        assert score.value is None and score.failure and score.failure.startswith("the function returned"), value
    for value in (float("nan"), float("inf"), np.float64("-inf")):
        assert finite(as_score(value)).value is None


class OddError(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError(""), "ValueError"),
        (ValueError("a \ud800 surrogate\non two lines"), "ValueError: a \ufffd surrogate on two lines"),
        (OddError(), "OddError"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_the_reason_of_every_exception_is_one_printable_line(error: Exception, reason: str) -> None:
    assert error_reason(error) == reason
    assert len(error_reason(ValueError("x" * 10_000))) <= LONGEST


def test_reasons_are_counted_most_common_first_and_rare_ones_are_summed() -> None:
    row: dict[str, Any] = {}
    for number in range(40):
        add_calls(row, f"reason {number:02d}", None, "common")
    counts, failures = split(row[STATISTICS])
    assert counts == {"calls": 120, "failed": 80} and next(iter(failures.items())) == ("common", 40)
    assert len(failures) == MOST_REASONS + 1 and failures["other reasons"] == 40 - (MOST_REASONS - 1)


def test_a_part_without_its_failed_rows_and_the_new_batch_of_these_rows_have_different_names(tmp_path: Path) -> None:
    schema = SCHEMAS["critiques"]
    rows = [{"prompt_id": str(n), ROW: n, STATISTICS: {"calls": 1, **({"failed": 1} if n in (0, 2) else {})}} for n in range(4)]
    write_part(tmp_path, schema, rows)
    assert drop_failed(tmp_path) == 2 and read_parts(tmp_path)[0].tolist() == [1, 3]
    write_part(tmp_path, schema, [rows[0] | {STATISTICS: {}}, rows[2] | {STATISTICS: {}}])
    assert read_parts(tmp_path)[0].tolist() == [0, 1, 2, 3]
    merge_parts(tmp_path, schema, tmp_path / "out")
    assert read_table(tmp_path / "out")["prompt_id"].to_pylist() == ["0", "1", "2", "3"]


def test_below_the_limit_failed_calls_stay_null_and_are_not_rejections(tmp_path: Path) -> None:
    with serving(ChatServer()) as server:
        server.signs_replies = False
        server.reply = lambda body: "I'm sorry, but I can't help." if "source" in body["messages"][-1]["content"] else reply_to("", body)
        server.faults = ["ok", "ok", "ok", "500"]
        rows = rows_of(stage_of("evolver", server, tmp_path), tmp_path)
    write_part(tmp_path, SCHEMAS["evolutions"], rows)
    merge_parts(tmp_path, SCHEMAS["evolutions"], tmp_path / "evolved")
    evolved = read_table(tmp_path / "evolved")
    (failed_row,) = [row for row in evolved.to_pylist() if row["failure"]]
    assert (
        failed_row["rejected"] == "failed" and failed_row["failure"].startswith("gave up after 1 tries") and failed_row["generation"] == 1
    )
    assert read_parts(tmp_path)[1]["rejected"] == 2
    with Pipeline(name="curate"):
        remaining_rows, counts = Curate(near_duplicate=None).transform(evolved, read_table(tmp_path / "prompts"))
    assert counts["failed"] == 1 and counts["refusal"] == 2 and counts["kept"] == len(remaining_rows) == 4
    assert failed_row["prompt_id"] not in remaining_rows["prompt_id"].to_pylist()


def faults(tmp_path: Path, **settings: Any) -> str:
    """The errors that `eva validate` reports for the quickstart with these changes; an empty text if there are none."""
    try:
        check(recipe_of(**settings))
    except ConfigError as error:
        return str(error)
    return ""


def two(messages: Any, response: str) -> float:
    return 1.0


def four(messages: Any, response: str, reference: str | None, weight: float) -> float:
    return 1.0


def keyword_only(*, messages: Any, response: str, reference: str | None) -> float:
    return 1.0


async def later(messages: Any, response: str, reference: str | None) -> float:
    return 1.0


def any_keywords(messages: Any, response: str, reference: str | None) -> Any:
    yield 1.0


class Scorer:
    def __init__(self, messages: Any, response: str, reference: str | None) -> None:
        self.response = response

    def __call__(self, *parts: Any) -> float:
        return 1.0


WEIGHT = 3.0
any_parts = Scorer([], "", None)


def optional(messages: Any, response: str, reference: str | None = None) -> float:
    return 1.0


def strict(messages: Any, response: str, reference: str) -> float:
    return float(response == reference)


def functions_file(folder: Path) -> Path:
    """Write a file with functions that a recipe can name."""
    path = folder / "own_rewards.py"
    path.write_text("from typing import Any\n" + "\n".join(map(inspect.getsource, (two, optional, strict))))
    return path


def test_validate_refuses_a_function_that_cannot_be_called(tmp_path: Path) -> None:
    for function in (two, four, keyword_only, later, any_keywords, Scorer, WEIGHT):
        message = str(call_fault(function, VERIFIER))
        assert "expected a function (messages, response, reference) that returns a number, or None" in message, function
    for function in (any_parts, optional, strict, load_attribute(VERIFIER.functions["math"]), partial(four, weight=1.0), max):
        assert call_fault(function, VERIFIER) is None, function
    path = functions_file(tmp_path)
    message = faults(tmp_path, reward={"kind": "verifier", "function": f"{path}:two"}, trust_code=True)
    assert f"reward.function: {path}:two takes (messages: Any, response: str) -> float, and cannot be called with" in message
    assert faults(tmp_path, reward={"kind": "verifier", "function": f"{path}:strict"}, trust_code=True) == ""


def test_validate_refuses_a_reward_whose_references_evolved_prompts_do_not_have(tmp_path: Path) -> None:
    (tmp_path / "sums.jsonl").write_text(
        "".join(json.dumps({"prompt": f"Add {n} and {n}.", "answer": str(2 * n)}) + "\n" for n in range(9))
    )
    prompts = {"kind": "file", "path": str(tmp_path / "sums.jsonl"), "reference_column": "answer"}
    path = functions_file(tmp_path)
    settings = {"prompts": prompts, "evaluation.benchmarks": [], "trust_code": True}
    for name in ("math", "instruction", f"{path}:strict"):
        reward = {"kind": "verifier", "function": name}
        message = faults(tmp_path, reward=reward, **settings)
        assert (
            "reward.function: " in message and "creator.evolve returns prompts without references" in message and "iterations=0" in message
        ), message
        assert faults(tmp_path, reward=reward, iterations=0, **settings) == ""
        for control in ("longer", "no_evolve"):
            assert faults(tmp_path, reward=reward, **{"creator.control": control}, **settings) == ""
    assert faults(tmp_path, reward={"kind": "verifier", "function": f"{path}:optional"}, **settings) == ""
    members = [{"reward": {"kind": "lettercraft"}}, {"reward": {"kind": "verifier", "function": "math"}}]
    message = faults(tmp_path, reward={"kind": "ensemble", "members": members}, **settings)
    assert "reward.members.1.reward.function: math" in message
    settings_without_references = {**settings, "prompts": {**prompts, "reference_column": None}}
    message = faults(tmp_path, reward={"kind": "verifier", "function": "math"}, iterations=0, **settings_without_references)
    assert "the prompts have none; set prompts.reference_column" in message


def test_validate_accepts_evolvers_that_return_references_and_a_majority_and_refuses_what_cannot_work(tmp_path: Path) -> None:
    (tmp_path / "sums.jsonl").write_text(
        "".join(json.dumps({"prompt": f"Add {n} and {n}.", "answer": str(2 * n)}) + "\n" for n in range(9))
    )
    prompts = {"kind": "file", "path": str(tmp_path / "sums.jsonl"), "reference_column": "answer"}
    path = functions_file(tmp_path)
    (tmp_path / "evolvers.py").write_text("def same(text, reference, rng):\n    return text, reference, 'same'\n")
    evolver = {"kind": "function", "function": f"{tmp_path}/evolvers.py:same"}
    returned_references = {"creator.evolve.returns": "prompt_and_reference"}
    math, majority = ({"kind": "verifier", "function": "math", "missing_reference": rule} for rule in (None, "majority"))
    settings = {"prompts": prompts, "evaluation.benchmarks": [], "trust_code": True, "creator.evolve.generator": evolver}
    assert faults(tmp_path, reward=math, **returned_references, **settings) == ""
    assert "set creator.evolve.returns=prompt_and_reference" in faults(tmp_path, reward=math, **settings)
    assert faults(tmp_path, reward=math, **{"creator.mix.evolved_share": 0, "health.evolved_share": None}, **settings) == ""
    assert faults(tmp_path, reward=majority, **settings) == ""
    assert faults(tmp_path, reward=majority, **{**settings, "prompts": {**prompts, "reference_column": None}}) == ""
    for changes, message in (
        ({"reward": {**majority, "function": f"{path}:strict"}}, "which only math and lettercraft can read, and the function is"),
        ({"reward": {**majority, "function": "instruction"}}, "reward.missing_reference: a majority compares the final answers"),
        ({"solver.loss": {"kind": "rloo"}}, "rloo scores every response by itself, so that there is no majority"),
        ({"solver.rewrite": {"generator": {"kind": "policy"}}}, "a rewritten response is scored by itself"),
        ({"health.held_out_reward": {**majority, "function": "lettercraft"}}, "measures its agreement, not its success"),
        ({"creator.evolve.method": "evol_quality"}, "is evol_quality, and a generator of kind function uses no method; leave method out"),
        (
            {"creator.evolve.method": "verbatim", "creator.evolve.generator": {"kind": "lettercraft"}},
            "creator.evolve.method: verbatim sends the prompt without a request",
        ),
        ({"creator.evolve.feedback": {}}, "a generator of kind function reads neither feedback nor examples"),
    ):
        assert message in faults(tmp_path, **{"reward": majority, **settings, **changes}), message
    for source, message in (
        ("text", "the evolver returned 'What is 2 + 2?'; return three values"),
        ("text, 4, 'same'", "return three values: the new prompt, its reference as a text"),
        ("text, reference, str(calls.append(0) or len(calls))", "two calls with the same arguments returned"),
        ("text, refrence, 'same'", "the evolver raised NameError"),
    ):
        (tmp_path / "evolvers.py").write_text(f"calls = []\n\n\ndef same(text, reference, rng):\n    return {source}\n")
        text = faults(tmp_path, reward=majority, **settings)
        assert "creator.evolve.generator.function: " in text and message in text, (source, text)


def test_a_mix_with_few_evolved_prompts_breaks_a_health_limit(tmp_path: Path) -> None:
    rows = [prompt_row([{"role": "user", "content": str(n)}], "test") | {"origin": "evolved" if n < 8 else "buffer"} for n in range(80)]
    figures = {"evolved_share": evolved(artifact(tmp_path, "mix", rows, SCHEMAS["mixed"]).path, 0.8)}
    assert figures == {"evolved_share": 8 / 64}
    recipe = recipe_of()
    (message,) = [sentence for check in checks(recipe.health) if (sentence := check.violation(figures))]
    assert (
        "evolved prompts" in message
        and "is 0.125, below the limit health.evolved_share=0.5" in message
        and "creator.evolve.generator" in message
    )
    *_, (*_, first), (*_, last) = [iteration.health for iteration in build_rounds(recipe)]
    assert first.function.arguments["evolved_share"] == last.function.arguments["evolved_share"] == 0.8
    assert "evolved_share" not in build_rounds(recipe)[0].health[-1].function.arguments


ABSURD = np.array([[1e308, -1e308, 0.0], [1.5e308, 1.7e308, 1.6e308], [1.0, 2.0, 4.0], [np.nan, 1.0, 2.0]])


@pytest.mark.filterwarnings("error")
def test_absurd_rewards_overflow_no_figure_and_do_not_change_others() -> None:
    metrics = known_functions(METRIC)
    for name, metric in metrics.items():
        if name == "learnability":  # only for rewards of 0 and 1
            continue
        values = metric_values(metric, ABSURD)
        assert np.isfinite(values[:3]).all() and np.isnan(values[3]), name
        if not name.endswith(("inverse", "median")):
            assert values[2] == metric_values(metric, ABSURD[2:])[0], f"{name}: an ordinary prompt's value is what it is without the others"
        assert np.isfinite(weights(values)).all()
    assert metric_values(metrics["reward_gap"], ABSURD)[:2].tolist() == [LARGEST, pytest.approx(2e307)]
    assert (
        metric_values(metrics["reward_mean"], ABSURD)[1] == pytest.approx(1.6e308)
        and metric_values(metrics["reward_variance"], ABSURD)[0] == LARGEST
    )
    standard_scores = standardise(ABSURD)
    assert np.isfinite(standard_scores[:3]).all() and standard_scores[:3].argmax() == np.nan_to_num(ABSURD[:3]).argmax()
    table = pa.table({"rewards": pa.array(ABSURD.tolist(), pa.list_(pa.float64()))})
    assert per_prompt_mean(table, "rewards")[:2].tolist() == [0.0, pytest.approx(1.6e308)]
    samples = {1: drawable(ABSURD.reshape(-1)), 2: drawable(metric_values(metrics["reward_variance"], ABSURD))}
    assert draw("absurd", "Absurd", "n = 3", "reward", "share", lambda axes: histograms(axes, samples)).svg
    points = [mean_interval(drawable(ABSURD.reshape(-1)))] * 2
    assert np.isfinite(points).all() and draw("b", "B", "n", "x", "y", lambda axes: iteration_points(axes, dict(enumerate(points, 1)))).svg


def test_a_reward_that_float32_cannot_hold_trains_nothing() -> None:
    assert [_trainable(Score(value)).value for value in (1e38, 1e39, -1e308, None)] == [1e38, None, None, None]
    assert "outside the range of float32" in str(_trainable(Score(1e39)).failure)


def test_figures_that_are_not_finite_are_null_in_json() -> None:
    assert finite_json({"a": [1.0, float("nan")], "b": {"c": float("-inf")}, "d": 2}) == {"a": [1.0, None], "b": {"c": None}, "d": 2}
