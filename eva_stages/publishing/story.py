"""What a push of a run is made of: its finished stages, told as a story, and the repositories they go to."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError, EvaError, HubError, StageError
from eva_stages.core.manifests import content
from eva_stages.core.progress import Reporter
from eva_stages.core.rounds import Iteration
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import execute
from eva_stages.core.stage import Outside, Stage, closure
from eva_stages.models.loading import LETTERCRAFT, from_hub
from eva_stages.publishing.artifacts import Artifact, Base, Story, configuration
from eva_stages.publishing.contents import REPORT, Selection, repositories
from eva_stages.publishing.hub import Hub
from eva_stages.publishing.privacy import SERVER, Privacy, hosts_of
from eva_stages.publishing.pushing import Outcome, Record, preview, push, tie
from pipelines.iteration import iterations

OPEN = {"license": "apache-2.0"}
UNKNOWN = {"license": "unknown"}


def push_run(
    run: Run, recipe: Recipe, namespace: str, private: bool, selection: Selection, dry_run: bool, say: Callable[[str], None]
) -> tuple[list[Outcome], str | None]:
    """Push what the selection takes of a run; returns what became of each repository, and the collection's slug.

    Raises:
        ConfigError: if there is nothing to push, or it must not be pushed there; nothing has been sent then.
        HubError: if the Hub gives up on us; the same push goes on.
    """
    hub = None if dry_run else Hub(say)
    if hub is not None:
        hub.check_account(namespace)
    hosts = hosts_of(recipe.model_dump(mode="json"))
    privacy = Privacy(run.root, (hub.token,) if hub is not None and hub.token else (), hosts)
    if hosts:
        say(f"api_base is left out of what is published, and {', '.join(hosts)} stands as {SERVER} in it")
    story = tell(run, recipe, iterations(recipe), namespace, privacy)
    own = {stage.folder for one in iterations(recipe) for stage in closure(list(one.stages))}
    if outdated := [artifact.folder.name for artifact in story.artifacts if artifact.folder.name not in own]:
        say(f"{len(outdated)} stages were made by another version of eva or from other inputs ({outdated[0]}, ...); they go as they are")
    record = Record(run.root)
    report = run.root / REPORT
    _check(run, story, selection, report)
    if selection.only is None and not report.is_file():
        say(f"no report yet: `eva report {run.root.name}` makes one, and the next push takes it along")
    with tempfile.TemporaryDirectory() as scratch:
        wanted = repositories(story, selection, report, record.files, privacy, Path(scratch))
        if hub is None:
            return preview(wanted, record), record.collections.get(namespace)
        outcomes = push(run, wanted, record, hub, private, say)
    return outcomes, tie(wanted, record, hub, f"eva: {story.name}", namespace, private)


def tell(run: Run, recipe: Recipe, rounds: list[Iteration], namespace: str, privacy: Privacy) -> Story:
    """A run as its cards tell it."""
    stages = closure([stage for one in rounds for stage in one.stages])
    prompt_sets = {one.prompts.fingerprint: one.number for one in rounds}
    artifacts: dict[str, Artifact] = {}
    for stage in stages:
        if run.done(stage):
            number = prompt_sets.get(stage.fingerprint)
            name = configuration(stage.name, stage.iteration) if number is None else f"prompts-{number}"
            name = name if name not in artifacts else f"{name}-{stage.fingerprint[:6]}"
            artifacts[name] = Artifact(name, stage.name, stage.iteration, run.place(stage), run.manifest(stage))
    by_folder = {artifact.folder: artifact for artifact in artifacts.values()}
    policies = {
        one.number: by_folder[run.place(one.solver[-1])]
        for one in rounds
        if run.place(one.solver[-1]) in by_folder and content(run.place(one.solver[-1])).name == "model"
    }
    outside = {upstream.name: upstream for stage in stages for upstream in stage.inputs.values() if isinstance(upstream, Outside)}
    return Story(
        name=run.root.resolve().name,
        namespace=namespace,
        recipe=privacy.settings(_pinned(recipe.model_dump(mode="json", exclude={"publish": True, "runtime": {"engine"}}), outside)),
        artifacts=tuple(artifacts.values()),
        policies=policies,
        base=_base(recipe, stages),
        prompts_licence=OPEN if recipe.prompts.kind == "lettercraft" else UNKNOWN,
    )


def _pinned(value: Any, outside: Mapping[str, Outside]) -> Any:
    """A recipe with every Hub model at the commit that was used."""
    if isinstance(value, dict):
        pinned = {key: _pinned(item, outside) for key, item in value.items()}
        model = pinned.get("model")
        if "revision" in pinned and isinstance(model, str) and model in outside and from_hub(model):
            pinned["revision"] = outside[model].digest
        return pinned
    return [_pinned(item, outside) for item in value] if isinstance(value, list) else value


def _base(recipe: Recipe, stages: list[Stage]) -> Base:
    """theta_0: the checkpoint from outside that stages know as `policy`."""
    found = (up for stage in stages for name, up in stage.inputs.items() if name == "policy" and isinstance(up, Outside))
    policy = next(found)
    model = recipe.policy.model
    if model == LETTERCRAFT:
        return Base(LETTERCRAFT, None, policy.digest, OPEN)
    licence = _licence(policy.path)
    if not from_hub(model):
        return Base(policy.name, None, policy.digest, licence)
    return Base(model, model, policy.digest, licence)


def _licence(folder: Path) -> Mapping[str, str]:
    """The licence that a checkpoint's own card gives it."""
    card = folder / "README.md"
    if not card.is_file():
        return UNKNOWN
    data = ModelCard.load(card, ignore_metadata_errors=True).data
    names = ("license", "license_name", "license_link")
    return {name: str(value) for name in names if (value := data.get(name))} or UNKNOWN


