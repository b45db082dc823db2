"""How informative a prompt is, from the rewards of its responses [paper, section 3.3.1, tables 2 and 3].

A metric is a function from rewards of shape (prompts, n) to finite values of shape (prompts,). It sees the prompts whose responses are
all scored; the others have NaN and cannot be selected: the best and the worst of some responses need not be those of all.
"""

from collections.abc import Generator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.config.function_fields import METRIC
from eva_stages.core.distil import TableStep
from eva_stages.core.errors import DataError
from eva_stages.core.named_functions import FunctionCode, choice_name, known_functions, load_choice
from eva_stages.core.numeric import homogeneous
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.tables import Rows, reward_matrix
from eva_stages.creator.function_calls import Metric, metric_values
from eva_stages.creator.learnability import expected_learnability, in_band, success_evidence


@homogeneous(degree=0)
def min_max(values: np.ndarray) -> np.ndarray:
    """(v - min) / (max - min) over the finite entries; all ones if all values are equal."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    return (values - low) / (high - low) if high > low else np.where(np.isfinite(values), 1.0, np.nan)


@homogeneous(degree=1, rows=True)
def reward_gap(rewards: np.ndarray) -> np.ndarray:
    """max - min (A*_min)."""
    return rewards.max(axis=1) - rewards.min(axis=1)


@homogeneous(degree=1, rows=True)
def reward_max_minus_mean(rewards: np.ndarray) -> np.ndarray:
    """max - mean (A*_avg)."""
    return rewards.max(axis=1) - rewards.mean(axis=1)


@homogeneous(degree=1, rows=True)
def reward_best_minus_second(rewards: np.ndarray) -> np.ndarray:
    """best - second best (A*_dts)."""
    sorted_rewards = np.sort(rewards, axis=1)
    return sorted_rewards[:, -1] - sorted_rewards[:, -2]


@homogeneous(degree=2, rows=True)
def reward_variance(rewards: np.ndarray) -> np.ndarray:
    """Population variance."""
    return rewards.var(axis=1)


@homogeneous(degree=1, rows=True)
def reward_mean(rewards: np.ndarray) -> np.ndarray:
    return rewards.mean(axis=1)


def reward_mean_inverse(rewards: np.ndarray) -> np.ndarray:
    """1 - minmax(mean) over the prompt set."""
    return 1 - min_max(reward_mean(rewards))


def reward_gap_inverse(rewards: np.ndarray) -> np.ndarray:
    """1 - minmax(gap) over the prompt set."""
    return 1 - min_max(reward_gap(rewards))


def uniform(rewards: np.ndarray) -> np.ndarray:
    return np.ones(len(rewards))


@homogeneous(degree=1)
def spread_at_median(rewards: np.ndarray) -> np.ndarray:
    """sd * exp(-(mean - m0)^2 / (2 s^2)): population sd and mean of the prompt's rewards, m0 and s median and sd of the set's means.

    With s = 0, up to rounding, all means are equal to m0, and the value is sd.
    """
    means = rewards.mean(axis=1)
    scale = means.std()
    is_spread = scale > 1e-12 * np.abs(means).max(initial=0.0)
    scores = (means - np.median(means)) / scale if is_spread else np.zeros(len(means))
    return rewards.std(axis=1) * np.exp(-0.5 * scores**2)


def weights(values: np.ndarray) -> np.ndarray:
    """Sampling weights: min-max normalised values, zero for NaN. They sum to anything; `selection` divides."""
    return np.nan_to_num(min_max(values), nan=0.0)


class Informativeness(TableStep):
    """The values of every metric for every prompt, and the sampling weight by the recipe's metric.
    Inputs: the rewards; with a discount also the informativeness of the prompts of each earlier set, oldest first.

    Attributes:
        metric: name of a built-in metric, or a function in a file.
        discount: per iteration, of the evidence for `learnability` from earlier iterations; None = only the rewards count.
    Input columns:
        - prompt_id, rewards (n per prompt, null = not scored); prompt_id, reward_mean (informativeness)
    Output columns:
        - prompt_id, one column per metric (null where a reward is missing), weight
    Categories:
        - scorer
    """

    metric: str | FunctionCode = "reward_gap"
    discount: float | None = None

    reads = {"prompt_id": True, "rewards": True, "reward_mean": False}

    @property
    def outputs(self) -> Sequence[str]:
        return ["prompt_id", *self._metrics(), "weight"]

    def _metrics(self) -> dict[str, Metric]:
        metrics = {name: metric for name, metric in known_functions(METRIC).items() if name not in METRIC.on_request}
        return {**metrics, choice_name(self.metric): load_choice(self.metric, METRIC)}

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        reward_rows, *earlier_infos = sources
        rewards = reward_matrix(reward_rows["rewards"])
        columns = {name: metric_values(metric, rewards) for name, metric in self._metrics().items()}
        if self.discount is not None:
            ids = reward_rows["prompt_id"]
            shares = [columns["reward_mean"], *(_values_of(ids, info, "reward_mean") for info in reversed(earlier_infos))]
            expected = expected_learnability(*success_evidence(shares, rewards.shape[1], self.discount))
            columns["learnability"] = np.where(np.isfinite(columns["reward_mean"]), expected, np.nan)
        arrays = {name: pa.array(values, from_pandas=True) for name, values in columns.items()}
        yield pa.table({"prompt_id": reward_rows["prompt_id"], **arrays, "weight": weights(columns[choice_name(self.metric)])})
        return {"unscored": int(np.isnan(rewards).any(axis=1).sum())}


def _values_of(ids: pa.Array, info: Rows, name: str) -> np.ndarray:
    """A column of another artifact for the prompts with these ids; NaN for those that it lacks."""
    values = info[name].take(pc.index_in(ids, value_set=info["prompt_id"]))
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)


class Admit(TableStep):
    """The most informative of new prompts (ACCEL). Inputs: prompts, and the rewards of these prompts, perhaps with those of others.

    Attributes:
        band: admit only prompts whose mean reward is in this range, ends included; all rewards must be 0 or 1.
        fraction: share that is admitted, with a band of the prompts in it.
    Input columns:
        - the columns of a prompt row; prompt_id, rewards
    Output columns:
        - the columns of a prompt row
    Categories:
        - filtering
    """

    metric: str | FunctionCode = "reward_gap"
    fraction: float = 0.5
    band: tuple[float, float] | None = None

    reads = [*SCHEMAS["prompts"].names, "rewards"]
    writes = SCHEMAS["prompts"].names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        prompts, rewards = sources
        places = pc.index_in(prompts["prompt_id"], value_set=rewards["prompt_id"])
        if places.null_count:
            raise DataError("the rewards and the prompts to admit have different prompt ids")
        matrix = reward_matrix(rewards["rewards"].take(places))
        values = metric_values(load_choice(self.metric, METRIC), matrix)
        scored_count = int(np.isfinite(values).sum())
        candidates, outside = scored_count, dict[str, int]()
        if self.band is not None:
            values[~in_band(matrix, *self.band)] = np.nan
            candidates = int(np.isfinite(values).sum())
            outside = {"outside_band": scored_count - candidates}
        size = min(candidates, round(self.fraction * (len(values) if self.band is None else candidates)))
        best = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:size]
        yield from prompts.take(np.sort(best))
        return {"admitted": size, "unscored": len(values) - scored_count, **outside, "not_informative": candidates - size}
