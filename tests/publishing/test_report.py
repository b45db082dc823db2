"""The report of the tiny run in a real browser, and that of a made-up one whose texts do what they can to break it."""

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.synthetic_run import SyntheticRun
from eva_stages.core.run_folder import Run
from eva_stages.publishing.report.health_section import health
from eva_stages.publishing.report.informativeness_section import jaccard, selected_sets
from eva_stages.publishing.report.ledger_section import ledger
from eva_stages.publishing.report.page import write_report
from eva_stages.views.history import read_history
from tests.browser import CHROMIUM, Page, browser
from tests.conftest import manifests, run_eva

HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">",
    "</span></pre></div></section><h1 id='owned'>not a heading</h1><!--",
    "{{ 7 * 7 }} {% raw %} [link](javascript:alert(1)) **bold** `code` $x_1$ | a | b |",
    "bell \x07 escape \x1b[31m red \x1b]0;title\x07 null \x00 c1 \x9b31m",
    "\u202eright to left override\u202c \u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd \U0001f469\u200d\U0001f680",
    "x" * 100_000,
    "<svg onload=alert(1)><style>*{display:none}</style>",
)
TOKEN = "hf_planted0123456789secret"
SECTION_IDS = ["result", "curriculum", "informativeness", "audit", "solver", "judging", "health", "examples", "costs", "plan", "provenance"]
DRAWN_SCRIPT = """
[...document.querySelectorAll('figure[data-plot] svg')].map(svg => {
  const box = svg.getBoundingClientRect();
  const visible = one => one.getBoundingClientRect().width + one.getBoundingClientRect().height > 0;
  const marks = [...svg.querySelectorAll('path, use, rect')].filter(visible);
  const beyond = own => own.left < box.left - 1 || own.right > box.right + 1;
  const texts = [...svg.querySelectorAll('text')];
  const outside = texts.filter(text => beyond(text.getBoundingClientRect())).map(text => text.textContent);
  const name = svg.closest('figure').dataset.plot;
  return {name, width: box.width, height: box.height, marks: marks.length, texts: texts.length, outside};
})
"""


class Tags(HTMLParser):
    """Every tag of a page, with its attributes."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parse_tags(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    return tags


@pytest.fixture(scope="module")
def report_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny run with its report, made by the command."""
    run = tmp_path_factory.mktemp("told") / "tiny"
    shutil.copytree(tiny_run, run)
    assert run_eva("report", str(run)).stdout.strip() == str(run / "report.html")
    return run


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile") / "hostile"
    run = SyntheticRun(root, prompts=48, responses=3, iterations=2, words=12, hostile=HOSTILE).write()
    write_report([read_history(Run(run))])
    return run


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed; on Debian: apt-get install chromium")
    with browser() as entry:
        yield entry


def problems(page: Page) -> list[object]:
    return page.of("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")


def requests(page: Page) -> list[str]:
    return [
        message["request"]["url"] for message in page.of("Network.requestWillBeSent") if not message["request"]["url"].startswith("data:")
    ]


