"""The prompts of a recipe, read from their file or data set."""

from collections.abc import Iterator
from pathlib import Path

from eva_stages.core.config.prompts_config import FilePrompts, HubPrompts
from eva_stages.creator.hub_prompts import read_hub_prompts
from eva_stages.creator.prompt_files import Block, prompt_batches


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
