"""Runs that share a store: each stage is computed once, also side by side, and no kill of one run harms another."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Timer

import pytest

from eva_stages.core.call_file import CALLS
from eva_stages.core.calls import Journal
from eva_stages.core.ledger import read_ledger, sums
from eva_stages.core.progress import Reporter
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import Context, execute
from eva_stages.core.stage import FunctionStage, Stage, Use
from eva_stages.core.store import default_store, lock_holder
from eva_stages.views.run_status import Watch

STORE = ".store"


def write(context: Context, text: str, gate: str | None = None) -> dict:
    """The inputs' texts and a text, counted in the file `calls`; if there is a gate, it reports to it and waits until it opens."""
    root = context.run.parent
    with (root / "calls").open("a") as stream:
        stream.write(f"{text}\n")
    (context.work / "progress").open("a").write("+")
    if gate is not None and not (root / "open").exists():
        print("computing", flush=True)
        sys.stdin.readline()
    context.artifact.mkdir()
    (context.artifact / "text").write_text("".join([*((path / "text").read_text() for path in context.inputs.values()), text]))
    return {"counts": {"attempts": len((context.work / "progress").read_text())}}


def stage(name: str, *upstream: Stage, gate: str | None = None) -> FunctionStage:
    use = Use("tests.core.test_sharing:write", {"text": name}, {"gate": gate})
    return FunctionStage(name, 0, {source.name: source for source in upstream}, function=use)


FIRST = stage("first")
SECOND = stage("second", FIRST)
SIBLING = stage("other", FIRST)


def shared_run(tmp_path: Path, name: str) -> Run:
    run = Run(tmp_path / name, tmp_path / STORE)
    run.create()
    return run


def complete_stages(run: Run, *stages: Stage, repair: bool = False) -> Run:
    with run.lock():
        run.join_store()
        execute(run, stages, Reporter(), repair=repair)
    return run


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "calls").read_text().split()


def events_of(run: Run) -> list[tuple[str, str]]:
    return [(event["event"], event["stage"]) for event in run.events()]


def test_a_stage_that_two_runs_have_in_common_is_computed_once_and_is_complete_in_both(tmp_path: Path) -> None:
    first_run = complete_stages(shared_run(tmp_path, "one"), SECOND)
    second_run = complete_stages(shared_run(tmp_path, "other"), SIBLING)
    assert calls(tmp_path) == ["first", "second", "other"]
    assert events_of(second_run) == [("reused", "0-first"), ("start", "0-other"), ("done", "0-other")]
    shutil.rmtree(first_run.root)
    shutil.rmtree(tmp_path / STORE)
    private_run = Run(Path(shutil.copytree(second_run.root, tmp_path / "elsewhere" / "other", symlinks=True)))
    assert private_run.fault(FIRST) is None and (private_run.folder(FIRST) / "text").read_text() == "first"
    assert complete_stages(private_run, SIBLING).events() == second_run.events()


RUNNING = """
import sys
from pathlib import Path
from tests.core.test_sharing import complete_stages, shared_run, stage
complete_stages(shared_run(Path(sys.argv[1]), sys.argv[2]), stage("last", stage("first", gate="gate")))
"""


def start(tmp_path: Path, name: str) -> subprocess.Popen[str]:
    """A process that computes the two stages, the first of which waits behind the gate."""
    command = [sys.executable, "-c", RUNNING, str(tmp_path), name]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def computing_and_waiting(tmp_path: Path) -> list[subprocess.Popen[str]]:
    """A process within the first stage, and one that waits for it."""
    computing = start(tmp_path, "one")
    assert computing.stdout and computing.stdout.readline() == "computing\n"
    waiting = start(tmp_path, "two")
    assert waiting.stderr and (line := waiting.stderr.readline())
    assert line.startswith(f"0-first: waiting for process {computing.pid} on ") and f"for the run {tmp_path / 'one'}" in line
    return [computing, waiting]


def test_of_two_runs_side_by_side_the_second_waits_and_reuses(tmp_path: Path, computing_and_waiting: list[subprocess.Popen[str]]) -> None:
    computing, waiting = computing_and_waiting
    (tmp_path / "open").touch()
    computing.communicate("\n")
    waiting.communicate()
    assert computing.returncode == waiting.returncode == 0
    assert sorted(calls(tmp_path)) == ["first", "last"]
    kinds = {name: dict(map(reversed, events_of(Run(tmp_path / name)))) for name in ("one", "two")}
    assert kinds["one"]["0-first"] == "done" and kinds["two"]["0-first"] == "reused"
    assert sorted(kinds[name]["0-last"] for name in kinds) == ["done", "reused"]
    assert list((tmp_path / STORE / "work").iterdir()) == []


