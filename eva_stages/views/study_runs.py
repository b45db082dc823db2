"""The runs of a study: what each one generated, how its policies score, where it stands, and what its stages took."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from eva_stages.core.config.solver_config import ON_POLICY_LOSSES
from eva_stages.core.errors import DamagedError
from eva_stages.core.kinds import BASE, Role
from eva_stages.core.ledger import Attempts, actual
from eva_stages.core.run_folder import Run
from eva_stages.core.study_record import Budget, StudyRecord, StudyRun, generated_tokens
from eva_stages.views.history import History, read_history
from eva_stages.views.recorded_scores import scores
from eva_stages.views.stage_events import last_events, stage_key

DONE_STATE, FAILED_STATE, UNFINISHED_STATE, MISSING_STATE = "done", "failed", "unfinished", "missing"


@dataclass(frozen=True)
class CurvePoint:
    """The score of one policy, and the tokens that were generated to train it."""

    policy: str
    generated_tokens: float
    score: float


@dataclass(frozen=True)
class RunResult:
    """One run of a study. `score` and `generated_tokens` are at the point where the study compares; None if the run is not done."""

    run: StudyRun
    state: str
    cause: str | None = None
    score: float | None = None
    generated_tokens: float | None = None
    curve: tuple[CurvePoint, ...] = ()
    measures: frozenset[str] = frozenset()
    """What the run has scores of."""
    costs: Mapping[str, Mapping[str, Any]] | None = None
    """What each complete stage used (`core.ledger.actual`), by the name of its folder."""
    history: History | None = None


def read_runs(folder: Path, study: StudyRecord) -> list[RunResult]:
    """The runs of the study in a folder, in the study's order."""
    return [read_run(folder / run.folder, run, study) for run in study.runs]


def read_run(root: Path, run: StudyRun, study: StudyRecord) -> RunResult:
    """One run of a study, in the folder `root`."""
    if not root.is_dir():
        return RunResult(run, MISSING_STATE, "it was not started")
    try:
        history = read_history(Run(root))
    except DamagedError as error:
        return RunResult(run, FAILED_STATE, str(error))
    curve = _curve(history, study.measure)
    target = _compared_point(history, curve, study.budget)
    cause = None if target else _cause(history)
    state = DONE_STATE if target else FAILED_STATE if cause else UNFINISHED_STATE if history.artifacts else MISSING_STATE
    return RunResult(
        run=run,
        state=state,
        cause=cause or (None if target else _progress_text(history, curve, study)),
        score=target.score if target else None,
        generated_tokens=target.generated_tokens if target else None,
        curve=curve,
        measures=frozenset(measure_name(score.benchmark, score.name) for score in scores(history.artifacts)),
        costs={artifact.planned_stage.folder: actual(artifact.manifest, Attempts()) for artifact in history.artifacts},
        history=history,
    )


def measure_name(benchmark: str, score: str) -> str:
    """A measure as a study names it, such as lettercraft.exact."""
    return f"{benchmark}.{score.replace(' ', '.')}"


def score_at(curve: Sequence[CurvePoint], tokens: float) -> float | None:
    """The score at a number of generated tokens, linear between the points of the curve; None beyond its ends."""
    for point, next_point in pairwise(curve):
        if point.generated_tokens <= tokens <= next_point.generated_tokens:
            width = next_point.generated_tokens - point.generated_tokens
            share = (tokens - point.generated_tokens) / width if width else 1.0
            return point.score + share * (next_point.score - point.score)
    return None


def tokens_to_reach(curve: Sequence[CurvePoint], score: float) -> float | None:
    """The fewest generated tokens at which the curve, linear between its points, has a score; None if it never has it."""
    if curve and curve[0].score >= score:
        return curve[0].generated_tokens
    for point, next_point in pairwise(curve):
        if point.score < score <= next_point.score:
            share = (score - point.score) / (next_point.score - point.score)
            return point.generated_tokens + share * (next_point.generated_tokens - point.generated_tokens)
    return None


