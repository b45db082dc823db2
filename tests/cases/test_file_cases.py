"""Files that are damaged, duplicated, foreign, in another encoding or of absurd size (CASES.md, K8)."""

import ast
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eva_stages.core.decoding import decode_json, decode_yaml
from eva_stages.core.errors import ConfigError, DamagedError, StageError, UnreadableError
from eva_stages.core.ourfiles import parquet_errors, read_json, read_yaml
from eva_stages.core.parts import ROW, STATISTICS, merge_parts, read_parts, settle_parts, write_part
from eva_stages.core.recipe_files import load_recipe, recipe_text
from eva_stages.core.run_folder import Run
from eva_stages.planning.rates import read_rates
from eva_stages.publishing.contents import Selection
from eva_stages.publishing.pushing import Record, push_run
from eva_stages.publishing.report_files import make_report
from eva_stages.solver.checkpoints import last_complete_checkpoint
from eva_stages.solver.launch_file import read_launch_file
from eva_stages.solver.launching import METRICS, last_entry
from eva_stages.views.history import read_history
from eva_stages.views.prompt_lineage import Lineage
from eva_stages.views.run_status import Watch, status_table
from eva_stages.views.run_summary import summary
from tests.building import plan_of
from tests.conftest import run_eva

ROOT = Path(__file__).parents[2]
CODE = ("eva_stages", "pipelines", "cli", "benchmarks", "configs", "hub_cards")
OWN_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A locale without UTF-8 that exists on every machine; C.ISO-8859-1 is not installed everywhere."""


# --- UTF-8 everywhere


def _calls_without_encoding(path: Path) -> Iterator[int]:
    """Numbers of lines that open text, or read a process's output as text, in the locale's encoding."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        settings = {keyword.arg: keyword.value for keyword in node.keywords}
        if "encoding" in settings or None in settings:
            continue
        as_text = any(isinstance(value := settings.get(key), ast.Constant) and value.value for key in ("text", "universal_newlines"))
        if name in ("read_text", "write_text") or as_text:
            yield node.lineno
        elif name in ("open", "fdopen", "NamedTemporaryFile") and not _is_other_open(node.func):
            modes = [value for value in (*node.args, settings.get("mode")) if isinstance(value, ast.Constant) and _is_mode(value.value)]
            if not any("b" in mode.value for mode in modes) and (modes or name == "open"):
                yield node.lineno


def _is_other_open(function: ast.expr) -> bool:
    """Whether a call is `os.open`, which has no text mode, or a method of one of our classes."""
    return (
        isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id in ("os", "self", "webbrowser")
    )


def _is_mode(value: object) -> bool:
    return isinstance(value, str) and bool(value) and set(value) <= set("rwaxbt+")


def test_no_file_is_read_or_written_in_the_encoding_of_the_locale() -> None:
    violations = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in CODE
        for path in (ROOT / folder).rglob("*.py")
        for line in _calls_without_encoding(path)
    ]
    assert not violations, "give an encoding here: " + ", ".join(violations)


def test_a_recipe_means_the_same_under_a_locale_without_utf8(tmp_path: Path) -> None:
    folder = tmp_path / "Ünïcode"
    folder.mkdir()
    (folder / "p.jsonl").write_text(
        "".join(json.dumps({"prompt": f"Grüße {n} 中"}, ensure_ascii=False) + "\n" for n in range(8)), encoding="utf-8"
    )
    text = run_eva("recipes", "show", "quickstart").stdout
    changes = (
        "--set",
        "policy.generator.system_prompt=Répondez, s'il vous plaît 中",
        "--set",
        f"prompts={{kind: file, path: {folder / 'p.jsonl'}}}",
    )
    (folder / "récipe.yaml").write_text(text, encoding="utf-8")
    plans = [
        json.loads(run_eva("plan", str(folder / "récipe.yaml"), *changes, "--run-dir", str(folder / "run"), "--json", **environment).stdout)
        for environment in ({"PYTHONUTF8": "1"}, OWN_LOCALE)
    ]
    fingerprints = [[stage["fingerprint"] for stage in plan["stages"]] for plan in plans]
    assert fingerprints[0] == fingerprints[1]


