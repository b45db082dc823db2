"""The lengths of responses for a plan, taken from complete stages rather than from a small sample of prompts.

The first that exists of: a stage, of the run or of its store, in which the same policy responded to the same prompts with the same sampling
settings; and of the earlier stages of the run that responded with these settings to prompts for training, or to the same benchmark, the
latest one with the same prompts, else with the same name, else of any name. The tokens and the work of a rate are scaled to the length:
what a probe measures is then the speed, not the length.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eva_stages.core.errors import DamagedError
from eva_stages.core.fingerprint import canonical
from eva_stages.core.kinds import Role, folder_label, parsed_label, parsed_name
from eva_stages.core.manifests import read_manifest
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import Stage
from eva_stages.planning.rates import Line, Rate

RESPONDING = "eva_stages.core.responding:Respond"
NAMES_OF_MODELS = ("label", "model")
"""Arguments of a generator that name its model, which the stage's inputs identify."""


def response_lengths(run: Run, stages: Sequence[Stage]) -> dict[str, float]:
    """Tokens per response of the stages to do, by fingerprint, where a complete stage shows them."""
    waiting_stages = [stage for stage in stages if is_responding(stage.name) and not run.is_complete(stage)]
    if not waiting_stages:
        return {}
    stored_lengths = _stored_lengths(run)
    complete_stages = [stage for stage in stages if is_responding(stage.name) and run.is_complete(stage)]
    lengths = {}
    for stage in waiting_stages:
        sampling = _sampling(stage.payload["work"])
        inputs = {name: upstream.fingerprint for name, upstream in stage.inputs.items()}
        earlier_stages = [
            earlier_stage
            for earlier_stage in complete_stages
            if earlier_stage.iteration <= stage.iteration
            and _subject(earlier_stage) == _subject(stage)
            and _sampling(earlier_stage.payload["work"]) == sampling
        ]
        closest_last = sorted(earlier_stages, key=lambda earlier: (_prompts(earlier) == _prompts(stage), earlier.name == stage.name))
        manifests = (run.manifest(earlier_stage) for earlier_stage in reversed(closest_last))
        known_lengths = [stored_lengths.get(_key(inputs, sampling)), *(_length(manifest) for manifest in manifests)]
        if (length := next((length for length in known_lengths if length is not None), None)) is not None:
            lengths[stage.fingerprint] = length
    return lengths


def is_responding(name: str) -> bool:
    """Whether a policy responds in a stage of that name."""
    return parsed_name(name).kind.role == Role.RESPONSES


def responses_per_row(stage: Stage) -> int:
    return sum(int(step["arguments"].get("num_generations", 1)) for step in _steps(stage.payload["work"]))


def rate_at_length(rate: Rate | None, output_tokens: float) -> Rate | None:
    """A rate with other generated tokens per unit, and with the work in proportion to them, where its own tokens are known."""
    if rate is None or not rate.output_tokens:
        return rate
    ratio = output_tokens / rate.output_tokens

    def scaled_line(line: Line) -> Line:
        return line.model_copy(update={"seconds_per_unit": line.seconds_per_unit * ratio})

    lines = {name: scaled_line(line) for name in ("fastest", "slowest") if (line := getattr(rate, name)) is not None}
    return rate.model_copy(update={**lines, "seconds_per_unit": rate.seconds_per_unit * ratio, "output_tokens": output_tokens})


def _subject(stage: Stage) -> tuple[str | None, bool]:
    """What the prompts of a stage are: a benchmark's questions, the probe of the health figures, or prompts for training."""
    return stage.benchmark, stage.side is None


def _prompts(stage: Stage) -> set[str]:
    return {upstream.fingerprint for name, upstream in stage.inputs.items() if name != "policy"}


def _stored_lengths(run: Run) -> dict[str, float]:
    """Tokens per response by policy, prompts and sampling, of the complete stages of the run and its store."""
    lengths: dict[str, float] = {}
    folders = {path.name: path for root in {run.store.stages, run.stages} if root.is_dir() for path in root.iterdir()}
    for name, folder in sorted(folders.items()):
        number, stage_name = parsed_label(folder_label(name))
        if number is None or not is_responding(stage_name):
            continue
        try:
            manifest = read_manifest(folder)
        except DamagedError:  # deleted meanwhile, or not eva's
            continue
        inputs = {name: str(entry["fingerprint"]) for name, entry in manifest["inputs"].items()}
        if (length := _length(manifest)) is not None:
            lengths[_key(inputs, _sampling(manifest.get("work")))] = length
    return lengths


def _length(manifest: Mapping[str, Any]) -> float | None:
    counts = manifest["counts"]
    responses = counts.get("responses")
    return counts["output_tokens"] / responses if responses and "output_tokens" in counts else None


def _key(inputs: Mapping[str, str], sampling: str) -> str:
    return json.dumps([inputs, sampling], sort_keys=True)


def _sampling(work: Any) -> str:
    """The generators of a stage with their settings, without the names of their models."""
    generators = [step["arguments"]["llm"] for step in _steps(work)]
    settings = [
        {**llm, "arguments": {name: value for name, value in llm["arguments"].items() if name not in NAMES_OF_MODELS}} for llm in generators
    ]
    return canonical(settings)


def _steps(work: Any) -> Iterable[Mapping[str, Any]]:
    steps = work.get("steps", []) if isinstance(work, Mapping) else []
    return [step for step in steps if step.get("target") == RESPONDING]
