"""A stage: a frozen description of work that turns input artifacts into one output artifact.

Nothing here runs. A stage names its code as "module:attr" strings, so a complete run can be planned, fingerprinted and
shown without importing a model library. Its fingerprint covers name, version, the steps with their arguments, and the
fingerprints of its inputs; `runtime` and limits are left out.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from eva_stages.core.fingerprint import Stamps, file_stamps, fingerprint
from eva_stages.core.kinds import Kind, Side, StageName, parsed_name

SCHEMA_VERSION = 1
WORK, RUN = "work", "run"


def load_attribute(target: str) -> Any:
    """Import "module:attr"."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


@dataclass(frozen=True)
class Input:
    """A placeholder in a step's arguments for a folder: of one of the stage's inputs, of its attempt (`WORK`) or of the run (`RUN`)."""

    name: str

    def identity(self) -> dict[str, Any]:
        return {"input": self.name}

    def build(self, folders: Mapping[str, Path]) -> str:
        return str(folders[self.name])


@dataclass(frozen=True)
class Use:
    """A deferred call. `arguments` are part of the fingerprint, `runtime` is not."""

    target: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    runtime: Mapping[str, Any] = field(default_factory=dict)

    def identity(self) -> dict[str, Any]:
        return {"target": self.target, "arguments": convert_leaves(self.arguments, lambda leaf: leaf.identity())}

    def needs(self, folder: str) -> bool:
        """Whether the use, or one nested in it, names a folder."""
        values = (*self.arguments.values(), *self.runtime.values())
        return any(value == Input(folder) or (isinstance(value, Use) and value.needs(folder)) for value in values)

    def build(self, folders: Mapping[str, Path], **extra: Any) -> Any:
        """Import the target and call it, nested uses and inputs resolved."""
        arguments = convert_leaves({**self.arguments, **self.runtime}, lambda leaf: leaf.build(folders))
        return load_attribute(self.target)(**arguments, **extra)


def convert_leaves(value: Any, convert: Callable[[Use | Input], Any]) -> Any:
    """A value of a step's arguments with every use and input in it converted."""
    match value:
        case Use() | Input():
            return convert(value)
        case Mapping():
            return {key: convert_leaves(item, convert) for key, item in value.items()}
        case list() | tuple():
            return [convert_leaves(item, convert) for item in value]
        case _:
            return value


def as_data(value: Any) -> Any:
    """A use with its nested uses as JSON data, for a process that reads it from a file; `use_of` reads it back."""

    def data_of(leaf: Use | Input) -> dict[str, Any]:
        if isinstance(leaf, Input):
            return {"input": leaf.name}
        return {"use": leaf.target, "arguments": as_data(leaf.arguments), "runtime": as_data(leaf.runtime)}

    return convert_leaves(value, data_of)


def use_of(data: Any) -> Any:
    """The use that `as_data` wrote."""
    match data:
        case {"use": target, "arguments": arguments, "runtime": runtime}:
            return Use(target, use_of(arguments), use_of(runtime))
        case {"input": name} if len(data) == 1:
            return Input(name)
        case Mapping():
            return {key: use_of(item) for key, item in data.items()}
        case list():
            return [use_of(item) for item in data]
        case _:
            return data


