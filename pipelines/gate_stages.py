"""The gate and its audit."""

from typing import Any

from eva_stages.core.config.gate_config import Gate, GateAudit
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import Outside, RowStage, Stage, Use
from eva_stages.creator.gate_questions import judged_tests
from pipelines.model_calls import generator
from pipelines.seeds import sampling_seed
from pipelines.stage_limits import failed_calls
from pipelines.table_stages import table_stage

GATE = "creator.curate.gate"


def gate_stages(
    recipe: Recipe, resolved: Resolved, iteration: int, prompts: Stage, present: Stage, evolved: Stage, policy: Stage | Outside
) -> tuple[Stage, ...]:
    """From the evolved prompts to those that are valid tasks, which are the last stage; none without `creator.curate.gate`.

    Args:
        prompts: the evolved prompts after curation.
        present: the current prompt set.
        evolved: all evolutions.
        policy: for a judge of kind `policy`.
    """
    gate = recipe.creator.curate.gate
    if gate is None:
        return ()
    sources = {"prompts": prompts, "present": present, "evolved": evolved}
    parents = table_stage("gate-parents", iteration, sources, "eva_stages.creator.gate:GateParents")
    tests = gate_tests(gate, resolved)
    verdicts = _verdicts(recipe, resolved, "gate-verdicts", iteration, {"prompts": prompts, "parents": parents}, policy, gate, tests)
    inputs = {"prompts": prompts, "verdicts": verdicts}
    valid_prompts = table_stage("gate", iteration, inputs, "eva_stages.creator.gate:Gate")
    if gate.audit is None:
        return parents, verdicts, valid_prompts
    settings = {"size": gate.audit.sample, "seed": derive_seed(recipe.seed, "gate-sample", iteration)}
    sample = table_stage("gate-sample", iteration, inputs, "eva_stages.creator.gate:SampleGate", settings)
    own_tests = _answerable(gate.audit, resolved)
    audit = _verdicts(recipe, resolved, "gate-audit", iteration, {"sample": sample}, policy, gate.audit, own_tests)
    return parents, verdicts, sample, audit, valid_prompts


def gate_tests(gate: Gate, resolved: Resolved) -> dict[str, Any]:
    """The arguments of `JudgeValidity` for a gate's tests, without its judge."""
    tests = {name: getattr(gate, name) for name in ("max_length_ratio", "min_zlib_ratio") if getattr(gate, name) is not None}
    return {**tests, **({"relevant": True} if gate.relevant else {}), **_answerable(gate, resolved)}


def _answerable(config: Gate | GateAudit, resolved: Resolved) -> dict[str, Any]:
    return {} if config.answerable is None else {"answerable": resolved.function(config.answerable)}


def _verdicts(
    recipe: Recipe,
    resolved: Resolved,
    name: str,
    iteration: int,
    sources: dict[str, Stage],
    policy: Stage | Outside,
    config: Gate | GateAudit,
    tests: dict[str, Any],
) -> RowStage:
    """The verdicts of a gate's tests, or of its audit's."""
    place = GATE if isinstance(config, Gate) else f"{GATE}.audit"
    settings = {**tests}
    inputs: dict[str, Stage | Outside] = {**sources}
    if config.judge is not None and judged_tests(config):
        judge, judge_inputs = generator(config.judge, recipe, resolved, policy, "judge")
        settings |= {"llm": judge, **sampling_seed(recipe, judge, name, iteration)}
        inputs |= judge_inputs
    return RowStage(
        name,
        iteration,
        inputs,
        sources=tuple(sources),
        steps=(Use("eva_stages.creator.gate:JudgeValidity", settings),),
        limits=(failed_calls("gate", recipe.limits.ungated, place, "limits.ungated"),),
        rows_per_part=recipe.runtime.rows_per_part,
    )
