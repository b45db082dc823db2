"""AlpacaEval 2: raw and length-controlled win rate of annotations, through the alpaca_eval package.

The length-controlled figure is a fit that only the package may make; here it is handed its rows and its two Hub files
(`df_gamed.csv`, `instruction_difficulty.csv`), by path or from the Hub's cache, and never fetches them. Where they are missing the
figure is null with the reason. The fit knows instructions by their place in the official list, so it wants all 805 rows in the
official order, or an answers file that has them. With published GLM coefficients the figure follows from `instruction_difficulty.csv`
alone.
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
GAMED = "df_gamed.csv"
DIFFICULTY = "instruction_difficulty.csv"
INSTRUCTIONS = 805
_COLUMNS = {GAMED: {"model", "index", "preference", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"}, DIFFICULTY: set()}


class Annotation(NamedTuple):
    """One comparison; `preference` is 1 where the baseline wins, 2 where the model does, None where there is no judgment."""

    instruction: str
    model: str
    baseline: str
    preference: float | None
    judge: str | None
    row: dict[str, Any]


class HubFiles(NamedTuple):
    """The two files the package fetches, each a path or None, and published GLM coefficients, likewise."""

    gamed: Path | None = None
    difficulty: Path | None = None
    weights: Path | None = None


def parse_annotation(record: Record) -> Annotation:
    """A row of annotations.

    Raises:
        ValueError: saying which field is not as expected.
    """
    row = record.row
    preference = row["preference"]
    if isinstance(preference, bool) or not isinstance(preference, int | float | None):
        raise ValueError(f"preference is {preference!r}; expected 1 (baseline wins) to 2 (model wins), 0 for a draw, or null")
    for name, what in (("output_1", "the text of an answer"), ("output_2", "the text of an answer"), ("annotator", "a name")):
        if not isinstance(row.get(name), str | None):
            raise ValueError(f"{name} is {str(row.get(name))[:60]!r}; expected {what}")
    instruction, model, baseline = (text_field(row, name) for name in ("instruction", "generator_2", "generator_1"))
    return Annotation(instruction, model, baseline, _known(preference), judge_field(row), row)


def _known(preference: float | None) -> float | None:
    """A preference as 1 to 2, of which old files write 0 for a draw; anything else is no judgment, as in the package."""
    if preference == 0:
        return 1.5
    return float(preference) if preference is not None and 1 <= preference <= 2 else None


def values(annotations: Sequence[Annotation], percent: Sequence[float] | None = None) -> pa.Table:
    """Win rate of each instruction in percent.

    Args:
        percent: per annotation, in place of the raw preference: that of the length-controlled fit.
    """
    raw = [None if one.preference is None else 100 * (one.preference - 1) for one in annotations]
    found: dict[str, float | None] = {}
    for one, value, own in zip(annotations, percent or raw, raw, strict=True):
        found[one.instruction] = None if own is None else value
    return question_values(found)


def figures(annotations: Sequence[Annotation], found: Mapping[str, Any]) -> tuple[dict[str, Any], list[float] | None]:
    """One model's entry, of what `package_metrics` found, and the fit's win rate per annotation in percent where there is one.

    `se` is the standard error of the raw win rate. The score is the length-controlled win rate, null with the reason without it.
    """
    metrics = found["metrics"]
    controlled = metrics.get("length_controlled_winrate", found["predicted"])
    lengths = [len(one.row["output_2"]) for one in annotations if isinstance(one.row.get("output_2"), str)]
    entry = {
        "score": controlled,
        "win_rate": metrics.get("win_rate"),
        "lc_win_rate": controlled,
        "se": metrics.get("standard_error"),
        "lc_se": metrics.get("lc_standard_error"),
        "discrete_win_rate": metrics.get("discrete_win_rate"),
        "avg_length": int(sum(lengths) / len(lengths)) if lengths else None,
        "n": int(metrics["n_total"]),
        "wins": int(metrics["n_wins"]),
        "losses": int(metrics["n_wins_base"]),
        "draws": int(metrics["n_draws"]),
        "unjudged": sum(one.preference is None for one in annotations),
        "baseline": annotations[0].baseline,
        "judge": annotations[0].judge,
        "annotator": annotations[0].row.get("annotator"),
        "reason": found["reason"],
    }
    return entry, None if found["glm"] is None else [100 * share for share in found["glm"]]


def cached_hub_files() -> HubFiles:
    """The two files where the Hub's cache on this machine has them. Nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache

    found = [try_to_load_from_cache(REPOSITORY, name, repo_type="dataset") for name in (GAMED, DIFFICULTY)]
    gamed, difficulty = (Path(path) if isinstance(path, str) else None for path in found)
    return HubFiles(gamed, difficulty)


