"""Figures of rewards of any finite size: a custom reward can be so large that its square or sum exceeds the range of float64.

Values up to `SAFE` are computed unscaled, so no figure changes in its last digit.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

LARGEST = float(np.finfo(np.float64).max)
SAFE = 1e100
"""Values up to here can be added and multiplied without overflow."""
LARGEST_DRAWN = 1e150
"""Values up to here can be squared and plotted."""


Figure = Callable[[np.ndarray], Any]


def homogeneous(degree: int, rows: bool = False) -> Callable[[Figure], Figure]:
    """Make a figure that never overflows in between; a result beyond float64 becomes the largest float64.

    The figure takes float64 values (NaN = unknown) and is homogeneous: figure(s * values) = s ** degree * figure(values), such as a mean
    (1), a variance (2) or a ranking (0).

    Args:
        rows: the figure has a value per row of a matrix; else one value in total.
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
    """The mean of all values; NaN if any is NaN."""
    return values.mean()


def drawable(values: np.ndarray) -> np.ndarray:
    """Values as they are drawn and added up in reports: values beyond `LARGEST_DRAWN` are clipped."""
    return np.clip(values, -LARGEST_DRAWN, LARGEST_DRAWN)
