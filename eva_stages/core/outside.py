"""Input files that eva did not write must not change while a stage reads them: its manifest records the digest that they had before.

Equal sizes, times and inodes show that a file was not written. If they differ before a stage, the digest decides; if they differ after
it, it is unknown what the stage read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from eva_stages.core.errors import StageError
from eva_stages.core.fingerprint import Stamps, file_digest, file_stamps, tree_digest
from eva_stages.core.stage import Outside, Stage

ADVICE = "do not change it during a run, or give the run a copy. Then rerun"


@dataclass(frozen=True)
class OutsideInputs:
    """A stage's inputs from outside, with the stamps of their files when it started."""

    stamps: tuple[tuple[Outside, Stamps], ...]

    @classmethod
    def of(cls, stage: Stage) -> "OutsideInputs":
        """Raises:
        StageError: if one no longer has the digest that the stage's manifest would name.
        """
        inputs = [upstream for upstream in stage.inputs.values() if isinstance(upstream, Outside)]
        stamps = tuple((upstream, file_stamps(upstream.path)) for upstream in inputs)
        for upstream in inputs:
            if (name := changed_file(upstream, upstream.stamps)) and not _holds_digest(upstream):
                raise StageError(f"{_place(upstream, name)} was changed since the run started; {ADVICE}")
        return cls(stamps)

    def check_unchanged(self, drop_work: Callable[[], None]) -> None:
        """Raises:
        StageError: naming the first file that was written since. `drop_work` is called before, so that a rerun resumes nothing.
        """
        for upstream, earlier_stamps in self.stamps:
            if name := changed_file(upstream, earlier_stamps):
                drop_work()
                raise StageError(f"{_place(upstream, name)} was changed while the stage ran, so its results were deleted; {ADVICE}")


def changed_file(upstream: Outside, earlier_stamps: Stamps) -> str | None:
    """The first file that was written, added or removed since its stamps were `earlier_stamps`; None if none was."""
    present = file_stamps(upstream.path)
    names = sorted(name for name in {*earlier_stamps, *present} if earlier_stamps.get(name) != present.get(name))
    return names[0] if names else None


def _holds_digest(upstream: Outside) -> bool:
    """Whether the digest of the files is the recorded one; never for a Hub commit, which is no digest."""
    path = upstream.path
    return path.exists() and upstream.digest == (tree_digest(path) if path.is_dir() else file_digest(path))


def _place(upstream: Outside, name: str) -> Path:
    return upstream.path / name if upstream.path.is_dir() else upstream.path
