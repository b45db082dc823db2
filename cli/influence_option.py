"""`eva audit RUN --influence N`: compute the one-step influence of an iteration's prompts and save it beside the run's stages."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from eva_stages.api.preparing import prepare

if TYPE_CHECKING:
    from eva_stages.core.run_folder import Run
    from eva_stages.core.stage import FunctionStage
    from eva_stages.views.history import Artifact, History

LOG = "influence.log"


def compute_influence(run: "Run", history: "History", iteration: int, size: int) -> None:
    """Compute the influence of up to `size` prompts, unless the file of the iteration's training has it already.

    Raises:
        ConfigError: if the iteration has no pairs, the recipe no longer describes its training, or a model is gone.
        StageError: with the cause, if the computation fails.
    """
    import tempfile

    from eva_stages.core.durable import writing_to
    from eva_stages.core.progress import Reporter
    from eva_stages.core.sockets import use_short_temporary_folder
    from eva_stages.solver.influence import VERSION, measure_influence
    from eva_stages.views.influence_file import FOLDER, influence_path, saved_facts, write_influence

    training = _training(history, iteration)
    path = influence_path(run.root, training.planned_stage.folder)
    identity = {"version": VERSION, "fingerprint": training.manifest["fingerprint"], "requested_prompts": size}
    if identity.items() <= saved_facts(path).items():
        return
    stage = _described_stage(run, training)
    inputs = {name: _input_folder(history, training, stage, name) for name in stage.inputs}
    use_short_temporary_folder()
    reporter, prompts = Reporter(), history.prompt_sets[iteration]
    reporter.say(f"influence: starts on the policy and the pairs of {iteration}-train")
    arguments = {**stage.function.arguments, **stage.function.runtime}
    with writing_to(run.root):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="work-", dir=path.parent) as name:
            result = measure_influence(Path(name).resolve(), run.root / FOLDER / LOG, inputs, arguments, prompts.content, size)
        facts = {
            **identity,
            "held_out_pairs": result.held_out_count,
            "learning_rate": stage.function.arguments["training"]["learning_rate"],
        }
        write_influence(path, result.prompt_ids, result.values, facts)
    reporter.say(f"influence: done, {len(result.prompt_ids):,} prompts, {result.held_out_count:,} held-out pairs")


def _training(history: "History", iteration: int) -> "Artifact":
    """The training of an iteration, if it is over pairs."""
    from eva_stages.core.errors import ConfigError

    training = history.find("train", iteration)
    if training is None:
        raise ConfigError([f"--influence: {iteration}-train is not complete; run it first"])
    if "pairs" not in training.inputs:
        raise ConfigError(["--influence: it is the effect of a step on a prompt's pair, and this training samples its own responses"])
    return training


def _described_stage(run: "Run", training: "Artifact") -> "FunctionStage":
    """The training as the run's recipe describes it now. Only its own settings must be as they were, not those of earlier stages."""
    from eva_stages.core.errors import ConfigError
    from eva_stages.core.recipe_files import load_recipe
    from eva_stages.core.stage import FunctionStage

    rounds = prepare(load_recipe(str(run.root / "recipe.yaml"), []), run, keys=False).rounds
    stages = [stage for number in rounds if number.number == training.iteration for stage in number.solver if stage.name == "train"]
    stage = stages[-1] if stages else None
    if not isinstance(stage, FunctionStage) or json.loads(json.dumps(stage.work())) != training.manifest["work"]:
        raise ConfigError(
            [f"--influence: {run.root / 'recipe.yaml'} now describes another {training.stage} than the run has; rerun the recipe first"]
        )
    return stage


def _input_folder(history: "History", training: "Artifact", stage: "FunctionStage", name: str) -> Path:
    """The folder of an input of a training: the run's artifact, or what eva did not build, if its content is as it was."""
    from eva_stages.core.errors import ConfigError
    from eva_stages.core.stage import Outside

    if (artifact := history.input_artifact(training, name)) is not None:
        return artifact.content
    upstream, digest = stage.inputs[name], training.manifest["inputs"][name]["digest"]
    if not isinstance(upstream, Outside) or upstream.digest != digest:
        raise ConfigError([f"--influence: the {name} that {training.planned_stage.label} used is no longer there; restore it"])
    return upstream.path
