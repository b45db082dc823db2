"""Study folders with planted scores: real stages, manifests, store and events, but no model and no training."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from eva_stages.core.run_folder import Run
from eva_stages.core.stage import FunctionStage, Stage, Use
from eva_stages.core.study_record import Budget, StudyRecord, StudyRun, write_study
from eva_stages.core.tables import write_rows

TOKENS = {"respond": 1000, "creator-respond": 500, "evolve": 100, "eval-answer": 7000}
"""Generated tokens of each stage; those of the evaluation do not count."""
Curves = Mapping[str, Mapping[int, Sequence[float] | None]]
"""Scores of the base policy and of iterations 0, 1, ... by arm and seed; None: the run was not started."""


def plant_study(
    folder: Path,
    curves: Curves,
    budget: Budget | None = None,
    contrasts: Sequence[tuple[str, str]] | None = None,
    failed_runs: Sequence[tuple[str, int]] = (),
    iterations: int | None = None,
    question: str = "Does a beat b?",
    paper: str | None = None,
) -> Path:
    """Write a study.

    Args:
        failed_runs: arm and seed of runs whose next stage failed.
        iterations: the last iteration that every run plans; None: the longest curve's.
    """
    arms, seeds = list(curves), list(next(iter(curves.values())))
    last_iteration = (
        iterations if iterations is not None else max(len(c or ()) for by_seed in curves.values() for c in by_seed.values()) - 2
    )
    for arm in arms:
        for seed, scores in curves[arm].items():
            if scores is not None:
                _plant_run(folder, arm, seed, scores, last_iteration, (arm, seed) in failed_runs)
    folder.mkdir(parents=True, exist_ok=True)
    record = StudyRecord(
        name=folder.name,
        question=question,
        paper=paper,
        measure="lettercraft.exact",
        seeds=tuple(seeds),
        arms={arm: {} for arm in arms},
        contrasts=tuple(contrasts or [(arms[0], arm) for arm in arms[1:]]),
        runs=tuple(StudyRun(arm=arm, seed=seed, folder=f"{arm}/{seed}") for arm in arms for seed in seeds),
        budget=budget or Budget(),
        command=f"eva ablate {folder.name}.yaml",
    )
    write_study(folder, record)
    return folder


def planted_curves(
    arms: Mapping[str, float], seeds: int, rng: np.random.Generator, noise: float = 0.02, rounds: int = 3
) -> dict[str, dict[int, list[float]]]:
    """Curves that rise from .1 to .2 plus the arm's effect, with noise and a part that the arms of a seed share."""
    curves: dict[str, dict[int, list[float]]] = {arm: {} for arm in arms}
    for seed in range(1, seeds + 1):
        shared_noise = rng.normal(0, noise)
        for arm, effect in arms.items():
            rise = [0.1 + (0.1 + effect) * step / rounds + shared_noise for step in range(1, rounds + 1)]
            curves[arm][seed] = [0.1, *(float(value) for value in rng.normal(rise, noise))]
    return curves


def _plant_run(folder: Path, arm: str, seed: int, scores: Sequence[float], last_iteration: int, has_failed: bool) -> None:
    """A run whose base evaluation is shared by all runs of the study, and whose first round by all arms of a seed."""
    run = Run(folder / arm / str(seed), folder / ".store")
    run.create()
    base = _stage("base-score", 0, {}, "all")
    planned_stages: list[Stage] = [base]
    score_stages = {0: base}
    previous: Stage | None = None
    for iteration in range(last_iteration + 1):
        owner = f"{seed}" if iteration == 0 else f"{arm}/{seed}"
        for name in ("creator-respond", "evolve", "respond", "train") if iteration else ("respond", "train"):
            previous = _stage(name, iteration, {"previous": previous} if previous else {}, owner)
            planned_stages.append(previous)
        assert previous is not None
        answers = _stage("eval-answer", iteration, {"policy": previous}, owner)
        score_stages[iteration + 1] = _stage("eval-score", iteration, {"rewards": answers}, f"{arm}/{seed}")
        planned_stages += [answers, score_stages[iteration + 1]]
    run.plan(planned_stages)
    (run.root / "recipe.yaml").write_text("name: planted\n", encoding="utf-8")
    reached_iteration = len(scores) - 2
    values = {stage.folder: scores[place] for place, stage in score_stages.items() if place < len(scores)}
    for stage in planned_stages:
        if stage.iteration <= reached_iteration:
            _commit(run, stage, values.get(stage.folder))
        elif has_failed:
            run.event("failed", stage=stage.label, fingerprint=stage.fingerprint, cause="the disk is full", seconds=1.0)
            return


def _stage(name: str, iteration: int, inputs: Mapping[str, Stage], owner: str) -> FunctionStage:
    return FunctionStage(name, iteration, inputs, function=Use("tests.study_folder:plant_study", {"owner": owner}))


def _commit(run: Run, stage: Stage, score: float | None) -> None:
    if run.take(stage) is None and run.holds(stage):
        return
    artifact = run.workplace(stage) / "data"
    facts = {"rows": 1, "failures": {}, "devices": {"count": 0, "names": []}, "bytes": 10}
    if score is None:
        write_rows([pa.table({"number": [1]})], pa.schema([("number", pa.int64())]), artifact)
        scores = {}
    else:
        artifact.mkdir(parents=True)
        (artifact / "score.json").write_text(json.dumps({"value": score}), encoding="utf-8")
        scores = {"scores": {"exact": {"value": score, "low": score - 0.01, "high": score + 0.01, "n": 200}}}
    counts = {"output_tokens": TOKENS[stage.name]} if stage.name in TOKENS else {}
    times = {"started": "2026-01-01T00:00:00+00:00", "seconds": 60.0, "pace": None, "notices": []}
    run.commit(stage, artifact, {**facts, "counts": counts, **scores, **times})
    run.clear(stage)
