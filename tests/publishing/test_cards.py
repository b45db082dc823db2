"""Cards: every number is the manifest's, metadata are what the Hub takes, and nothing from data acts in them."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from huggingface_hub import DatasetCard, EvalResult, ModelCard
from markdown_it import MarkdownIt

from eva_stages.core.errors import DamagedError
from eva_stages.core.planned_stages import stage_of_folder
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.run_folder import Run
from eva_stages.core.tables import write_rows
from eva_stages.publishing.card_scores import MOST_SCORES, main_scores, score_files
from eva_stages.publishing.cards import command, dataset_card, model_card
from eva_stages.publishing.privacy import Privacy
from eva_stages.publishing.story import Base, Story, story_of
from eva_stages.views.history import History, read_history
from eva_stages.views.recorded_scores import scores
from tests.conftest import manifests
from tests.hub_cards_check import card_faults

HOSTILE = {
    "html": "<script>alert(1)</script><img src=x onerror=alert(2)></pre><b>",
    "markdown": "![x](http://evil.example/x.png) [y](javascript:alert(3)) | a | b |\n\n# heading\n```\nfence\n```\n---\nlicense: mit\n---",
    "control": "a\x00b\x1b[31mred\x07\x7f",
    "direction": "\u202egnp.exe\u2066 \u0645\u0631\u062d\u0628\u0627",
    "emoji": "\U0001f469\u200d\U0001f4bb\U0001f3f3\ufe0f",
    "long": "<i>" + "x" * 100_000,
    "template": "{{ 7 * 7 }} {% for x in y %}",
}


@pytest.fixture(scope="module")
def story(tiny_run: Path) -> Story:
    return story_of(read_history(Run(tiny_run)), "tester", Privacy(tiny_run))


def rows_of(card: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    section = card.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def is_same_figure(shown_text: str, value: float, decimals: int = 4) -> bool:
    return shown_text == (f"{value:,}" if isinstance(value, int) else f"{value:,.{decimals}f}")


def test_every_figure_of_what_was_counted_is_the_manifest_s(story: Story, tiny_run: Path) -> None:
    by_print = {manifest["fingerprint"]: manifest for manifest in manifests(tiny_run).values()}
    *rows, total = rows_of(dataset_card(story, list(story.artifacts)), "Counts")
    assert len(rows) == len(by_print) == len(story.artifacts)
    for artifact, (name, counts, input_tokens, output_tokens, usd, seconds) in zip(story.artifacts, rows, strict=True):
        manifest = by_print[artifact.manifest["fingerprint"]]
        assert name == f"`{artifact.name}`"
        figure_texts = dict(re.fullmatch(r"(.+) ([\d,.]+)", part).groups() for part in counts.split("; ") if part)  # type: ignore[union-attr]
        whole = {
            key: value for key, value in manifest["counts"].items() if value and key not in ("input_tokens", "output_tokens", "cost_usd")
        }
        assert {key.replace(" ", "_") for key in figure_texts} == set(whole)
        assert all(is_same_figure(figure_texts[key.replace("_", " ")], value) for key, value in whole.items())
        for cell, key in ((input_tokens, "input_tokens"), (output_tokens, "output_tokens"), (usd, "cost_usd")):
            decimals = 2 if key == "cost_usd" else 4
            assert cell == "" if key not in manifest["counts"] else is_same_figure(cell, manifest["counts"][key], decimals)
        assert is_same_figure(seconds, manifest["seconds"], 1)
    input_tokens = sum(manifest["counts"].get("input_tokens", 0) for manifest in by_print.values())
    seconds = sum(manifest["seconds"] for manifest in by_print.values())
    assert total[2] == f"{input_tokens:,}" and float(total[5].replace(",", "")) == pytest.approx(seconds, abs=0.051)


def test_every_row_count_loss_and_score_is_the_manifest_s(story: Story, tiny_run: Path) -> None:
    manifest_by_label = manifests(tiny_run)
    card = dataset_card(story, list(story.artifacts))
    row_counts = {names: rows for names, rows, _ in rows_of(card, "How to load it")}
    rows_by_name = {f"`{artifact.name}`": artifact.manifest["rows"] for artifact in story.artifacts if artifact.rows is not None}
    assert {name for names in row_counts for name in names.split(", ")} == set(rows_by_name)
    assert all(rows == f"{sum(rows_by_name[name] for name in names.split(', ')):,}" for names, rows in row_counts.items())
    names = [name.strip() for name in card.partition("## Training")[2].partition("| iteration |")[2].partition("\n")[0].split("|")]
    training_rows = rows_of(card, "Training")
    assert len(training_rows) == 2 and {"pairs", "steps", "loss", "reward margin", "reward accuracy"} <= set(names)
    for iteration, *cells in training_rows:
        manifest = manifest_by_label[f"{iteration}-train"]
        figures = {**manifest["counts"], **manifest["training"]}
        for name, cell in zip(names, cells, strict=False):
            assert (
                is_same_figure(cell, manifest["seconds"], 1) if name == "seconds" else is_same_figure(cell, figures[name.replace(" ", "_")])
            )
    figure_texts = rows_of(card, "Scores")
    assert len(figure_texts) == MOST_SCORES < sum(len(manifest.get("scores", {})) for manifest in manifest_by_label.values())
    for _, policy, name, value, questions in figure_texts:
        label = "0-base-score" if policy == "base" else f"{policy.split()[1]}-eval-score"
        score = manifest_by_label[label]["scores"][name.replace(" ", "_")]
        assert value == f"{score['value']:.4f} [{score['low']:.4f}, {score['high']:.4f}]" and questions == str(score["n"])


def test_a_card_shows_ten_scores_and_the_file_has_all(story: Story) -> None:
    every_score = scores(story.artifacts)
    *_, last = every_score
    more_scores = [
        *every_score,
        *(dataclasses.replace(last, benchmark="mt-bench", name=name, low=low) for name, low in (("a", 1.0), ("b", None))),
    ]
    card_scores = main_scores(more_scores)
    assert len(card_scores) == MOST_SCORES and [score for score in more_scores if score in card_scores] == card_scores
    assert ("mt-bench", "a") in {(score.benchmark, score.name) for score in card_scores} and all(
        score.low is not None for score in card_scores
    )
    assert {"base", "iteration 0", "iteration 1"} == {score.policy for score in card_scores if score.name == "sampled"}
    assert score_files(story)["scores.csv"].count(b"\n") == len(every_score) + 1


def test_cards_say_what_a_policy_was_trained_on_and_started_from(story: Story) -> None:
    card = dataset_card(story, list(story.artifacts))
    assert "- The policy of iteration 0 was trained on `pairs-0`, starting from the base policy.\n" in card
    assert "- The policy of iteration 1 was trained on `pairs-1`, starting from that of iteration 0.\n" in card
    assert "started from the policy of [tester/tiny-iter0]" in model_card(story, story.model(1))
    assert "started from the policy of" not in model_card(story, story.model(0))
    assert f"sha256 `{story.base.digest}`" in card and "eva's embedded lettercraft policy" in card


def test_scores_stand_in_the_metadata_and_come_back_out(story: Story, tiny_run: Path) -> None:
    for iteration in story.policies:
        data = ModelCard(model_card(story, story.model(iteration))).data
        results: list[EvalResult] = data.eval_results
        figures = manifests(tiny_run)[f"{iteration}-eval-score"]["scores"]
        assert {result.metric_type: result.metric_value for result in results} == {
            name: figure["value"] for name, figure in figures.items()
        }
        assert all(result.metric_args == {key: figures[result.metric_type][key] for key in ("low", "high", "n")} for result in results)
        assert data.model_name == f"{story.name}-iter{iteration}" and data.license == "apache-2.0"


def test_metadata_are_what_the_hub_takes(story: Story) -> None:
    card = dataset_card(story, list(story.artifacts))
    assert card_faults(card, "dataset") == []
    assert DatasetCard(card).data.to_dict()["configs"][0]["config_name"] == "prompts-0"
    licence = {"license": "other", "license_name": "odd", "license_link": "https://example.org/odd"}
    based_story = dataclasses.replace(story, base=Base("org/base", "org/base", "0" * 40, licence))
    for changed_story, iteration in ((based_story, 1), (story, 0)):
        assert card_faults(model_card(changed_story, changed_story.model(iteration)), "model") == []
    data = ModelCard(model_card(based_story, based_story.model(1))).data
    assert (data.base_model, data.license, data.license_name) == ("org/base", "other", "odd")
    assert "at commit `" + "0" * 40 in model_card(based_story, based_story.model(1))


def test_the_checker_finds_what_is_wrong() -> None:
    assert card_faults("# no metadata", "model")
    assert card_faults("---\nlicense: mine\n---\n", "model") == ["license: mine is no licence of the Hub"]
    assert card_faults("---\nconfigs:\n- config_name: a\n- config_name: a\n---\n", "dataset") == ["configs: a name is given twice"]


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.links += [value or "" for name, value in attributes if name in ("href", "src") or name.startswith("on")]


def elements(card: str) -> tuple[dict[str, int], list[str]]:
    """The elements and links that a reader's browser gets."""
    parser = _Elements()
    body = card.split("---\n", 2)[2]
    parser.feed(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(body))
    return parser.tags, parser.links


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_does_nothing_in_cards(story: Story, tmp_path: Path, text: str) -> None:
    def with_pair(prompt: str, reasons: Mapping[str, int]) -> Story:
        turns: Callable[[str, str], list[dict[str, str]]] = lambda role, words: [{"role": role, "content": words}]  # noqa: E731
        row: dict[str, Any] = {"prompt_id": "0" * 24, "chosen_reward": 1.0, "rejected_reward": 0.0, "prompt": turns("user", prompt)}
        row |= {"chosen": turns("assistant", prompt), "rejected": turns("assistant", prompt)}
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        write_rows([pa.Table.from_pylist([row], schema=SCHEMAS["pairs"])], SCHEMAS["pairs"], folder / "data")
        (last,) = [artifact for artifact in story.artifacts if artifact.name == "pairs-1"]
        artifact_with_pair = dataclasses.replace(last, folder=folder, manifest={**last.manifest, "counts": reasons})
        recipe = {**story.recipe, "policy": {**story.recipe["policy"], "model": prompt}}
        base = Base(prompt, None, "f" * 64, {"license": "unknown"})
        artifacts = tuple(artifact_with_pair if artifact is last else artifact for artifact in story.artifacts)
        return dataclasses.replace(story, artifacts=artifacts, recipe=recipe, base=base)

    harmless, hostile = with_pair("plain", {"plain": 1}), with_pair(text, {text: 1})
    for kind, make in (
        ("dataset", lambda changed_story: dataset_card(changed_story, list(changed_story.artifacts))),
        ("model", lambda changed_story: model_card(changed_story, changed_story.model(1))),
    ):
        harmless_card, hostile_card = make(harmless), make(hostile)
        assert elements(hostile_card) == elements(harmless_card)
        assert card_faults(hostile_card, kind) == []
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", hostile_card)
        assert len(hostile_card) < len(harmless_card) + 210_000  # the recipe in full, every other place cut
        assert hostile_card.count("49") == harmless_card.count("49"), "a template in the data was carried out"
    if text.startswith("\U0001f469"):
        assert text in dataset_card(hostile, list(hostile.artifacts))


