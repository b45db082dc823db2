"""The scores that the stages of an evaluation recorded in their manifests."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from eva_stages.core.kinds import LETTERCRAFT
from eva_stages.views.history import Artifact


@dataclass(frozen=True)
class Score:
    """A figure of an evaluation, with its interval and the number of questions where it has them."""

    benchmark: str
    policy: str
    name: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


def scores(artifacts: Iterable[Artifact]) -> list[Score]:
    """Every score in the manifests, in their order."""
    return [
        Score(artifact.parsed_name.benchmark or LETTERCRAFT, artifact.policy, name, **figures)
        for artifact in artifacts
        if artifact.parsed_name.side is not None
        for name, figures in _estimates(artifact.manifest.get("scores") or {}, ())
    ]


def _estimates(scores: Mapping[str, Any], names_above: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in scores.items():
        name = (*names_above, str(key))
        match value:
            case {"value": int() | float()}:
                yield " ".join(name), {part: value.get(part) for part in ("value", "low", "high", "n")}
            case Mapping():
                yield from _estimates(value, name)
            case bool():
                continue
            case int() | float():
                yield " ".join(name), {"value": value}
