"""The documents name files, symbols and commands that exist."""

import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from benchmarks.pictures import PICTURE, STUDIES, contrasts, picture
from cli.main import app
from tests.conftest import overrides, run_eva
from tests.tiny_models import save_policy, save_reward, tokenizer

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "AGENTS.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").glob("*.md"))
PARENTS = (ROOT, ROOT / "eva_stages", ROOT / "docs")
"""Folders that a path in a document may be relative to."""
SYMBOL = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\(.*\))?")
ids = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def code_spans(document: Path) -> list[str]:
    """What the document sets in backticks, without its fenced blocks."""
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    return re.findall(r"`([^`]+)`", " ".join(text.split("\n")))


@cache
def tracked_files() -> set[str]:
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listing.stdout.splitlines())


@cache
def source_words() -> set[str]:
    """Every word in the sources, and the names of their files."""
    sources = [ROOT / name for name in tracked_files() if name.endswith((".py", ".yaml", ".jinja", ".toml", ".sbatch"))]
    return {word for path in sources if path.is_file() for word in re.findall(r"\w+", f"{path.stem} {path.read_text()}")}


def is_path(span: str) -> bool:
    """Whether a code span is the path of a file or folder of the repository (and not of a run, the Hub or a user's machine)."""
    if not re.fullmatch(r"[\w./-]+", span) or "/" not in span:
        return False
    rooms = {path.name for parent in PARENTS for path in parent.iterdir() if path.is_dir()}
    return span.split("/")[0] in rooms and (span.endswith("/") or "." in span.split("/")[-1])


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_file_that_a_document_names_exists(document: Path) -> None:
    paths = [span for span in code_spans(document) if is_path(span)]
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", document.read_text()) if "://" not in link]
    missing_paths = [path for path in paths if not any((parent / path).exists() for parent in PARENTS)]
    missing_links = [link for link in links if not (document.parent / link).exists()]
    assert missing_paths + missing_links == []


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.name in ("AGENTS.md", "architecture.md", "extending.md")])
def test_every_symbol_that_a_document_for_developers_names_is_in_the_sources(document: Path) -> None:
    symbols = [match[1] for span in code_spans(document) if (match := SYMBOL.fullmatch(span)) and not is_path(span)]
    missing_symbols = [symbol for symbol in symbols if not set(symbol.split(".")) <= source_words()]
    assert missing_symbols == []


def command_texts(document: Path) -> Iterator[tuple[str, bool]]:
    """The `eva ...` commands of a document, and whether each is in a code block (or else in a sentence)."""
    blocks = re.findall(r"```(\w*)\n(.*?)```", document.read_text(), re.DOTALL)
    lines = [(line, True) for _, block in blocks for line in block.splitlines()] + [(span, False) for span in code_spans(document)]
    for line, is_in_block in lines:
        for part in line.split("&&"):
            if match := re.match(r"eva ([a-z].*)", part.strip()):
                yield re.split(r"\s{2,}", match[1])[0].strip(), is_in_block


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_command_that_a_document_names_exists_with_its_options(document: Path) -> None:
    eva = typer.main.get_command(app)
    for text, _ in command_texts(document):
        words = text.split()
        command, rest = eva, list(words)
        while isinstance(command, TyperGroup) and rest:
            assert rest[0] in command.commands, f"eva {' '.join(words)}: there is no such command"
            command = command.commands[rest.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        unknown = [word for word in words if word.startswith("--") and word.split("=")[0] not in options]
        assert unknown == [], f"eva {' '.join(words)}"


def test_every_page_is_in_the_navigation_and_in_the_home_page() -> None:
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    settings = (ROOT / "mkdocs.yml").read_text()
    assert set(re.findall(r": (\w+\.md)", settings)) == pages
    for home in (ROOT / "docs" / "index.md", ROOT / "README.md"):
        assert pages - {"index.md"} == set(re.findall(r"\]\((?:docs/)?(\w+\.md)", home.read_text())) & pages - {"index.md"}, home


def test_the_pages_are_built_without_a_warning(tmp_path: Path) -> None:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path)))
    pages = list(tmp_path.glob("*.html"))
    loaded_links = {link for page in pages for link in re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"([^\"]+)\"", page.read_text())}
    assert len(pages) > 20 and [link for link in loaded_links if link.startswith(("http:", "https:", "//"))] == []


def test_the_picture_of_the_contrasts_is_that_of_the_results() -> None:
    assert PICTURE.read_text() == picture((ROOT / "docs" / "results.md").read_text()), "python -m benchmarks.pictures draws it"
    assert [len(contrasts((ROOT / "docs" / "results.md").read_text(), study)) for study in STUDIES] == [4, 7]


def test_the_recipe_of_the_readme_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Valid but for what is not on this machine: prompts, models, vLLM and a key. With local ones it has no error."""
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    (text,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    (tmp_path / "my.yaml").write_text(text)
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Which number follows {n}?"}) + "\n" for n in range(2000)))
    words = tokenizer(["Which number follows?"])
    save_policy(tmp_path / "policy", words)
    save_reward(tmp_path / "reward", words)
    local = {
        "policy.model": "policy",
        "policy.generator.kind": "transformers",
        "reward": {"kind": "sequence_classifier", "model": "reward"},
        "solver.training.runtime.launch": "cpu",
        "solver.training.dtype": "float32",
    }
    monkeypatch.setenv("OPENAI_API_KEY", "no-key")
    run_eva("validate", "my.yaml", *overrides(local), cwd=tmp_path)


def test_every_benchmark_that_a_document_names_exists() -> None:
    text = "".join(document.read_text() for document in DOCUMENTS)
    names = set(re.findall(r"(?<!_)benchmarks\.([a-z_]+)", text)) - {"py"}
    assert all((ROOT / "benchmarks" / f"{name}.py").is_file() for name in names), names
