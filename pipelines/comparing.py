"""Comparing the scores of two runs, or of a run's iterations with its base policy, question by question.

Every benchmark's score stage holds the values of its questions (`statistics.VALUES`) as its rows; Lettercraft's are made from the
rewards of its answers. Two sides are compared on what both have: the same benchmark, the same policy (base, iteration 0, ...), the same
questions. All p values of one comparison form one family.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from eva_stages.core.errors import ConfigError
from eva_stages.core.recipes import recipe_of_run
from eva_stages.core.stage import Stage
from eva_stages.core.store import Run
from eva_stages.core.tables import FILE, per_prompt_mean, read_table
from eva_stages.evaluation.scoring import CONFIDENCE, SEED, score_models
from eva_stages.evaluation.statistics import VALUES, holm, paired_bootstrap, question_values
from pipelines.iteration import Iteration, iterations

BASE = "base"
Values = dict[tuple[str, str], pa.Table]
"""Values by benchmark and policy."""


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
    return {(bench, one.entry["model"]): one.values for one in models if one.values is not None}


def compare(name_a: str, a: Values, name_b: str, b: Values) -> dict[str, Any]:
    """The document of a comparison of two sides.

    Two sides of one policy each and one benchmark are compared whatever the policies are called.

    Raises:
        ConfigError: if they have nothing in common.
    """
    pairs = [(key, key) for key in a if key in b]
    if not pairs and len(a) == len(b) == 1:
        pairs = [(next(iter(a)), next(iter(b)))] if next(iter(a))[0] == next(iter(b))[0] else []
    if not pairs:
        hint = "give two sides with the same benchmarks and policies, or with one of each"
        raise ConfigError([f"{name_a} and {name_b} have nothing in common: {_named(a)} against {_named(b)}; {hint}"])
    return _document(name_a, name_b, [(a[first], b[second], first[0], _policy(first[1], second[1])) for first, second in pairs])


def compare_iterations(name: str, values: Values) -> dict[str, Any]:
    """The document of a comparison of each iteration with the base policy, within a run.

    Raises:
        ConfigError: if there is no iteration to compare.
    """
    bases = {bench: table for (bench, policy), table in values.items() if policy == BASE}
    pairs = [(bases[bench], table, bench, policy) for (bench, policy), table in values.items() if policy != BASE and bench in bases]
    if not pairs:
        raise ConfigError([f"{name}: no iteration and base policy to compare; finished: {_named(values)}"])
    return _document(f"{name}, base policy", name, pairs)


def _document(name_a: str, name_b: str, pairs: list[tuple[pa.Table, pa.Table, str, str]]) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    notes: list[str] = []
    for a, b, bench, policy in pairs:
        try:
            difference = paired_bootstrap(a, b, CONFIDENCE, SEED)
        except ValueError as error:
            notes.append(f"{bench}, {policy}: {error}")
            continue
        found.append({"bench": bench, "policy": policy, **difference.as_dict()})
    if not found:
        raise ConfigError([f"{name_a} and {name_b}: {note}" for note in notes])
    for one, adjusted in zip(found, holm([one["p_value"] for one in found]), strict=True):
        one["p_holm"] = adjusted
    return {"a": name_a, "b": name_b, "kind": "own", "confidence": CONFIDENCE, "differences": found, "notes": notes}


def _stage_values(run: Run, one: Iteration, stage: Stage) -> Values:
    return stage_values(stage.name, one.number, run.folder(stage)) if run.done(stage) else {}


def stage_values(stage: str, iteration: int, folder: Path) -> Values:
    """What a finished stage of an evaluation says about every question; nothing if it says nothing about any."""
    prefix, _, rest = stage.partition("-")
    policy = BASE if prefix == BASE else f"iteration {iteration}"
    if prefix in (BASE, "eval") and rest == "reward":
        rewards = read_table(folder)
        columns = {"sampled": "rewards", "greedy": "greedy_rewards"}
        return {(f"lettercraft, {name}", policy): _mean_rewards(rewards, column) for name, column in columns.items()}
    if rest.endswith("-score") and (folder / FILE).is_file():
        table = read_table(folder)
        return {(rest.removesuffix("-score"), policy): table} if table.schema.names == VALUES.names else {}
    return {}


def _mean_rewards(rewards: pa.Table, column: str) -> pa.Table:
    means = per_prompt_mean(rewards, column)
    ids = rewards["prompt_id"].to_pylist()
    return question_values({name: None if np.isnan(mean) else float(mean) for name, mean in zip(ids, means, strict=True)})


def _policy(a: str, b: str) -> str:
    return a if a == b else f"{a} / {b}"


def _named(values: Values) -> str:
    return "; ".join(f"{bench} of {policy}" for bench, policy in values) or "nothing"
