"""Compare scores question by question: of any number of runs, of files of judgments, or of a run's iterations with its base policy.

Every benchmark's score stage holds the values of its questions (`statistics.VALUES`) as its rows; Lettercraft's are the rewards of its
responses. A side is compared with the first one on what both have: the same benchmark, the same policy (base, iteration 0, ...), the
same judge, the same questions. Scores of different judges are on different scales: such a pair is not compared, and named in the notes.
All p values of one comparison form one family.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from eva_stages.core.errors import ConfigError
from eva_stages.core.kinds import ANSWER_REWARD, BASE, LETTERCRAFT, SCORE
from eva_stages.core.tables import per_prompt_mean, read_table
from eva_stages.evaluation.file_scores import CONFIDENCE, SEED, score_models
from eva_stages.evaluation.statistics import VALUES, holm, paired_bootstrap, question_values
from eva_stages.views.history import Artifact, History

REWARD_COLUMNS = {"sampled": "rewards", "greedy": "greedy_rewards"}


class Measurement(NamedTuple):
    """The value of every question of one benchmark, for one policy of a run or for one model of a file of judgments."""

    run: str
    bench: str
    policy: str
    judge: str | None
    """None where no judge is used or recorded."""
    values: pa.Table


class Pair(NamedTuple):
    """The two sides of a difference."""

    policy: str
    a: Measurement
    b: Measurement


def measurements(histories: Iterable[History]) -> list[Measurement]:
    """The value of every question, for each run, policy and benchmark."""
    return [
        measurement for history in histories for artifact in history.artifacts for measurement in _artifact_values(history.name, artifact)
    ]


def run_values(name: str, history: History) -> list[Measurement]:
    """The value of every question of one run, under the given name.

    Raises:
        ConfigError: if no evaluation is complete.
    """
    values = [measurement._replace(run=name) for measurement in measurements([history])]
    if not values:
        root = history.root
        raise ConfigError([f"{root} has no finished evaluation; run `eva eval run {root / 'recipe.yaml'} --run-dir {root}` first"])
    return values


def file_values(bench: str, path: Path) -> list[Measurement]:
    """The value of every question for each model of a file of judgments."""
    models, _ = score_models(bench, [path], {})
    return [
        Measurement(str(path), bench, model.entry["model"], model.entry["judge"], model.values)
        for model in models
        if model.values is not None
    ]


def compare(sides: Sequence[list[Measurement]]) -> dict[str, Any]:
    """Compare the first side with every other side; returns the JSON document.

    Two sides of one policy each and one benchmark are compared whatever the policies are called.

    Raises:
        ConfigError: if the first side has nothing in common with any other, or nothing that one judge has judged on both sides.
    """
    first, *other_sides = sides
    pairs, notes, errors = [], [], []
    for other_side in other_sides:
        try:
            pairs_of_side, notes_of_side = _pairs(first, other_side, _common(first, other_side))
        except ConfigError as error:
            errors += error.faults
        else:
            pairs += pairs_of_side
            notes += notes_of_side
    if len(errors) == len(other_sides):
        raise ConfigError(errors)
    return _document(first[0].run, ", ".join(other_side[0].run for other_side in other_sides), pairs, [*notes, *errors])


def compare_iterations(values: list[Measurement]) -> dict[str, Any]:
    """Compare each iteration of a run with its base policy; returns the JSON document.

    Raises:
        ConfigError: if there is no iteration to compare.
    """
    name = values[0].run
    bases = [measurement for measurement in values if measurement.policy == BASE]
    benches = {base.bench for base in bases}
    later = [measurement for measurement in values if measurement.policy != BASE and measurement.bench in benches]
    if not later:
        raise ConfigError([f"{name}: no iteration and base policy to compare; finished: {_names_of(values)}"])
    wanted_pairs = [(base, policy) for policy in dict.fromkeys(measurement.policy for measurement in later) for base in bases]
    pairs, notes = _pairs(bases, later, wanted_pairs)
    named_pairs = [pair._replace(policy=pair.b.policy) for pair in pairs]
    return _document(f"{name}, base policy", name, named_pairs, notes)


def _common(a: list[Measurement], b: list[Measurement]) -> list[tuple[Measurement, str]]:
    """What of `a` is compared, each with the policy of `b` that it is compared with."""
    keys = {(measurement.bench, measurement.policy) for measurement in a} & {(measurement.bench, measurement.policy) for measurement in b}
    if keys:
        return [(measurement, measurement.policy) for measurement in a if (measurement.bench, measurement.policy) in keys]
    benches, policies = {measurement.bench for measurement in (*a, *b)}, [{measurement.policy for measurement in side} for side in (a, b)]
    if len(benches) == len(policies[0]) == len(policies[1]) == 1:
        return [(measurement, b[0].policy) for measurement in a]
    hint = "give two sides with the same benchmarks and policies, or with one of each"
    raise ConfigError([f"{a[0].run} and {b[0].run} have no benchmark and policy in common: {_names_of(a)} and {_names_of(b)}; {hint}"])


def _pairs(a: list[Measurement], b: list[Measurement], wanted_pairs: list[tuple[Measurement, str]]) -> tuple[list[Pair], list[str]]:
    """What one judge has scored on both sides, and a note on what only different judges have."""
    pairs, notes = [], []
    for measurement, policy in wanted_pairs:
        candidates = [candidate for candidate in b if (candidate.bench, candidate.policy) == (measurement.bench, policy)]
        same_judge = [candidate for candidate in candidates if candidate.judge == measurement.judge]
        unrecorded_judge = [candidate for candidate in candidates if None in (candidate.judge, measurement.judge)]
        for candidate in (same_judge or unrecorded_judge)[:1]:
            pairs.append(Pair(policy if measurement.policy == policy else f"{measurement.policy} / {policy}", measurement, candidate))
            if not same_judge:
                notes.append(
                    f"{measurement.bench}, {policy}: the judge is recorded on one side only ({measurement.judge or candidate.judge})"
                )
        if candidates and not same_judge and not unrecorded_judge:
            judges = " and ".join(dict.fromkeys(str(candidate.judge) for candidate in candidates))
            notes.append(
                f"{measurement.bench}, {policy}: judged by {measurement.judge} on one side and by {judges} on the other; not compared"
            )
    return pairs, notes


def _document(name_a: str, name_b: str, pairs: list[Pair], notes: list[str]) -> dict[str, Any]:
    differences: list[dict[str, Any]] = []
    notes = [*notes]
    for pair in pairs:
        bench = pair.a.bench
        try:
            difference = paired_bootstrap(pair.a.values, pair.b.values, CONFIDENCE, SEED)
        except ValueError as error:
            notes.append(f"{bench}, {pair.policy}: {error}")
            continue
        names = {"bench": bench, "policy": pair.policy, "judge": pair.a.judge or pair.b.judge, "b": pair.b.run}
        differences.append({**names, **asdict(difference)})
    if not differences:
        raise ConfigError([f"{name_a} and {name_b}: {note}" for note in notes])
    for difference_entry, adjusted_p in zip(differences, holm([entry["p_value"] for entry in differences]), strict=True):
        difference_entry["p_holm"] = adjusted_p
    return {"a": name_a, "b": name_b, "kind": "own", "confidence": CONFIDENCE, "differences": differences, "notes": notes}


def _artifact_values(run: str, artifact: Artifact) -> list[Measurement]:
    """What an artifact of an evaluation records of every question; nothing if it records nothing of any."""
    stage_name = artifact.parsed_name
    if stage_name.kind == ANSWER_REWARD and stage_name.benchmark == LETTERCRAFT:
        rewards = read_table(artifact.content)
        return [
            Measurement(run, f"{LETTERCRAFT}, {name}", artifact.policy, None, _mean_rewards(rewards, column))
            for name, column in REWARD_COLUMNS.items()
        ]
    if stage_name.kind != SCORE or artifact.rows is None:
        return []
    table = read_table(artifact.content)
    judging = (artifact.manifest.get("scores") or {}).get("judging") or {}
    has_values = table.schema.names == VALUES.names
    return [Measurement(run, str(stage_name.benchmark), artifact.policy, judging.get("judge"), table)] if has_values else []


def _mean_rewards(rewards: pa.Table, column: str) -> pa.Table:
    means = per_prompt_mean(rewards, column)
    ids = rewards["prompt_id"].to_pylist()
    return question_values({name: None if np.isnan(mean) else float(mean) for name, mean in zip(ids, means, strict=True)})


def _names_of(values: list[Measurement]) -> str:
    return "; ".join(dict.fromkeys(f"{measurement.bench} of {measurement.policy}" for measurement in values)) or "nothing"
