"""The figures of an iteration's health, all from artifacts that are there anyway, but for the policy's distance to theta_0.

What can be known depends on the recipe: a loss over pairs has pairs, a judged benchmark a win rate. What is not known is null. Limits
are held against these figures later and elsewhere (`core/health_signs.py`), so that another limit computes nothing again.
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
from eva_stages.core.reasoning import CUT
from eva_stages.core.rows import SCHEMAS, last_user_text
from eva_stages.core.runner import Context
from eva_stages.core.tables import FILE, ROWS_PER_GROUP, count_rows, mean_tokens, per_prompt_mean, read_table, write_rows
from eva_stages.models.divergence import TokenizedResponse

Figures = dict[str, float | None]
ITSELF = 0.5
"""The win rate of a policy against itself, which is what the first iteration is compared with."""
NGRAM = 3
TEXTS = 2 * ROWS_PER_GROUP
"""Prompts that are read for their trigrams: the share of distinct ones falls with their number, so it is the same for every set."""


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

    Inputs of the stage: prompts, seeds, policy; and as far as there are such: pairs; initial, questions, answers, base_answers;
    rewards, rewards_before; score, score_before.

    Args:
        answers: how many the distance to theta_0 is estimated from; 0 = it is not.
        system_prompt, date: what the policy answered under.
        dtype, device: see `load_model`.
        evolved_share: share of evolved prompts that the recipe asks for; None where no prompts evolve.
    """
    inputs = context.inputs
    figures = _prompt_figures(inputs["prompts"], inputs["seeds"])
    figures["evolved_share"] = evolved(inputs["prompts"], evolved_share) if evolved_share else None
    figures["pair_share"] = count_rows(inputs["pairs"]) / count_rows(inputs["prompts"]) if "pairs" in inputs else None
    figures["chosen_nll"] = nll_growth(read_json(inputs["policy"] / "training_log.json", list))
    figures |= _answer_figures(inputs["answers"], inputs["base_answers"]) if "answers" in inputs else {}
    figures |= _reward_figures(inputs)
    if answers and "answers" in inputs:
        arguments = {
            "policy": str(inputs["policy"]),
            "initial": str(inputs["initial"]),
            "answers": answered(read_table(inputs["questions"]), read_table(inputs["answers"]), answers),
            "system_prompt": system_prompt,
            "date": date,
            "dtype": dtype,
            "device": device,
        }
        log = context.work / "divergence.log"
        figures |= run_in_child("eva_stages.models.divergence:divergence", arguments, log, lambda: None)
    figures = finite_json(figures)
    context.out.mkdir(parents=True)
    (context.out / "figures.json").write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return {"figures": figures}


def probe(context: Context, size: int, seed: int) -> dict[str, Any]:
    """A sample of the stage's `prompts`, in their order."""
    prompts = read_table(context.inputs["prompts"])
    drawn = np.random.default_rng(seed).permutation(len(prompts))[:size]
    write_rows([prompts.take(pa.array(np.sort(drawn)))], SCHEMAS["prompts"], context.out)
    return {}


def answered(questions: pa.Table, answers: pa.Table, most: int) -> list[TokenizedResponse]:
    """The first answers to all questions, then the second ones, and so on, as far as `most`; missing ones are left out."""
    messages = dict(zip(questions["prompt_id"].to_pylist(), questions["messages"].to_pylist(), strict=True))
    rows = answers.select(["prompt_id", "response_ids"]).to_pylist()
    turns = range(max((len(row["response_ids"]) for row in rows), default=0))
    found = [
        TokenizedResponse(messages[row["prompt_id"]], row["response_ids"][turn])
        for turn in turns
        for row in rows
        if row["response_ids"][turn] is not None
    ]
    return found[:most]


def effective_number(counts: np.ndarray) -> float:
    """exp of the entropy of the counts' shares: as many equally frequent kinds would be as mixed."""
    shares = counts / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def distinct_ngrams(texts: Iterable[str], n: int = NGRAM) -> float | None:
    """Different n-grams of words over all of them [Li et al. 2016]; None if no text has n words."""
    seen: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = text.split()
        seen.update(zip(*(words[start:] for start in range(n)), strict=False))
    return len(seen) / seen.total() if seen else None


def equal_share(responses: Iterable[Sequence[str | None]]) -> float | None:
    """Mean over prompts of (n - different ones) / (n - 1): 0 = all differ, 1 = all are the same; None without two known responses."""
    known = [[response for response in row if response is not None] for row in responses]
    shares = [(len(row) - len(set(row))) / (len(row) - 1) for row in known if len(row) > 1]
    return float(np.mean(shares)) if shares else None


