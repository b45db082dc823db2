"""The bases of eva's tasks: steps that ask a distilabel `LLM`."""

from typing import Any

from distilabel.errors import DistilabelUserError
from distilabel.steps.tasks import Task

from eva_stages.core.pipeline_patches import LoudStep


class LoudTask(LoudStep, Task):
    """A task whose error ends its pipeline."""


class OneReplyTask(LoudTask):
    """A task that asks for one reply at a time."""

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if self.num_generations != 1:
            raise DistilabelUserError(
                f"{type(self).__name__}: num_generations is {self.num_generations}, and the task reads one reply per question; leave it out"
            )
