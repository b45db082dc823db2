"""Prompts from a data set on the Hub: resolved to a commit, loaded by `datasets`, then processed like a file of prompts.

A configuration of another run's pushed data set is a valid source, so a run can continue another run. `datasets` has its own cache; a
commit in the cache needs no network.
"""

import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from eva_stages.core.config.prompts_config import FilePrompts, HubPrompts
from eva_stages.core.errors import ConfigError, hub_failures
from eva_stages.core.runner import Context
from eva_stages.core.tables import BATCH
from eva_stages.creator.prompt_files import Block, chosen_column, column_blocks, numbered_rows, prompt_batches
from eva_stages.creator.prompt_loading import load_blocks

COMMIT = re.compile(r"[0-9a-f]{40}")


def dataset_commit(id: str, revision: str | None) -> str:
    """The commit that a revision of a data set is at.

    Raises:
        ConfigError: if the Hub has no such data set or revision, or cannot be reached and the cache does not know either.
    """
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(snapshot_download(id, repo_type="dataset", revision=revision, allow_patterns=["README.md"])).name
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        where = f"at revision {revision or 'main'} (or it is private or gated and needs a token)"
        raise ConfigError([f"prompts.id: the Hub has no data set {id} {where}"]) from error
    except hub_failures() as error:
        raise ConfigError([f"prompts.id: {id} is not in the cache and the Hub cannot be reached ({type(error).__name__})"]) from error


def read_hub_prompts(
    id: str, config: str | None, split: str, commit: str, column: str | None, reference_column: str | None
) -> Iterator[Block]:
    """The prompts of a data set, some rows at a time.

    Raises:
        ConfigError: if there is no such configuration, split or column, or it cannot be loaded.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        rows = load_dataset(id, config, split=split, revision=commit).with_format("arrow")
    except (DatasetsError, ValueError, OSError) as error:  # a ValueError lists the known configurations or splits
        raise ConfigError([f"prompts: {id}, config {config}, split {split} cannot be loaded: {' '.join(str(error).split())}"]) from error
    column_list = ", ".join(rows.column_names)
    chosen = column or chosen_column(rows.column_names, id)
    for name, place in ((chosen, "column"), (reference_column, "reference_column")):
        if name is not None and name not in rows.column_names:
            raise ConfigError([f"prompts.{place}: {id} has no column {name!r}; it has {column_list}"])
    columns = rows.select_columns([name for name in dict.fromkeys((chosen, reference_column)) if name])
    return column_blocks(chain([[(0, dict.fromkeys(rows.column_names))]], numbered_rows(columns.iter(BATCH))), id, chosen, reference_column)


def load_hub(
    context: Context,
    id: str,
    config: str | None,
    split: str,
    revision: str,
    column: str | None,
    reference_column: str | None,
    **settings: Any,
) -> dict[str, Any]:
    """Load prompts from a data set at a commit; `settings` are those of `load_blocks`."""
    return load_blocks(context, read_hub_prompts(id, config, split, revision, column, reference_column), id, id, **settings)


def prompt_source(prompts: FilePrompts | HubPrompts, commit: str | None) -> Iterator[Block]:
    """The values of a recipe's prompts, some rows at a time.

    Args:
        commit: of a data set on the Hub.

    Raises:
        ConfigError: as `prompt_batches` and `read_hub_prompts` say.
    """
    if isinstance(prompts, FilePrompts):
        return prompt_batches(Path(prompts.path).expanduser(), prompts.column, prompts.reference_column)
    assert commit is not None
    return read_hub_prompts(prompts.id, prompts.config, prompts.split, commit, prompts.column, prompts.reference_column)
