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


def make(run: Run, example: Stage, text: str = "content") -> None:
    artifact = run.workplace(example) / "data"
    artifact.mkdir()
    (artifact / "rows.txt").write_text(text)
    run.commit(example, artifact, {"rows": None, "seconds": 0.0})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    new_run = Run(tmp_path / "run")
    new_run.create()
    return new_run


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
    assert [example.name for example in closure([last, second])] == ["first", "third", "second", "last"]


def test_a_committed_stage_is_complete_and_intact(run: Run) -> None:
    example = stage()
    assert not run.is_complete(example)
    make(run, example)
    assert run.is_complete(example)
    manifest = run.manifest(example)
    assert manifest["fingerprint"] == example.fingerprint and manifest["packages"]["torch"]
    assert run.fault(example) is None


def test_a_flipped_byte_is_found_on_reuse(run: Run) -> None:
    example = stage()
    make(run, example)
    (run.folder(example) / "rows.txt").write_text("c0ntent")
    assert "has changed since it was built" in (run.fault(example) or "")


def test_a_manifest_that_is_not_what_was_written_is_found(run: Run) -> None:
    example = stage()
    make(run, example)
    path = run.stages / example.folder / "manifest.json"
    manifest_text = path.read_text()
    for damaged_text, says in (
        (manifest_text.replace('"seconds": 0.0', '"seconds": 0.1'), "manifest.json has changed since it was written"),
        (manifest_text[:-20], "manifest.json is damaged"),
    ):
        path.write_text(damaged_text)
        assert says in (run.fault(example) or "")
    path.unlink()
    assert "No such file" in (run.fault(example) or ""), "its data alone are no artifact"
    path.write_text(json.dumps({name: value for name, value in json.loads(manifest_text).items() if name != "checksum"}))
    assert run.fault(example) is None, "those of before there was a checksum count"


def test_an_input_made_again_with_other_content_is_found(run: Run) -> None:
    first = stage("first")
    second = stage("second", {"x": first})
    make(run, first)
    make(run, second)
    run.put_aside(first)
    make(run, first, "other")
    assert run.fault(first) is None and "different version of input 'x'" in (run.fault(second) or "")


def test_what_is_put_aside_is_kept_every_time(run: Run) -> None:
    example = stage()
    for text in ("first", "second"):
        make(run, example, text)
        assert (run.put_aside(example) / "data" / "rows.txt").read_text() == text
    assert not run.is_complete(example) and run.fault(example) is None
    assert [path.name for path in sorted((run.root / "damaged").iterdir())] == [f"{example.folder}.1", f"{example.folder}.2"]


def test_a_commit_that_was_cut_off_is_made_again_with_all_that_belongs_to_it(run: Run) -> None:
    example = stage()
    in_the_way = run.stages / example.folder / "file"
    in_the_way.mkdir(parents=True)
    (run.workplace(example) / "pipeline.yaml").write_text("steps")
    with pytest.raises(OSError, match="not empty"):
        make(run, example)
    in_the_way.rmdir()
    make(run, example)
    assert run.fault(example) is None and (run.stages / example.folder / "pipeline.yaml").read_text() == "steps"


def test_an_unfinished_stage_is_not_done(run: Run) -> None:
    example = stage()
    (run.workplace(example) / "data").mkdir()
    assert not run.is_complete(example) and list(run.stages.iterdir()) == []


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