def test_output_that_the_locale_cannot_encode_does_not_stop_a_command(tmp_path: Path) -> None:
    process = run_eva("validate", "quickstart", "--set", "policy.model=./modèle/中", code=2, **OWN_LOCALE)
    assert "policy.model" in process.stderr


# --- files that eva writes

GARBAGE = {
    "garbage": b"{]",
    "a list": b"[1, 2]",
    "a mapping": b'{"a": 1}',
    "a number": b"7",
    "truncated": b'{"stages": [{"fingerprint": "ab',
    "empty": b"",
    "binary": bytes(range(256)),
    "not UTF-8": b'{"a": "\xff"}',
    "deep": b"[" * 5000,
    "a huge number": b'{"seconds": ' + b"9" * 5000 + b"}",
}
"""Each is tried as the content of every file of a run; where a file may have this content, it counts as empty."""


@pytest.fixture(scope="module")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few stages without models: prompts are loaded, nothing is trained."""
    run = tmp_path_factory.mktemp("made") / "run"
    run_eva("run", "quickstart", "--set", "prompts.size=8", "--run-dir", str(run), "--until", "prompts")
    return run


@pytest.fixture
def run_copy(made_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_run, tmp_path / "run"))


def read_only_commands(run: Path) -> dict[str, Callable[[], object]]:
    """The functions behind the read-only commands."""
    run_object = Run(run)
    return {
        "status": lambda: Watch(run_object).document(),
        "report": lambda: make_report([run_object]),
        "lineage": lambda: Lineage(read_history(run_object)).trace("0" * 24),
        "table": lambda: summary(read_history(run_object)),
        "plan": lambda: plan_of(load_recipe(str(run / "recipe.yaml")), run_object),
        "push": lambda: Record(run),
    }


READERS = {
    "plan.json": ("status", "table"),
    "stages.json": ("status", "lineage", "table"),
    "events.jsonl": ("status", "table"),
    "rates.json": ("plan",),
    "published.json": ("push",),
    "recipe.yaml": ("status", "report"),
    "manifest.json": ("status", "lineage", "table"),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("damage", ["garbage", "a list", "a mapping"])
def test_a_damaged_file_of_a_run_is_rebuilt_or_named(run_copy: Path, name: str, damage: str) -> None:
    path = next(run_copy.glob("stages/0-prompts-*")) / name if name == "manifest.json" else run_copy / name
    path.write_bytes(GARBAGE[damage])
    for command in READERS[name]:
        try:
            read_only_commands(run_copy)[command]()
        except DamagedError as error:
            assert str(path) in str(error), command
            assert name in ("published.json", "recipe.yaml", "manifest.json"), f"{command} could go without {name}"
            assert error.command or name == "manifest.json"
        except ConfigError as error:
            assert command == "lineage" and "has no prompt" in str(error)


@pytest.mark.parametrize("content", [text for name, text in GARBAGE.items() if name != "a mapping"])
def test_every_unreadable_content_of_our_files_is_a_damaged_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    for read_file in (lambda: read_json(tmp_path / "x", dict), lambda: read_yaml(tmp_path / "x")):
        with pytest.raises(DamagedError, match=r"x is damaged: .{1,400}$"):
            read_file()


def test_a_run_continues_with_damaged_plans_and_rewrites_them(run_copy: Path) -> None:
    for name in ("plan.json", "stages.json", "events.jsonl", "rates.json", "recipe.yaml"):
        (run_copy / name).write_bytes(GARBAGE["binary"])
    message = run_eva("run", "quickstart", "--set", "prompts.size=8", "--run-dir", str(run_copy), "--until", "prompts").stderr
    assert "plan.json" in message
    assert isinstance(json.loads((run_copy / "stages.json").read_bytes()), list)
    assert json.loads((run_copy / "plan.json").read_bytes())["stages"] is not None


def test_a_damaged_recipe_or_manifest_exits_with_1_and_names_the_repair_command(run_copy: Path) -> None:
    (run_copy / "recipe.yaml").write_bytes(GARBAGE["binary"])
    message = run_eva("status", str(run_copy), code=1).stderr
    assert str(run_copy / "recipe.yaml") in message and "eva run RECIPE --run-dir" in message
    manifest = next(run_copy.glob("stages/*/manifest.json"))
    manifest.write_text("[]")
    message = run_eva("lineage", str(run_copy), "0" * 24, code=1).stderr
    assert str(manifest) in message and "--repair" in message


def test_a_stage_with_a_damaged_manifest_is_an_error_of_status_and_push(run_copy: Path) -> None:
    next(run_copy.glob("stages/*/manifest.json")).write_text("[]")
    with pytest.raises(DamagedError, match=r"manifest\.json is damaged"):
        Watch(Run(run_copy)).document()
    with pytest.raises(DamagedError, match=r"manifest\.json is damaged"):
        push_run(Run(run_copy), "someone", False, Selection(), True, print)


@pytest.mark.parametrize("damage", [b"", b"PAR1garbage", bytes(range(256)) * 8, None], ids=["empty", "short", "binary", "gone"])
def test_a_damaged_table_is_named_by_report_and_lineage(run_copy: Path, damage: bytes | None) -> None:
    rows = next(run_copy.glob("stages/*/data/rows.parquet"))
    rows.unlink() if damage is None else rows.write_bytes(damage)
    with pytest.raises(DamagedError, match=re.escape(str(rows.parent.parent))):
        Lineage(read_history(Run(run_copy))).trace("0" * 24)
    if damage is not None:
        with pytest.raises(DamagedError, match=re.escape(str(rows))):
            make_report([Run(run_copy)])


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_damaged_training_state_is_ignored(tmp_path: Path, content: bytes) -> None:
    checkpoint = tmp_path / "checkpoint-4"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text("{}")
    (checkpoint / "whole.json").write_bytes(content)
    assert last_complete_checkpoint(tmp_path) is None
    (tmp_path / METRICS).write_bytes(content + b"\n")
    assert last_entry(tmp_path / METRICS) is None


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ESTALE, errno.EACCES])
def test_a_file_without_read_permission_is_not_reported_as_damaged(tmp_path: Path, number: int) -> None:
    with pytest.raises(UnreadableError, match=rf"{os.strerror(number)} \(errno {number}\)"), parquet_errors(tmp_path / "rows.parquet"):
        raise OSError(number, os.strerror(number), str(tmp_path / "rows.parquet"))


def test_a_run_without_free_file_descriptors_is_an_error_and_keeps_its_artifacts(made_run: Path) -> None:
    code = (
        "import os, resource, sys\n"
        "from pathlib import Path\n"
        "from eva_stages.core.errors import UnreadableError\n"
        "from eva_stages.core.manifests import read_manifest\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))\n"
        "try:\n"
        "    while True: os.open('/dev/null', os.O_RDONLY)\n"
        "except OSError: pass\n"
        "try: read_manifest(Path(sys.argv[1]))\n"
        "except UnreadableError as error: print(error)\n"
    )
    folder = next(made_run.glob("stages/0-prompts-*"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, encoding="utf-8", env=environment)
    assert "Too many open files (errno 24)" in process.stdout, process.stderr


# --- part files

SCHEMA = pa.schema([("prompt_id", pa.string()), ("text", pa.string())])


def part_rows(start: int, stop: int, text: str = "text") -> list[dict]:
    return [{"prompt_id": f"{n:024x}", "text": f"{text} {n}", ROW: n, STATISTICS: {"tokens": 1}} for n in range(start, stop)]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    folder = tmp_path / "0-respond-abc" / "parts"
    folder.mkdir(parents=True)
    write_part(folder, SCHEMA, part_rows(0, 4))
    write_part(folder, SCHEMA, part_rows(4, 8))
    return folder


@pytest.mark.parametrize(
    "name", ["000000000 (copy).parquet", "000000000.sync-conflict-20260101-ABC.parquet", ".DS_Store", "notes.txt", "000000004.2.parquet"]
)
def test_foreign_files_among_part_files_are_reported_and_ignored(parts: Path, tmp_path: Path, name: str) -> None:
    (parts / name).write_bytes((parts / "000000000.parquet").read_bytes())
    (finding,) = settle_parts(parts)
    assert (finding.event, finding.file) == ("foreign-file", name) and (parts / name).exists()
    assert read_parts(parts)[1]["tokens"] == 8
    assert merge_parts(parts, SCHEMA, tmp_path / "out", 8) == 8


def test_a_duplicate_of_a_finished_batch_is_ignored_and_reported(parts: Path, tmp_path: Path) -> None:
    (parts / "000000009.parquet").write_bytes((parts / "000000000.parquet").read_bytes())
    (finding,) = settle_parts(parts)
    assert finding.event == "double-part" and finding.file == "000000009.parquet"
    assert merge_parts(parts, SCHEMA, tmp_path / "out", 8) == 8
    assert read_parts(parts)[1]["tokens"] == 8


def test_rows_on_which_two_part_files_disagree_are_recomputed(parts: Path) -> None:
    other_folder = parts.parent / "other"
    other_folder.mkdir()
    write_part(other_folder, SCHEMA, part_rows(0, 4, "another"))
    (parts / "000000002.parquet").write_bytes((other_folder / "000000000.parquet").read_bytes())
    assert {finding.event for finding in settle_parts(parts)} == {"contradicting-part"}
    assert read_parts(parts)[0].tolist() == [4, 5, 6, 7]
    assert len(list(parts.glob("*.contradicting"))) == 2, "nothing is deleted"


def test_a_part_file_of_another_stage_is_ignored(parts: Path) -> None:
    other_folder = parts.parents[1] / "1-respond-def" / "parts"
    other_folder.mkdir(parents=True)
    write_part(other_folder, SCHEMA, part_rows(8, 12))
    shutil.copy(other_folder / "000000008.parquet", parts)
    (finding,) = settle_parts(parts)
    assert finding.event == "foreign-file" and "1-respond-def" in finding.cause
    assert read_parts(parts)[0].tolist() == list(range(8))


def test_duplicates_that_appear_while_the_stage_runs_are_not_merged(parts: Path, tmp_path: Path) -> None:
    (parts / "000000009.parquet").write_bytes((parts / "000000000.parquet").read_bytes())
    with pytest.raises(StageError, match="have 12 rows, 8 of them distinct, for 8 input rows"):
        merge_parts(parts, SCHEMA, tmp_path / "out", 8)


def test_only_a_wrong_format_or_checksum_deletes_a_part_file(parts: Path) -> None:
    (parts / "000000000.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"other": [1]}), parts / "000000004.parquet")
    assert [finding.event for finding in settle_parts(parts)] == ["deleted-part", "deleted-part"]
    write_part(parts, SCHEMA, part_rows(0, 4))
    (parts / "000000000.parquet").chmod(0o000)
    code = (
        "import os\n"
        "from pathlib import Path\n"
        "from eva_stages.core.errors import UnreadableError\n"
        "from eva_stages.core.parts import settle_parts\n"
        "if os.getuid() == 0: os.setuid(65534)\n"  # nothing is forbidden to root
        "try: settle_parts(Path('parts'))\n"
        "except UnreadableError as error: print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run([sys.executable, "-c", code], cwd=parts.parent, capture_output=True, encoding="utf-8", env=environment)
    assert "000000000.parquet: Permission denied (errno 13). Nothing was changed" in process.stdout, process.stderr
    assert (parts / "000000000.parquet").exists()


# --- YAML and JSON of absurd size and depth

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
BOMBS = {
    "aliases": LAUGHS,
    "merge keys": "b: &b {k: v}\n"
    + "".join(f"m{n}: &m{n} {{x: *{'b' if n == 0 else f'm{n - 1}'}, y: *{'b' if n == 0 else f'm{n - 1}'}}}\n" for n in range(40)),
    "a cycle": "name: &a [*a]\n",
    "a cycle in a mapping": "prompts: &a {kind: *a}\n",
    "flow depth": "name: " + "[" * 3000 + "]" * 3000,
    "block depth": "".join(" " * n + "a:\n" for n in range(3000)),
    "digits": "seed: " + "9" * 5000,
    "hex digits": "seed: 0x" + "f" * 9000,
    "base 60": "seed: " + "1:" * 3000 + "1",
    "size": "name: " + "x" * 3_000_000,
    "many values": "a: [" + "1, " * 300_000 + "1]",
    "doubled anchor": "a: &x 1\nb: &x 2\nc: *x\nname: {",
    "a list as key": "? [a, b]\n: c\n",
    "a number as key": "1: a\n",
    "a truth as key": "yes: a\n",
    "a null as key": "~: a\n",
    "a tag that does not fit": "name: !!timestamp hello\n",
    "another such tag": "name: !!bool hello\n",
    "an unknown tag": "name: !!python/object/apply:os.system [ls]\n",
    "a bad date": "name: 2024-13-45\n",
    "a lone surrogate": 'name: "\\ud800"\n',
    "a zero": 'name: "a\\0b"\n',
    "a control character": "name: a\x07b\n",
    "two documents": "name: a\n---\nname: b\n",
    "nothing": "",
    "a list": "- name\n",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_an_absurd_yaml_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    for read_file in (lambda: load_recipe(str(path)), lambda: read_rates(path)):
        with pytest.raises(ConfigError) as error:
            read_file()
        assert all(len(fault) < 1000 and "\n" not in fault for fault in error.value.faults)
    with pytest.raises(ConfigError):
        read_launch_file(str(path))


def test_a_launch_file_of_which_accelerate_would_start_one_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "launch.yaml"
    path.write_text("use_cpu: true\nnum_processes: 2\ndistributed_type: MULTI_CPU\n", encoding="utf-8")
    with pytest.raises(
        ConfigError, match="accelerate starts one process of MULTI_CPU, not num_processes: 2; give distributed_type: MULTI_GPU"
    ):
        read_launch_file(str(path))


OVERRIDES = (
    "name=" + "[" * 3000,
    "name=&a [*a]",
    "seed=" + "9" * 5000,
    "name={1: 2}",
    "." * 5000 + "=1",
    "a." * 3000 + "b=1",
    "9" * 5000 + "=1",
    "²=1",
    'name="\\ud800"',
    "name=" + "x" * 500_000,
)


@pytest.mark.parametrize("override", OVERRIDES, ids=range(len(OVERRIDES)))
def test_an_absurd_override_is_refused_in_one_line(override: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe("quickstart", [override])
    assert all(len(fault) < 1500 and "\n" not in fault for fault in error.value.faults)


def test_absurd_recipes_exit_with_2(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(LAUGHS)
    assert "more than 20,000 values" in run_eva("validate", str(tmp_path / "x.yaml"), code=2).stderr
    (tmp_path / "y.yaml").write_bytes("name: x\n".encode("utf-16"))
    assert "UTF-8" in run_eva("validate", str(tmp_path / "y.yaml"), code=2).stderr


def test_aliases_and_merge_keys_of_common_size_are_read_and_an_override_changes_one_place(tmp_path: Path) -> None:
    text = recipe_text("quickstart")[1] + "limits: &l {unscored: 0.1}\n"
    plain = load_recipe("quickstart")
    (tmp_path / "x.yaml").write_text(text + "health: {}\n" if "health:" not in text else text, encoding="utf-8")
    recipe = load_recipe(str(tmp_path / "x.yaml"))
    assert recipe.limits.unscored == 0.1 and recipe.creator == plain.creator
    value, _ = decode_yaml("base: &b {x: 1, y: [1]}\nsecond: {<<: *b, x: 2}\nthird: *b\n")
    value["third"]["y"].append(2)
    assert value == {"base": {"x": 1, "y": [1]}, "second": {"x": 2, "y": [1]}, "third": {"x": 1, "y": [1, 2]}}


@pytest.mark.parametrize("text", ["[" * 5000, '{"a":' * 5000, "[" * 100 + "]" * 100, "9" * 5000, '"\udcff"', '{"a": 1, "a": 2}'])
def test_absurd_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        decode_json(text.encode("utf-8", "surrogatepass"), unique_keys=True)
    assert decode_json(json.dumps({"a": "[" * 500 + '\\"'})) == {"a": "[" * 500 + '\\"'}


# --- other recipes in the same folder, and runs of other versions


def test_results_of_another_recipe_in_the_same_folder_are_reported_with_their_place(run_copy: Path) -> None:
    arguments = ("run", "quickstart", "--run-dir", str(run_copy), "--until", "prompts")
    message = run_eva(*arguments, "--set", "prompts.size=9").stderr
    assert "1 complete stages in" in message and "0-prompts" in message and "(prompts.size=8)" in message
    (variant,) = Watch(Run(run_copy)).document()["variants"]
    assert variant["changes"] == ["prompts.size=8"] and f"eva run {variant['recipe']} --run-dir {run_copy}" in variant["said"]
    assert load_recipe(variant["recipe"]).prompts.size == 8
    assert "prompts.size=8" in "".join(status_table(Watch(Run(run_copy)).document()).notes)


def test_a_run_of_an_earlier_version_stays_readable(run_copy: Path) -> None:
    (folder,) = run_copy.glob("stages/0-prompts-*")
    names = [stage["folder"] for stage in json.loads((run_copy / "stages.json").read_text())]
    (run_copy / "stages.json").write_text(json.dumps([f"{name[:-12]}{'0' * 12}" for name in names]))
    folder.rename(folder.with_name(f"0-prompts-{'0' * 12}"))
    shutil.rmtree(run_copy / "variants")
    document = Watch(Run(run_copy)).document()
    assert document["stages"][0]["state"] == "done"
    assert document["stages"][0]["rows"] == 8 and document["variants"] == []
    assert summary(read_history(Run(run_copy)))["iterations"][0]["prompts"] == 8
    assert read_history(Run(run_copy)).find("prompts", 0) is not None


# --- sockets and semaphores


def test_a_temporary_folder_whose_path_is_too_long_for_sockets_is_reported_and_replaced(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    code = (
        "import multiprocessing, tempfile\n"
        "from eva_stages.core.sockets import use_short_temporary_folder\n"
        "use_short_temporary_folder()\n"
        "print(tempfile.gettempdir())\n"
        "multiprocessing.Manager().shutdown()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(long)}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", env=environment)
    assert process.returncode == 0 and process.stdout == "/tmp\n", process.stderr
    assert f"TMPDIR: {long} is too long for the paths of sockets" in process.stderr


def test_shared_memory_that_cannot_be_written_is_named() -> None:
    code = "from eva_stages.core.sockets import use_short_temporary_folder\nuse_short_temporary_folder()"
    inner = f"mount -t tmpfs -o ro none /dev/shm && exec {sys.executable} -c '{code}'"
    if subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/dev/shm"], capture_output=True).returncode != 0:
        pytest.skip("mounting needs privileges that this machine does not give")
    process = subprocess.run(
        ["unshare", "-m", "sh", "-c", inner], capture_output=True, encoding="utf-8", env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert "/dev/shm: this machine has no semaphores (Read-only file system)" in process.stderr
