"""The rewriter in the loop: the chosen response of every pair, rewritten before training [paper, D.2.1].

Only prompts that give a pair are rewritten. A rewrite that failed, is empty, cut off, unchanged or of another length, that the reward
cannot score, or that the recipe's rule does not accept, leaves the pair unchanged and is counted by its reason. With `always` a rewrite
may score below the rejected response, as in the paper; the pairs have both rewards, for inspection.
"""

from collections import Counter
from collections.abc import Generator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from distilabel.steps import StepInput
from distilabel.typing import StepOutput

from eva_stages.core.distil import TableStep
from eva_stages.core.failures import add_calls
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.generating import ask, reply_of, totals
from eva_stages.core.parts import FAILED_CALLS, add_statistics
from eva_stages.core.rows import SCHEMAS, Message, normalise, one_message
from eva_stages.core.tables import Rows, aligned_batches, check_same_order, reward_matrix
from eva_stages.core.tasks import OneReplyTask

TEMPLATE = (
    "I want you to act as a Response Rewriter.\nRewrite #The Given Response# to the last message of #The Conversation# into a better one: "
    "more helpful, more relevant, deeper in its reasoning, more creative and more detailed. Keep what is right in it, its language and "
    "its format. It must have about the same length ({words} words).\nReply with the rewritten response and nothing else.\n"
    "#The Conversation#:\n{conversation}\n#The Given Response#:\n{response}\n#Rewritten Response#:\n"
)


def read_rewrite(reply: str | None) -> str:
    """The response in a rewriter's reply: the text after its last heading."""
    return (reply or "").rpartition("Rewritten Response#:")[2].strip()


def rejection(reply: str | None, finish_reason: str, original: str, shortest: float, longest: float) -> str | None:
    """Why a rewrite cannot be used; None if it can. `shortest` and `longest` are ratios of characters to the original's."""
    rewrite = read_rewrite(reply)
    if reply is None:
        return FAILED_CALLS
    if not rewrite:
        return "empty"
    if finish_reason == "length":
        return "truncated"
    if normalise(rewrite) == normalise(original):
        return "unchanged"
    ratio = len(rewrite) / max(1, len(original.strip()))
    return "too_short" if ratio < shortest else "too_long" if ratio > longest else None


class RewriteChosen(OneReplyTask):
    """Rewrites the chosen response of every pair.

    Attributes:
        shortest, longest: characters of a rewrite over the original's; others are rejected.
        seed: from the recipe, the stage and the iteration.

    Input columns:
        - prompt_id, prompt, chosen (chat messages)
    Output columns:
        - responses (`list[str | None]` of one: the rewrite, null where it cannot be used), reason (why not, or null), failure (why the
          call failed, where the reason is `failed`), generator
    Categories:
        - text-generation
    """

    shortest: float = 0.5
    longest: float = 1.5
    seed: int = 0

    @property
    def inputs(self) -> list[str]:
        return ["prompt_id", "prompt", "chosen"]

    @property
    def outputs(self) -> list[str]:
        return ["responses", "reason", "failure", "generator"]

    def format_input(self, input: dict[str, Any]) -> list[Message]:
        turns = "\n".join(f"{message['role']}: {message['content']}" for message in input["prompt"])
        response = input["chosen"][-1]["content"]
        text = TEMPLATE.format(words=len(response.split()), conversation=turns, response=response)
        return [{"role": "user", "content": text}]

    def format_output(self, output: str | None, input: dict[str, Any] | None = None) -> dict[str, Any]:
        return {"responses": [read_rewrite(output)]}

    def process(self, inputs: StepInput) -> StepOutput:
        seeds = [derive_seed(self.seed, row["prompt_id"]) for row in inputs]
        outputs = ask(self.llm, self._format_inputs(inputs), seeds)
        for row, output in zip(inputs, outputs, strict=True):
            reply, row["failure"] = reply_of(output)
            original = row["chosen"][-1]["content"]
            reason = rejection(reply, output["finish_reasons"][0], original, self.shortest, self.longest)
            row["responses"] = [None if reason else read_rewrite(reply)]
            row["reason"], row["generator"] = reason, self.llm.model_name
            add_calls(row, row["failure"])
            rejected = reason is not None and row["failure"] is None
            add_statistics(row, rewrites=1, rejected=int(rejected), **totals(output["statistics"]))
        yield inputs


class TakeRewrites(TableStep):
    """Pairs with the rewrites that count in the place of their chosen responses. Inputs: pairs, rewrites, the rewrites' rewards.

    Attributes:
        keep: `always`, or `if_no_worse` (the rewrite's reward is at least the original's).

    Input columns:
        - the columns of a pair row; prompt_id, responses, reason; prompt_id, rewards
    Output columns:
        - the columns of a pair; rewritten, original_chosen and original_reward (null where it is not rewritten)
    Categories:
        - preference
    """

    keep: str = "always"

    reads = [*SCHEMAS["pairs"].names, "responses", "reason", "rewards"]
    writes = SCHEMAS["rewritten_pairs"].names

    def stream(self, *sources: Rows) -> Generator[pa.Table, None, dict[str, int]]:
        check_same_order(sources, "pairs, rewrites and their rewards")
        counts: Counter[str] = Counter(pair=len(sources[0]))
        for batch in aligned_batches(sources, (SCHEMAS["pairs"].names, ("responses", "reason"), ("rewards",))):
            pairs, fates = self._taken_pairs(*batch)
            counts.update(fates.to_pylist())
            yield pairs
        return dict(counts)

    def _taken_pairs(self, pairs: pa.Table, rewrites: pa.Table, rewards: pa.Table) -> tuple[pa.Table, pa.ChunkedArray]:
        """The pairs, and what became of each rewrite: `rewritten`, or why it was not taken."""
        old_rewards, new_rewards = pairs["chosen_reward"].to_numpy(), reward_matrix(rewards["rewards"])[:, 0]
        worse = (new_rewards < old_rewards) & (self.keep == "if_no_worse")
        fates = pc.coalesce(rewrites["reason"], pa.array(np.select([np.isnan(new_rewards), worse], ["unscored", "worse"], "rewritten")))
        is_taken = pc.equal(fates, "rewritten")
        rewritten_messages = one_message(rewrites["responses"].combine_chunks().flatten())
        columns = {name: pairs[name] for name in pairs.column_names}
        columns |= {
            "chosen": pc.if_else(is_taken, pa.chunked_array([rewritten_messages]), pairs["chosen"]),
            "chosen_ids": pc.if_else(is_taken, None, pairs["chosen_ids"]),
            "chosen_reward": pc.if_else(is_taken, pa.array(new_rewards), pairs["chosen_reward"]),
            "rewritten": is_taken,
            "original_chosen": pc.if_else(is_taken, pairs["chosen"], None),
            "original_reward": pc.if_else(is_taken, pairs["chosen_reward"], None),
        }
        return pa.table(columns).cast(SCHEMAS["rewritten_pairs"]), fates
