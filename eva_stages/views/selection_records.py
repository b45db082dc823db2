"""What one iteration's selection saw and what came of it, as arrays read from the run's folder: the data of an audit."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.optimize import brentq

from eva_stages.core.errors import ConfigError
from eva_stages.core.numeric import drawable
from eva_stages.core.tables import read_table, reward_matrix
from eva_stages.views.history import Artifact, History

LONGEST_CHAIN = 16
"""Evolutions in sequence that a recipe allows."""
UNKNOWN_DRAW = "it is not known with which probability it would have drawn the others"


@dataclass(frozen=True)
class ScoredPrompts:
    """Prompts whose responses are all scored."""

    ids: pa.Array
    rewards: np.ndarray
    """Shape (prompts, n), without NaN."""
    are_relative: bool
    """Whether a reward compares a response with the prompt's others, so that responses are not independent."""

    def places(self, ids: pa.Array) -> np.ndarray:
        """The rows of other prompts' ids among these; -1 where there is none."""
        return np.asarray(pc.fill_null(pc.index_in(ids, value_set=self.ids), -1).to_numpy(zero_copy_only=False))


@dataclass(frozen=True)
class SelectionRecord:
    """One iteration: the prompts that selection chose from, the evolved prompts of the next set, and their parents.

    A parent is a selected prompt. Its children are the evolved prompts of the same iteration that descend from it: its own children
    (`evolve.shape: siblings`) or the prompts of its chain (`chain`). Siblings are children of one parent.
    """

    iteration: int
    candidates: ScoredPrompts
    """What selection chose from, scored as it saw them."""
    children: ScoredPrompts
    orphans: int
    """Evolved prompts that are not among the children, because an archive drew their parent from an earlier set, so it was not scored."""
    parents: np.ndarray
    """The row of each child's parent among the candidates, shape (children,)."""
    inclusion: np.ndarray | None
    """Probability that the selection drew a candidate, shape (candidates,); None if it is not known (`draw_note`)."""
    draw_note: str
    next_policy_scores: bool
    """Whether the children were scored under the next policy, as where training samples its own responses."""
    training: tuple[ScoredPrompts, np.ndarray] | None
    """The prompts that were trained on as the policy answered them before, and their mean rewards under the policy after; if known."""

    @property
    def is_uniform(self) -> bool:
        """Whether every candidate had the same probability of being drawn, so that the parents are as different as the candidates."""
        return self.inclusion is not None and np.ptp(self.inclusion) == 0

    @property
    def families(self) -> np.ndarray:
        """The family of each child, numbered from 0, shape (children,)."""
        return np.unique(self.parents, return_inverse=True)[1]


def selection_record(history: History, iteration: int) -> SelectionRecord:
    """Read an iteration.

    Raises:
        ConfigError: if the run has no rewards or no evolved prompts there, with the reason.
    """
    if history.is_online:
        return _online_record(history, iteration)
    stages = {name: history.find(name, iteration) for name in ("creator-reward", "inform", "select", "evolve")}
    mixed_set = history.prompt_sets.get(iteration)
    next_rewards = history.find("creator-reward", iteration + 1)
    child_stage = history.find("reward", iteration) or next_rewards
    missing = [f"{iteration}-{name}" for name, artifact in stages.items() if artifact is None]
    missing += [] if mixed_set is not None else [f"{iteration}-mix"]
    missing += [] if child_stage is not None else [f"{iteration}-reward"]
    if missing:
        raise ConfigError([f"iteration {iteration} cannot be audited: {_absence(history, iteration, missing)}"])
    assert mixed_set is not None and child_stage is not None
    candidates, children = _scored_prompts(stages["creator-reward"]), _scored_prompts(child_stage)
    child_ids, parent_ids = _evolved_prompts(mixed_set, stages["evolve"], stages["select"])
    child_rows, parent_rows = children.places(child_ids), candidates.places(parent_ids)
    is_scored = (child_rows >= 0) & (parent_rows >= 0)
    if not is_scored.any():
        raise ConfigError(
            [f"iteration {iteration} cannot be audited: none of its {len(child_ids):,} evolved prompts is scored together with its parent"]
        )
    kept_rows = child_rows[is_scored]
    inclusion, note = _inclusion(history.recipe, iteration, candidates, stages["inform"], stages["select"])
    return SelectionRecord(
        iteration=iteration,
        candidates=candidates,
        children=replace(children, ids=children.ids.take(pa.array(kept_rows)), rewards=children.rewards[kept_rows]),
        orphans=int((parent_rows < 0).sum()),
        parents=parent_rows[is_scored],
        inclusion=inclusion,
        draw_note=note,
        next_policy_scores=child_stage.stage != "reward",
        training=_training(history.find("reward", iteration), next_rewards),
    )


