"""What belongs to the machine is found and shortened; what is data stays."""

from pathlib import Path

import pyarrow as pa
import pytest

from eva_stages.core.redaction import REPLACEMENT
from eva_stages.core.rows import SCHEMAS
from eva_stages.publishing.privacy import Privacy


@pytest.fixture
def privacy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Privacy:
    home = tmp_path / "home" / "alice"
    (home / "runs" / "first").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-planted-in-the-environment")
    monkeypatch.setenv("SOME_PASSWORD", "short")
    return Privacy(home / "runs" / "first", ("hf_planted_token",))


def test_paths_in_settings_shrink_and_everything_else_stays(privacy: Privacy, tmp_path: Path) -> None:
    home = tmp_path / "home" / "alice"
    recipe = {
        "prompts": {"path": str(home / "data" / "prompts.jsonl"), "column": "prompt"},
        "policy": {"model": "~/models/base", "revision": None},
        "reward": {"model": "org/reward-model"},
        "stop": ["/INST", "</s>", "a/b"],
        "system_prompt": f"/think about it,\nfiles are in {home}/notes",
        "api_base": "https://alice:secret@example.org/v1",
        "folders": (str(home / "runs" / "first" / "stages" / "0-pair-abc" / "data"), "../alice/launch.yaml"),
        "seed": 1,
    }
    clean_settings = privacy.settings(recipe)
    assert clean_settings == {
        "prompts": {"path": "prompts.jsonl", "column": "prompt"},
        "policy": {"model": "base", "revision": None},
        "reward": {"model": "org/reward-model"},
        "stop": ["/INST", "</s>", "a/b"],
        "system_prompt": "/think about it,\nfiles are in ~/notes",
        "folders": ["stages/0-pair-abc/data", "launch.yaml"],
        "seed": 1,
    }


def test_secrets_are_removed_wherever_they_stand(privacy: Privacy) -> None:
    text = "use sk-planted-in-the-environment and hf_planted_token, it is short"
    assert privacy.text(text) == f"use {REPLACEMENT} and {REPLACEMENT}, it is short"
    assert privacy.settings({"sk-planted-in-the-environment": "x"}) == {REPLACEMENT: "x"}


def test_words_that_only_begin_like_the_home_folder_are_left_alone(privacy: Privacy) -> None:
    home = str(Path.home())
    assert privacy.text(f"{home}/x {home} {home}2 /var{home} {home}-old") == f"~/x ~ {home}2 /var{home} {home}-old"


def test_rows_lose_what_is_private_and_nothing_else(privacy: Privacy) -> None:
    home = str(Path.home())
    rows = [
        {"prompt_id": "0", "rewards": [1.0, None], "failures": [None, f"FileNotFoundError: '/srv/models/x/config.json' in {home}/y"]},
        {"prompt_id": "1", "rewards": [0.5, 0.5], "failures": [None, None]},
        {"prompt_id": "2", "rewards": None, "failures": None},
    ]
    table, changed_count = privacy.table(pa.Table.from_pylist(rows, schema=SCHEMAS["rewards"]))
    assert changed_count == 1 and table.schema == SCHEMAS["rewards"]
    assert table.to_pylist() == [{**rows[0], "failures": [None, "FileNotFoundError: 'config.json' in ~/y"]}, *rows[1:]]

    prompt = {"prompt_id": "0", "messages": [{"role": "user", "content": "What is in /etc/ssl/certs? My key is hf_planted_token."}]}
    table, changed_count = privacy.table(pa.Table.from_pylist([prompt], schema=SCHEMAS["prompts"]))
    assert changed_count == 1
    assert table["messages"].to_pylist() == [[{"role": "user", "content": f"What is in /etc/ssl/certs? My key is {REPLACEMENT}."}]]

    plain = pa.Table.from_pylist([{"prompt_id": "0", "messages": [{"role": "user", "content": "/etc/ssl"}]}], schema=SCHEMAS["prompts"])
    assert privacy.table(plain) == (plain, 0)
