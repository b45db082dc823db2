"""The seed prompts of a run, and the later parts of the same source."""

from eva_stages.core.config.prompts_config import FilePrompts, HubPrompts, LettercraftPrompts, ReasoningGymPrompts
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.fingerprint import fingerprint
from eva_stages.core.homes import FileSource
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import FunctionStage, Stage, Use


def prompts_stage(recipe: Recipe, resolved: Resolved, part: int = 0) -> Stage:
    """The seed prompts X_0, or the `part`-th set of as many other prompts of the source, disjoint from all before it."""
    prompts = recipe.prompts
    part_setting = {"part": part} if part else {}
    seed_setting = {} if prompts.size is None else {"seed": recipe.seed}
    policy = resolved.checkpoint(recipe.policy.model, recipe.policy.revision)
    template = {"chat_template": fingerprint(policy.template)}
    if isinstance(prompts, FilePrompts):
        file = resolved.file(FileSource(prompts.path))
        settings = prompts.model_dump(include={"column", "reference_column", "size", "max_characters"})
        load = Use(
            "eva_stages.creator.prompt_loading:load_file",
            {**settings, **seed_setting, **part_setting, **template},
            {"file": str(file.path), "policy": str(policy.path)},
        )
        return FunctionStage("prompts", part, {"file": file}, version=4, function=load)
    if isinstance(prompts, HubPrompts):
        settings = {**prompts.model_dump(exclude={"kind"}), "revision": resolved.commit}
        load = Use(
            "eva_stages.creator.hub_prompts:load_hub",
            {**settings, **seed_setting, **part_setting, **template},
            {"policy": str(policy.path)},
        )
        return FunctionStage("prompts", part, {}, version=3, function=load)
    if isinstance(prompts, ReasoningGymPrompts):
        settings = {**prompts.model_dump(exclude={"kind"}), "seed": recipe.seed, "package": resolved.tasks_version, **part_setting}
        return FunctionStage("prompts", part, {}, function=Use("eva_stages.creator.task_prompts:load_tasks", settings))
    name = prompts.fresh if part and prompts.fresh else prompts.distribution
    distribution = {} if name == "classic" else {"distribution": name}
    settings = {"size": prompts.size, "seed": recipe.seed, **part_setting, **distribution, **references_setting(recipe)}
    load = Use("eva_stages.creator.prompt_loading:load_lettercraft", settings)
    return FunctionStage("prompts", part, {}, function=load)


def references_setting(recipe: Recipe) -> dict[str, bool]:
    """The argument that gives Lettercraft's prompts their references; none without `prompts.references`."""
    has_references = isinstance(recipe.prompts, LettercraftPrompts) and recipe.prompts.references
    return {"references": True} if has_references else {}
