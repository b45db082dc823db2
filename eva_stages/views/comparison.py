"""Comparing the scores of two runs, or of a run's iterations with its base policy, question by question.

Every benchmark's score stage holds the values of its questions (`statistics.VALUES`) as its rows; Lettercraft's are made from the
rewards of its answers. Two sides are compared on what both have: the same benchmark, the same policy (base, iteration 0, ...), the same
judge, the same questions. Scores of different judges are on different scales: such a pair is not compared, and named in the notes. All
p values of one comparison form one family.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from eva_stages.core.errors import ConfigError
from eva_stages.core.recipe_files import recipe_of_run
from eva_stages.core.rounds import Iteration
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import Stage
from eva_stages.core.tables import FILE, per_prompt_mean, read_table
from eva_stages.evaluation.file_scores import CONFIDENCE, SEED, score_models
from eva_stages.evaluation.statistics import VALUES, holm, paired_bootstrap, question_values
from pipelines.iteration import iterations

BASE = "base"


class Scored(NamedTuple):
    """Whose scores on which benchmark, and by which judge; None where none judges or none is recorded."""

    bench: str
    policy: str
    judge: str | None = None


Values = dict[Scored, pa.Table]
"""The value of every question."""


class Pair(NamedTuple):
    """Two sides of one difference."""

    bench: str
    policy: str
    judge: str | None
    a: pa.Table
    b: pa.Table


def run_values(run: Run) -> Values:
    """What a run's policies scored on every question of its benchmarks.

    Raises:
        ConfigError: if no evaluation is done.
    """
    recipe = recipe_of_run(run.root)
    found: Values = {}
    for one in iterations(recipe):
        for stage in one.evaluation:
            found |= _stage_values(run, one, stage)
    if not found:
        raise ConfigError(
            [f"{run.root} has no finished evaluation; run eva eval run {run.root / 'recipe.yaml'} --run-dir {run.root} first"]
        )
    return found


def file_values(bench: str, path: Path) -> Values:
    """What the models of a judgments file scored on every question."""
    models, _ = score_models(bench, [path], {})
    return {Scored(bench, one.entry["model"], one.entry["judge"]): one.values for one in models if one.values is not None}


def compare(name_a: str, a: Values, name_b: str, b: Values) -> dict[str, Any]:
    """The document of a comparison of two sides.

    Two sides of one policy each and one benchmark are compared whatever the policies are called.

    Raises:
        ConfigError: if they have nothing in common, or nothing that one judge has judged on both sides.
    """
    keys = {(one.bench, one.policy) for one in a} & {(one.bench, one.policy) for one in b}
    wanted = [(one, one.policy) for one in a if (one.bench, one.policy) in keys]
    benches, policies = {one.bench for one in (*a, *b)}, [{one.policy for one in side} for side in (a, b)]
    if not wanted and len(benches) == len(policies[0]) == len(policies[1]) == 1:
        wanted = [(one, policies[1].copy().pop()) for one in a]
    if not wanted:
        hint = "give two sides with the same benchmarks and policies, or with one of each"
        raise ConfigError([f"{name_a} and {name_b} have nothing in common: {_named(a)} against {_named(b)}; {hint}"])
    return _document(name_a, name_b, *_pairs(a, b, wanted))


def compare_iterations(name: str, values: Values) -> dict[str, Any]:
    """The document of a comparison of each iteration with the base policy, within a run.

    Raises:
        ConfigError: if there is no iteration to compare.
    """
    bases = {one: table for one, table in values.items() if one.policy == BASE}
    later = {one: table for one, table in values.items() if one.policy != BASE and one.bench in {base.bench for base in bases}}
    if not later:
        raise ConfigError([f"{name}: no iteration and base policy to compare; finished: {_named(values)}"])
    wanted = [(base, policy) for policy in dict.fromkeys(one.policy for one in later) for base in bases]
    pairs, notes = _pairs(bases, later, wanted)
    named = [pair._replace(policy=pair.policy.removeprefix(f"{BASE} / ")) for pair in pairs]
    return _document(f"{name}, base policy", name, named, notes)


def _pairs(a: Values, b: Values, wanted: list[tuple[Scored, str]]) -> tuple[list[Pair], list[str]]:
    """What one judge has scored on both sides, and a note on what only different judges have.

    Args:
        wanted: what of `a` is compared, each with the policy of `b`.
    """
    pairs, notes = [], []
    for one, policy in wanted:
        others = [other for other in b if (other.bench, other.policy) == (one.bench, policy)]
        same = [other for other in others if other.judge == one.judge]
        unrecorded = [other for other in others if None in (other.judge, one.judge)]
        for other in (same or unrecorded)[:1]:
            pairs.append(Pair(one.bench, _policy(one.policy, policy), one.judge or other.judge, a[one], b[other]))
            if not same:
                notes.append(f"{one.bench}, {policy}: the judge is recorded on one side only ({one.judge or other.judge})")
        if others and not same and not unrecorded:
            judges = " and ".join(dict.fromkeys(str(other.judge) for other in others))
            notes.append(f"{one.bench}, {policy}: judged by {one.judge} on one side and by {judges} on the other; not compared")
    return pairs, notes


def _document(name_a: str, name_b: str, pairs: list[Pair], notes: list[str]) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    notes = [*notes]
    for pair in pairs:
        try:
            difference = paired_bootstrap(pair.a, pair.b, CONFIDENCE, SEED)
        except ValueError as error:
            notes.append(f"{pair.bench}, {pair.policy}: {error}")
            continue
        found.append({"bench": pair.bench, "policy": pair.policy, "judge": pair.judge, **difference.as_dict()})
    if not found:
        raise ConfigError([f"{name_a} and {name_b}: {note}" for note in notes])
    for one, adjusted in zip(found, holm([one["p_value"] for one in found]), strict=True):
        one["p_holm"] = adjusted
    return {"a": name_a, "b": name_b, "kind": "own", "confidence": CONFIDENCE, "differences": found, "notes": notes}


def _stage_values(run: Run, one: Iteration, stage: Stage) -> Values:
    return stage_values(stage.name, one.number, run.folder(stage), run.manifest(stage)) if run.done(stage) else {}


def stage_values(stage: str, iteration: int, folder: Path, manifest: Mapping[str, Any]) -> Values:
    """What a finished stage of an evaluation says about every question; nothing if it says nothing about any."""
    prefix, _, rest = stage.partition("-")
    policy = BASE if prefix == BASE else f"iteration {iteration}"
    if prefix in (BASE, "eval") and rest == "reward":
        rewards = read_table(folder)
        columns = {"sampled": "rewards", "greedy": "greedy_rewards"}
        return {Scored(f"lettercraft, {name}", policy): _mean_rewards(rewards, column) for name, column in columns.items()}
    if rest.endswith("-score") and (folder / FILE).is_file():
        table = read_table(folder)
        judging = (manifest.get("scores") or {}).get("judging") or {}
        scored = Scored(rest.removesuffix("-score"), policy, judging.get("judge"))
        return {scored: table} if table.schema.names == VALUES.names else {}
    return {}


def _mean_rewards(rewards: pa.Table, column: str) -> pa.Table:
    means = per_prompt_mean(rewards, column)
    ids = rewards["prompt_id"].to_pylist()
    return question_values({name: None if np.isnan(mean) else float(mean) for name, mean in zip(ids, means, strict=True)})


def _policy(a: str, b: str) -> str:
    return a if a == b else f"{a} / {b}"


def _named(values: Values) -> str:
    return "; ".join(dict.fromkeys(f"{one.bench} of {one.policy}" for one in values)) or "nothing"
