"""How the artifacts of a run differ from those of an uninterrupted run."""

import math
from collections.abc import Iterable
from pathlib import Path

from safetensors.numpy import load_file

from eva_stages.core.manifests import PIPELINE, read_manifest
from eva_stages.core.run_folder import Run

TOLERANCE = 1e-6
ROUNDED_STAGES = ("train", "health")
"""Stages whose outcome is weights, or measured on them: equal within rounding."""


def differences(root: Path, reference: Path, labels: Iterable[str]) -> list[str]:
    """Sentences about how the stages of a run differ from those of an uninterrupted run."""
    logged_stages = {event["stage"] for event in Run(root).events() if event["event"] == "done"}
    faults = [f"left in work/: {path.name}" for path in (root / "work").iterdir()]
    for label in labels:
        folders = [next(run.glob(f"stages/{label}-????????????"), None) for run in (root, reference)]
        if None in folders:
            faults.append(f"{label} is not there")
            continue
        mine, reference_manifest = (read_manifest(folder) for folder in folders if folder)
        names = ("fingerprint", "rows", "counts", *(() if mine["stage"] in ROUNDED_STAGES else ("digest",)))
        faults += [
            f"{label}: {name} {mine[name]} is not {reference_manifest[name]}" for name in names if mine[name] != reference_manifest[name]
        ]
        figures = [manifest.get("figures") or {} for manifest in (mine, reference_manifest)]
        if figures[0].keys() != figures[1].keys() or not all(close(value, figures[1][name]) for name, value in figures[0].items()):
            faults.append(f"{label}: figures {figures[0]} are not {figures[1]}")
        faults += [f"{label} is not logged as done"] if label not in logged_stages else []
        if len({(folder / PIPELINE).is_file() for folder in folders if folder}) > 1:
            faults.append(f"{label}: one has a {PIPELINE} and the other has none")
        weights = [folder / "model" / "model.safetensors" for folder in folders if folder]
        if weights[0].is_file() and (distance := largest_difference(*weights)) > TOLERANCE:
            faults.append(f"{label}: weights differ by {distance:.2g}")
    return faults


def close(first: float | None, second: float | None) -> bool:
    return first == second or (first is not None and second is not None and math.isclose(first, second, rel_tol=1e-3, abs_tol=TOLERANCE))


def largest_difference(first_folder: Path, second_folder: Path) -> float:
    """Between any two weights of the same name and place."""
    first, second = load_file(first_folder), load_file(second_folder)
    assert first.keys() == second.keys()
    return max(float(abs(first[name] - second[name]).max()) for name in first)
