"""Checks that the Ray cluster of a recipe is available and can do the work, before anything starts."""

import logging
import socket
import uuid
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from eva_stages.core.config.engine_config import Engine, LocalEngine
from eva_stages.core.errors import ConfigError, StageError
from eva_stages.core.process import run_in_child
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import Outside, RowStage, Stage

CONNECT_SECONDS = 5


def check_engine(engine: Engine, run: Run, stages: Sequence[Stage]) -> None:
    """Check the engine against the stages of a recipe, if rows are still to be computed. The caller holds the run's lock.

    Raises:
        ConfigError: if Ray is not installed, the cluster cannot be reached or has no room, or a node does not see the folders.
    """
    if isinstance(engine, LocalEngine):
        return
    if all(run.is_complete(stage) for stage in stages if isinstance(stage, RowStage)):
        return
    check_row_stages(engine, stages)
    if engine.address != "auto":
        _connect(engine.address)
    folders = {run.store.root, *(upstream.path for stage in stages for upstream in stage.inputs.values() if isinstance(upstream, Outside))}
    token = run.root / f"seen-{uuid.uuid4().hex}"
    token.touch()
    try:
        arguments = {"engine": engine, "token": token, "folders": sorted(folders)}
        run_in_child("eva_stages.core.ray_engine:check_nodes", arguments, run.root / "cluster.log", lambda: None)
    except StageError as error:
        raise ConfigError([f"runtime.engine: {error}"]) from error
    finally:
        token.unlink()


def check_row_stages(engine: Engine, stages: Sequence[Stage]) -> None:
    """The checks that need no cluster.

    Raises:
        ConfigError: if Ray is not installed, or the recipe has settings for an unknown stage.
    """
    if isinstance(engine, LocalEngine):
        return
    rows = {stage.name for stage in stages if isinstance(stage, RowStage)}
    if unknown := sorted(set(engine.steps) - rows):
        raise ConfigError([f"runtime.engine.steps: unknown row stages: {', '.join(unknown)}; row stages: {', '.join(sorted(rows))}"])
    if find_spec("ray") is None:
        raise ConfigError(["runtime.engine: kind ray needs Ray, which is not installed: pip install 'eva-align[ray]', or set kind: local"])


def _connect(address: str) -> None:
    """Fail at once if nothing listens; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConfigError(
            [f"runtime.engine.address: no Ray cluster at {address} ({error}); start one with `ray start --head`, or set kind: local"]
        ) from error


def connect(address: str) -> None:
    """Connect to the cluster as a driver.

    Raises:
        StageError: if there is none, or this machine is not one of its nodes.
    """
    import ray

    try:
        ray.init(address=address, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise StageError(
            f"cannot connect to the Ray cluster at {address}: {' '.join(str(error).split())}; run eva on one of its nodes"
        ) from error


def missing(paths: list[str]) -> list[str]:
    """The paths that do not exist on this node."""
    return [path for path in paths if not Path(path).exists()]