def summed_cost(runs: Iterable[RunResult]) -> dict[str, float | int | None]:
    """What the stages of several runs used; a stage that runs share counts once."""
    stages: dict[str, Mapping[str, Any]] = {}
    for result in runs:
        stages |= result.costs or {}
    gpu_seconds = [entry["gpu_seconds"] for entry in stages.values() if entry["gpu_seconds"] is not None]
    return {
        "stages": len(stages),
        "output_tokens": sum(entry["output_tokens"] or 0 for entry in stages.values()),
        "usd": round(sum(entry["usd"] for entry in stages.values()), 6),
        "hours": round(sum(entry["seconds"] for entry in stages.values()) / 3600, 6),
        "gpu_hours": round(sum(gpu_seconds) / 3600, 6) if gpu_seconds else None,
    }


def lacks_sampled_tokens(result: RunResult) -> bool:
    """Whether the run's training sampled responses (on-policy) without counting their tokens, as trainings of earlier versions did."""
    if result.history is None or ((result.history.recipe.get("solver") or {}).get("loss") or {}).get("kind") not in ON_POLICY_LOSSES:
        return False
    trainings = [artifact for artifact in result.history.artifacts if artifact.parsed_name.kind.role == Role.POLICY]
    return any("output_tokens" not in artifact.manifest["counts"] for artifact in trainings)


def _curve(history: History, measure: str) -> tuple[CurvePoint, ...]:
    """The base policy, then the policy of each iteration, without those that have no score."""
    values = {score.policy: score.value for score in scores(history.artifacts) if measure_name(score.benchmark, score.name) == measure}
    points = [CurvePoint(BASE, 0.0, values[BASE])] if BASE in values else []
    for iteration in history.planned_iterations:
        if (policy := _policy_name(iteration)) in values:
            manifests = [artifact.manifest for artifact in history.artifacts if artifact.iteration <= iteration]
            points.append(CurvePoint(policy, generated_tokens(manifests), values[policy]))
    return tuple(points)


def _policy_name(iteration: int) -> str:
    return f"iteration {iteration}"


def _compared_point(history: History, curve: tuple[CurvePoint, ...], budget: Budget) -> CurvePoint | None:
    """The point of the curve where the study compares; None if the run has not reached it."""
    if budget.generated_tokens is not None:
        score = score_at(curve, budget.generated_tokens)
        return None if score is None else CurvePoint("at the budget", budget.generated_tokens, score)
    policy = _policy_name(_last_iteration(history) if budget.iterations is None else budget.iterations)
    return next((point for point in curve if point.policy == policy), None)


def _last_iteration(history: History) -> int:
    """The last iteration that the run plans to train."""
    return max((stage.iteration for stage in history.stages if stage.parsed_name.kind.role == Role.POLICY), default=-1)


def _cause(history: History) -> str | None:
    """Why a stage of the run failed or stopped it; None if none has, or the run is past it."""
    events = Run(history.root).events()
    keys = {stage_key(stage.fingerprint) for stage in history.stages}
    if events and events[-1]["event"] == "stopped" and stage_key(events[-1].get("fingerprint")) in keys:  # by a limit
        return f"{events[-1]['stage']}: {events[-1]['cause']}"
    event_of_stage = last_events(events)
    for stage in history.stages:
        event = event_of_stage.get(stage_key(stage.fingerprint), {})
        if event.get("event") == "failed" and history.artifact(stage) is None:
            return f"{stage.label}: {event.get('cause')}"
    return None


def _progress_text(history: History, curve: tuple[CurvePoint, ...], study: StudyRecord) -> str:
    done_text = f"{len(history.artifacts)} of {len(history.stages)} stages are complete"
    if len(history.artifacts) < len(history.stages) or not history.stages:
        return done_text
    tokens = study.budget.generated_tokens
    if tokens is not None and curve and curve[-1].generated_tokens < tokens:
        return f"it ended after {curve[-1].generated_tokens:,.0f} of {tokens:,.0f} generated tokens"
    return f"{done_text}, but the policy that is compared has no score {study.measure}"
