"""The figures of an iteration's health, from existing artifacts; only the policy's distance to the base policy is computed for them.

Which figures exist depends on the recipe: a loss over pairs has pairs, a judged benchmark a win rate. The others are null.
`core/health_signs.py` compares the figures with the limits afterwards, so a changed limit recomputes nothing.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eva_stages.core.harmless import finite_json
from eva_stages.core.numeric import mean
from eva_stages.core.ourfiles import read_json
from eva_stages.core.process import run_in_child
from eva_stages.core.reasoning import CUT_REASONS
from eva_stages.core.rows import last_user_text
from eva_stages.core.runner import Context
from eva_stages.core.tables import FILE, ROWS_PER_GROUP, count_rows, mean_tokens, per_prompt_mean, read_table, write_rows
from eva_stages.evaluation.held_out_rewards import held_out_figures
from eva_stages.evaluation.judge_repeats import repeat_figures
from eva_stages.models.divergence import TokenizedResponse

Figures = dict[str, float | None]
RATE_AGAINST_ITSELF = 0.5
"""Win rate of a policy against itself, with which the first iteration is compared."""
NGRAM = 3
COVERAGE = ("vendi_share", "cluster_share", "cells", "nearest_distance")
"""Figures of the prompts' diversity, columns of the stage `coverage`."""
TEXTS = 2 * ROWS_PER_GROUP
"""Prompts whose trigrams are counted, the same number for every set: the share of distinct trigrams falls with it."""


def measure(
    context: Context,
    answers: int,
    system_prompt: str | None,
    dtype: str,
    device: str,
    date: str | None = None,
    evolved_share: float | None = None,
) -> dict[str, Any]:
    """Write `figures.json`, and put the same figures into the manifest.

    Inputs of the stage: prompts, seeds, policy; and where available: pairs; uses (of prompts in online training); initial, questions,
    answers, base_answers; rewards, rewards_before; score, score_before; gate (its verdicts), coverage; held_out and what `held_out_figures`
    reads beside it; judgments, rejudgments.

    Args:
        answers: number of responses for the estimate of the distance to the base policy; 0 = no estimate.
        system_prompt, date: in the prompts of these responses.
        dtype, device: see `load_model`.
        evolved_share: the recipe's share of evolved prompts; None if no prompts evolve.
    """
    inputs = context.inputs
    figures = _prompt_figures(inputs["prompts"], inputs["seeds"])
    figures["evolved_share"] = evolved(inputs["prompts"], evolved_share, inputs.get("uses")) if evolved_share else None
    figures |= {"gate_rate": gate_rate(inputs["gate"])} if "gate" in inputs else {}
    figures |= read_table(inputs["coverage"], COVERAGE).to_pylist()[0] if "coverage" in inputs else {}
    figures["pair_share"] = count_rows(inputs["pairs"]) / count_rows(inputs["prompts"]) if "pairs" in inputs else None
    figures["chosen_nll"] = nll_growth(read_json(inputs["policy"] / "training_log.json", list))
    figures |= _answer_figures(inputs["answers"], inputs["base_answers"]) if "answers" in inputs else {}
    figures |= _reward_figures(inputs)
    figures |= held_out_figures(inputs) if "held_out" in inputs else {}
    if "rejudgments" in inputs:
        figures |= repeat_figures(*(read_table(inputs[name]) for name in ("judgments", "rejudgments")))
    if answers and "answers" in inputs:
        arguments = {
            "policy": str(inputs["policy"]),
            "initial": str(inputs["initial"]),
            "responses": sampled_answers(read_table(inputs["questions"]), read_table(inputs["answers"]), answers),
            "system_prompt": system_prompt,
            "date": date,
            "dtype": dtype,
            "device": device,
        }
        log = context.work / "divergence.log"
        figures |= run_in_child("eva_stages.models.divergence:divergence", arguments, log, lambda: None)
    figures = finite_json(figures)
    context.artifact.mkdir(parents=True)
    (context.artifact / "figures.json").write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return {"figures": figures}


def probe(context: Context, size: int, seed: int) -> dict[str, Any]:
    """Write a sample of the stage's `prompts`, in their order."""
    prompts = read_table(context.inputs["prompts"])
    drawn_rows = np.random.default_rng(seed).permutation(len(prompts))[:size]
    write_rows([prompts.take(pa.array(np.sort(drawn_rows)))], prompts.schema, context.artifact)
    return {}


def sampled_answers(questions: pa.Table, answers: pa.Table, limit: int) -> list[TokenizedResponse]:
    """The first responses to all questions, then the second ones, and so on, `limit` at most, without those that are null."""
    messages = dict(zip(questions["prompt_id"].to_pylist(), questions["messages"].to_pylist(), strict=True))
    rows = answers.select(["prompt_id", "response_ids"]).to_pylist()
    turns = range(max((len(row["response_ids"]) for row in rows), default=0))
    sample = [
        TokenizedResponse(messages[row["prompt_id"]], row["response_ids"][turn])
        for turn in turns
        for row in rows
        if row["response_ids"][turn] is not None
    ]
    return sample[:limit]


def effective_number(counts: np.ndarray) -> float:
    """exp(-sum p log p) over the counts' shares p: the number of equally frequent kinds with the same entropy."""
    shares = counts / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def distinct_ngrams(texts: Iterable[str], n: int = NGRAM) -> float | None:
    """Number of distinct n-grams of words over the number of all [Li et al. 2016]; None if no text has n words."""
    ngrams: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = text.split()
        ngrams.update(zip(*(words[start:] for start in range(n)), strict=False))
    return len(ngrams) / ngrams.total() if ngrams else None


