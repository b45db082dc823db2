"""Cards of data sets and models: figures from the manifests, put into the templates of `hub_cards/`.

Everything that comes from data is escaped for HTML (the environment's own escaping) and, outside code blocks, for Markdown too.
Metadata are made with `huggingface_hub`'s card classes, so scores appear in the card as the Hub's model-index. The licence of a
policy is the one that its base policy states.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.parquet as pq
import yaml
from huggingface_hub import DatasetCardData, EvalResult, ModelCardData
from markupsafe import Markup

from eva_stages.core.kinds import BASE, Role
from eva_stages.core.ourfiles import parquet_errors
from eva_stages.core.progress import dollars
from eva_stages.models.weights import ADAPTER
from eva_stages.publishing.card_scores import SCORES_ROWS, main_scores
from eva_stages.publishing.story import Story
from eva_stages.publishing.templates import template_environment
from eva_stages.views.history import COST, TOKENS, Artifact
from eva_stages.views.policy_costs import cost_sentence, costs_of
from eva_stages.views.recorded_scores import Score, scores

PAPER = "2411.00062"
MARKDOWN = str.maketrans({character: f"&#{ord(character)};" for character in "&<>\"'\\`*_{}[]()#!|~:@"})
EXAMPLE_CHARACTERS = 600
ADAPTER_WEIGHTS = "adapter_model.safetensors"
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"), (10**8, "10M<n<100M"))
TAGS = ["eva", "rlhf", "preference-optimization", f"arxiv:{PAPER}"]


def dataset_card(story: Story, listed_artifacts: list[Artifact]) -> str:
    """README.md of the data set repository, which holds the rows of the listed artifacts."""
    row_artifacts = [artifact for artifact in listed_artifacts if artifact.rows is not None]
    default = next(
        (artifact.name for kind in ("rewritten", "pair", "mix") for artifact in reversed(row_artifacts) if artifact.stage == kind),
        row_artifacts[0].name if row_artifacts else "",
    )
    configs = [
        {
            "config_name": artifact.name,
            "data_files": [{"split": "train", "path": f"{artifact.name}/rows.parquet"}],
            **({"default": True} if artifact.name == default else {}),
        }
        for artifact in row_artifacts
    ]
    if every_score := scores(story.artifacts):
        configs.append({"config_name": "scores", "data_files": [{"split": "train", "path": SCORES_ROWS}]})
    rows = sum(artifact.manifest["rows"] for artifact in row_artifacts)
    data = DatasetCardData(
        pretty_name=story.name,
        task_categories=["text-generation"],
        size_categories=[next((size for limit, size in SIZES if rows < limit), "n>100M")],
        tags=[*TAGS, "distilabel"],
        configs=configs,
    )
    for name, value in story.prompts_licence.items():
        data[name] = value
    training_table = _training(story.policies)
    return _card(
        data.to_yaml(),
        "dataset.md.jinja",
        story,
        settings=_settings(story.recipe),
        contents=_contents(row_artifacts),
        default=default,
        figures=main_scores(every_score),
        score_count=len(every_score),
        pair=_example(row_artifacts),
        trained=training_table,
    )


def model_card(story: Story, key: str) -> str:
    """README.md of the model repository `key`."""
    model = story.models[key]
    is_creator, iteration = model.kind.role == Role.CREATOR, model.iteration
    is_adapter = (model.content / ADAPTER_WEIGHTS).is_file()
    every_score = scores(story.artifacts)
    figures = [score for score in every_score if score.policy == f"iteration {iteration}" and not is_creator]
    results = [_result(score) for score in figures if score.low is not None]
    loss = str(story.recipe["creator"]["training"]["objective"] if is_creator else story.recipe["solver"]["loss"]["kind"])
    name, base = key.partition("/")[2], story.base_of(model)
    adapted_model = story.adapted_model(model)
    data = ModelCardData(
        base_model=adapted_model if is_adapter else base.hub_id,
        datasets=[story.dataset],
        library_name="peft" if is_adapter else "transformers",
        pipeline_tag="text-generation",
        tags=[*TAGS, "trl", loss],
        model_name=name if results else None,  # without results the Hub rejects it as an unknown field
        eval_results=results or None,
    )
    relation = {"base_model_relation": "adapter" if is_adapter else "finetune"} if data.base_model else {}
    for field, value in {**relation, **base.licence}.items():
        data[field] = value
    template_values = {
        "iteration": iteration,
        "key": key,
        "name": name,
        "settings": _settings(story.recipe, is_creator),
        "policy": model,
        "noun": "creator" if is_creator else "policy",
        "base": base,
        "start": story.start(model, "adapter" if is_adapter else "policy"),
        "adapted": adapted_model or base.name,
        "adapted_is_pushed": adapted_model is not None,
        "is_adapter": is_adapter,
        "has_adapter": (model.content / ADAPTER / ADAPTER_WEIGHTS).is_file(),
        "figures": [] if is_creator else main_scores([score for score in every_score if score.policy in (BASE, f"iteration {iteration}")]),
        "score_count": len(every_score),
        "trained": _training({iteration: model}),
    }
    return _card(data.to_yaml(), "model.md.jinja", story, **template_values)


def _contents(row_artifacts: Sequence[Artifact]) -> list[dict[str, Any]]:
    """What the data set has: one entry per kind of rows, with its configurations."""
    kinds: dict[str, dict[str, Any]] = {}
    for artifact in row_artifacts:
        entry = kinds.setdefault(artifact.name.rpartition("-")[0], {"names": [], "rows": 0, "holds": artifact.holds})
        entry["names"].append(artifact.name)
        entry["rows"] += artifact.manifest["rows"]
    return list(kinds.values())


def _result(score: Score) -> EvalResult:
    return EvalResult(
        task_type="text-generation",
        dataset_type=score.benchmark,
        dataset_name=score.benchmark,
        metric_type=score.name.replace(" ", "_"),
        metric_name=score.name.replace("_", " "),
        metric_value=score.value,
        metric_args={"low": score.low, "high": score.high, "n": score.n},
    )


def _card(metadata: str, template: str, story: Story, **values: Any) -> str:
    environment = template_environment(keep_trailing_newline=True)
    environment.filters |= {"md": markdown, "figure": figure, "code": code, "shown": visible, "seconds": seconds, "dollars": dollars}
    last = story.artifacts[-1].manifest
    costs = costs_of(story.root, story.artifacts)
    text = environment.get_template(template).render(
        story=story,
        recipe=yaml.safe_dump(dict(story.recipe), sort_keys=False, allow_unicode=True),
        command=command(story),
        costs=costs,
        cost=cost_sentence(costs["total"]),
        cost_sentence=cost_sentence,
        total={name: sum(artifact.manifest["counts"].get(name, 0) for artifact in story.artifacts) for name in (*TOKENS, COST)},
        all_seconds=sum(artifact.manifest["seconds"] for artifact in story.artifacts),
        packages=last["packages"],
        python=last["python"],
        revision=last["git"],
        paper=PAPER,
        **values,
    )
    return f"---\n{metadata}\n---\n\n{text.strip()}\n"


def command(story: Story) -> str:
    """The commands that run the recipe again. Prompts from a file are read from the pushed data set."""
    lines = [f"hf download {story.dataset} recipe.yaml --repo-type dataset --local-dir ."]
    run = "eva run recipe.yaml"
    if story.recipe["prompts"]["kind"] == "file" and story.seeds:
        run += f" --set 'prompts={{kind: hub, id: {story.dataset}, config: {story.seeds}, reference_column: reference}}'"
    return "\n".join([*lines, run])


def _settings(recipe: Any, is_creator: bool = False) -> list[tuple[str, str]]:
    """The most important settings, where the recipe has them: with the training of the solver, or that of the creator."""
    training = "creator.training" if is_creator else "solver.training"
    places = {
        "mode": "mode",
        "optimiser steps per iteration": "online.interval",
        "buffer, in prompts": "online.buffer.size",
        "share drawn from the buffer": "online.buffer.share",
        "lag, in optimiser steps": "online.lag",
        "policy": "policy.model",
        "reward": "reward.kind",
        "reward model": "reward.model",
        "informativeness": "creator.metric",
        "selection": "creator.selection.kind",
        "evolution": "creator.evolve.method",
        "evolver": "creator.evolve.generator.kind",
        "evolver model": "creator.evolve.generator.model",
        "share of evolved prompts": "creator.mix.evolved_share",
        "responses per prompt": "creator.responses" if is_creator else "solver.responses",
        "loss": "creator.training.objective" if is_creator else "solver.loss.kind",
        "beta": "creator.training.beta" if is_creator else "solver.loss.beta",
        "learning rate": f"{training}.learning_rate",
        "batch size": f"{training}.batch_size",
        "epochs": f"{training}.epochs",
        "seed": "seed",
    }
    settings = []
    for name, place in places.items():
        value: Any = recipe
        for key in place.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            settings.append((name, str(value)))
    unused_names = {"evolution"} if ("evolver", "function") in settings else set()
    unused_names |= {"share of evolved prompts", "epochs"} if recipe.get("mode") == "online" else set()
    return [(name, value) for name, value in settings if name not in unused_names]


def _training(policies: Mapping[int, Artifact]) -> dict[str, Any]:
    """A table of trainings: whatever they counted and measured, one row each."""
    figures = {number: {**policy.counts, **policy.manifest.get("training", {})} for number, policy in policies.items()}
    columns = dict.fromkeys(name for figures_of_policy in figures.values() for name in figures_of_policy)
    return {
        "columns": list(columns),
        "rows": [(number, figures[number], policy.manifest["seconds"]) for number, policy in policies.items()],
    }


def _example(row_artifacts: list[Artifact]) -> dict[str, Any] | None:
    """The first pair of the last iteration that has pairs."""
    for artifact in reversed(row_artifacts):
        if artifact.stage == "pair" and artifact.rows is not None and artifact.manifest["rows"]:
            with parquet_errors(artifact.rows):
                row: dict[str, Any] = next(pq.ParquetFile(artifact.rows).iter_batches(batch_size=1)).to_pylist()[0]
            return row
    return None


# --- filters -----------------------------------------------------------------------------------------------------------


def markdown(text: Any) -> Markup:
    """Text that means nothing to Markdown or HTML, on one line."""
    plain = visible(" ".join(str(text).split()))
    return Markup(plain.translate(MARKDOWN).replace("www.", "www&#46;"))


def code(text: Any, language: str = "") -> Markup:
    """A fenced code block that its content cannot end."""
    plain = visible(str(text).rstrip("\n"), None)
    fence = "```"
    while fence in plain:
        fence += "`"
    return Markup(f"{fence}{language}\n{plain}\n{fence}")


def visible(text: str, limit: int | None = EXAMPLE_CHARACTERS) -> str:
    """Text without control and direction characters, cut at `limit` characters, with the full length added."""
    shortened_text = text if limit is None or len(text) <= limit else f"{text[:limit]} ... ({len(text):,} characters)"
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_hidden(character) else character for character in shortened_text)


def _is_hidden(character: str) -> bool:
    category = unicodedata.category(character)
    return (category == "Cc" and character not in "\n\t") or (category == "Cf" and unicodedata.bidirectional(character) != "BN")


def figure(value: float) -> str:
    """A number as cards show it: integers in full, others with four decimals."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4f}"


def seconds(value: float) -> str:
    """Seconds as cards show them."""
    return f"{value:,.1f}"
