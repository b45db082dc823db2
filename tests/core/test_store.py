import json
import subprocess
import sys
from pathlib import Path

import pytest

from eva_stages.core.errors import DataError, LockedError
from eva_stages.core.stage import FunctionStage, Outside, Stage, Use, closure
from eva_stages.core.store import Run


def stage(name: str = "one", inputs: dict[str, Stage | Outside] | None = None, **arguments: object) -> FunctionStage:
    return FunctionStage(name, 0, inputs or {}, function=Use("somewhere:something", arguments))


def make(run: Run, one: Stage, text: str = "content") -> None:
    out = run.workplace(one) / "data"
    out.mkdir()
    (out / "rows.txt").write_text(text)
    run.commit(one, out, {"rows": None, "seconds": 0.0})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path / "run")
    made.create()
    return made


def test_a_fingerprint_follows_configuration_and_inputs_but_not_runtime() -> None:
    base = stage(size=1)
    assert base.fingerprint == stage(size=1).fingerprint != stage(size=2).fingerprint
    with_runtime = FunctionStage("one", 0, {}, function=Use("somewhere:something", {"size": 1}, {"device": "cuda"}))
    assert with_runtime.fingerprint == base.fingerprint
    assert stage("two", {"x": base}).fingerprint != stage("two", {"x": stage(size=2)}).fingerprint


def test_closure_has_every_stage_once_and_upstream_first() -> None:
    first = stage("first")
    second, third = stage("second", {"x": first}), stage("third", {"x": first})
    last = stage("last", {"y": third, "x": second, "z": Outside("o", Path(), "d")})
    assert [one.name for one in closure([last, second])] == ["first", "third", "second", "last"]


def test_a_committed_stage_is_done_and_whole(run: Run) -> None:
    one = stage()
    assert not run.done(one)
    make(run, one)
    assert run.done(one) and not (run.work / one.folder).exists()
    manifest = run.manifest(one)
    assert manifest["fingerprint"] == one.fingerprint and manifest["packages"]["torch"]
    run.verify(one)


def test_a_flipped_byte_is_found_on_reuse(run: Run) -> None:
    one = stage()
    make(run, one)
    (run.folder(one) / "rows.txt").write_text("c0ntent")
    with pytest.raises(DataError, match="has changed since it was made"):
        run.verify(one)


def test_an_input_made_again_with_other_content_is_found(run: Run, tmp_path: Path) -> None:
    first = stage("first")
    second = stage("second", {"x": first})
    make(run, first)
    make(run, second)
    manifest = run.stages / first.folder / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "digest": "other"}))
    with pytest.raises(DataError, match="made from another x"):
        run.verify(second)


def test_an_unfinished_stage_is_not_done(run: Run) -> None:
    one = stage()
    (run.workplace(one) / "data").mkdir()
    assert not run.done(one) and list(run.stages.iterdir()) == []


def test_a_locked_run_says_who_holds_it_and_is_free_again_after_a_kill(run: Run) -> None:
    code = (
        "import sys, pathlib\n"
        "from eva_stages.core.store import Run\n"
        f"with Run(pathlib.Path({str(run.root)!r})).lock():\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    with pytest.raises(LockedError, match=f"process {holder.pid} on "), run.lock():
        pass
    assert f"process {holder.pid} " in (run.holder() or "")
    holder.kill()
    holder.wait()
    with run.lock():
        assert run.holder() is not None
    assert run.holder() is None


def test_an_event_cut_off_by_a_kill_is_passed_over(run: Run) -> None:
    run.event("start", stage="0-a")
    with (run.root / "events.jsonl").open("a") as stream:
        stream.write('{"time": "2026-')
    assert [event["event"] for event in run.events()] == ["start"]
