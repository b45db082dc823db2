"""What a run did with one prompt, iteration by iteration: answers and rewards, informativeness, pair, and the checkpoints trained on it."""

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
        """answers, informativeness, pairs and checkpoints of a prompt."""
        return {
            "answers": self._answers(prompt_id),
            "informativeness": self._informativeness(prompt_id),
            "pairs": self._pairs(prompt_id),
            "checkpoints": self._checkpoints(prompt_id),
        }

    def _row(self, stage: str, iteration: int, prompt_id: str) -> Row | None:
        artifact = self._history.one(stage, iteration)
        return None if artifact is None or artifact.rows is None else self._open(artifact).of(prompt_id)

    def _answers(self, prompt_id: str) -> list[Row]:
        found = []
        for iteration in self._history.iterations:
            for responding, rewarding in ANSWERING:
                if answered := self._row(responding, iteration, prompt_id):
                    scored = self._row(rewarding, iteration, prompt_id)
                    found.append({"stage": responding, "iteration": iteration, **_answered(answered, scored)})
        return found

    def _informativeness(self, prompt_id: str) -> list[Row]:
        found = []
        for iteration in self._history.iterations:
            if info := self._row("inform", iteration, prompt_id):
                drawn = self._row("select", iteration, prompt_id)
                metrics = {name: value for name, value in info.items() if name not in ("prompt_id", "weight")}
                done = self._history.one("select", iteration) is not None
                selected = {"selected": drawn is not None if done else None, "probability": drawn["probability"] if drawn else None}
                found.append({"iteration": iteration, "metrics": metrics, "weight": info["weight"], **selected})
        return found

    def _pairs(self, prompt_id: str) -> list[Row]:
        found = []
        for artifact in self._history.every("pair"):
            last = self._history.one("rewritten", artifact.iteration) or artifact
            if pair := self._open(last).of(prompt_id):
                sides = {side: pair[side][-1]["content"] for side in ("chosen", "rejected")}
                rewards = {name: pair[name] for name in ("chosen_reward", "rejected_reward")}
                found.append({"iteration": artifact.iteration, **sides, **rewards, "rewritten": bool(pair.get("rewritten"))})
        return found

    def _checkpoints(self, prompt_id: str) -> list[Row]:
        """Those whose training data hold the prompt: pairs, perhaps of several iterations, or prompts where training is on-policy."""
        found = []
        for one in self._history.every("train"):
            data = self._history.used(one, "pairs") or self._history.used(one, "prompts")
            if data is not None and len(self._open(data).where("prompt_id", prompt_id)):
                found.append({"iteration": one.iteration, "artifact": one.folder.name, "digest": one.manifest["digest"]})
        return found


def _answered(answered: Row, scored: Row | None) -> dict[str, Any]:
    rewards = scored["rewards"] if scored else [None] * len(answered["responses"])
    known = [reward for reward in rewards if reward is not None]
    responses = [
        {"text": text, "reward": reward, "finish_reason": reason}
        for text, reward, reason in zip(answered["responses"], rewards, answered["finish_reasons"], strict=True)
    ]
    whole = bool(known) and len(known) == len(rewards)
    return {
        "generator": answered["generator"],
        "responses": responses,
        "mean_reward": sum(known) / len(known) if whole else None,
        "gap": max(known) - min(known) if whole else None,
    }
