import json
import subprocess
import sys
from pathlib import Path

import pytest

from eva_stages.core.errors import LockedError
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import FunctionStage, Outside, Stage, Use, closure


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
    assert not run.is_complete(one)
    make(run, one)
    assert run.is_complete(one)
    manifest = run.manifest(one)
    assert manifest["fingerprint"] == one.fingerprint and manifest["packages"]["torch"]
    assert run.fault(one) is None


def test_a_flipped_byte_is_found_on_reuse(run: Run) -> None:
    one = stage()
    make(run, one)
    (run.folder(one) / "rows.txt").write_text("c0ntent")
    assert "has changed since it was built" in (run.fault(one) or "")


def test_a_manifest_that_is_not_what_was_written_is_found(run: Run) -> None:
    one = stage()
    make(run, one)
    path = run.stages / one.folder / "manifest.json"
    written = path.read_text()
    for changed, says in (
        (written.replace('"seconds": 0.0', '"seconds": 0.1'), "manifest.json has changed since it was written"),
        (written[:-20], "manifest.json is damaged"),
    ):
        path.write_text(changed)
        assert says in (run.fault(one) or "")
    path.unlink()
    assert "No such file" in (run.fault(one) or ""), "its data alone are no artifact"
    path.write_text(json.dumps({name: value for name, value in json.loads(written).items() if name != "checksum"}))
    assert run.fault(one) is None, "those of before there was a checksum count"


def test_an_input_made_again_with_other_content_is_found(run: Run) -> None:
    first = stage("first")
    second = stage("second", {"x": first})
    make(run, first)
    make(run, second)
    run.put_aside(first)
    make(run, first, "other")
    assert run.fault(first) is None and "different version of input 'x'" in (run.fault(second) or "")


def test_what_is_put_aside_is_kept_every_time(run: Run) -> None:
    one = stage()
    for text in ("first", "second"):
        make(run, one, text)
        assert (run.put_aside(one) / "data" / "rows.txt").read_text() == text
    assert not run.is_complete(one) and run.fault(one) is None
    assert [path.name for path in sorted((run.root / "damaged").iterdir())] == [f"{one.folder}.1", f"{one.folder}.2"]


def test_a_commit_that_was_cut_off_is_made_again_with_all_that_belongs_to_it(run: Run) -> None:
    one = stage()
    in_the_way = run.stages / one.folder / "file"
    in_the_way.mkdir(parents=True)
    (run.workplace(one) / "pipeline.yaml").write_text("steps")
    with pytest.raises(OSError, match="not empty"):
        make(run, one)
    in_the_way.rmdir()
    make(run, one)
    assert run.fault(one) is None and (run.stages / one.folder / "pipeline.yaml").read_text() == "steps"


def test_an_unfinished_stage_is_not_done(run: Run) -> None:
    one = stage()
    (run.workplace(one) / "data").mkdir()
    assert not run.is_complete(one) and list(run.stages.iterdir()) == []


def test_a_locked_run_says_who_holds_it_and_is_free_again_after_a_kill(run: Run) -> None:
    code = (
        "import sys, pathlib\n"
        "from eva_stages.core.run_folder import Run\n"
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


def test_an_event_cut_off_by_a_full_disk_is_passed_over_and_takes_none_along(run: Run) -> None:
    run.event("start", stage="0-a")
    with (run.root / "events.jsonl").open("a") as stream:
        stream.write('{"time": "2026-')
    assert [event["event"] for event in run.events()] == ["start"]
    run.event("done", stage="0-a")
    assert [event["event"] for event in run.events()] == ["start", "done"]