def equal_share(responses: Iterable[Sequence[str | None]]) -> float | None:
    """Mean over prompts of (n - distinct responses) / (n - 1): 0 = all differ, 1 = all are equal; None if no prompt has two responses."""
    rows = [[response for response in row if response is not None] for row in responses]
    shares = [(len(row) - len(set(row))) / (len(row) - 1) for row in rows if len(row) > 1]
    return float(np.mean(shares)) if shares else None


def nll_growth(log: Sequence[dict[str, Any]]) -> float | None:
    """-log pi(chosen) in the last quarter of the steps over that in the first quarter; None if the loss does not log it."""
    chosen = [-entry["logps/chosen"] for entry in log if entry.get("logps/chosen") is not None]
    quarter = max(1, len(chosen) // 4)
    first, last = (float(np.mean(part)) if chosen else 0.0 for part in (chosen[:quarter], chosen[-quarter:]))
    return last / first if first > 0 and math.isfinite(last / first) else None


def drift(tokens: float, tokens_before: float) -> float | None:
    """max(a / b, b / a) of two lengths; None if either is 0."""
    return max(tokens / tokens_before, tokens_before / tokens) if tokens > 0 and tokens_before > 0 else None


def hacking(rewards: Sequence[float | None], wins: Sequence[float | None]) -> float | None:
    """How far the win rate fell while the reward rose; 0 if the reward did not rise, None if a value is missing."""
    (reward_before, reward), (win_before, win) = rewards, wins
    if reward is None or reward_before is None or win is None or win_before is None:
        return None
    return max(0.0, win_before - win) if reward > reward_before else 0.0


def _prompt_figures(prompts: Path, seeds: Path) -> Figures:
    roots = pc.value_counts(read_table(prompts, ["root_id"])["root_id"].combine_chunks()).field("counts").to_numpy()
    own_share, first = (distinct_ngrams(_some_texts(folder)) for folder in (prompts, seeds))
    return {
        "seed_share": effective_number(roots) / float(roots.sum()),
        "distinct_prompts": own_share / first if own_share is not None and first else None,
    }


def evolved(prompts: Path, wanted_share: float, uses: Path | None = None) -> float:
    """Evolved prompts of a mixed set over their planned number (`wanted_share` of the set).

    Args:
        uses: of prompts in online training, which count instead of the prompts.
    """
    mixture = read_table(prompts, ["prompt_id", "origin"])
    origins = mixture["origin"]
    if uses is not None:
        used_ids = read_table(uses, ["prompt_id"])["prompt_id"]
        origins = origins.take(pc.index_in(used_ids, value_set=mixture["prompt_id"].combine_chunks()))
    return int(pc.sum(pc.equal(origins, "evolved")).as_py() or 0) / max(1, round(wanted_share * len(origins)))


def gate_rate(verdicts: Path) -> float | None:
    """The share of evolved prompts that the gate passes, of those with a verdict; None if there are none."""
    share = pc.mean(read_table(verdicts, ["valid"])["valid"].cast(pa.float64())).as_py()
    return None if share is None else float(share)


def _some_texts(folder: Path) -> list[str]:
    """Last user turns of `TEXTS` evenly spaced prompts, or of all prompts if there are fewer."""
    file = pq.ParquetFile(folder / FILE, memory_map=True)
    groups = np.unique(np.linspace(0, file.num_row_groups - 1, 2 * TEXTS // ROWS_PER_GROUP).astype(int))
    messages = file.read_row_groups(groups.tolist(), columns=["messages"])["messages"]
    rows = np.unique(np.linspace(0, len(messages) - 1, TEXTS).astype(int))
    return [last_user_text(conversation) for conversation in messages.take(pa.array(rows)).to_pylist()]


def _answer_figures(answers: Path, base: Path) -> Figures:
    lengths = [mean_tokens(folder) for folder in (answers, base)]
    return {
        "answer_tokens": lengths[0],
        "length_drift": drift(*(length or 0.0 for length in lengths)),
        "length_limited": _length_limited(answers),
        "equal_responses": equal_share(read_table(answers, ["responses"])["responses"].to_pylist()),
    }


def _length_limited(answers: Path) -> float | None:
    """Share of the responses that the length limit cut off; None without responses."""
    reasons = read_table(answers, ["finish_reasons"])["finish_reasons"].combine_chunks().flatten()
    return float(pc.mean(pc.is_in(reasons, pa.array(CUT_REASONS))).as_py()) if len(reasons) else None


def _reward_figures(inputs: dict[str, Path]) -> Figures:
    rewards, reward_before = (_mean_reward(inputs[name]) if name in inputs else None for name in ("rewards", "rewards_before"))
    wins = _win_rate(inputs["score"]) if "score" in inputs else None
    wins_before = _win_rate(inputs["score_before"]) if "score_before" in inputs else None
    wins_before = RATE_AGAINST_ITSELF if wins_before is None else wins_before
    return {"reward": rewards, "win_rate": wins, "reward_hacking": hacking([reward_before, rewards], [wins_before, wins])}


def _mean_reward(rewards: Path) -> float | None:
    means = per_prompt_mean(read_table(rewards, ["rewards"]), "rewards")
    finite_means = means[np.isfinite(means)]
    return float(mean(finite_means)) if len(finite_means) else None


def _win_rate(score: Path) -> float | None:
    """The judged win rate in a benchmark's scores, 0 to 1: Lettercraft's `win_rate`, or a public benchmark's score, which is in percent."""
    scores = read_json(score / "score.json", dict)
    if "judging" not in scores:
        return scores["win_rate"]["value"] if "win_rate" in scores else None
    return scores["score"]["value"] / 100 if scores["score"] else None
