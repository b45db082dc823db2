"""Facts about everything that a recipe names: builders and checks read these instead of files and the network.

`eva_stages.checking.resolution` collects them.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from eva_stages.core.config.function_fields import in_file
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.homes import FileSource
from eva_stages.core.named_functions import NamedFunction
from eva_stages.core.stage import Outside, Use

DATE_FUNCTIONS = ("strftime_now", "date_string")


@dataclass(frozen=True)
class Checkpoint(Outside):
    """A model from outside."""

    template: str = field(default="", repr=False)
    """Source of its chat template; empty if it has none."""

    @property
    def shows_date(self) -> bool:
        """Whether what its chat template renders depends on the day."""
        return any(name in self.template for name in DATE_FUNCTIONS)


class PromptSource(NamedTuple):
    """What the file or data set with the prompts holds."""

    usable: int
    """Different prompts that can be used."""
    rows: int
    left_out_rows: int
    """Rows that are no usable prompt."""
    reasons: str
    """Why, with the numbers of the first rows."""


@dataclass(frozen=True)
class Resolved:
    """Everything that a recipe names. What was not found is missing here, and `errors` has the reason."""

    checkpoints: Mapping[tuple[str, str | None], Checkpoint] = field(default_factory=dict)
    """By model and revision, as in the recipe."""
    files: Mapping[FileSource, Outside] = field(default_factory=dict)
    """Files and folders."""
    benchmarks: Mapping[str, Mapping[str, Outside]] = field(default_factory=dict)
    """Files by the name of a benchmark and the field that can give a path; a second file of a field is called field.1."""
    functions: Mapping[str, NamedFunction] = field(default_factory=dict)
    """Functions in files, by the text of the recipe."""
    commit: str | None = None
    """Of the data set with the prompts, where they come from the Hub."""
    prompts: PromptSource | None = None
    """None where eva makes the prompts, or could not read them."""
    date: datetime.date | None = None
    """Today's date for chat templates that show one."""
    tasks_version: str | None = None
    """Of reasoning-gym, which decides its tasks; None if it is not installed."""
    errors: tuple[str, ...] = ()

    def checkpoint(self, model: str, revision: str | None) -> Checkpoint:
        return self.checkpoints[model, revision]

    def policy(self, recipe: Recipe) -> Checkpoint | None:
        """The base policy; None if it could not be found."""
        return self.checkpoints.get((recipe.policy.model, recipe.policy.revision))

    def file(self, source: FileSource) -> Outside:
        return self.files[source]

    def function(self, choice: str) -> str | Use:
        """The argument of a step for a function: the name of a built-in function, or the deferred import of a function in a file."""
        return self.functions[choice].use() if in_file(choice) else choice
