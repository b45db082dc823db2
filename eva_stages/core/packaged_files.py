"""The recipes and studies that are shipped with eva. Shell completion reads them, so this file imports nothing that takes long."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import configs

FOLDER = Path(configs.__file__).parent
STUDIES = FOLDER / "studies"
SCHEMA_MARK = "# yaml-language-server: $schema="
"""Before the place of the file's JSON schema, in a line that editors read."""


@dataclass(frozen=True)
class PackagedFile:
    """A packaged recipe or study: its name and its file."""

    name: str
    path: Path

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def summary(self) -> str:
        """The first comment line that is not for editors."""
        line = next(line for line in self.text.splitlines() if not line.startswith(SCHEMA_MARK))
        return line.removeprefix("#").strip()


def packaged_recipes() -> list[PackagedFile]:
    """Every recipe shipped with eva, sorted by name."""
    return sorted(_walk(FOLDER, ""), key=lambda recipe: recipe.name)


def packaged_studies() -> list[PackagedFile]:
    """Every study shipped with eva, sorted by name."""
    return sorted(_walk(STUDIES, ""), key=lambda study: study.name)


def _walk(folder: Path, prefix: str) -> Iterator[PackagedFile]:
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name not in ("accelerate", "cluster", "studies", "__pycache__"):
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif entry.suffix == ".yaml":
            yield PackagedFile(prefix + entry.stem, entry)


def with_schema_place(text: str) -> str:
    """The text of a packaged file as it can stand in any folder: the line for editors names the installed schema."""
    pattern = re.compile(rf"^({re.escape(SCHEMA_MARK)})\S*?(\w+\.schema\.json)$", re.MULTILINE)
    return pattern.sub(lambda match: match[1] + (FOLDER / match[2]).as_uri(), text)


def files_beside(recipe: str) -> Path | None:
    """The folder with the files of a packaged recipe; None if it has none, or the recipe is not packaged."""
    folder = FOLDER / recipe
    return folder if folder.is_dir() and not Path(recipe).is_absolute() else None