def test_a_run_takes_over_the_work_of_one_that_was_killed(tmp_path: Path, computing_and_waiting: list[subprocess.Popen[str]]) -> None:
    computing, waiting = computing_and_waiting
    (tmp_path / "open").touch()
    computing.kill()
    _, err = waiting.communicate()
    assert waiting.returncode == 0 and "0-first: resumes" in err
    assert calls(tmp_path) == ["first", "first", "last"]
    two = Run(tmp_path / "two")
    assert two.manifest(FIRST)["counts"] == {"attempts": 2}, "the files of the killed attempt were there"
    first_run = complete_stages(Run(tmp_path / "one"), SECOND)
    assert events_of(first_run) == [("start", "0-first"), ("reused", "0-first"), ("start", "0-second"), ("done", "0-second")]


def test_a_kill_of_the_run_that_waits_harms_nothing(tmp_path: Path, computing_and_waiting: list[subprocess.Popen[str]]) -> None:
    computing, waiting = computing_and_waiting
    run = Run(tmp_path / "two")
    (run.root / "recipe.yaml").write_text("name: two")
    run.plan([FIRST])
    (entry,) = Watch(run).document()["stages"]
    assert entry["state"] == "running" and entry["waiting_for"].startswith(f"process {computing.pid} on ")
    waiting.kill()
    waiting.communicate()
    computing.communicate("\n")
    assert computing.returncode == 0 and calls(tmp_path) == ["first", "last"]
    assert events_of(complete_stages(Run(tmp_path / "two"), FIRST)) == [("waits", "0-first"), ("reused", "0-first")]


