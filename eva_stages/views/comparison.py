"""Comparing scores question by question: of any number of runs, of files of judgments, or of a run's iterations with its base policy.

Every benchmark's score stage holds the values of its questions (`statistics.VALUES`) as its rows; Lettercraft's are the rewards of its
responses. A side is compared with the first one on what both have: the same benchmark, the same policy (base, iteration 0, ...), the
same judge, the same questions. Scores of different judges are on different scales: such a pair is not compared, and named in the notes.
All p values of one comparison form one family.
"""

from collections.abc import Iterable, Sequence
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


class Measured(NamedTuple):
    """The value of every question of one benchmark, for one policy of a run or for one model of a file of judgments."""

    run: str
    bench: str
    policy: str
    judge: str | None
    """None where no judge is used or recorded."""
    values: pa.Table


class Pair(NamedTuple):
    """Two sides of one difference; `notes` say what is not recorded of them."""

    policy: str
    a: Measured
    b: Measured


def measured_values(histories: Iterable[History]) -> list[Measured]:
    """The value of every question, for each run, policy and benchmark."""
    return [measured for history in histories for artifact in history.artifacts for measured in _artifact_values(history.name, artifact)]


def run_values(name: str, history: History) -> list[Measured]:
    """The same of one run, under a name.

    Raises:
        ConfigError: if no evaluation is complete.
    """
    values = [measured._replace(run=name) for measured in measured_values([history])]
    if not values:
        root = history.root
        raise ConfigError([f"{root} has no finished evaluation; run eva eval run {root / 'recipe.yaml'} --run-dir {root} first"])
    return values


def file_values(bench: str, path: Path) -> list[Measured]:
    """The value of every question for each model of a file of judgments."""
    models, _ = score_models(bench, [path], {})
    return [
        Measured(str(path), bench, model.entry["model"], model.entry["judge"], model.values) for model in models if model.values is not None
    ]


def compare(sides: Sequence[list[Measured]]) -> dict[str, Any]:
    """The document of a comparison of the first side with each of the others.

    Two sides of one policy each and one benchmark are compared whatever the policies are called.

    Raises:
        ConfigError: if two sides have nothing in common, or nothing that one judge has judged on both sides.
    """
    first, *others = sides
    pairs, notes = [], []
    for other in others:
        pairs_of_side, notes_of_side = _pairs(first, other, _common(first, other))
        pairs += pairs_of_side
        notes += notes_of_side
    return _document(first[0].run, ", ".join(other[0].run for other in others), pairs, notes)


def compare_iterations(values: list[Measured]) -> dict[str, Any]:
    """The document of a comparison of each iteration with the base policy, within a run.

    Raises:
        ConfigError: if there is no iteration to compare.
    """
    name = values[0].run
    bases = [measured for measured in values if measured.policy == BASE]
    benches = {base.bench for base in bases}
    later = [measured for measured in values if measured.policy != BASE and measured.bench in benches]
    if not later:
        raise ConfigError([f"{name}: no iteration and base policy to compare; finished: {_named(values)}"])
    wanted = [(base, policy) for policy in dict.fromkeys(measured.policy for measured in later) for base in bases]
    pairs, notes = _pairs(bases, later, wanted)
    named = [pair._replace(policy=pair.b.policy) for pair in pairs]
    return _document(f"{name}, base policy", name, named, notes)


def _common(a: list[Measured], b: list[Measured]) -> list[tuple[Measured, str]]:
    """What of `a` is compared, each with the policy of `b` that it is compared with."""
    keys = {(measured.bench, measured.policy) for measured in a} & {(measured.bench, measured.policy) for measured in b}
    if keys:
        return [(measured, measured.policy) for measured in a if (measured.bench, measured.policy) in keys]
    benches, policies = {measured.bench for measured in (*a, *b)}, [{measured.policy for measured in side} for side in (a, b)]
    if len(benches) == len(policies[0]) == len(policies[1]) == 1:
        return [(measured, b[0].policy) for measured in a]
    hint = "give two sides with the same benchmarks and policies, or with one of each"
    raise ConfigError([f"{a[0].run} and {b[0].run} have nothing in common: {_named(a)} against {_named(b)}; {hint}"])


def _pairs(a: list[Measured], b: list[Measured], wanted: list[tuple[Measured, str]]) -> tuple[list[Pair], list[str]]:
    """What one judge has scored on both sides, and a note on what only different judges have."""
    pairs, notes = [], []
    for measured, policy in wanted:
        candidates = [other for other in b if (other.bench, other.policy) == (measured.bench, policy)]
        same = [other for other in candidates if other.judge == measured.judge]
        unrecorded = [other for other in candidates if None in (other.judge, measured.judge)]
        for other in (same or unrecorded)[:1]:
            pairs.append(Pair(policy if measured.policy == policy else f"{measured.policy} / {policy}", measured, other))
            if not same:
                notes.append(f"{measured.bench}, {policy}: the judge is recorded on one side only ({measured.judge or other.judge})")
        if candidates and not same and not unrecorded:
            judges = " and ".join(dict.fromkeys(str(other.judge) for other in candidates))
            notes.append(f"{measured.bench}, {policy}: judged by {measured.judge} on one side and by {judges} on the other; not compared")
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
        differences.append({**names, **difference.as_dict()})
    if not differences:
        raise ConfigError([f"{name_a} and {name_b}: {note}" for note in notes])
    for difference_entry, adjusted in zip(differences, holm([entry["p_value"] for entry in differences]), strict=True):
        difference_entry["p_holm"] = adjusted
    return {"a": name_a, "b": name_b, "kind": "own", "confidence": CONFIDENCE, "differences": differences, "notes": notes}


def _artifact_values(run: str, artifact: Artifact) -> list[Measured]:
    """What an artifact of an evaluation records of every question; nothing if it records nothing of any."""
    parsed = artifact.parsed_name
    if parsed.kind == ANSWER_REWARD and parsed.benchmark == LETTERCRAFT:
        rewards = read_table(artifact.content)
        return [
            Measured(run, f"{LETTERCRAFT}, {name}", artifact.policy, None, _mean_rewards(rewards, column))
            for name, column in REWARD_COLUMNS.items()
        ]
    if parsed.kind != SCORE or artifact.rows is None:
        return []
    table = read_table(artifact.content)
    judging = (artifact.manifest.get("scores") or {}).get("judging") or {}
    known = table.schema.names == VALUES.names
    return [Measured(run, str(parsed.benchmark), artifact.policy, judging.get("judge"), table)] if known else []


def _mean_rewards(rewards: pa.Table, column: str) -> pa.Table:
    means = per_prompt_mean(rewards, column)
    ids = rewards["prompt_id"].to_pylist()
    return question_values({name: None if np.isnan(mean) else float(mean) for name, mean in zip(ids, means, strict=True)})


def _named(values: list[Measured]) -> str:
    return "; ".join(dict.fromkeys(f"{measured.bench} of {measured.policy}" for measured in values)) or "nothing"
