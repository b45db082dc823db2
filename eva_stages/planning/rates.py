"""Rates of stages, per unit of work: measured on this machine, from a run's finished stages, or from a file.

A rate is a line, fixed seconds plus seconds per unit: as expected, and at the fastest and the slowest observed pace. A unit is a row of the
plan, for `train` an optimiser step. A file of rates is YAML or JSON; only the seconds per unit are required, and a missing value is
unknown, not zero:

    start_seconds: 12                  # before the first stage
    stages:
      respond: {fixed_seconds: 90, seconds_per_unit: 0.4, input_tokens: 180, output_tokens: 3000, bytes: 9000, gpus: 8}
      1-respond: {seconds_per_unit: 0.5, slowest: {seconds_per_unit: 0.7}}     # of iteration 1 and later ones
      train: {fixed_seconds: 120, seconds_per_unit: 4.1, gpus: 8}
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from eva_stages.core.config.section import Section
from eva_stages.core.durable import write_whole
from eva_stages.core.errors import ConfigError
from eva_stages.core.kinds import parsed_label
from eva_stages.core.ourfiles import notice
from eva_stages.core.recipe_files import input_text, parse_section
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import Stage

RATES = "rates.json"
"""File in a run's folder with the rates measured for it."""
EXPECTED_CONTENT = "a table of rates is a mapping with `stages`, as in `stages: {respond: {seconds_per_unit: 0.4}}`"


class Line(Section):
    """Seconds as a function of the units."""

    fixed_seconds: float = Field(0.0, ge=0)
    seconds_per_unit: float = Field(ge=0)

    def seconds(self, units: float) -> float:
        return self.fixed_seconds + self.seconds_per_unit * units


class Rate(Line):
    """Time, tokens and bytes of a stage, all per unit."""

    fastest: Line | None = None
    slowest: Line | None = None
    input_tokens: float | None = Field(None, ge=0)
    output_tokens: float | None = Field(None, ge=0)
    bytes: float | None = Field(None, ge=0)
    gpus: int | None = Field(None, ge=0)
    """GPUs in use during the complete stage."""
    rows: float | None = Field(None, ge=0)
    """Output rows, such as the pairs per prompt."""


class Rates(Section):
    """Rates by stage: `respond`, or `1-respond` for iteration 1."""

    machine: str | None = None
    start_seconds: float = Field(0.0, ge=0)
    """From the command to the first stage."""
    between_seconds: float = Field(0.0, ge=0)
    """Between two stages."""
    stages: dict[str, Rate] = Field(default_factory=dict)

    def of(self, stage: Stage) -> Rate | None:
        """The rate of a stage: its own, else that of the latest earlier iteration, of the first later one, or of its name."""
        labels = [(number, label) for label in self.stages for number, name in [parsed_label(label)] if name == stage.name]
        numbered_labels = sorted((number, label) for number, label in labels if number is not None)
        earlier_labels = [label for number, label in numbered_labels if number <= stage.iteration]
        candidates = (*earlier_labels[::-1], *(label for _, label in numbered_labels), stage.name)
        return next((self.stages[label] for label in candidates if label in self.stages), None)

    def complete_with(self, other_rates: "Rates") -> "Rates":
        """These rates, with the other ones for stages that have none here."""
        rest = {label: rate for label, rate in other_rates.stages.items() if parsed_label(label)[1] not in self.stages}
        set_fields: dict[str, Any] = {
            name: getattr(self, name) for name in ("machine", "start_seconds", "between_seconds") if name in self.model_fields_set
        }
        return other_rates.model_copy(update={**set_fields, "stages": {**rest, **self.stages}})


def read_rates(path: Path) -> Rates:
    """A file of rates.

    Raises:
        ConfigError: with every error in the file.
    """
    text = input_text(path, f"the table of rates {path}, a YAML or JSON file (see `eva plan --help`),")
    return parse_section(Rates, str(path), text, EXPECTED_CONTENT)