def interrupt_at(run: Run, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Complete the first stage up to a step, at which the process is interrupted."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Run, step, interrupt)
        complete_stages(run, FIRST)


@pytest.mark.parametrize("step", ["link", "clear"])
def test_a_run_killed_around_its_commit_counts_as_the_one_that_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    first_run = shared_run(tmp_path, "one")
    interrupt_at(first_run, monkeypatch, step)
    assert events_of(complete_stages(shared_run(tmp_path, "two"), FIRST)) == [("reused", "0-first")]
    assert [kind for kind, _ in events_of(complete_stages(first_run, FIRST))][-1] in ("done", "interrupted")
    assert "reused" not in dict(events_of(first_run)) and ("done", "0-first") in events_of(first_run)
    assert calls(tmp_path) == ["first"] and list((tmp_path / STORE / "work").iterdir()) == []


def damage(path: Path) -> None:
    path.write_text("damaged")


def test_a_damaged_artifact_in_the_store_is_recomputed_and_harms_no_run_that_has_a_sound_one(tmp_path: Path) -> None:
    first_run = complete_stages(shared_run(tmp_path, "one"), SECOND)
    shared_artifact = tmp_path / STORE / "stages" / FIRST.folder
    (shared_artifact / "data" / "text").unlink()
    damage(shared_artifact / "data" / "text")
    complete_stages(shared_run(tmp_path, "two"), FIRST)
    assert calls(tmp_path) == ["first", "second", "first"]
    assert first_run.fault(FIRST) is None and Run(tmp_path / "three", tmp_path / STORE).manifest(FIRST) == Run(tmp_path / "two").manifest(
        FIRST
    )


def test_a_repair_takes_a_sound_artifact_from_the_store(tmp_path: Path) -> None:
    first_run = complete_stages(shared_run(tmp_path, "one"), SECOND)
    text = first_run.folder(FIRST) / "text"
    text.unlink()
    damage(text)
    complete_stages(first_run, SECOND, repair=True)
    assert calls(tmp_path) == ["first", "second"] and text.read_text() == "first"


def test_a_run_whose_inputs_have_other_content_computes_for_itself(tmp_path: Path) -> None:
    """As after sampling that is not reproducible: the fingerprint is the same, and the content is not."""
    complete_stages(shared_run(tmp_path, "one"), SECOND)
    private_run = Run(tmp_path / "alone")
    private_run.create()
    (private_run.workplace(FIRST) / "data").mkdir()
    (private_run.workplace(FIRST) / "data" / "text").write_text("FIRST")
    private_run.commit(FIRST, private_run.workplace(FIRST) / "data", {"seconds": 0.0, "rows": None, "counts": {}, "failures": {}})
    joined_run = Run(private_run.root, tmp_path / STORE)
    assert shared_run(tmp_path, "other").is_complete(SECOND) and not joined_run.is_complete(SECOND), "a plan counts it among what is to do"
    complete_stages(joined_run, SECOND)
    assert (joined_run.folder(SECOND) / "text").read_text() == "FIRSTsecond" and calls(tmp_path) == ["first", "second", "second"]
    assert joined_run.fault(SECOND) is None and Run(tmp_path / "one").fault(SECOND) is None


def test_unfinished_work_from_other_inputs_is_not_resumed(tmp_path: Path) -> None:
    first_run, two = (complete_stages(shared_run(tmp_path / name, name), FIRST) for name in ("a", "b"))
    partial = first_run.workplace(SECOND) / "parts"
    partial.mkdir()
    assert first_run.workplace(SECOND).joinpath("parts").is_dir()
    shutil.rmtree(first_run.stages / FIRST.folder)
    del two
    (first_run.workplace(FIRST) / "data").mkdir()
    (first_run.workplace(FIRST) / "data" / "text").write_text("other")
    first_run.commit(FIRST, first_run.workplace(FIRST) / "data", {"seconds": 0.0, "rows": None, "counts": {}, "failures": {}})
    first_run.workplace(SECOND)
    assert not partial.exists()


def test_a_run_that_shared_nothing_joins_a_store_with_what_it_has(tmp_path: Path) -> None:
    old = Run(tmp_path / "old")
    old.create()
    complete_stages(old, FIRST)
    (old.root / "work" / SECOND.folder).mkdir()
    joined_run = complete_stages(Run(old.root, tmp_path / STORE), FIRST)
    assert (joined_run.root / "work").resolve() == tmp_path / STORE / "work" and (tmp_path / STORE / "work" / SECOND.folder).is_dir()
    assert events_of(complete_stages(shared_run(tmp_path, "new"), FIRST)) == [("reused", "0-first")]
    assert calls(tmp_path) == ["first"] and events_of(joined_run) == [("start", "0-first"), ("done", "0-first")]


def test_the_default_store_is_beside_the_run_or_the_one_that_it_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "runs" / "one"
    assert default_store(run) == tmp_path / "runs" / STORE
    shared_artifact = Run(run, tmp_path / "elsewhere")
    shared_artifact.create()
    complete_stages(shared_artifact, FIRST)
    assert default_store(run) == tmp_path / "elsewhere"
    shutil.rmtree(tmp_path / "elsewhere")
    assert default_store(run) == tmp_path / "runs" / STORE


def test_where_files_cannot_be_linked_they_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    complete_stages(shared_run(tmp_path, "one"), SECOND)
    two = complete_stages(shared_run(tmp_path, "two"), SECOND)
    assert calls(tmp_path) == ["first", "second"] and two.fault(SECOND) is None
    assert {path.stat().st_nlink for path in two.root.rglob("text")} == {1}


def test_a_store_that_is_deleted_during_a_run_is_created_again(tmp_path: Path) -> None:
    run = complete_stages(shared_run(tmp_path, "one"), FIRST)
    with run.lock():
        shutil.rmtree(tmp_path / STORE)
        execute(run, [SECOND], Reporter())
    assert run.fault(SECOND) is None and run.store.has(FIRST.folder) and calls(tmp_path) == ["first", "second"]


def test_a_damaged_manifest_in_the_store_is_replaced_by_the_artifact_of_a_run(tmp_path: Path) -> None:
    run = complete_stages(shared_run(tmp_path, "one"), FIRST)
    manifest = tmp_path / STORE / "stages" / FIRST.folder / "manifest.json"
    manifest.unlink()
    damage(manifest)
    run.workplace(FIRST)
    complete_stages(run, FIRST)
    assert run.store.has(FIRST.folder) and Run(tmp_path / "two", tmp_path / STORE).fault(FIRST) is None
    assert manifest.samefile(run.stages / FIRST.folder / "manifest.json") and not (run.work / FIRST.folder).exists()


def test_a_reader_of_a_run_is_not_taken_for_its_process(tmp_path: Path) -> None:
    run = complete_stages(shared_run(tmp_path, "one"), FIRST)
    with (run.root / "lock").open() as reader:
        assert lock_holder(reader) is None and run.holder() is None
        Timer(0.1, reader.close).start()
        with run.lock():
            assert run.holder() is not None


def test_time_counts_for_the_run_that_computed_and_is_marked_as_reused_in_the_other(tmp_path: Path) -> None:
    first_run = complete_stages(shared_run(tmp_path, "one"), SECOND)
    second_run = complete_stages(shared_run(tmp_path, "other"), SIBLING)
    entries = {
        run.root.name: read_ledger(run, [run.manifest(FIRST), run.manifest(last)])
        for run, last in ((first_run, SECOND), (second_run, SIBLING))
    }
    assert [entry["reused"] for entry in (*entries["one"], *entries["other"])] == [False, False, True, False]
    assert sums(entries["one"])["stages"] == sums(entries["other"])["stages"] == 2
    assert sums(entries["other"])["reused_stages"] == 1 and sums(entries["other"])["bytes"] == len("firstother")


def test_a_run_that_continues_a_stage_of_another_run_takes_over_its_paid_calls(tmp_path: Path) -> None:
    killed_run, run = (shared_run(tmp_path, name) for name in ("a", "b"))
    killed_run.workplace(FIRST, "attempt")
    journal = Journal(killed_run.root / CALLS, stage=FIRST.folder)

    async def pay() -> None:
        await journal.settle(await journal.reserve(0.03), "a call", {"choices": []}, 0.02)
        await journal.reserve(0.05)

    asyncio.run(pay())
    journal.close()
    assert complete_stages(run, FIRST).manifest(FIRST)["counts"]["cost_usd"] == pytest.approx(0.07)
    paid_call = Journal(run.root / CALLS, stage=FIRST.folder).find("a call")
    assert paid_call is not None and paid_call.is_own_payment and paid_call.usd == 0.02
    complete_stages(run, SECOND)
    assert "cost_usd" not in run.manifest(SECOND)["counts"]
