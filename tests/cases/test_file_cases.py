"""Files that are damaged, doubled, foreign, of another encoding or of absurd size (CASES.md, K8)."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = ("eva_stages", "pipelines", "cli", "benchmarks", "configs", "hub_cards")
OWN_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
"""A locale without UTF-8 that every machine has; C.ISO-8859-1 is not installed everywhere."""


def eva(*arguments: str, code: int = 0, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real command line; returns what it printed, and checks its exit code and that it printed no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment},
    )
    assert done.returncode == code, f"exit code {done.returncode}, expected {code}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return done


# --- UTF-8 everywhere


def _calls_without_encoding(path: Path) -> Iterator[int]:
    """Lines that open text, or read a process's output as text, in the locale's encoding."""
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
    """`os.open`, which knows no text, and methods of our own classes."""
    return (
        isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id in ("os", "self", "webbrowser")
    )


def _is_mode(value: object) -> bool:
    return isinstance(value, str) and bool(value) and set(value) <= set("rwaxbt+")


def test_no_file_is_read_or_written_in_the_encoding_of_the_locale() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for folder in CODE
        for path in (ROOT / folder).rglob("*.py")
        for line in _calls_without_encoding(path)
    ]
    assert not found, "give an encoding here: " + ", ".join(found)


def test_a_recipe_means_the_same_under_a_locale_without_utf8(tmp_path: Path) -> None:
    folder = tmp_path / "Ünïcode"
    folder.mkdir()
    (folder / "p.jsonl").write_text(
        "".join(json.dumps({"prompt": f"Grüße {n} 中"}, ensure_ascii=False) + "\n" for n in range(8)), encoding="utf-8"
    )
    text = eva("recipes", "show", "quickstart").stdout
    changes = (
        "--set",
        "policy.generator.system_prompt=Répondez, s'il vous plaît 中",
        "--set",
        f"prompts={{kind: file, path: {folder / 'p.jsonl'}}}",
    )
    (folder / "récipe.yaml").write_text(text, encoding="utf-8")
    plans = [
        json.loads(eva("plan", str(folder / "récipe.yaml"), *changes, "--run-dir", str(folder / "run"), "--json", **environment).stdout)
        for environment in ({"PYTHONUTF8": "1"}, OWN_LOCALE)
    ]
    fingerprints = [[stage["fingerprint"] for stage in plan["stages"]] for plan in plans]
    assert fingerprints[0] == fingerprints[1]


def test_output_that_the_locale_cannot_spell_does_not_stop_a_command(tmp_path: Path) -> None:
    said = eva("validate", "quickstart", "--set", "policy.model=./modèle/中", code=2, **OWN_LOCALE)
    assert "policy.model" in said.stderr
