"""Sources of the public benchmarks: each file comes from its project, is downloaded once, and is pinned to a revision or to its content.

eva ships none of these files. Downloads from the Hub are in the Hub's cache, those from GitHub in `~/.cache/eva`. A recipe can give the
path of any of them instead. If a project has no commit to pin, eva pins the digest of the known content and rejects a changed file,
whose scores could not be compared with published ones.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eva_stages.core.errors import ConfigError, hub_failures
from eva_stages.core.fingerprint import file_digest, tree_digest
from eva_stages.core.stage import Outside

GITHUB = "https://raw.githubusercontent.com"
TIMEOUT = 60.0


@dataclass(frozen=True)
class Home:
    """A file at its public home; `sha256` is the digest of its content where that is the pin."""

    site: Literal["hub", "github"]
    repository: str
    file: str
    revision: str = "main"
    sha256: str | None = None


FASTCHAT = ("lm-sys/FastChat", "fastchat/llm_judge/data", "v0.2.36")
ARENA_HARD = "lmarena/arena-hard-auto"
ARENA_HARD_DATA = "lmarena-ai/arena-hard-auto"

HOMES = {
    "alpaca-eval": Home("hub", "tatsu-lab/alpaca_eval", "alpaca_eval.json"),
    "alpaca-eval-outputs": Home("hub", "tatsu-lab/alpaca_eval", "alpaca_eval_gpt4_baseline.json"),
    "alpaca-eval-gamed": Home("hub", "tatsu-lab/alpaca_eval", "df_gamed.csv"),
    "alpaca-eval-difficulty": Home("hub", "tatsu-lab/alpaca_eval", "instruction_difficulty.csv"),
    "mt-bench": Home(
        "github",
        FASTCHAT[0],
        f"{FASTCHAT[1]}/mt_bench/question.jsonl",
        FASTCHAT[2],
        "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
    ),
    "mt-bench-references": Home(
        "github",
        FASTCHAT[0],
        f"{FASTCHAT[1]}/mt_bench/reference_answer/gpt-4.jsonl",
        FASTCHAT[2],
        "f957a5bc977badb66885ec970e6cd08527845780313f0995764260e5777b9b3f",
    ),
    "mt-bench-prompts": Home(
        "github",
        FASTCHAT[0],
        f"{FASTCHAT[1]}/judge_prompts.jsonl",
        FASTCHAT[2],
        "fd283293406d024f44c174b094ef48031d0687a4682fd3a56b29b138f80281b6",
    ),
    "arena-hard": Home("hub", ARENA_HARD_DATA, "data/arena-hard-v0.1/question.jsonl"),
    "arena-hard-v2.0": Home("hub", ARENA_HARD_DATA, "data/arena-hard-v2.0/question.jsonl"),
    "arena-hard-prompts": Home("github", ARENA_HARD, "config/arena-hard-v0.1.yaml", "9a1d3864b1a4388635b856fdd7eefb2cc8142525"),
    "arena-hard-v2.0-prompts": Home("github", ARENA_HARD, "config/arena-hard-v2.0.yaml"),
    "arena-hard-system-prompts": Home("github", ARENA_HARD, "utils/judge_utils.py"),
    "gsm8k": Home("hub", "openai/gsm8k", "main/test-00000-of-00001.parquet"),
    "ifeval": Home(
        "github",
        "google-research/google-research",
        "instruction_following_eval/data/input_data.jsonl",
        "19638399cc9e03623c5b9087a1d6fa8813974ce9",
        "67ffeee0fcb87c317c5b08a2de85557b4a7e96ada6178aa645b4954fe4b53d49",
    ),
}


def arena_hard_answers(version: str, model: str) -> Home:
    """The published answers of a model to Arena-Hard."""
    return Home("hub", ARENA_HARD_DATA, f"data/arena-hard-{version}/model_answer/{model}.jsonl")


@dataclass(frozen=True)
class FileSource:
    """The origin of a file: a path, or a public home if there is no file at the path."""

    path: str | None = None
    home: Home | None = None
    folder: bool = False
    """Whether it is a folder."""
    settings: "FileSource | None" = None
    """The judge's settings file; this file is needed only if the settings have no system prompt."""


def find_file(source: FileSource, place: str, advice: str = "give a path") -> Outside:
    """A file or folder with the digest of its content. A file that is not in the cache is fetched from its public home.

    Args:
        place: the recipe field that can give a path, for errors.

    Raises:
        ConfigError: if it is not there, or its digest is not the expected one.
    """
    if source.path is not None:
        path = Path(source.path).expanduser()
        if path.is_dir() if source.folder else path.is_file():
            return Outside(path.name, path, tree_digest(path) if source.folder else file_digest(path))
    if source.home is None:
        raise ConfigError([f"{place}: there is no {'folder' if source.folder else 'file'} {source.path}; {advice}"])
    path = _from_hub(source.home, place) if source.home.site == "hub" else _from_github(source.home, place)
    digest = file_digest(path)
    if source.home.sha256 not in (None, digest):
        raise ConfigError(
            [f"{place}: {_words(source.home)} is not the expected file (its digest differs); give the path of the file to use"]
        )
    return Outside(path.name, path, digest)


def _from_hub(home: Home, place: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(home.repository, home.file, repo_type="dataset", revision=home.revision))
    except hub_failures() as error:
        raise _unreachable(home, place, error) from error


def _from_github(home: Home, place: str) -> Path:
    import httpx

    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "eva"
    path = cache / home.repository / home.revision / home.file
    if path.is_file():
        return path
    try:
        answer = httpx.get(f"{GITHUB}/{home.repository}/{home.revision}/{home.file}", timeout=TIMEOUT, follow_redirects=True)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise _unreachable(home, place, error) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(answer.content)
    partial.replace(path)
    return path


def _words(home: Home) -> str:
    site = "the Hub's data set" if home.site == "hub" else "GitHub's"
    return f"{home.file} of {site} {home.repository} at {home.revision}"


def _unreachable(home: Home, place: str, error: Exception) -> ConfigError:
    return ConfigError([f"{place}: {_words(home)} cannot be fetched ({type(error).__name__}); give the path of a copy"])
