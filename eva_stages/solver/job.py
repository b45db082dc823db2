"""One training as a typed value: `launching` writes it as JSON, and every training process reads it.

A resumed training takes its weights, its optimiser and its position from its last complete checkpoint and everything else from the job.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from eva_stages.core.config.section import Section
from eva_stages.core.config.solver_config import JobLoss, Training
from eva_stages.core.errors import DamagedError
from eva_stages.core.named_functions import FunctionCode
from eva_stages.core.ourfiles import read_json

ONLINE_FIGURES = "online/"
"""Prefix of the names of logged figures of online training."""


class OnPolicy(Section):
    """What a loss needs that samples and scores responses during training."""

    responses: int
    """Per prompt."""
    sampling: dict[str, Any]
    """Settings of `policy.generator`: those of `Sampling`, and `max_new_tokens`."""
    reward: Any
    """A `Use` as data."""
    keep_thoughts: bool
    shown_system_prompt: str | None
    """The part of the policy's system prompt that the reward reads."""
    min_gap: float = 0.0
    """Online DPO: only pairs with a larger reward gap are used."""
    unscored_limit: float
    """Largest allowed share of responses without a reward."""


class OnlineInterval(Section):
    """An interval of online training; all intervals are one training."""

    number: int
    """t, from 0."""
    steps: int
    """Optimiser steps of an interval."""
    intervals: int
    curriculum: Any
    """A `Use` as data."""
    limits: list[dict[str, Any]]
    """The fields of each `Limit`."""
    health: list[dict[str, Any]]
    """The fields of each `Check` of what training logs."""

    @property
    def first_step(self) -> int:
        """The steps before this interval."""
        return self.number * self.steps

    @property
    def last_step(self) -> int:
        return self.first_step + self.steps

    @property
    def all_steps(self) -> int:
        return self.intervals * self.steps


class TrainingJob(Section):
    """Everything that a training process needs to know."""

    loss: JobLoss
    loss_function: str | FunctionCode | None
    """Of a custom loss."""
    training: Training
    """The recipe's section, with `max_length` lowered to the policy's number of positions."""
    on_policy: OnPolicy | None
    """None for losses over pairs."""
    seed: int
    system_prompt: str | None
    date: str | None
    """The date in prompts whose chat template writes one."""
    inputs: dict[str, Path]
    """Folders of the stage's inputs by name: policy, reference, pairs or prompts, those of the reward, and the adapter to go on from."""
    reference_digest: str
    work: Path
    cache: Path
    """Folder for what several trainings of a run share."""
    label: str
    """Name of the training for trackers."""
    keeps_adapter: bool = False
    """The result is the adapter, not the policy with the adapter merged."""
    online: OnlineInterval | None = None
    """None offline."""

    @property
    def start(self) -> Path:
        """The checkpoint that training loads: the policy, and online the base policy, whose weights or adapter the state then replaces."""
        return self.policy if self.online is None else self.reference

    @property
    def first_step(self) -> int:
        """The optimiser steps before this training."""
        return 0 if self.online is None else self.online.first_step

    @property
    def policy(self) -> Path:
        return self.inputs["policy"]

    @property
    def reference(self) -> Path:
        return self.inputs["reference"]

    @property
    def first_adapter(self) -> Path | None:
        """The adapter that training goes on from, which the reference has too; None = a new one."""
        return self.inputs.get("adapter")

    @property
    def uses_four_bits(self) -> bool:
        """Whether the frozen weights of the policy are in 4 bits."""
        return self.training.adapter is not None and self.training.adapter.kind == "qlora"

    def write(self, file: Path) -> None:
        file.write_text(self.model_dump_json(indent=2), encoding="utf-8")


def read_job(file: Path) -> TrainingJob:
    """Read what `TrainingJob.write` has written.

    Raises:
        DamagedError: if a key is unknown, missing or has an unsuitable value.
    """
    try:
        job = TrainingJob.model_validate(read_json(file, dict))
    except ValidationError as error:
        raise DamagedError(f"{file} is not a training job: {error}") from error
    if missing := list(_missing(job)):  # defaults are for recipes: a job states every setting
        raise DamagedError(f"{file} is not a training job: it lacks {', '.join(missing)}")
    return job


def _missing(section: Section, place: str = "") -> Iterator[str]:
    """Fields of a section and of the sections in it that got their default because the file did not have them."""
    for name in type(section).model_fields:
        if name not in section.model_fields_set:
            yield place + name
        elif isinstance(value := getattr(section, name), Section):
            yield from _missing(value, f"{place}{name}.")
