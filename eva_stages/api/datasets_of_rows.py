"""The rows of an artifact as a data set of the library datasets, memory-mapped from the Arrow file that the library caches."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eva_stages.core.errors import DamagedError
from eva_stages.core.tables import count_rows

if TYPE_CHECKING:
    from datasets import Dataset


def dataset_of(path: Path) -> "Dataset":
    """The rows of a parquet file of eva. The first call converts the file (`HF_DATASETS_CACHE`), later calls only map it.

    Raises:
        DamagedError: if the file's content is wrong.
        UnreadableError: if the system does not let us read it.
    """
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    count_rows(path.parent)
    try:
        with _without_bars():
            return Dataset.from_parquet(str(path))
    except DatasetGenerationError as error:
        cause = " ".join(str(error.__cause__ or error).split())
        raise DamagedError(f"{path} is damaged: {cause}") from error


@contextmanager
def _without_bars() -> Iterator[None]:
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
