"""AlpacaEval 2: raw and length-controlled win rate of annotations, through the alpaca_eval package.

Only the package makes the length-controlled fit. It gets its rows and its two Hub files (`df_gamed.csv`, `instruction_difficulty.csv`)
by path or from the Hub's cache; nothing is downloaded. Without the files the figure is null, with the reason. The fit identifies
instructions by their place in the official list, so it needs all 805 rows in the official order, or a file of responses in that order.
With published GLM coefficients `instruction_difficulty.csv` alone is enough.
"""

import io
import json
import os
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from eva_stages.core.errors import ConfigError, EvaError
from eva_stages.core.json_lines import open_plain
from eva_stages.evaluation.judgment_files import Record, judge_field, text_field
from eva_stages.evaluation.statistics import question_values

REPOSITORY = "tatsu-lab/alpaca_eval"
GAMED_FILE = "df_gamed.csv"
DIFFICULTY_FILE = "instruction_difficulty.csv"
INSTRUCTIONS = 805
_COLUMNS = {
    GAMED_FILE: {"model", "index", "preference", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"},
    DIFFICULTY_FILE: set(),
}


class Annotation(NamedTuple):
    """One comparison; `preference` goes from 1 (the baseline wins) to 2 (the model wins); None = no judgment."""

    instruction: str
    model: str
    baseline: str
    preference: float | None
    judge: str | None
    row: dict[str, Any]


class HubFiles(NamedTuple):
    """Paths of the two files that the package downloads, and of published GLM coefficients; None = not available."""

    gamed_file: Path | None = None
    difficulty_file: Path | None = None
    weights_file: Path | None = None


def parse_annotation(record: Record) -> Annotation:
    """A row of annotations."""
    row = record.row
    preference = row["preference"]
    if isinstance(preference, bool) or not isinstance(preference, int | float | None):
        raise ValueError(f"preference is {preference!r}; expected 1 (baseline wins) to 2 (model wins), 0 for a draw, or null")
    for name, expected_text in (("output_1", "the text of a response"), ("output_2", "the text of a response"), ("annotator", "a name")):
        if not isinstance(row.get(name), str | None):
            raise ValueError(f"{name} is {str(row.get(name))[:60]!r}; expected {expected_text}")
    instruction, model, baseline = (text_field(row, name) for name in ("instruction", "generator_2", "generator_1"))
    return Annotation(instruction, model, baseline, _checked_preference(preference), judge_field(row), row)


def _checked_preference(preference: float | None) -> float | None:
    """A preference from 1 to 2. Old files write 0 for a draw; any other number is no judgment, as in the package."""
    if preference == 0:
        return 1.5
    return float(preference) if preference is not None and 1 <= preference <= 2 else None


def values(annotations: Sequence[Annotation], percent: Sequence[float] | None = None) -> pa.Table:
    """Win rate of each instruction in percent.

    Args:
        percent: win rate per annotation by the length-controlled fit, in place of the raw preference.
    """
    raw = [None if annotation.preference is None else 100 * (annotation.preference - 1) for annotation in annotations]
    rates: dict[str, float | None] = {}
    for annotation, value, raw_rate in zip(annotations, percent or raw, raw, strict=True):
        rates[annotation.instruction] = None if raw_rate is None else value
    return question_values(rates)


def figures(annotations: Sequence[Annotation], package_results: Mapping[str, Any]) -> tuple[dict[str, Any], list[float] | None]:
    """One model's entry from the results of `package_metrics`, and the fit's win rate per annotation in percent, if there is a fit.

    `se` is the standard error of the raw win rate. The score is the length-controlled win rate; without it, null with the reason.
    """
    metrics = package_results["metrics"]
    controlled_rate = metrics.get("length_controlled_winrate", package_results["predicted"])
    lengths = [len(annotation.row["output_2"]) for annotation in annotations if isinstance(annotation.row.get("output_2"), str)]
    entry = {
        "score": controlled_rate,
        "win_rate": metrics.get("win_rate"),
        "lc_win_rate": controlled_rate,
        "se": metrics.get("standard_error"),
        "lc_se": metrics.get("lc_standard_error"),
        "discrete_win_rate": metrics.get("discrete_win_rate"),
        "avg_length": int(sum(lengths) / len(lengths)) if lengths else None,
        "n": int(metrics["n_total"]),
        "wins": int(metrics["n_wins"]),
        "losses": int(metrics["n_wins_base"]),
        "draws": int(metrics["n_draws"]),
        "unjudged": sum(annotation.preference is None for annotation in annotations),
        "baseline": annotations[0].baseline,
        "judge": annotations[0].judge,
        "annotator": annotations[0].row.get("annotator"),
        "reason": package_results["reason"],
    }
    return entry, None if package_results["glm"] is None else [100 * share for share in package_results["glm"]]


def available_hub_files(gamed_file: Path | None = None, difficulty_file: Path | None = None, weights_file: Path | None = None) -> HubFiles:
    """The given files, and of the first two else those in the local Hub cache; nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache

    def cached_file(name: str) -> Path | None:
        path = try_to_load_from_cache(REPOSITORY, name, repo_type="dataset")
        return Path(path) if isinstance(path, str) else None

    return HubFiles(gamed_file or cached_file(GAMED_FILE), difficulty_file or cached_file(DIFFICULTY_FILE), weights_file)


def package_metrics(
    models: Sequence[Sequence[Annotation]], files: HubFiles, order: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """The package's metrics of each model's annotations.

    Args:
        order: place of each instruction in the official list; None: the rows are complete and in order.

    Returns:
        per model: metrics (the package's own names, percent), glm (P(model wins) per annotation at equal length, or None),
        predicted (length-controlled win rate from published coefficients, percent, or None), reason (why glm and predicted are None).
    """
    reasons = [_no_fit(annotations, files, order) for annotations in models]
    weights = str(files.weights_file.resolve()) if files.weights_file and files.difficulty_file else None
    requests = [{"rows": _rows(rows, order), "lc": reason is None} for rows, reason in zip(models, reasons, strict=True)]
    replies = _ask_package({"models": requests, "weights": weights}, files)
    for reply, reason in zip(replies, reasons, strict=True):
        reply["predicted"] = None if reply["predicted"] is None else 100 * reply["predicted"]
        reply["reason"] = reason if reply["glm"] is None and reply["predicted"] is None else None
    return replies


def _no_fit(annotations: Sequence[Annotation], files: HubFiles, order: Mapping[str, int] | None) -> str | None:
    """Why the length-controlled fit is not possible; None if it is."""
    if files.gamed_file is None:
        return f"{GAMED_FILE} of {REPOSITORY} is missing; give --gamed, or --glm-weights (published coefficients) with {DIFFICULTY_FILE}"
    if any(not isinstance(annotation.row.get(name), str) for annotation in annotations for name in ("output_1", "output_2")):
        return "the fit needs the lengths of the responses, and some annotations have no output_1 or output_2"
    if order is not None:
        missing = sum(annotation.instruction not in order for annotation in annotations)
        return f"{missing} instructions are not in the file of --answers" if missing else None
    if len(annotations) != INSTRUCTIONS:
        return f"the fit needs the {INSTRUCTIONS} instructions in the official order, not {len(annotations)}; give --answers with all"
    return None


def _rows(annotations: Sequence[Annotation], order: Mapping[str, int] | None) -> list[dict[str, Any]]:
    columns = ("output_1", "output_2", "generator_1", "generator_2", "annotator")
    rows = [{name: annotation.row.get(name) for name in columns} | {"preference": annotation.preference} for annotation in annotations]
    if order is not None:
        for row, annotation in zip(rows, annotations, strict=True):
            row["index"] = order.get(annotation.instruction, -1)
    return rows


def _ask_package(request: dict[str, Any], files: HubFiles) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="eva-alpaca-") as name:
        folder = Path(name)
        _lay_out_cache(folder / "hub", files)
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        offline = {"HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        command = [sys.executable, "-m", "eva_stages.evaluation.alpaca_package", str(folder)]
        process = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True, encoding="utf-8", errors="replace")
        if process.returncode:
            raise EvaError(f"alpaca_eval failed: {(process.stderr.strip().splitlines() or ['no message'])[-1]}")
        replies: list[dict[str, Any]] = json.loads((folder / "reply.json").read_text(encoding="utf-8"))["models"]
        return replies


def _lay_out_cache(hub: Path, files: HubFiles) -> None:
    """Write a Hub cache with the files where the package looks for them."""
    revision = "0" * 40
    repository = hub / f"datasets--{REPOSITORY.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision, encoding="utf-8")
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for name, path in ((GAMED_FILE, files.gamed_file), (DIFFICULTY_FILE, files.difficulty_file)):
        if path is not None:
            (snapshot / name).write_bytes(_file_content(name, path))


def _file_content(name: str, path: Path) -> bytes:
    """The content of one of the package's two files.

    Raises:
        ConfigError: if it cannot be read, is not CSV, or lacks a column.
    """
    import pandas as pd

    try:
        with open_plain(path) as stream:
            content = stream.read()
        columns = set(pd.read_csv(io.BytesIO(content), nrows=1).columns)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError([f"{path} cannot be read: {error}"]) from error
    except ValueError as error:
        raise ConfigError([f"{path} is not a CSV file: {error}; expected {name} of {REPOSITORY}"]) from error
    if missing := _COLUMNS[name] - columns:
        raise ConfigError([f"{path} has no columns {', '.join(sorted(missing))}; expected {name} of {REPOSITORY}"])
    return content