def write_rates(run: Run, rates: Rates) -> Path:
    """Save rates in the run's folder, which is created if needed."""
    run.root.mkdir(parents=True, exist_ok=True)
    write_whole(run.root / RATES, rates.model_dump_json(indent=1, exclude_none=True) + "\n")
    return run.root / RATES


def known_rates(run: Run, stages: Iterable[Stage], units: Mapping[str, int | None], given_rates: Rates) -> Rates:
    """Given rates first, then those of the run's finished stages, then those measured for the run earlier.

    Args:
        units: planned units of every stage, by fingerprint.
    """
    return given_rates.complete_with(done_rates(run, stages, units).complete_with(rates_of_run(run)))


def rates_of_run(run: Run) -> Rates:
    """The rates that `eva plan --measure` saved for a run; none if there is no file or it is damaged."""
    path = run.root / RATES
    if not path.is_file():
        return Rates()
    try:
        return read_rates(path)
    except ConfigError as error:
        notice(f"{path} is damaged and ignored ({error.faults[0]}); rewrite it with `eva plan --measure`")
        return Rates()


def done_rates(run: Run, stages: Iterable[Stage], units: Mapping[str, int | None]) -> Rates:
    """The rates of the finished stages."""
    rates = {}
    for stage in stages:
        if run.is_complete(stage) and (rate := rate_of(run.manifest(stage), units.get(stage.fingerprint))):
            rates[stage.label] = rate
    return Rates(stages=rates)


def rate_of(manifest: Mapping[str, Any], units: int | None) -> Rate | None:
    """The rate of a finished stage; None if its units are unknown, or its last attempt computed too few of them.

    With a recorded pace, the time of the work is per unit and the rest is fixed, except a training's time on its reference, which is per
    unit. Without it, the time may be per unit or fixed: the expected line is in the middle, the other two are the extremes.
    """
    counts, pace, seconds = manifest["counts"], manifest.get("pace"), manifest["seconds"]
    units = counts.get("steps", units)
    if not units or (pace is None and manifest.get("computed_share", 1) < 1):
        return None
    devices, size = manifest.get("devices"), manifest.get("bytes")
    facts = {
        **{name: counts[name] / units for name in ("input_tokens", "output_tokens") if name in counts},
        "bytes": None if size is None else size / units,
        "gpus": devices["count"] if devices else None,
        "rows": None if manifest["rows"] is None else manifest["rows"] / units,
    }
    if pace is None:
        every = Line(seconds_per_unit=seconds / units)
        middle = Line(fixed_seconds=seconds / 2, seconds_per_unit=seconds / units / 2)
        return Rate(**middle.model_dump(), fastest=Line(fixed_seconds=seconds, seconds_per_unit=0.0), slowest=every, **facts)
    scale = pace["total"] / units  # the pace counts input rows, the plan may count output rows
    reference_seconds = manifest.get("reference_seconds", 0.0)
    fixed_seconds = max(0.0, seconds - reference_seconds - pace["seconds_per_unit"] * pace["units"])
    middle, fastest, slowest = (
        Line(fixed_seconds=fixed_seconds, seconds_per_unit=pace[name] * scale + reference_seconds / units)
        for name in ("seconds_per_unit", "fastest", "slowest")
    )
    return Rate(**middle.model_dump(), fastest=fastest, slowest=slowest, **facts)


def answering_rate(responding: Rate | None, answers: int, responses: int) -> Rate | None:
    """The rate of responding to a public benchmark, on the assumption that these responses are like those to prompts.

    Args:
        responding: rate of `responses` responses to every prompt.
        answers: responses to every question; 0 for other stages.
    """
    if responding is None or not answers:
        return None

    def line(rate: Line) -> Line:
        return Line(fixed_seconds=rate.fixed_seconds, seconds_per_unit=rate.seconds_per_unit * answers / responses)

    output_tokens = responding.output_tokens
    return Rate(
        **line(responding).model_dump(),
        fastest=line(responding.fastest or responding),
        slowest=line(responding.slowest or responding),
        output_tokens=None if output_tokens is None else output_tokens * answers / responses,
        gpus=responding.gpus,
    )