def _online_record(history: History, iteration: int) -> SelectionRecord:
    """An interval of online training: candidates are the uses of prompts, a child is scored by its first use, in any interval."""
    stages = {name: history.find(name, iteration) for name in ("uses", "evolve")}
    if missing := [f"{iteration}-{name}" for name, artifact in stages.items() if artifact is None]:
        raise ConfigError([f"iteration {iteration} cannot be audited: {_absence(history, iteration, missing)}"])
    candidates, candidate_steps = _scored_uses([stages["uses"]])
    later_uses, _ = _scored_uses([artifact for artifact in history.every("uses") if artifact.iteration >= iteration])
    evolutions = _table(stages["evolve"], ["prompt_id", "parent_id", "step", "fate"])
    inserted_rows = evolutions.filter(pc.equal(evolutions["fate"], "inserted")).combine_chunks()
    child_rows = later_uses.places(inserted_rows["prompt_id"].combine_chunks())
    row_of_use = {key: row for row, key in enumerate(zip(candidate_steps, candidates.ids.to_pylist(), strict=True))}
    parent_keys = zip(inserted_rows["step"].to_pylist(), inserted_rows["parent_id"].to_pylist(), strict=True)
    parent_rows = np.array([row_of_use.get(key, -1) for key in parent_keys], dtype=np.int64)
    is_scored = (child_rows >= 0) & (parent_rows >= 0)
    if not is_scored.any():
        raise ConfigError(
            [f"iteration {iteration} cannot be audited: training has used none of its {len(inserted_rows):,} evolved prompts; train longer"]
        )
    rows = child_rows[is_scored]
    children = replace(later_uses, ids=later_uses.ids.take(pa.array(rows)), rewards=later_uses.rewards[rows])
    note = f"every step draws from the prompts that it has just used, and scores children that it draws from the buffer: {UNKNOWN_DRAW}"
    return SelectionRecord(iteration, candidates, children, 0, parent_rows[is_scored], None, note, True, None)


def _scored_uses(artifacts: Sequence[Artifact | None]) -> tuple[ScoredPrompts, list[int]]:
    """The uses of prompts whose responses are all scored, and their steps."""
    table = pa.concat_tables([_table(artifact, ["step", "prompt_id", "rewards"]) for artifact in artifacts])
    rewards = drawable(reward_matrix(table["rewards"]))
    is_scored = np.isfinite(rewards).all(axis=1)
    scored_uses = table.filter(pa.array(is_scored))
    return ScoredPrompts(scored_uses["prompt_id"].combine_chunks(), rewards[is_scored], False), scored_uses["step"].to_pylist()


def selection_records(history: History) -> Iterator[SelectionRecord]:
    """The iterations that can be read, in order."""
    for iteration in history.iterations:
        with suppress(ConfigError):
            yield selection_record(history, iteration)


def _absence(history: History, iteration: int, missing: list[str]) -> str:
    control = (history.recipe.get("creator") or {}).get("control")
    if control is not None:
        return f"the recipe's creator.control is {control}, so no prompt is evolved"
    if history.evaluation_only:
        return "the recipe only evaluates (evaluation.only), so it evolves no prompt"
    if not any(stage.name == "evolve" for stage in history.stages):
        return "the recipe has no iteration that evolves prompts (iterations: 0)"
    if iteration not in history.planned_iterations:
        return f"the recipe's last iteration is {max(history.planned_iterations)}"
    planned_labels = {stage.label for stage in history.stages}
    if "reward" in missing[-1] and missing[-1] not in planned_labels and len(missing) == 1:
        return "its evolved prompts are scored at the start of the next iteration, which the run does not have; set iterations higher"
    return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not complete; run it first"


def _scored_prompts(artifact: Artifact | None) -> ScoredPrompts:
    table = _table(artifact, ["prompt_id", "rewards", "win_probability"])
    rewards = drawable(reward_matrix(table["rewards"]))
    is_scored = np.isfinite(rewards).all(axis=1)
    ids = table["prompt_id"].combine_chunks().filter(pa.array(is_scored))
    return ScoredPrompts(ids, rewards[is_scored], "win_probability" in table.column_names)


def _table(artifact: Artifact | None, columns: list[str]) -> pa.Table:
    assert artifact is not None and artifact.rows is not None
    return read_table(artifact.rows.parent, columns)