def test_the_command_takes_prompts_of_a_file_from_the_pushed_rows(story: Story) -> None:
    assert command(story).splitlines()[-1] == "eva run recipe.yaml"
    from_file = dataclasses.replace(story, recipe={**story.recipe, "prompts": {"kind": "file"}})
    assert "kind: hub, id: tester/tiny, config: prompts-0" in command(from_file)


def test_scores_of_every_shape_are_found(story: Story) -> None:
    (last,) = [artifact for artifact in story.artifacts if (artifact.stage, artifact.iteration) == ("eval-score", 1)]
    shapes = {"score": {"value": 7.5, "low": 7.0, "high": 8.0, "n": 80}, "turns": {"first": {"value": 8.0}}, "usd": 0.25, "ok": True}
    stage = stage_of_folder("1-eval-mt-bench-score-000000000000")
    score_artifact = dataclasses.replace(last, planned_stage=stage, manifest={**last.manifest, "scores": shapes})
    score_tuples = [(score.benchmark, score.policy, score.name, score.value, score.low) for score in scores((score_artifact,))]
    assert score_tuples == [
        ("mt-bench", "iteration 1", "score", 7.5, 7.0),
        ("mt-bench", "iteration 1", "turns first", 8.0, None),
        ("mt-bench", "iteration 1", "usd", 0.25, None),
    ]


def test_a_run_with_an_incomplete_recipe_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: run\npolicy: {model: lettercraft}\n")
    with pytest.raises(DamagedError, match=r"recipe\.yaml is damaged: it has no section prompts, solver"):
        story_of(History(tmp_path, [], ()), "tester", Privacy(tmp_path))
