"""What there is to publish of a run: its finished artifacts under the names that the Hub shows, with their manifests.

Names are those of the field (`pairs-1`, `prompts-1`, `responses-1`), one data set configuration per stage and iteration. Every
figure that a card shows is read from a manifest here and nowhere else.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_stages.core.manifests import content
from eva_stages.core.tables import FILE

CONFIGURATIONS = {
    "prompts": ("seeds", "seed prompts as they were loaded"),
    "creator-respond": ("creator-responses", "the policy's answers by which prompts are chosen"),
    "creator-reward": ("creator-rewards", "rewards of those answers"),
    "inform": ("info", "how informative each prompt is, by every metric"),
    "select": ("selected", "the prompts drawn to be evolved"),
    "evolve": ("evolutions", "evolved prompts before they are checked"),
    "curate": ("evolved", "evolved prompts that were kept"),
    "mix": ("prompts", "prompts that the iteration trains on"),
    "respond": ("responses", "the policy's answers to the prompts"),
    "reward": ("rewards", "rewards of the answers"),
    "pair": ("pairs", "preference pairs of the best and the worst answers"),
    "rewrite": ("rewrites", "chosen answers, rewritten"),
    "rewrite-reward": ("rewrite-rewards", "rewards of the rewritten answers"),
    "rewritten": ("rewritten-pairs", "preference pairs with rewritten chosen answers"),
    "pool": ("pooled-pairs", "preference pairs of this iteration and those before"),
    "admit": ("admitted", "evolved prompts that were informative enough"),
    "replay": ("replayed", "informative prompts of earlier sets"),
    "eval-answer": ("eval-answers", "answers to the held-out questions"),
    "eval-reward": ("eval-rewards", "rewards of the held-out answers"),
    "eval-judge": ("judgments", "verdicts against the base policy, in both orders"),
    "base-answer": ("base-answers", "the base policy's answers to the held-out questions"),
    "base-reward": ("base-rewards", "rewards of the base policy's held-out answers"),
    "questions": ("questions", "held-out questions"),
}
TOKENS = ("input_tokens", "output_tokens")
COST = "cost_usd"


@dataclass(frozen=True)
class Artifact:
    """A finished stage."""

    name: str
    """Its configuration in the data set repository, such as pairs-1."""
    stage: str
    iteration: int
    folder: Path
    manifest: Mapping[str, Any]

    @property
    def rows(self) -> Path | None:
        """The parquet file with its rows, if it has rows."""
        path = content(self.folder) / FILE
        return path if path.is_file() else None

    @property
    def holds(self) -> str:
        """What its rows are, in a line."""
        kind = self.name.rpartition("-")[0]
        known = dict(CONFIGURATIONS.values())
        return known.get(kind, f"rows of the stage {self.stage}")

    @property
    def counts(self) -> dict[str, float]:
        """What the stage counted, besides tokens and money."""
        return {name: count for name, count in self.manifest["counts"].items() if name not in (*TOKENS, COST)}


@dataclass(frozen=True)
class Base:
    """The policy that the run started from."""

    name: str
    hub_id: str | None
    digest: str
    """Its commit on the Hub, or the sha256 over its files."""
    licence: Mapping[str, str]
    """The card fields that say its licence."""


@dataclass(frozen=True)
class Story:
    """A run as its cards tell it."""

    name: str
    namespace: str
    recipe: Mapping[str, Any]
    """The resolved recipe without what belongs to the machine."""
    artifacts: tuple[Artifact, ...]
    """Every finished artifact of the recipe, upstream first."""
    policies: Mapping[int, Artifact]
    """Trained policies by iteration."""
    base: Base
    prompts_licence: Mapping[str, str]

    @property
    def dataset(self) -> str:
        return f"{self.namespace}/{self.name}"

    def model(self, iteration: int) -> str:
        return f"{self.namespace}/{self.name}-iter{iteration}"

    def inputs(self, artifact: Artifact) -> list[str]:
        """The configurations whose rows an artifact was made from."""
        made = {str(one["artifact"]) for one in artifact.manifest["inputs"].values()}
        return [one.name for one in self.artifacts if one.folder.name in made and one.rows is not None]

    def parent(self, iteration: int) -> int | None:
        """The iteration whose policy an iteration's training started from; None if it was the base policy."""
        start = self.policies[iteration].manifest["inputs"]["policy"]["artifact"]
        return next((number for number, policy in self.policies.items() if policy.folder.name == start), None)

    @property
    def seeds(self) -> str | None:
        """The configuration with the prompts as they were loaded."""
        return next((one.name for one in self.artifacts if one.stage == "prompts"), None)


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


def configuration(stage: str, iteration: int) -> str:
    """The name of a stage's configuration."""
    return f"{CONFIGURATIONS.get(stage, (stage, ''))[0]}-{iteration}"


def scores(artifacts: tuple[Artifact, ...]) -> list[Score]:
    """Every score in the manifests, in their order; `base-...` stages are the base policy's."""
    found = []
    for artifact in artifacts:
        prefix, _, rest = artifact.stage.partition("-")
        if prefix not in ("base", "eval"):
            continue
        policy = "base" if prefix == "base" else f"iteration {artifact.iteration}"
        benchmark = rest.removesuffix("score").removesuffix("-") or "lettercraft"
        found += [Score(benchmark, policy, name, **figures) for name, figures in _estimates(artifact.manifest.get("scores") or {}, ())]
    return found


def _estimates(scores: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, value in scores.items():
        name = (*above, str(key))
        match value:
            case {"value": int() | float()}:
                yield " ".join(name), {part: value.get(part) for part in ("value", "low", "high", "n")}
            case Mapping():
                yield from _estimates(value, name)
            case bool():
                continue
            case int() | float():
                yield " ".join(name), {"value": value}
