"""A run of the whole loop by the real command line, given twice, and what holds of every such run."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_stages.core.rows import prompt_id
from eva_stages.core.tables import read_table
from tests.conftest import events, run_eva
from tests.real.large_model import LargeModel

SECONDS = 3600.0
"""How long a run may take; on two idle cores it takes a tenth of that."""
PROMPTS = {"0-respond": "0-prompts", "1-respond": "1-mix", "1-creator-respond": "0-prompts"}
"""Which prompts a stage's responses answer, in a run that evolves them."""


@dataclass(frozen=True)
class WholeRun:
    """A finished run, and the same command given again.

    Attributes:
        command: of the run, after `eva`.
        document: what `eva run --json` printed.
        repeated: what the second time printed.
        new_requests, new_events: how many the second time added.
    """

    folder: Path
    command: tuple[str, ...]
    document: dict[str, Any]
    repeated: dict[str, Any]
    new_requests: int
    new_events: int

    def artifact(self, label: str) -> Path:
        """A stage's rows or checkpoint."""
        (folder,) = self.folder.glob(f"stages/{label}-????????????")
        return folder / ("model" if (folder / "model").is_dir() else "data")

    def rows(self, label: str) -> list[dict[str, Any]]:
        return read_table(self.artifact(label)).to_pylist()


def whole_run(folder: Path, server: LargeModel, recipe: str, settings: Sequence[str]) -> WholeRun:
    """Run a recipe twice; prints the time and what the reward did."""
    command = ("run", recipe, "--run-dir", str(folder), *settings, "--json")
    started = time.monotonic()
    document = json.loads(run_eva(*command, seconds=SECONDS).stdout)
    seconds, requests, told = time.monotonic() - started, len(server.requests), len(events(folder))
    rewards = " -> ".join(f"{iteration['mean_reward']:.3f}" for iteration in document["iterations"])
    print(f"\n{folder.name}: {seconds:.0f} s, {requests} requests; mean reward of the sampled responses {rewards}")
    repeated = json.loads(run_eva(*command, seconds=SECONDS).stdout)
    return WholeRun(folder, command, document, repeated, len(server.requests) - requests, len(events(folder)) - told)


def assert_nothing_was_computed(run: WholeRun) -> None:
    """The second time asked no server, began no stage and printed the same; nothing is left to do."""
    assert (run.new_requests, run.new_events) == (0, 0) and run.repeated == run.document
    plan = json.loads(run_eva("plan", *run.command[1:]).stdout)
    assert {stage["state"] for stage in plan["stages"]} == {"done"}


def assert_rewards_are_the_functions(run: WholeRun, respond: str, prompts: str, reward: Callable[..., float | None]) -> int:
    """Every reward of a stage is what the function gives when it is called here.

    Returns:
        How many different rewards there are.
    """
    asked = {row["prompt_id"]: row for row in run.rows(prompts)}
    scored = {row["prompt_id"]: row for row in run.rows(respond.replace("respond", "reward"))}
    different = set()
    for row in run.rows(respond):
        prompt = asked[row["prompt_id"]]
        expected = [reward(prompt["messages"], text, prompt["reference"]) for text in row["responses"]]
        assert scored[row["prompt_id"]]["rewards"] == expected
        different |= set(expected)
    return len(different)


def assert_pairs_hold_sampled_ids(run: WholeRun, iteration: int) -> None:
    """The best and the worst response of every pair come with the ids that were sampled."""
    sampled = {row["prompt_id"]: row for row in run.rows(f"{iteration}-respond")}
    pairs = run.rows(f"{iteration}-pair")
    for pair in pairs:
        row = sampled[pair["prompt_id"]]
        known = set(zip(row["responses"], map(tuple, row["response_ids"]), strict=True))
        for side in ("chosen", "rejected"):
            assert (pair[side][-1]["content"], tuple(pair[f"{side}_ids"])) in known
    assert pairs


def assert_ids_are_hashes(run: WholeRun, label: str) -> None:
    """Every prompt is what its id says."""
    assert all(row["prompt_id"] == prompt_id(row["messages"]) for row in run.rows(label))
