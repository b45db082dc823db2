"""One prompt in a run, by iteration: responses and rewards, informativeness, pair, and the checkpoints trained on it."""

from collections.abc import Callable
from typing import Any

from eva_stages.views.history import Artifact, History
from eva_stages.views.lookup import Row, Rows

ANSWERING = (("creator-respond", "creator-reward"), ("admit-respond", "admit-reward"), ("respond", "reward"))


class Facts:
    """Reads them from the artifacts of a run; `open_rows` gives the rows of an artifact."""

    def __init__(self, history: History, open_rows: Callable[[Artifact], Rows]) -> None:
        self._history, self._open = history, open_rows

    def of(self, prompt_id: str) -> dict[str, list[Row]]:
        """Responses, informativeness, draws from the archive, utilities, pairs, uses in online training and checkpoints of a prompt."""
        return {
            "answers": self._answers(prompt_id),
            "informativeness": self._informativeness(prompt_id),
            "archive_draws": self._archive_draws(prompt_id),
            "utilities": self._utilities(prompt_id),
            "pairs": self._pairs(prompt_id),
            "uses": self._uses(prompt_id),
            "checkpoints": self._checkpoints(prompt_id),
        }

    def _row(self, stage: str, iteration: int, prompt_id: str) -> Row | None:
        artifact = self._history.find(stage, iteration)
        return None if artifact is None or artifact.rows is None else self._open(artifact).of(prompt_id)

    def _answers(self, prompt_id: str) -> list[Row]:
        entries = []
        for iteration in self._history.iterations:
            for responding, rewarding in ANSWERING:
                if response_row := self._row(responding, iteration, prompt_id):
                    reward_row = self._row(rewarding, iteration, prompt_id)
                    entries.append({"stage": responding, "iteration": iteration, **_response_entry(response_row, reward_row)})
        return entries

    def _informativeness(self, prompt_id: str) -> list[Row]:
        entries = []
        for iteration in self._history.iterations:
            if info := self._row("inform", iteration, prompt_id):
                selection_row = self._row("select", iteration, prompt_id)
                metrics = {name: value for name, value in info.items() if name not in ("prompt_id", "weight")}
                selection_complete = self._history.find("select", iteration) is not None
                selected = {
                    "selected": selection_row is not None if selection_complete else None,
                    "probability": selection_row["probability"] if selection_row else None,
                }
                entries.append({"iteration": iteration, "metrics": metrics, "weight": info["weight"], **selected})
        return entries

    def _archive_draws(self, prompt_id: str) -> list[Row]:
        """The iterations that evolved the prompt although it was no longer in the current set, so that they did not score it again."""
        entries = []
        for iteration in self._history.iterations:
            selection_row = self._row("select", iteration, prompt_id)
            if selection_row and self._row("inform", iteration, prompt_id) is None:
                entries.append({"iteration": iteration, "probability": selection_row["probability"]})
        return entries

    def _utilities(self, prompt_id: str) -> list[Row]:
        """What the prompt was worth for the training of the creator, in the iterations in which it was written."""
        rows = [(artifact.iteration, self._open(artifact).of(prompt_id)) for artifact in self._history.every("creator-utility")]
        names = ("valid", "spread", "similarity", "utility")
        return [{"iteration": iteration, **{name: row[name] for name in names}} for iteration, row in rows if row]

    def _pairs(self, prompt_id: str) -> list[Row]:
        entries = []
        for artifact in self._history.every("pair"):
            last = self._history.find("rewritten", artifact.iteration) or artifact
            if pair := self._open(last).of(prompt_id):
                sides = {side: pair[side][-1]["content"] for side in ("chosen", "rejected")}
                rewards = {name: pair[name] for name in ("chosen_reward", "rejected_reward")}
                entries.append({"iteration": artifact.iteration, **sides, **rewards, "rewritten": bool(pair.get("rewritten"))})
        return entries

    def _uses(self, prompt_id: str) -> list[Row]:
        """The optimiser steps of online training that used the prompt; `score` is its value by the recipe's metric."""
        entries = []
        for artifact in self._history.every("uses"):
            rows = self._open(artifact)
            for use in rows.take(rows.where("prompt_id", prompt_id), ["step", "origin", "rewards", "score"]):
                known_rewards = [reward for reward in use["rewards"] if reward is not None]
                mean_reward = sum(known_rewards) / len(known_rewards) if known_rewards else None
                figures = {"mean_reward": mean_reward, "score": use["score"]}
                entries.append({"iteration": artifact.iteration, "step": use["step"], "origin": use["origin"], **figures})
        return entries

    def _checkpoints(self, prompt_id: str) -> list[Row]:
        """Checkpoints whose training data contain the prompt: pairs, or prompts where training is on-policy."""
        entries = []
        for artifact in self._history.every("train"):
            data = self._history.input_artifact(artifact, "pairs") or self._trained_prompts(artifact)
            if data is not None and len(self._open(data).where("prompt_id", prompt_id)):
                entries.append({"iteration": artifact.iteration, "artifact": artifact.folder.name, "digest": artifact.manifest["digest"]})
        return entries

    def _trained_prompts(self, training: Artifact) -> Artifact | None:
        if self._history.is_online:  # its input are the prompts that it draws from
            return self._history.prompt_sets.get(training.iteration)
        return self._history.input_artifact(training, "prompts")


def _response_entry(response_row: Row, reward_row: Row | None) -> dict[str, Any]:
    rewards = reward_row["rewards"] if reward_row else [None] * len(response_row["responses"])
    known_rewards = [reward for reward in rewards if reward is not None]
    responses = [
        {"text": text, "reward": reward, "finish_reason": reason}
        for text, reward, reason in zip(response_row["responses"], rewards, response_row["finish_reasons"], strict=True)
    ]
    is_complete = bool(known_rewards) and len(known_rewards) == len(rewards)
    return {
        "generator": response_row["generator"],
        "responses": responses,
        "mean_reward": sum(known_rewards) / len(known_rewards) if is_complete else None,
        "gap": max(known_rewards) - min(known_rewards) if is_complete else None,
    }