def _evolved_prompts(mixed_set: Artifact, evolve: Artifact | None, select: Artifact | None) -> tuple[pa.Array, pa.Array]:
    """The ids of the evolved prompts of a set, and of the selected prompt that each descends from; others are left out."""
    prompts = _table(mixed_set, ["prompt_id", "parent_id", "origin"])
    evolved = prompts.filter(pc.equal(prompts["origin"], "evolved")) if "origin" in prompts.column_names else prompts.slice(0, 0)
    evolutions = _table(evolve, ["prompt_id", "parent_id"]).combine_chunks()
    selected_ids = _table(select, ["prompt_id"])["prompt_id"].combine_chunks()
    evolution_ids, evolution_parents = (evolutions[name].combine_chunks() for name in ("prompt_id", "parent_id"))
    ancestors = evolved["parent_id"].combine_chunks()
    for _ in range(LONGEST_CHAIN):
        is_selected = pc.is_in(ancestors, value_set=selected_ids)
        earlier = evolution_parents.take(pc.index_in(ancestors, value_set=evolution_ids))
        ancestors = pc.if_else(is_selected, ancestors, earlier)
    is_selected = pc.is_in(ancestors, value_set=selected_ids)
    return evolved["prompt_id"].combine_chunks().filter(is_selected), ancestors.filter(is_selected)


def _inclusion(
    recipe: Mapping[str, Any], iteration: int, candidates: ScoredPrompts, inform: Artifact | None, select: Artifact | None
) -> tuple[np.ndarray | None, str]:
    """The probability with which each candidate was drawn; None, and why, where it is not known.

    A draw without replacement by Exp(1) / w [Efraimidis and Spirakis 2006] has the candidates whose times are below a threshold t, so the
    probability is 1 - exp(-w t), with t such that the probabilities sum to the number drawn.
    """
    creator = recipe.get("creator") or {}
    selection, curate = creator.get("selection") or {}, creator.get("curate") or {}
    kind = str(selection.get("kind", "weighted"))
    weight_rows = _table(inform, ["prompt_id", "weight"])
    places = pc.index_in(candidates.ids, value_set=weight_rows["prompt_id"].combine_chunks())
    weights = pc.fill_null(weight_rows["weight"].combine_chunks().take(places), 0.0).to_numpy(zero_copy_only=False)
    size = len(_table(select, ["prompt_id"]))
    if curate.get("archive") is not None:
        return None, f"parents are drawn from the cells of an archive: {UNKNOWN_DRAW}"
    if curate.get("novelty") is not None and iteration > 1:
        return None, f"the selection also weighs novelty (creator.curate.novelty): {UNKNOWN_DRAW}"
    if kind in ("weighted", "greedy", "stratified") and (np.ptp(weights) == 0 or kind == "stratified"):
        return np.full(len(weights), min(1.0, size / len(weights))), ""
    if kind != "weighted":
        return None, f"the selection is {kind}: {UNKNOWN_DRAW}"
    if float(selection.get("topic_share") or 0):
        return None, f"the selection also weighs topics (topic_share): {UNKNOWN_DRAW}"
    positive_count = int((weights > 0).sum())
    if size >= positive_count:  # all of them, and the rest uniformly from those without weight
        return np.where(weights > 0, 1.0, (size - positive_count) / max(1, len(weights) - positive_count)), ""
    shares = weights / weights.sum()
    # the logarithm, because weights may differ by a hundred orders of magnitude; all shares sum to 1, so the threshold is at least the size
    limits = np.log(size), np.log(2.0 * size) - np.log(shares[shares > 0].min())
    threshold = brentq(lambda log_time: -np.expm1(-shares * np.exp(log_time)).sum() - size, *limits, xtol=1e-12)
    return -np.expm1(-shares * np.exp(threshold)), ""


def _training(old_rewards: Artifact | None, new_rewards: Artifact | None) -> tuple[ScoredPrompts, np.ndarray] | None:
    """Prompts answered by the policy before training on them and by the policy after; None where one of the two is missing."""
    if old_rewards is None or new_rewards is None:
        return None
    old, new = _scored_prompts(old_rewards), _scored_prompts(new_rewards)
    places = new.places(old.ids)
    is_shared = places >= 0
    if not is_shared.any():
        return None
    shared_prompts = replace(old, ids=old.ids.filter(pa.array(is_shared)), rewards=old.rewards[is_shared])
    return shared_prompts, new.rewards[places[is_shared]].mean(axis=1)
