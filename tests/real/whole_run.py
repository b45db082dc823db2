"""A complete run by the real command line, its rerun, and checks that hold for every such run."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eva_stages.core.manifests import content
from eva_stages.core.rows import prompt_id
from eva_stages.core.tables import read_table
from tests.conftest import artifact_folder, events, run_eva
from tests.real.large_model import LargeModel

SECONDS = 3600.0
"""The longest time of a run; on two idle cores it takes a tenth of that."""
PROMPTS = {"0-respond": "0-prompts", "1-respond": "1-mix", "1-creator-respond": "0-prompts"}
"""The stage with the prompts of each stage with responses, in a run that evolves prompts."""


@dataclass(frozen=True)
class WholeRun:
    """A finished run and its rerun by the same command.

    Attributes:
        command: of the run, after `eva`.
        document: what `eva run --json` printed.
        rerun_document: what the rerun printed.
        new_requests, new_events: how many the rerun added.
    """

    folder: Path
    command: tuple[str, ...]
    document: dict[str, Any]
    rerun_document: dict[str, Any]
    new_requests: int
    new_events: int

    def artifact(self, label: str) -> Path:
        """A stage's rows or checkpoint."""
        return content(artifact_folder(self.folder, label))

    def rows(self, label: str) -> list[dict[str, Any]]:
        return read_table(self.artifact(label)).to_pylist()

    def assert_nothing_was_computed(self) -> None:
        """The rerun called no server, started no stage and printed the same document; nothing is left to do."""
        assert (self.new_requests, self.new_events) == (0, 0) and self.rerun_document == self.document
        plan = json.loads(run_eva("plan", *self.command[1:]).stdout)
        assert {stage["state"] for stage in plan["stages"]} == {"done"}

    def assert_rewards_are_the_functions(self, respond: str, prompts: str, reward: Callable[..., float | None]) -> int:
        """Every reward of a stage equals the result of calling the function here.

        Returns:
            The number of distinct rewards.
        """
        prompt_rows = {row["prompt_id"]: row for row in self.rows(prompts)}
        reward_rows = {row["prompt_id"]: row for row in self.rows(respond.replace("respond", "reward"))}
        distinct_rewards = set()
        for row in self.rows(respond):
            prompt = prompt_rows[row["prompt_id"]]
            expected = [reward(prompt["messages"], text, prompt["reference"]) for text in row["responses"]]
            assert reward_rows[row["prompt_id"]]["rewards"] == expected
            distinct_rewards |= set(expected)
        return len(distinct_rewards)

    def assert_pairs_hold_sampled_ids(self, iteration: int) -> None:
        """The responses of every pair have the ids that were sampled."""
        response_rows = {row["prompt_id"]: row for row in self.rows(f"{iteration}-respond")}
        pairs = self.rows(f"{iteration}-pair")
        for pair in pairs:
            row = response_rows[pair["prompt_id"]]
            sampled_ids = set(zip(row["responses"], map(tuple, row["response_ids"]), strict=True))
            for side in ("chosen", "rejected"):
                assert (pair[side][-1]["content"], tuple(pair[f"{side}_ids"])) in sampled_ids
        assert pairs

    def assert_ids_are_hashes(self, label: str) -> None:
        """The id of every prompt is the hash of its content."""
        assert all(row["prompt_id"] == prompt_id(row["messages"]) for row in self.rows(label))


def whole_run(folder: Path, server: LargeModel, recipe: str, settings: Sequence[str]) -> WholeRun:
    """Run a recipe twice; print the time and the mean rewards."""
    command = ("run", recipe, "--run-dir", str(folder), *settings, "--json")
    start = time.monotonic()
    document = json.loads(run_eva(*command, seconds=SECONDS).stdout)
    seconds, requests, event_count = time.monotonic() - start, len(server.requests), len(events(folder))
    rewards = " -> ".join(f"{iteration['mean_reward']:.3f}" for iteration in document["iterations"])
    print(f"\n{folder.name}: {seconds:.0f} s, {requests} requests; mean reward of the sampled responses {rewards}")
    rerun_document = json.loads(run_eva(*command, seconds=SECONDS).stdout)
    return WholeRun(folder, command, document, rerun_document, len(server.requests) - requests, len(events(folder)) - event_count)
