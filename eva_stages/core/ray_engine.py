"""Row stages on a Ray cluster: the same steps, rows, batches and part files as on one machine.

The stage's process reads the batches and writes the part files; in between, each copy of the steps is a Ray actor that loads them once
and works at one batch at a time. A batch whose actor dies, with its node or alone, goes back to the front and another actor takes it;
an actor that died is started anew wherever there is room. So a lost node costs the batches it had under way.
"""

import math
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from eva_stages.core.config.engine import Copies, RayEngine
from eva_stages.core.distil import check_columns, placed
from eva_stages.core.errors import StageError
from eva_stages.core.parts import read_parts, write_part
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.stage import RUN, WORK, Use, as_data, use_of
from eva_stages.core.tables import joined_batches

MOST_DEATHS = 3
"""Times that a batch, or one place's loading, may lose its actor before it is taken for the cause."""
POLL_SECONDS = 5.0
Rows = list[dict[str, Any]]


@dataclass
class _Batch:
    rows: Rows
    deaths: int = 0


@dataclass
class _Place:
    """Where one copy works: its actor, and how often in a row an actor died here while it loaded."""

    actor: ActorHandle
    deaths: int = 0


class Steps:
    """The steps of a row stage in a process of their own on some node."""

    def __init__(self, steps: list[Any], folders: dict[str, str], batch_size: int) -> None:
        self._uses = [use_of(step) for step in steps]
        self._folders = {name: Path(folder) for name, folder in folders.items()}
        self._batch_size = batch_size
        self._steps: list[Any] = []

    def load(self) -> None:
        try:
            self._steps = build_steps(self._uses, self._folders, self._batch_size)
            for step in self._steps:
                step.load()
        except Exception as error:
            raise _in_its_words(error) from error

    def process(self, rows: Rows) -> Rows:
        try:
            for step in self._steps:
                rows = [row for made in step.process(rows) for row in made]
        except Exception as error:
            raise _in_its_words(error) from error
        return rows