def package_metrics(
    models: Sequence[Sequence[Annotation]], files: HubFiles, order: Mapping[str, int] | None = None
) -> list[dict[str, Any]]:
    """What the package makes of each model's annotations.

    Args:
        order: place of each instruction in the official list; without it, rows are taken to be all and in order.

    Returns:
        per model: metrics (the package's own names, percent), glm (P(model wins) per annotation at equal length, or None),
        predicted (length-controlled win rate from published coefficients, percent, or None), reason (why glm and predicted are None).
    """
    reasons = [_no_fit(annotations, files, order) for annotations in models]
    request = {
        "models": [{"rows": _rows(one, order), "lc": reason is None} for one, reason in zip(models, reasons, strict=True)],
        "weights": str(files.weights.resolve()) if files.weights and files.difficulty else None,
    }
    replies = _ask_package(request, files)
    for reply, reason in zip(replies, reasons, strict=True):
        reply["predicted"] = None if reply["predicted"] is None else 100 * reply["predicted"]
        reply["reason"] = reason if reply["glm"] is None and reply["predicted"] is None else None
    return replies


def _no_fit(annotations: Sequence[Annotation], files: HubFiles, order: Mapping[str, int] | None) -> str | None:
    """Why the length-controlled fit cannot be made; None if it can."""
    if files.gamed is None:
        return f"{GAMED} of {REPOSITORY} is not here; give it with --gamed (or published coefficients with --glm-weights and {DIFFICULTY})"
    if any(not isinstance(one.row.get(name), str) for one in annotations for name in ("output_1", "output_2")):
        return "the fit needs the answers' lengths, and some annotations lack output_1 or output_2"
    if order is not None:
        missing = sum(one.instruction not in order for one in annotations)
        return f"{missing} instructions are not among those of the answers" if missing else None
    if len(annotations) != INSTRUCTIONS:
        return f"the fit needs the {INSTRUCTIONS} instructions in the official order, here are {len(annotations)}; give --answers with all"
    return None


def _rows(annotations: Sequence[Annotation], order: Mapping[str, int] | None) -> list[dict[str, Any]]:
    kept = ("output_1", "output_2", "generator_1", "generator_2", "annotator")
    rows = [{name: one.row.get(name) for name in kept} | {"preference": one.preference} for one in annotations]
    if order is not None:
        for row, one in zip(rows, annotations, strict=True):
            row["index"] = order.get(one.instruction, -1)
    return rows


def _ask_package(request: dict[str, Any], files: HubFiles) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="eva-alpaca-") as name:
        folder = Path(name)
        _lay_out_cache(folder / "hub", files)
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        offline = {"HF_HUB_CACHE": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        command = [sys.executable, "-m", "eva_stages.evaluation.alpaca_package", str(folder)]
        done = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True, encoding="utf-8", errors="replace")
        if done.returncode:
            raise EvaError(f"alpaca_eval failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        replies: list[dict[str, Any]] = json.loads((folder / "reply.json").read_text(encoding="utf-8"))["models"]
        return replies


def _lay_out_cache(hub: Path, files: HubFiles) -> None:
    """A Hub cache that holds the files, so that the package finds them where it looks."""
    revision = "0" * 40
    repository = hub / f"datasets--{REPOSITORY.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision, encoding="utf-8")
    snapshot = repository / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for name, path in ((GAMED, files.gamed), (DIFFICULTY, files.difficulty)):
        if path is not None:
            (snapshot / name).write_bytes(_checked(name, path))


def _checked(name: str, path: Path) -> bytes:
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
        raise ConfigError([f"{path} lacks the columns {', '.join(sorted(missing))}; expected {name} of {REPOSITORY}"])
    return content
