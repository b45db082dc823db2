"""Where a run's prompts come from: the seed prompts, and the parts of the same source that follow them."""

from pathlib import Path

from eva_stages.core.config.prompts_config import FilePrompts, HubPrompts
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.errors import ConfigError
from eva_stages.core.fingerprint import file_digest, fingerprint
from eva_stages.core.stage import FunctionStage, Outside, Stage, Use
from eva_stages.creator.hub_prompts import dataset_commit
from eva_stages.models.conversation import template_source
from eva_stages.models.loading import locate


def prompts_stage(recipe: Recipe, part: int = 0) -> Stage:
    """The seed prompts X_0, or the `part`-th set of as many other prompts of the source, disjoint from all before it."""
    prompts = recipe.prompts
    which = {"part": part} if part else {}
    drawn = {} if prompts.size is None else {"seed": recipe.seed}
    folder = locate(recipe.policy.model, recipe.policy.revision, "policy.model")
    template = {"chat_template": fingerprint(template_source(folder))}
    if isinstance(prompts, FilePrompts):
        path = Path(prompts.path).expanduser()
        if not path.is_file():
            raise ConfigError([f"prompts.path: there is no file {path}"])
        settings = prompts.model_dump(include={"column", "reference_column", "size", "max_characters"})
        load = Use(
            "eva_stages.creator.prompt_loading:load_file",
            {**settings, **drawn, **which, **template},
            {"file": str(path), "policy": str(folder)},
        )
        return FunctionStage("prompts", part, {"file": Outside(path.name, path, file_digest(path))}, version=4, function=load)
    if isinstance(prompts, HubPrompts):
        settings = {**prompts.model_dump(exclude={"kind"}), "revision": dataset_commit(prompts.id, prompts.revision)}
        load = Use("eva_stages.creator.hub_prompts:load_hub", {**settings, **drawn, **which, **template}, {"policy": str(folder)})
        return FunctionStage("prompts", part, {}, version=3, function=load)
    load = Use("eva_stages.creator.prompt_loading:load_lettercraft", {"size": prompts.size, "seed": recipe.seed, **which})
    return FunctionStage("prompts", part, {}, function=load)