@pytest.mark.parametrize("width", [400, 1400])
def test_the_report_is_whole_in_a_browser(report_run: Path, page: Page, width: int) -> None:
    url = (report_run / "report.html").as_uri()
    for dark in (False, True):
        page.open(url, width, dark)
        assert problems(page) == []
        assert requests(page) == [url]
        assert page.value("document.documentElement.scrollWidth") <= width
        plots = page.value(DRAWN_SCRIPT)
        assert {plot["name"] for plot in plots} == {path.stem for path in (report_run / "report").glob("*.png")}
        for plot in plots:
            assert plot["width"] > 250, plot
            assert plot["height"] > 100, plot
            assert plot["marks"] > 5, plot
            assert plot["texts"] > 5, plot
            assert plot["outside"] == [], plot
        ground, ink = (page.value(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
        assert (ground, ink) == (("rgb(20, 23, 27)", "rgb(232, 234, 237)") if dark else ("rgb(255, 255, 255)", "rgb(28, 33, 39)"))


def test_the_report_reads_the_same_without_scripts(report_run: Path, page: Page) -> None:
    page.open((report_run / "report.html").as_uri(), 1400, scripts=False)
    tree = page.on_page("DOMSnapshot.captureSnapshot", computedStyles=[])
    visible_text = " ".join(tree["strings"])
    for words in ("Mean reward of sampled responses", "Seed prompt", "best response", "policy after iteration", "What the judge said"):
        assert words in visible_text
    html = (report_run / "report.html").read_text()
    assert "<script" not in html
    assert "default-src 'none'" in html


def test_the_sections_say_what_the_run_holds(report_run: Path) -> None:
    html = (report_run / "report.html").read_text()
    tags = parse_tags(html)
    assert [attributes["id"] for tag, attributes in tags.tags if tag == "section"] == SECTION_IDS
    text = re.sub(r"\s+", " ", " ".join(tags.text))
    manifest_by_label = manifests(report_run)
    for label in ("0-base-score", "0-eval-score", "1-eval-score"):
        for scores in manifest_by_label[label]["scores"].values():
            assert f"{scores['value']:.4g}" in text
    assert f"{manifest_by_label['1-train']['training']['loss']:.4g}" in text
    assert manifest_by_label["1-train"]["fingerprint"][:12] in text
    assert manifest_by_label["1-train"]["packages"]["trl"] in text


def test_every_plot_names_its_axes_and_what_is_behind_it(report_run: Path, hostile: Path) -> None:
    for run in (report_run, hostile):
        drawings = list((run / "report").glob("*.svg"))
        assert len(drawings) > 15
        for drawing in drawings:
            words = re.findall(r"<text [^>]*>([^<]*)</text>", drawing.read_text())
            assert any(re.search(r"n = [\d,]+", word) for word in words), drawing
            assert drawing.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    for name, labels in {
        "solver-mean": ("iteration, whose prompts", "mean reward"),
        "training-loss": ("optimiser step", "loss (nats)"),
    }.items():
        svg = (report_run / "report" / f"{name}.svg").read_text()
        assert all(f">{label}</text>" in svg for label in labels)


def test_hostile_texts_show_harmlessly(hostile: Path, page: Page) -> None:
    html = (hostile / "report.html").read_text()
    assert html.isascii()
    assert len(html) < 3_000_000
    tags = parse_tags(html)
    assert {"script", "img", "h1"} & {tag for tag, _ in tags.tags} == {"h1"}
    assert not [name for _, attributes in tags.tags for name in attributes if name.startswith("on")]
    text = " ".join(tags.text)
    assert HOSTILE[0][:40] in text
    assert "{{ 7 * 7 }}" in text
    assert "\u241b[31m red" in text
    assert "[U+202E]right to left override" in text
    assert "more characters]" in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    page.open((hostile / "report.html").as_uri(), 400)
    assert problems(page) == []
    assert requests(page) == [(hostile / "report.html").as_uri()]
    assert page.value("document.title") == "eva report: hostile"
    assert page.value("document.querySelectorAll('h1').length") == 1
    assert page.value("document.documentElement.scrollWidth") <= 400
    assert page.value("getComputedStyle(document.querySelector('footer')).display") == "block"


def test_the_made_up_run_has_every_plot(hostile: Path) -> None:
    names = {path.stem for path in (hostile / "report").glob("*.svg")}
    for name in ("topics", "complexity", "quality", "length", "generations", "rejections", "topic-gap", "topic-reward", "overlap"):
        assert name in names
    for name in ("gap-variance-1", "density-reward_gap", "mt-bench-radar", "position-bias", "parse-failures", "result-mt-bench-score"):
        assert name in names
    assert "result-arena-hard-v0-1-score" in names


def test_the_report_holds_nothing_private(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / "planted-user"
    run = home / "runs" / "tiny"
    shutil.copytree(tiny_run, run)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HOME", str(home))
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(
        f"{recipe}\nplanted:\n  path: {home}/data/prompts.jsonl\n  header: Bearer {TOKEN}\n  url: https://planted-user:pw@host/x\n"
    )
    (pairs,) = (run / "stages").glob("1-train-*/manifest.json")
    manifest = json.loads(pairs.read_text())
    manifest["inputs"]["pairs"]["artifact"] = f"{home}/{TOKEN}"
    del manifest["checksum"]
    pairs.write_text(json.dumps(manifest))
    write_report([read_history(Run(run))])
    report_files = [run / "report.html", *(run / "report").iterdir()]
    assert len(report_files) > 20
    for path in report_files:
        content = path.read_bytes()
        for secret in (TOKEN, "planted-user", str(tmp_path), str(Path.cwd())):
            assert secret.encode() not in content, (path.name, secret)
    assert "prompts.jsonl" in (run / "report.html").read_text()


def test_two_runs_are_compared(report_run: Path, page: Page, tmp_path: Path) -> None:
    other_run = tmp_path / "control"
    shutil.copytree(report_run, other_run, ignore=shutil.ignore_patterns("report*"))
    recipe = (other_run / "recipe.yaml").read_text()
    assert "metric: reward_gap" in recipe
    (other_run / "recipe.yaml").write_text(recipe.replace("metric: reward_gap", "metric: uniform"))
    report_path = run_eva("report", str(report_run), str(other_run)).stdout.strip()
    assert report_path == str(report_run / "comparison.html")
    text = re.sub(r"\s+", " ", " ".join(parse_tags(Path(report_path).read_text()).text))
    assert "Differences, question by question" in text
    for policy in ("base", "iteration 0", "iteration 1"):
        assert f"lettercraft, sampled {policy}" in text
    assert "creator.metric reward_gap uniform" in text
    page.open(Path(report_path).as_uri(), 400)
    assert problems(page) == []
    assert all(plot["marks"] > 5 and plot["outside"] == [] for plot in page.value(DRAWN_SCRIPT))
    result = run_eva("report", str(report_run), str(report_run), code=2)
    assert "given twice" in result.stderr


def test_overlaps_are_jaccard_s() -> None:
    values = {"a": np.array([3.0, 2, 1, np.nan]), "b": np.array([0.0, 2, 3, np.nan]), "c": np.array([1.0, 1, 1, 1])}
    sets = selected_sets(values, 2)
    assert {name: set.tolist() for name, set in sets.items()} == {"a": [0, 1], "b": [1, 2], "c": [0, 1]}
    assert jaccard(sets).tolist() == [[1, 1 / 3, 1], [1 / 3, 1, 1 / 3], [1, 1 / 3, 1]]


def test_the_plan_stands_beside_what_was_taken_and_what_is_not_known_is_said(tmp_path: Path) -> None:
    root = SyntheticRun(tmp_path / "planned", prompts=8, responses=2, iterations=1, words=5).write()
    history = read_history(Run(root))
    ledger_without_plan = ledger(history)
    assert ledger_without_plan.plots == [] and "No times were planned" in ledger_without_plan.missing[0]
    times = {"seconds_expected": 50.0, "seconds_low": 40.0, "seconds_high": 90.0}
    plan = [{"fingerprint": artifact.manifest["fingerprint"][:12], **times} for artifact in history.artifacts]
    (root / "plan.json").write_text(json.dumps({"stages": plan}))
    fingerprint, time = history.artifacts[0].manifest["fingerprint"], "2026-01-01T00:00:00+00:00"
    lost_events = [{"event": "start", "stage": "0-prompts"}, {"event": "interrupted", "stage": "0-prompts", "seconds": 33.0}]
    (root / "events.jsonl").write_text(
        "".join(json.dumps({**entry, "time": time, "fingerprint": fingerprint}) + "\n" for entry in lost_events)
    )
    section = ledger(history)
    assert "120% of the plan" in section.lead[0] and "1, which took 33 s" in section.lead[1]
    whole = section.tables[0].rows[-1]
    assert whole[:8] == ["all", len(plan), 60.0 * len(plan), 50.0 * len(plan), 40.0 * len(plan), 90.0 * len(plan), 1, 33.0]
    assert [plot.name for plot in section.plots] == ["plan-time"] and len(section.tables[1].rows) == len(plan)


def test_health_shows_every_figure_beside_its_limit_and_says_what_is_beyond_it(tiny_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    assert health(read_history(Run(run))).lead == ["Every measured figure is within its limit."]
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe | {"health": {"pair_share": 1.0, "kl_per_token": None}}))
    folders = [stage["folder"] for stage in json.loads((run / "stages.json").read_text())]
    (run / "stages.json").write_text(json.dumps(folders))  # as eva 0.1.0 wrote it: the limits are read from the recipe
    section = health(read_history(Run(run)))
    figures = [manifests(run)[f"{iteration}-health"]["figures"] for iteration in (0, 1)]
    assert [lead.partition(":")[0] for lead in section.lead] == ["Iteration 0 (also 1)"] and "health.pair_share=1" in section.lead[0]
    rows = {row[0]: list(row[1:]) for row in section.tables[0].rows}
    assert rows["pairs per prompt"] == [*(figure["pair_share"] for figure in figures), "at least", 1.0]
    assert rows["KL divergence from the base policy (nats per token)"] == [*(figure["kl_per_token"] for figure in figures), "at most", None]
    assert [plot.name for plot in section.plots] == ["health-kl"]
    for path in run.glob("stages/*-health-*/manifest.json"):  # as with a held-out reward and repeated judgments
        manifest = json.loads(path.read_text())
        del manifest["checksum"]
        manifest["figures"] |= {"reward_gain": 0.2, "held_out_gain": -0.1, "judge_agreement": 0.9}
        path.write_text(json.dumps(manifest))
    section = health(read_history(Run(run)))
    assert [plot.name for plot in section.plots] == ["health-rewards", "health-kl"]
    assert ["share of the judgments that the judge repeats", 0.9, 0.9, "", None] in [list(row) for row in section.tables[0].rows]
    assert "share of the judgments that the judge repeats" not in rows