@dataclass(frozen=True)
class Outside:
    """An input that eva did not build: a checkpoint folder or a file, identified by the digest of its content, not by its name."""

    name: str
    path: Path
    digest: str
    stamps: Stamps = field(init=False, repr=False, compare=False)
    """The stamps of its files when the digest was computed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "stamps", file_stamps(self.path))

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint({"outside": self.digest})


@dataclass(frozen=True)
class Stage:
    """The unit of resumption. Subclasses define how it runs; `inputs` are stages or `Outside` inputs."""

    name: str
    iteration: int
    inputs: Mapping[str, "Stage | Outside"]
    version: int = 1

    def work(self) -> Any:
        """The identity of what the stage does."""
        raise NotImplementedError

    @cached_property
    def payload(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA_VERSION,
            "stage": self.name,
            "iteration": self.iteration,
            "version": self.version,
            "work": self.work(),
            "inputs": {name: upstream.fingerprint for name, upstream in self.inputs.items()},
        }

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.payload)

    @cached_property
    def parsed_name(self) -> StageName:
        return parsed_name(self.name)

    @property
    def kind(self) -> Kind:
        return self.parsed_name.kind

    @property
    def benchmark(self) -> str | None:
        return self.parsed_name.benchmark

    @property
    def side(self) -> Side | None:
        return self.parsed_name.side

    @property
    def label(self) -> str:
        return f"{self.iteration}-{self.name}"

    @property
    def folder(self) -> str:
        return f"{self.label}-{self.fingerprint[:12]}"


@dataclass(frozen=True)
class Limit:
    """A row stage fails if `counter` exceeds `share` of `total`, two of its statistics.

    `says`: what the counter counts, as in "evolver calls failed"; `advice`: a fix; `field`: the limit's field in the recipe.
    """

    counter: str
    total: str
    share: float
    says: str
    advice: str
    field: str

    def excess(self, statistics: Mapping[str, float]) -> str | None:
        """The description of the excess; None if the limit holds."""
        number, total = statistics.get(self.counter, 0), statistics.get(self.total, 0)
        if number <= self.share * total:
            return None
        return f"{number:g} of {total:g} {self.says} ({number / total:.1%}), above the limit {self.field} = {self.share:.1%}"


@dataclass(frozen=True)
class RowStage(Stage):
    """Rows in, rows out, one input row at a time: runs as a distilabel pipeline that can stop anywhere.

    `sources` are the inputs whose rows are joined on `prompt_id`, the first of them giving rows and order. Each output row
    has the columns of `schema`, by default that of the stage's kind; `required_columns` may not be null. `prefixes` go before the column
    names of a source.
    """

    sources: tuple[str, ...] = ()
    prefixes: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Use, ...] = ()
    schema: str = ""
    required_columns: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    rows_per_part: int = 64

    def __post_init__(self) -> None:
        if not self.schema:
            object.__setattr__(self, "schema", self.kind.rows or "")

    def work(self) -> Any:
        steps = [step.identity() for step in self.steps]
        return {"sources": list(self.sources), "prefixes": dict(self.prefixes), "steps": steps, "rows": self.schema}


@dataclass(frozen=True)
class TableStage(Stage):
    """Artifacts in, one table out: a `TableStep`, which reads the rows of `sources`, given in order, as streams."""

    sources: tuple[str, ...] = ()
    step: Use = Use("")

    def work(self) -> Any:
        return {"sources": list(self.sources), "step": self.step.identity()}


@dataclass(frozen=True)
class Check:
    """A limit on a figure in a complete stage's manifest; a value outside the limit produces a warning, or stops the run.

    `says`: the figure in words; `advice`: a possible cause; `field`: the limit's field in the recipe.
    """

    figure: str
    limit: float
    is_maximum: bool
    stop: bool
    says: str
    advice: str
    field: str

    def violation(self, figures: Mapping[str, float | None]) -> str | None:
        """The description of the violation; None if there is none, or the figure is unknown."""
        value = figures.get(self.figure)
        if value is None or (value <= self.limit if self.is_maximum else value >= self.limit):
            return None
        side = "above" if self.is_maximum else "below"
        return f"{self.says} is {value:.3g}, {side} the limit {self.field}={self.limit:g}: {self.advice}"


@dataclass(frozen=True)
class FunctionStage(Stage):
    """A function `f(context, **arguments)` that writes the artifact to `context.artifact`."""

    function: Use = Use("")
    checks: tuple[Check, ...] = ()

    def work(self) -> Any:
        return self.function.identity()


def closure(stages: list[Stage]) -> list[Stage]:
    """The stages and everything they need, each once, upstream first."""
    stages_by_fingerprint: dict[str, Stage] = {}

    def visit(stage: Stage | Outside) -> None:
        if isinstance(stage, Outside) or stage.fingerprint in stages_by_fingerprint:
            return
        for upstream in stage.inputs.values():
            visit(upstream)
        stages_by_fingerprint[stage.fingerprint] = stage

    for stage in stages:
        visit(stage)
    return list(stages_by_fingerprint.values())


def uses(value: Any) -> Iterator[Use]:
    """Every use in a stage, or in a value of its arguments, with those nested in it."""
    match value:
        case RowStage():
            yield from uses(value.steps)
        case TableStage():
            yield from uses(value.step)
        case FunctionStage():
            yield from uses(Use(value.function.target, use_of(value.function.arguments), value.function.runtime))
        case Use():
            yield value
            yield from uses(value.arguments)
        case Mapping():
            yield from uses(list(value.values()))
        case list() | tuple():
            for item in value:
                yield from uses(item)
