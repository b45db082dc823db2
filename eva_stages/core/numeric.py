"""Figures of rewards of any finite size: rewards come from anybody's function, and squares and sums of large ones leave float64's range.

Ordinary values are computed as they are, so no figure changes in its last digit.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

LARGEST = float(np.finfo(np.float64).max)
SAFE = 1e100
"""Values up to here may be added up and multiplied with each other."""
DRAWN = 1e150
"""Values up to here can be squared and drawn."""


Figure = Callable[[np.ndarray], Any]


def homogeneous(degree: int, rows: bool = False) -> Callable[[Figure], Figure]:
    """Make a figure of values one that never overflows on the way; where the result is beyond float64, it is the largest number there is.

    The figure takes float64 values, NaN = not known, and has figure(s * values) = s ** degree * figure(values), as a mean (1), a variance
    (2) and a ranking (0) have.

    Args:
        rows: the figure is one of each row of a matrix; else one of all values together.
    """

    def made_safe(figure: Figure) -> Figure:
        @wraps(figure)
        def safe(values: np.ndarray) -> Any:
            sizes = np.where(np.isfinite(values), np.abs(values), 0.0)
            largest = sizes.max(axis=1, initial=0.0, keepdims=True) if rows else np.array(sizes.max(initial=0.0))
            if not (largest > SAFE).any():
                return figure(values)
            scale = np.where(largest > SAFE, largest, 1.0)
            result = figure(values / scale)
            with np.errstate(over="ignore"):
                for _ in range(degree):
                    result = result * (scale[:, 0] if rows else scale)
            return np.clip(result, -LARGEST, LARGEST)

        return safe

    return made_safe


@homogeneous(degree=1)
def mean(values: np.ndarray) -> Any:
    """The mean of all values; NaN if one is not known."""
    return values.mean()


def drawable(values: np.ndarray) -> np.ndarray:
    """Values as they are drawn and added up in reports: what is beyond `DRAWN` stands there."""
    return np.clip(values, -DRAWN, DRAWN)