def _check(run: Run, story: Story, selection: Selection, report: Path) -> None:
    try:
        validate_repo_id(story.model(max(story.policies, default=0)))
    except HFValidationError as error:
        raise ConfigError(
            [f"{story.model(0)} can be no repository ({error}); rename the run's folder {run.root}, or give another --to"]
        ) from error
    if selection.only == "report":
        if not report.is_file():
            raise ConfigError([f"{run.root.name} has no {REPORT}; make it first: eva report {run.root.name}"])
        return
    taken = [artifact for artifact in story.artifacts if selection.takes(artifact)]
    if not taken:
        known = sorted({artifact.iteration for artifact in story.artifacts})
        where = f" in iteration {selection.iteration}; iterations with finished stages: {known}" if known else ""
        raise ConfigError([f"{run.root.name} has nothing finished{where}; run `eva run` first"])
    if selection.only == "models" and not any(selection.takes(policy) for policy in story.policies.values()):
        raise ConfigError(
            [f"{run.root.name} has no trained policy{'' if selection.iteration is None else f' of iteration {selection.iteration}'} yet"]
        )


def execute_and_publish(
    run: Run, recipe: Recipe, rounds: list[Iteration], chosen: Sequence[Stage], reporter: Reporter, repair: bool = False
) -> None:
    """Bring the chosen stages to done; if the recipe asks for it, push the run after each iteration that is whole.

    A push that fails is told and does not stop the run, because the next one takes everything along.

    Raises:
        StageError: as `execute`; and at the end if the last push failed.
    """
    if recipe.publish is None:
        execute(run, chosen, reporter, recipe.runtime.engine, repair)
        return
    failure: EvaError | None = None
    for one in rounds:
        own = {stage.fingerprint for stage in one.stages}
        execute(run, [stage for stage in chosen if stage.fingerprint in own], reporter, recipe.runtime.engine, repair)
        if not all(run.done(stage) for stage in one.stages):
            continue
        try:
            push_run(run, recipe, recipe.publish.to, recipe.publish.private, Selection(), False, reporter.say)
            failure = None
        except (HubError, ConfigError) as error:
            failure = error
            run.event("not-published", iteration=one.number, cause=str(error).splitlines()[0])
            reporter.say(f"iteration {one.number} is not published: {error}")
    if failure is not None:
        raise StageError(f"all stages are done, but the last push failed: {failure}")
