"""Signs of health while online training runs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from accelerate import PartialState
from transformers import TrainerControl, TrainerState

from eva_stages.core.config.health_config import Health
from eva_stages.core.errors import DataError
from eva_stages.core.health_signs import checks, training_checks
from eva_stages.core.notices import NoticeReader
from eva_stages.solver.training_health import LEAST_STEPS, WatchHealth, training_figures

ENTRY = {
    "loss": 0.1,
    "completions/clipped_ratio": 0.0,
    "kl": 0.02,
    "frac_reward_zero_std": 0.5,
    "online/buffer_share": 0.5,
    "online/evolved_share": 0.1,
    "online/inserted": 6.0,
    "online/late": 2.0,
    "per_response/unscored": 0.0,
}


def watch(folder: Path, health: Health, steps: int = 4, iteration: int = 2) -> WatchHealth:
    PartialState(cpu=True)
    limits = [vars(check) for check in training_checks(health, iteration, unscored_limit=0.05)]
    online = SimpleNamespace(steps=steps, last_step=iteration * steps + steps, health=limits)
    return WatchHealth(cast(Any, SimpleNamespace(online=online, work=folder, first_step=iteration * steps)))


def log(watching: WatchHealth, entry: dict[str, float], step: int = 9) -> TrainerControl:
    control = TrainerControl()
    watching.on_log(None, TrainerState(global_step=step), control, logs=entry)
    return control


def test_figures_are_means_over_steps_and_unknown_where_nothing_is_logged() -> None:
    figures = training_figures([ENTRY, {**ENTRY, "frac_reward_zero_std": 1.0}])
    assert figures["equal_rewards"] == 0.75 and figures["late_share"] == 0.25
    assert figures["evolved_share"] == pytest.approx(0.2)
    assert training_figures([{"loss": 0.1}]) == dict.fromkeys(figures)


def test_a_figure_outside_its_limit_warns_once_and_training_goes_on(tmp_path: Path) -> None:
    watching = watch(tmp_path, Health(late_share=0.2, evolved_share=None))
    for _ in range(LEAST_STEPS - 1):
        assert not log(watching, ENTRY).should_training_stop
    assert NoticeReader(tmp_path).new_texts() == []
    for _ in range(3):
        assert not log(watching, ENTRY).should_training_stop
    (text,) = NoticeReader(tmp_path).new_texts()
    assert "came too late is 0.25, above the limit health.late_share=0.2" in text


def test_a_sign_that_stops_saves_a_checkpoint_first_and_names_the_limit(tmp_path: Path) -> None:
    watching = watch(tmp_path, Health(equal_rewards=0.4, stop=("equal_rewards",)))
    *_, control = (log(watching, ENTRY) for _ in range(LEAST_STEPS))
    assert control.should_save and control.should_training_stop
    with pytest.raises(DataError, match=r"training stops at step 10 of 12: .* 0.5, above the limit health.equal_rewards=0.4"):
        watching.on_train_end(None, TrainerState(global_step=10), control)


def test_a_resumed_training_that_is_still_outside_the_limit_does_not_start(tmp_path: Path) -> None:
    state = TrainerState(global_step=10, log_history=[{**ENTRY, "step": step} for step in range(1, 14)])
    health = Health(equal_rewards=0.4, stop=("equal_rewards",))
    with pytest.raises(DataError, match="equal_rewards"):
        watch(tmp_path, health).on_train_begin(None, state, TrainerControl())
    watch(tmp_path, Health(equal_rewards=0.6, stop=("equal_rewards",))).on_train_begin(None, state, TrainerControl())


def test_the_first_interval_that_evolves_is_not_judged_by_its_share_of_evolved_prompts() -> None:
    assert "evolved_share" not in {check.figure for check in training_checks(Health(), 1, 0.05)}
    assert "evolved_share" in {check.figure for check in training_checks(Health(), 2, 0.05)}
    assert not {"equal_rewards", "late_share"} & {check.figure for check in checks(Health())}
