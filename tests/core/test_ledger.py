"""The time of stages and their plan, from marks, events and a run that fails, is killed and resumes."""

from pathlib import Path
from typing import Any

import pytest

from eva_stages.core import ledger
from eva_stages.core.errors import StageError
from eva_stages.core.ledger import Attempts, earlier_attempts, pace, put_down, read_ledger, sums
from eva_stages.core.progress import Reporter
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import Context, execute
from eva_stages.core.stage import FunctionStage, RowStage, TableStage, Use, as_data, uses


def write_or_fail(context: Context) -> dict[str, Any]:
    """Fails until an earlier attempt has left something."""
    remainder = context.work / "left"
    if not remainder.exists():
        remainder.touch()
        raise StageError("the first attempt")
    context.artifact.mkdir()
    (context.artifact / "made.txt").write_text("12345")
    return {"counts": {"input_tokens": 3, "output_tokens": 4}}


FLAKY = FunctionStage("flaky", 0, {}, function=Use("tests.core.test_ledger:write_or_fail"))


def event(kind: str, second: int, **facts: Any) -> dict[str, Any]:
    return {"event": kind, "time": at(second), "fingerprint": "f", **facts}


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02d}+00:00"


def test_the_pace_leaves_out_what_comes_before_the_work() -> None:
    figures = pace([(10.0, 0), (12.0, 4), (15.0, 8)])
    assert figures == {"units": 8, "total": 8, "seconds_per_unit": 0.625, "fastest": 0.5, "slowest": 0.75}
    resumed_pace = pace([(3.0, 6), (4.0, 8)])
    assert resumed_pace is not None and (resumed_pace["units"], resumed_pace["total"], resumed_pace["seconds_per_unit"]) == (2, 8, 0.5)
    assert pace([(3.0, 6)]) is None and pace([]) is None


def test_attempts_that_did_not_finish_are_counted_with_the_time_that_is_known_of_them() -> None:
    events = [
        event("start", 0),
        event("interrupted", 9, seconds=8.5),
        event("resume", 10, last_sign=at(9)),
        event("resume", 20, last_sign=at(16)),  # the previous attempt was killed
        event("resume", 30, last_sign=at(5)),  # this attempt was killed too, and the clock was turned back
        event("done", 40),
        {"event": "not-published", "time": at(50)},
    ]
    assert earlier_attempts(events) == {"f": Attempts(3, 14.5)}
    assert earlier_attempts([event("start", 0), event("done", 1), event("start", 2), event("done", 3)]) == {}


def test_a_finished_stage_tells_what_it_took_with_its_failed_attempt_and_its_plan(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.create()
    plan_entry = {"fingerprint": FLAKY.fingerprint[:12], "state": "to do", "seconds_expected": 2.0, "seconds_low": 1.0, "seconds_high": 4.0}
    with run.lock():
        put_down(run, [plan_entry])
        with pytest.raises(StageError, match="the first attempt"):
            execute(run, [FLAKY], Reporter())
        execute(run, [FLAKY], Reporter())
        put_down(run, [{**plan_entry, "state": "done", "seconds_expected": 99.0}])
    (entry,) = read_ledger(run, [run.manifest(FLAKY)])
    assert entry["planned"] == plan_entry
    assert (entry["earlier_attempts"], entry["input_tokens"], entry["output_tokens"], entry["usd"]) == (1, 3, 4, 0.0)
    assert entry["bytes"] == 5 and entry["earlier_seconds"] >= 0
    total = sums([entry])
    assert (total["compared_seconds"], total["planned_seconds_expected"]) == (entry["seconds"], 2.0)
    assert [logged_event["last_sign"] for logged_event in run.events() if logged_event["event"] == "resume"]
    assert sums([{**entry, "planned": None}])["planned_seconds_expected"] is None


def test_the_devices_of_a_stage_are_those_its_models_are_configured_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "visible_gpus", lambda: ("H100",) * 4)

    def count(runtime: dict[str, Any]) -> int:
        step = Use("a:b", {"llm": Use("c:d", {}, runtime)})
        return int(ledger.devices(RowStage("x", 0, {}, steps=(step,)))["count"])

    assert [count({"device": name}) for name in ("auto", "cuda:1", "balanced", "cpu")] == [1, 1, 4, 0]
    assert count({"tensor_parallel": 2, "replicas": 2}) == 4 and count({"tensor_parallel": 8}) == 4
    assert count({"tensor_parallel": None, "replicas": None}) == 4 and count({"device": "auto", "replicas": 2}) == 2
    assert ledger.devices(TableStage("x", 0, {}, step=Use("a:b"))) == {"count": 0, "names": []}
    monkeypatch.setattr(ledger, "visible_gpus", lambda: ())
    assert count({"device": "auto"}) == 0


def test_every_use_in_a_stage_is_found_also_one_that_goes_as_data() -> None:
    nested_use = Use("a:step", {"llms": [Use("b:llm"), {"judge": Use("c:llm")}]})
    assert [use.target for use in uses(RowStage("x", 0, {}, steps=(nested_use,)))] == ["a:step", "b:llm", "c:llm"]
    online = FunctionStage("train", 0, {}, function=Use("d:train", {"reward": as_data(Use("e:reward", {"llm": Use("f:llm")}))}))
    assert [use.target for use in uses(online)] == ["d:train", "e:reward", "f:llm"]
