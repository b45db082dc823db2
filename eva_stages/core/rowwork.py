"""The remaining work of a row stage, independent of the engine."""

from dataclasses import dataclass
from pathlib import Path

from eva_stages.core.stage import RUN, WORK, Use


@dataclass(frozen=True)
class RowWork:
    """An attempt at a row stage."""

    name: str
    folders: dict[str, Path]
    """Folders of the stage's inputs."""
    sources: list[str]
    prefixes: dict[str, str]
    steps: list[Use]
    rows: str
    """Name of the row schema."""
    required_columns: list[str]
    parts: Path
    run: Path
    batch_size: int

    @property
    def places(self) -> dict[str, Path]:
        """Folders by the names that steps may use."""
        return {**self.folders, WORK: self.parts.parent, RUN: self.run}

    @property
    def read(self) -> tuple[list[Path], list[str]]:
        """The artifacts whose rows are joined, and the prefixes of their columns' names."""
        return [self.folders[source] for source in self.sources], [self.prefixes.get(source, "") for source in self.sources]