def nll_growth(log: Sequence[dict[str, Any]]) -> float | None:
    """-log pi(chosen) in the last quarter of the steps over the first quarter's; None where the loss logs none."""
    chosen = [-entry["logps/chosen"] for entry in log if entry.get("logps/chosen") is not None]
    quarter = max(1, len(chosen) // 4)
    first, last = (float(np.mean(part)) if chosen else 0.0 for part in (chosen[:quarter], chosen[-quarter:]))
    return last / first if first > 0 and math.isfinite(last / first) else None


def drift(tokens: float, before: float) -> float | None:
    """How many times longer or shorter; None if either says nothing."""
    return max(tokens / before, before / tokens) if tokens > 0 and before > 0 else None


def hacking(rewards: Sequence[float | None], wins: Sequence[float | None]) -> float | None:
    """The fall of the win rate from the first to the second, where the reward rose; 0 elsewhere, None if something is not known."""
    (reward_before, reward), (win_before, win) = rewards, wins
    if reward is None or reward_before is None or win is None or win_before is None:
        return None
    return max(0.0, win_before - win) if reward > reward_before else 0.0


def _prompt_figures(prompts: Path, seeds: Path) -> Figures:
    roots = pc.value_counts(read_table(prompts, ["root_id"])["root_id"].combine_chunks()).field("counts").to_numpy()
    own, first = (distinct_ngrams(_some_texts(folder)) for folder in (prompts, seeds))
    return {
        "seed_share": effective_number(roots) / float(roots.sum()),
        "distinct_prompts": own / first if own is not None and first else None,
    }


def evolved(prompts: Path, wanted: float) -> float:
    """Evolved prompts of a mixed set, as a share of those that were `wanted` (a share of the set)."""
    origins = read_table(prompts, ["origin"])["origin"]
    return int(pc.sum(pc.equal(origins, "evolved")).as_py() or 0) / max(1, round(wanted * len(origins)))


def _some_texts(folder: Path) -> list[str]:
    """The last user turns of `TEXTS` prompts from all over the set; of all where there are fewer."""
    file = pq.ParquetFile(folder / FILE, memory_map=True)
    groups = np.unique(np.linspace(0, file.num_row_groups - 1, 2 * TEXTS // ROWS_PER_GROUP).astype(int))
    messages = file.read_row_groups(groups.tolist(), columns=["messages"])["messages"]
    rows = np.unique(np.linspace(0, len(messages) - 1, TEXTS).astype(int))
    return [last_user_text(one) for one in messages.take(pa.array(rows)).to_pylist()]


def _answer_figures(answers: Path, base: Path) -> Figures:
    lengths = [mean_tokens(folder) for folder in (answers, base)]
    return {
        "answer_tokens": lengths[0],
        "length_drift": drift(*(length or 0.0 for length in lengths)),
        "length_limited": _length_limited(answers),
        "equal_responses": equal_share(read_table(answers, ["responses"])["responses"].to_pylist()),
    }


def _length_limited(answers: Path) -> float | None:
    """Share of the answers that did not end but were cut at the length limit; None without answers."""
    reasons = read_table(answers, ["finish_reasons"])["finish_reasons"].combine_chunks().flatten()
    return float(pc.mean(pc.is_in(reasons, pa.array(CUT))).as_py()) if len(reasons) else None


def _reward_figures(inputs: dict[str, Path]) -> Figures:
    rewards, before = (_mean_reward(inputs[name]) if name in inputs else None for name in ("rewards", "rewards_before"))
    wins = _win_rate(inputs["score"]) if "score" in inputs else None
    wins_before = _win_rate(inputs["score_before"]) if "score_before" in inputs else None
    wins_before = ITSELF if wins_before is None else wins_before
    return {"reward": rewards, "win_rate": wins, "reward_hacking": hacking([before, rewards], [wins_before, wins])}


def _mean_reward(rewards: Path) -> float | None:
    means = per_prompt_mean(read_table(rewards, ["rewards"]), "rewards")
    known = means[np.isfinite(means)]
    return float(mean(known)) if len(known) else None


def _win_rate(score: Path) -> float | None:
    """The judged win rate in a benchmark's scores, 0 to 1: Lettercraft's, or the score of a benchmark whose score is one in percent."""
    scores = read_json(score / "score.json", dict)
    if "judging" not in scores:
        return scores["win_rate"]["value"] if "win_rate" in scores else None
    return scores["score"]["value"] / 100 if scores["score"] else None
