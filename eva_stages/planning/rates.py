"""How long stages take, per unit of work: measured on this machine, taken from a run's finished stages, or given in a file.

A rate is a line, fixed seconds and seconds per unit, once as expected and once each as the fastest and the slowest that was seen. A unit is
a row as `eva plan` counts them, and an optimiser step of training. A file of rates is YAML or JSON; everything in it but the seconds per
unit may be left out, and what is left out is not known and not zero:

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
from eva_stages.core.recipe_files import input_text, parsed
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import Stage

RATES = "rates.json"
"""The rates measured for a run, in its folder."""
EXPECTED = "a table of rates is a mapping with `stages`, as in `stages: {respond: {seconds_per_unit: 0.4}}`"


class Line(Section):
    """Seconds as a function of the units."""

    fixed_seconds: float = Field(0.0, ge=0)
    seconds_per_unit: float = Field(ge=0)

    def seconds(self, units: float) -> float:
        return self.fixed_seconds + self.seconds_per_unit * units


class Rate(Line):
    """What a stage takes. Tokens and bytes are per unit too."""

    fastest: Line | None = None
    slowest: Line | None = None
    input_tokens: float | None = Field(None, ge=0)
    output_tokens: float | None = Field(None, ge=0)
    bytes: float | None = Field(None, ge=0)
    gpus: int | None = Field(None, ge=0)
    """GPUs that are taken all the while."""
    rows: float | None = Field(None, ge=0)
    """Rows that come out, such as the pairs of a prompt."""


class Rates(Section):
    """A table of rates, by stage: `respond`, or `1-respond` for that of iteration 1."""

    machine: str | None = None
    start_seconds: float = Field(0.0, ge=0)
    """From the command to its first stage."""
    between_seconds: float = Field(0.0, ge=0)
    """Between two stages."""
    stages: dict[str, Rate] = Field(default_factory=dict)

    def of(self, stage: Stage) -> Rate | None:
        """The rate of a stage: its own, else that of the latest iteration before it, of the first after it, or of its name."""
        known = [(number, label) for label in self.stages for number, name in [parsed_label(label)] if name == stage.name]
        numbered = sorted((number, label) for number, label in known if number is not None)
        before = [label for number, label in numbered if number <= stage.iteration]
        return next(
            (self.stages[label] for label in (*before[::-1], *(label for _, label in numbered), stage.name) if label in self.stages), None
        )

    def over(self, other: "Rates") -> "Rates":
        """These rates, and the other's of stages that these say nothing about."""
        rest = {label: rate for label, rate in other.stages.items() if parsed_label(label)[1] not in self.stages}
        given: dict[str, Any] = {
            name: getattr(self, name) for name in ("machine", "start_seconds", "between_seconds") if name in self.model_fields_set
        }
        return other.model_copy(update={**given, "stages": {**rest, **self.stages}})


def read_rates(path: Path) -> Rates:
    """A table of rates, given or a run's own.

    Raises:
        ConfigError: with every fault of the file.
    """
    text = input_text(path, f"the table of rates {path}, a YAML or JSON file (see `eva plan --help`),")
    return parsed(Rates, str(path), text, EXPECTED)


def write_rates(run: Run, rates: Rates) -> Path:
    """Keep rates in the run's folder, which is made if it is not there."""
    run.root.mkdir(parents=True, exist_ok=True)
    write_whole(run.root / RATES, rates.model_dump_json(indent=1, exclude_none=True) + "\n")
    return run.root / RATES


def known_rates(run: Run, stages: Iterable[Stage], units: Mapping[str, int | None], given: Rates) -> Rates:
    """Given rates first, then what the run's own finished stages took, then what was measured for the run before.

    Args:
        units: of every stage as planned, by fingerprint.
    """
    return given.over(done_rates(run, stages, units).over(rates_of_run(run)))


def rates_of_run(run: Run) -> Rates:
    """What `eva plan --measure` wrote for a run; nothing where it did not, or where the file is damaged."""
    path = run.root / RATES
    if not path.is_file():
        return Rates()
    try:
        return read_rates(path)
    except ConfigError as error:
        notice(f"{path} is damaged and ignored ({error.faults[0]}); `eva plan --measure` writes it again")
        return Rates()


def done_rates(run: Run, stages: Iterable[Stage], units: Mapping[str, int | None]) -> Rates:
    """The rates of the finished ones among stages."""
    found = {}
    for stage in stages:
        if run.done(stage) and (rate := rate_of(run.manifest(stage), units.get(stage.fingerprint))):
            found[stage.label] = rate
    return Rates(stages=found)


def rate_of(manifest: Mapping[str, Any], units: int | None) -> Rate | None:
    """The rate at which a stage was made; None where its units are not known, or too few of them were made by the last attempt to tell.

    Where the work was followed, its time goes with the units and the rest does not, but for a training's time on its reference. Where it
    was not, the time might go with them or not: the expected line lies in the middle, the other two are the extremes.
    """
    counts, pace, seconds = manifest["counts"], manifest.get("pace"), manifest["seconds"]
    units = counts.get("steps", units)
    if not units or (pace is None and manifest.get("computed_share", 1) < 1):
        return None
    used, made = manifest.get("devices"), manifest.get("bytes")
    facts = {
        **{name: counts[name] / units for name in ("input_tokens", "output_tokens") if name in counts},
        "bytes": None if made is None else made / units,
        "gpus": used["count"] if used else None,
        "rows": None if manifest["rows"] is None else manifest["rows"] / units,
    }
    if pace is None:
        every = Line(seconds_per_unit=seconds / units)
        middle = Line(fixed_seconds=seconds / 2, seconds_per_unit=seconds / units / 2)
        return Rate(**middle.model_dump(), fastest=Line(fixed_seconds=seconds, seconds_per_unit=0.0), slowest=every, **facts)
    scale = pace["total"] / units  # the marks count rows that go in, and a plan may count those that come out
    before = manifest.get("reference_seconds", 0.0)
    fixed = max(0.0, seconds - before - pace["seconds_per_unit"] * pace["units"])
    middle, fastest, slowest = (
        Line(fixed_seconds=fixed, seconds_per_unit=pace[name] * scale + before / units)
        for name in ("seconds_per_unit", "fastest", "slowest")
    )
    return Rate(**middle.model_dump(), fastest=fastest, slowest=slowest, **facts)


def answering_rate(responding: Rate | None, answers: int, responses: int) -> Rate | None:
    """The rate of answering a public benchmark, whose answers are taken to be like the policy's responses to prompts.

    Args:
        responding: of `responses` responses to every prompt.
        answers: to every question; none where the stage does something else.
    """
    if responding is None or not answers:
        return None

    def line(one: Line) -> Line:
        return Line(fixed_seconds=one.fixed_seconds, seconds_per_unit=one.seconds_per_unit * answers / responses)

    written = responding.output_tokens
    return Rate(
        **line(responding).model_dump(),
        fastest=line(responding.fastest or responding),
        slowest=line(responding.slowest or responding),
        output_tokens=None if written is None else written * answers / responses,
        gpus=responding.gpus,
    )
