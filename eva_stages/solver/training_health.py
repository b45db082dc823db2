"""Signs of health while online training runs: cheap figures from the trainer's log, as means over the last optimiser steps.

A figure outside its limit produces a warning, once per attempt. One that the recipe lists in `health.stop` stops training after a
checkpoint; the same command resumes there, with other limits if they were changed.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback

from eva_stages.core.errors import DataError
from eva_stages.core.health_signs import UNSCORED_SIGN
from eva_stages.core.notices import write_notice
from eva_stages.core.stage import Check
from eva_stages.solver.job import ONLINE_FIGURES, TrainingJob
from eva_stages.solver.online_trainers import PER_RESPONSE

LEAST_STEPS, MOST_STEPS = 5, 20
"""Optimiser steps that a figure is a mean of; in a short interval half of its steps, in one below 5 steps nothing is compared."""
LOGGED_NAMES = {
    "length_limited": "completions/clipped_ratio",
    "kl_per_token": "kl",
    "equal_rewards": "frac_reward_zero_std",
    UNSCORED_SIGN: f"{PER_RESPONSE}unscored",
}


class WatchHealth(TrainerCallback):
    """Compares the figures of the last steps with the recipe's limits after every step."""

    def __init__(self, job: TrainingJob) -> None:
        assert job.online is not None
        self._job, self._online = job, job.online
        self._checks = [Check(**check) for check in job.online.health]
        self._entries: deque[Mapping[str, Any]] = deque(maxlen=max(LEAST_STEPS, min(MOST_STEPS, job.online.steps // 2)))
        self._reported_fields: set[str] = set()
        self._cause: str | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raises:
        DataError: if the steps before a resumption are outside a limit that stops training.
        """
        self._entries.extend(entry for entry in state.log_history if "loss" in entry and entry["step"] > self._job.first_step)
        self._cause = self._stopping_cause(state)
        self.on_train_end(args, state, control)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        self._entries.append(dict(logs))
        self._cause = self._stopping_cause(state)
        if self._cause is not None:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Raises:
        DataError: if a limit has stopped training.
        """
        if self._cause is not None:
            raise DataError(
                f"training stops at step {state.global_step} of {self._online.last_step}: {self._cause}. The checkpoint of this step is "
                "saved. Correct the recipe, or set another limit under health, which recomputes nothing"
            )

    def _stopping_cause(self, state: Any) -> str | None:
        """Which limits stop training, for all processes as the main one sees it; warns about the others."""
        figures = training_figures(self._entries) if len(self._entries) == self._entries.maxlen else {}
        messages = [(check, message) for check in self._checks if (message := check.violation(figures))]
        for check, message in messages:
            if state.is_world_process_zero and not check.stop and check.field not in self._reported_fields:
                self._reported_fields.add(check.field)
                write_notice(self._job.work, f"warning at step {state.global_step}: {message}", lasting=True)
        causes = "; ".join(message for check, message in messages if check.stop)
        return broadcast_object_list([causes or None])[0]  # figures of the curriculum are known to the main process only


def training_figures(entries: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The figures of some optimiser steps, None where the trainer does not log one.

    `evolved_share` is of what is drawn from the buffer; `late_share` is of the interval so far.
    """
    figures = {name: _mean([entry.get(logged_name) for entry in entries]) for name, logged_name in LOGGED_NAMES.items()}
    buffer, evolved = (_mean([entry.get(f"{ONLINE_FIGURES}{name}_share") for entry in entries]) for name in ("buffer", "evolved"))
    inserted_count, late_count = (entries[-1].get(f"{ONLINE_FIGURES}{name}") or 0 for name in ("inserted", "late"))
    return {
        **figures,
        "evolved_share": None if not buffer or evolved is None else evolved / buffer,
        "late_share": late_count / (inserted_count + late_count) if inserted_count + late_count else None,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known_values = [value for value in values if value is not None]
    return sum(known_values) / len(known_values) if known_values else None
