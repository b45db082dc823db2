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

from eva_stages.core.planned_stages import stage_of_folder
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.run_folder import Run
from eva_stages.core.tables import write_rows
from eva_stages.publishing.cards import command, dataset_card, model_card
from eva_stages.publishing.privacy import Privacy
from eva_stages.publishing.story import Base, Story, story_of
from eva_stages.views.history import read_history
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
def told(tiny_run: Path) -> Story:
    return story_of(read_history(Run(tiny_run)), "tester", Privacy(tiny_run))


def rows_of(card: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    section = card.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def same(shown: str, value: float, decimals: int = 4) -> bool:
    return shown == (f"{value:,}" if isinstance(value, int) else f"{value:,.{decimals}f}")


def test_every_figure_of_what_was_counted_is_the_manifest_s(told: Story, tiny_run: Path) -> None:
    by_print = {manifest["fingerprint"]: manifest for manifest in manifests(tiny_run).values()}
    *rows, total = rows_of(dataset_card(told, list(told.artifacts)), "What was counted")
    assert len(rows) == len(by_print) == len(told.artifacts)
    for artifact, (name, counts, read, written, usd, seconds) in zip(told.artifacts, rows, strict=True):
        manifest = by_print[artifact.manifest["fingerprint"]]
        assert name == f"`{artifact.name}`"
        shown = dict(re.fullmatch(r"(.+) ([\d,.]+)", part).groups() for part in counts.split("; ") if part)  # type: ignore[union-attr]
        whole = {
            key: value for key, value in manifest["counts"].items() if value and key not in ("input_tokens", "output_tokens", "cost_usd")
        }
        assert {key.replace(" ", "_") for key in shown} == set(whole)
        assert all(same(shown[key.replace("_", " ")], value) for key, value in whole.items())
        for cell, key in ((read, "input_tokens"), (written, "output_tokens"), (usd, "cost_usd")):
            assert cell == "" if key not in manifest["counts"] else same(cell, manifest["counts"][key])
        assert same(seconds, manifest["seconds"], 1)
    read = sum(manifest["counts"].get("input_tokens", 0) for manifest in by_print.values())
    seconds = sum(manifest["seconds"] for manifest in by_print.values())
    assert total[2] == f"{read:,}" and float(total[5].replace(",", "")) == pytest.approx(seconds, abs=0.051)


def test_every_row_count_loss_and_score_is_the_manifest_s(told: Story, tiny_run: Path) -> None:
    found = manifests(tiny_run)
    card = dataset_card(told, list(told.artifacts))
    counted = {name.strip("`"): rows for name, rows, _ in rows_of(card, "How to load it")}
    assert counted == {one.name: f"{one.manifest['rows']:,}" for one in told.artifacts if one.rows is not None}
    names = [name.strip() for name in card.partition("## Training")[2].partition("| iteration |")[2].partition("\n")[0].split("|")]
    trained = rows_of(card, "Training")
    assert len(trained) == 2 and {"pairs", "steps", "loss", "reward margin", "reward accuracy"} <= set(names)
    for iteration, *cells in trained:
        manifest = found[f"{iteration}-train"]
        figures = {**manifest["counts"], **manifest["training"]}
        for name, cell in zip(names, cells, strict=False):
            assert same(cell, manifest["seconds"], 1) if name == "seconds" else same(cell, figures[name.replace(" ", "_")])
    shown = rows_of(card, "Scores")
    assert len(shown) == sum(len(manifest.get("scores", {})) for manifest in found.values())
    for _, policy, name, value, questions in shown:
        label = "0-base-score" if policy == "base" else f"{policy.split()[1]}-eval-score"
        score = found[label]["scores"][name.replace(" ", "_")]
        assert value == f"{score['value']:.4f} [{score['low']:.4f}, {score['high']:.4f}]" and questions == str(score["n"])


def test_cards_say_what_a_policy_was_trained_on_and_started_from(told: Story) -> None:
    card = dataset_card(told, list(told.artifacts))
    assert "- The policy of iteration 0 was trained on `pairs-0`, starting from the base policy.\n" in card
    assert "- The policy of iteration 1 was trained on `pairs-1`, starting from that of iteration 0.\n" in card
    assert "started from the policy of [tester/tiny-iter0]" in model_card(told, 1)
    assert "started from the policy of" not in model_card(told, 0)
    assert f"sha256 `{told.base.digest}`" in card and "eva's embedded lettercraft policy" in card


def test_scores_stand_in_the_metadata_and_come_back_out(told: Story, tiny_run: Path) -> None:
    for iteration in told.policies:
        data = ModelCard(model_card(told, iteration)).data
        results: list[EvalResult] = data.eval_results
        figures = manifests(tiny_run)[f"{iteration}-eval-score"]["scores"]
        assert {result.metric_type: result.metric_value for result in results} == {name: one["value"] for name, one in figures.items()}
        assert all(result.metric_args == {key: figures[result.metric_type][key] for key in ("low", "high", "n")} for result in results)
        assert data.model_name == f"{told.name}-iter{iteration}" and data.license == "apache-2.0"


def test_metadata_are_what_the_hub_takes(told: Story) -> None:
    card = dataset_card(told, list(told.artifacts))
    assert card_faults(card, "dataset") == []
    assert DatasetCard(card).data.to_dict()["configs"][0]["config_name"] == "prompts-0"
    licence = {"license": "other", "license_name": "odd", "license_link": "https://example.org/odd"}
    based = dataclasses.replace(told, base=Base("org/base", "org/base", "0" * 40, licence))
    assert card_faults(model_card(based, 1), "model") == card_faults(model_card(told, 0), "model") == []
    data = ModelCard(model_card(based, 1)).data
    assert (data.base_model, data.license, data.license_name) == ("org/base", "other", "odd")
    assert "at commit `" + "0" * 40 in model_card(based, 1)


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
def test_hostile_text_does_nothing_in_cards(told: Story, tmp_path: Path, text: str) -> None:
    def with_pair(prompt: str, reasons: Mapping[str, int]) -> Story:
        turns: Callable[[str, str], list[dict[str, str]]] = lambda role, words: [{"role": role, "content": words}]  # noqa: E731
        row: dict[str, Any] = {"prompt_id": "0" * 24, "chosen_reward": 1.0, "rejected_reward": 0.0, "prompt": turns("user", prompt)}
        row |= {"chosen": turns("assistant", prompt), "rejected": turns("assistant", prompt)}
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        write_rows([pa.Table.from_pylist([row], schema=SCHEMAS["pairs"])], SCHEMAS["pairs"], folder / "data")
        (last,) = [one for one in told.artifacts if one.name == "pairs-1"]
        changed = dataclasses.replace(last, folder=folder, manifest={**last.manifest, "counts": reasons})
        recipe = {**told.recipe, "policy": {**told.recipe["policy"], "model": prompt}}
        base = Base(prompt, None, "f" * 64, {"license": "unknown"})
        artifacts = tuple(changed if one is last else one for one in told.artifacts)
        return dataclasses.replace(told, artifacts=artifacts, recipe=recipe, base=base)

    harmless, hostile = with_pair("plain", {"plain": 1}), with_pair(text, {text: 1})
    for kind, make in (
        ("dataset", lambda story: dataset_card(story, list(story.artifacts))),
        ("model", lambda story: model_card(story, 1)),
    ):
        before, after = make(harmless), make(hostile)
        assert elements(after) == elements(before)
        assert card_faults(after, kind) == []
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", after)
        assert len(after) < len(before) + 210_000  # the recipe in full, every other place cut
        assert after.count("49") == before.count("49"), "a template in the data was carried out"
    if text.startswith("\U0001f469"):
        assert text in dataset_card(hostile, list(hostile.artifacts))


def test_the_command_takes_prompts_of_a_file_from_the_pushed_rows(told: Story) -> None:
    assert command(told).splitlines()[-1] == "eva run recipe.yaml"
    from_file = dataclasses.replace(told, recipe={**told.recipe, "prompts": {"kind": "file"}})
    assert "kind: hub, id: tester/tiny, config: prompts-0" in command(from_file)


def test_scores_of_every_shape_are_found(told: Story) -> None:
    (last,) = [one for one in told.artifacts if (one.stage, one.iteration) == ("eval-score", 1)]
    shapes = {"score": {"value": 7.5, "low": 7.0, "high": 8.0, "n": 80}, "turns": {"first": {"value": 8.0}}, "usd": 0.25, "ok": True}
    planned = stage_of_folder("1-eval-mt-bench-score-000000000000")
    judged = dataclasses.replace(last, planned_stage=planned, manifest={**last.manifest, "scores": shapes})
    found = [(one.benchmark, one.policy, one.name, one.value, one.low) for one in scores((judged,))]
    assert found == [
        ("mt-bench", "iteration 1", "score", 7.5, 7.0),
        ("mt-bench", "iteration 1", "turns first", 8.0, None),
        ("mt-bench", "iteration 1", "usd", 0.25, None),
    ]
