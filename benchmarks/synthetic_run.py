"""A run of any size with random numbers and words, to measure reports and lineages and to test them with hostile texts.

Only what is on disk is real: the row schemas, the files and the manifests. No model has seen any of it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.rows import SCHEMAS
from eva_stages.core.tables import write_rows
from eva_stages.core.verdicts import outcome_of_label

WORDS = ("alpha", "river", "theorem", "colour", "engine", "border", "silver", "music", "garden", "signal", "market", "winter")
TOPICS = ("mathematics", "history", "cooking", "programming", "music", "travel")
MUTATIONS = ("constraints", "deepening", "concretizing", "increased_reasoning_steps", "breadth")
METRICS = ("reward_gap", "reward_max_minus_mean", "reward_best_minus_second", "reward_variance", "reward_mean")
CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
TIMES = {"started": "2026-01-01T00:00:00+00:00", "ended": "2026-01-01T00:01:00+00:00", "seconds": 60.0}


def rows_of(schema: str, columns: Mapping[str, Any]) -> pa.Table:
    """Rows of a schema; the columns that are not given are null."""
    rows = len(next(iter(columns.values())))
    columns_of_schema = SCHEMAS[schema]
    return pa.table({name: columns.get(name, [None] * rows) for name in columns_of_schema.names}, schema=columns_of_schema)


@dataclass
class SyntheticRun:
    """Writes a run of `prompts` prompts, `responses` responses each, and `iterations` eva iterations after the base round."""

    root: Path
    prompts: int
    responses: int = 6
    iterations: int = 3
    words: int = 60
    """Words of a response."""
    hostile: Sequence[str] = ()
    """Texts that replace every second prompt, response, topic and judge's word."""
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    folders: list[str] = field(default_factory=list)
    _id_count: int = 0

    def write(self) -> Path:
        (self.root / "stages").mkdir(parents=True)
        (self.root / "recipe.yaml").write_text(f"name: synthetic\nprompts: {{size: {self.prompts}}}\n", encoding="utf-8")
        present, name = self._seeds()
        self._round(0, present, name)
        for iteration in range(1, self.iterations + 1):
            present, name = self._evolve(iteration, present, name)
            self._round(iteration, present, name)
        self._evaluation()
        (self.root / "stages.json").write_text(json.dumps(self.folders), encoding="utf-8")
        return self.root

    # --- stages

    def _seeds(self) -> tuple[pa.Table, str]:
        ids = self._ids(self.prompts)
        rows = self._prompt_rows(ids, self._texts(self.prompts, 20), [None] * len(ids), ids, [0] * len(ids), [None] * len(ids))
        return rows, self._make("prompts", 0, rows, {})

    def _round(self, iteration: int, prompts: pa.Table, name: str) -> None:
        responses = self._answer("respond", iteration, prompts, name)
        matrix, rewards = self._reward("reward", iteration, prompts, responses)
        best, worst = matrix.argmax(axis=1), matrix.argmin(axis=1)
        rows = np.arange(len(matrix))
        texts = self._messages(self._texts(len(matrix), self.words), "assistant")
        pair_columns = {"prompt_id": prompts["prompt_id"], "prompt": prompts["messages"], "chosen": texts, "rejected": texts}
        pair_columns |= {"chosen_reward": pa.array(matrix[rows, best]), "rejected_reward": pa.array(matrix[rows, worst])}
        empty = {name: pa.nulls(len(rows), kind) for name, kind in zip(SCHEMAS["pairs"].names, SCHEMAS["pairs"].types, strict=True)}
        pairs = pa.table({**empty, **pair_columns}, schema=SCHEMAS["pairs"])
        name = self._make("pair", iteration, pairs, {"prompts": name, "rewards": rewards}, {"pair": len(pairs), "all_equal": 3})
        self._train(iteration, name)
        topics = pa.array([self._hostile(index, TOPICS[index % len(TOPICS)], 2) for index in range(len(prompts))])
        nulls = pa.nulls(len(prompts), pa.string())
        self._make(
            "analyse-topics",
            iteration,
            pa.table([prompts["prompt_id"], topics, np.ones(len(prompts)), nulls], schema=SCHEMAS["topics"]),
            {},
        )
        scores = [np.clip(self.rng.normal(2.5 + 0.3 * iteration, 1, len(prompts)).round(), 1, 5) for _ in range(2)]
        self._make("analyse-scores", iteration, pa.table([prompts["prompt_id"], *scores, nulls], schema=SCHEMAS["prompt_scores"]), {})

    def _evolve(self, iteration: int, prompts: pa.Table, name: str) -> tuple[pa.Table, str]:
        responses = self._answer("creator-respond", iteration, prompts, name)
        matrix, rewards = self._reward("creator-reward", iteration, prompts, responses)
        info_name = self._inform(iteration, prompts, matrix, rewards)
        indices = np.sort(self.rng.choice(len(prompts), len(prompts) // 4, replace=False))
        ids = prompts["prompt_id"].take(pa.array(indices))
        selected = pa.table([ids, np.full(len(indices), 1 / len(prompts)), np.arange(len(indices))], schema=SCHEMAS["selected"])
        self._make("select", iteration, selected, {"info": info_name})
        evolutions = self._evolutions(iteration, prompts.take(pa.array(indices)))
        usable = evolutions.filter(pc.is_null(evolutions["rejected"])).drop_columns("rejected")
        counts = {"evolved": len(evolutions), "kept": len(usable), "refusal": len(evolutions) - len(usable)}
        self._make("curate", iteration, usable, {}, counts)
        new = usable.take(pa.array(np.sort(self.rng.choice(len(usable), min(len(usable), int(0.8 * self.prompts)), replace=False))))
        kept_prompts = prompts.take(pa.array(np.sort(self.rng.choice(len(prompts), self.prompts - len(new), replace=False))))
        origin = pa.array(["evolved"] * len(new) + ["buffer"] * len(kept_prompts))
        mixture = pa.concat_tables([new, kept_prompts.select(new.column_names)]).append_column("origin", origin)
        return mixture, self._make("mix", iteration, mixture, {"present": name})

    def _evolutions(self, iteration: int, parent_prompts: pa.Table) -> pa.Table:
        """Four in sequence of each drawn prompt; every ninth is rejected, and the next goes on from the one before."""
        ids = self._ids(4 * len(parent_prompts))
        parents, generations, rejected = [], [], []
        roots = parent_prompts["root_id"].to_pylist()
        for index, (parent, generation) in enumerate(
            zip(parent_prompts["prompt_id"].to_pylist(), parent_prompts["generation"].to_pylist(), strict=True)
        ):
            for step in range(4):
                place = 4 * index + step
                parents.append(parent)
                generations.append(generation + 1)
                rejected.append("refusal" if place % 9 == 8 else None)
                if rejected[-1] is None:
                    parent, generation = ids[place], generation + 1
        mutations = [MUTATIONS[place % len(MUTATIONS)] for place in range(len(ids))]
        rows = self._prompt_rows(
            ids, self._texts(len(ids), 30), parents, [root for root in roots for _ in range(4)], generations, mutations
        )
        rows = rows.append_column("rejected", pa.array(rejected, pa.string()))
        self._make("evolve", iteration, rows, {}, {"output_tokens": 40 * len(rows)})
        return rows

    def _inform(self, iteration: int, prompts: pa.Table, matrix: np.ndarray, rewards: str) -> str:
        sorted_rewards = np.sort(matrix, axis=1)
        gap, mean = sorted_rewards[:, -1] - sorted_rewards[:, 0], matrix.mean(axis=1)
        values = (gap, sorted_rewards[:, -1] - mean, sorted_rewards[:, -1] - sorted_rewards[:, -2], matrix.var(axis=1), mean)
        table = pa.table(
            {"prompt_id": prompts["prompt_id"], **dict(zip(METRICS, values, strict=True)), "uniform": np.ones(len(gap)), "weight": gap}
        )
        return self._make("inform", iteration, table, {"rewards": rewards})

    def _answer(self, stage: str, iteration: int, prompts: pa.Table, name: str) -> str:
        count = len(prompts) * self.responses
        offsets = pa.array(np.arange(0, count + 1, self.responses), pa.int32())
        lists = [
            pa.ListArray.from_arrays(offsets, values)
            for values in (self._texts(count, self.words), pa.array(["stop"] * count), pa.array(np.full(count, self.words, np.int32)))
        ]
        list_columns = dict(zip(("responses", "finish_reasons", "token_counts"), lists, strict=True))
        by = {"generator": ["policy"] * len(prompts), "seed": np.zeros(len(prompts), np.int64)}
        rows = rows_of("responses", {"prompt_id": prompts["prompt_id"], **list_columns, **by})
        return self._make(stage, iteration, rows, {"prompts": name}, {"output_tokens": count * self.words, "cost_usd": 0.5})

    def _reward(self, stage: str, iteration: int, prompts: pa.Table, responses: str) -> tuple[np.ndarray, str]:
        matrix = np.clip(self.rng.beta(2, 2, (len(prompts), 1)) + self.rng.normal(0, 0.15, (len(prompts), self.responses)), 0, 1)
        offsets = pa.array(np.arange(0, matrix.size + 1, self.responses), pa.int32())
        lists = [pa.ListArray.from_arrays(offsets, values) for values in (pa.array(matrix.ravel()), pa.nulls(matrix.size, pa.string()))]
        table = pa.table([prompts["prompt_id"], *lists], schema=SCHEMAS["rewards"])
        return matrix, self._make(stage, iteration, table, {"responses": responses})

    def _train(self, iteration: int, pairs: str) -> None:
        folder = self._folder("train", iteration)
        (folder / "model").mkdir(parents=True)
        log = [
            {"step": step, "loss": 0.69 * 0.99**step, "rewards/margins": step / 300, "rewards/accuracies": 0.5 + step / 700}
            for step in range(1, 313)
        ]
        (folder / "model" / "training_log.json").write_text(json.dumps(log), encoding="utf-8")
        training = {"loss": 0.4, "reward_margin": 1.0, "reward_accuracy": 0.9}
        self._manifest(folder, "train", iteration, None, {"pairs": pairs}, {"pairs": self.prompts, "steps": 312}, training=training)

    def _evaluation(self) -> None:
        """A judged comparison on Lettercraft's pattern, and the scores of two public benchmarks."""
        count = 60
        ids = self._ids(count)
        texts = self._texts(count, 20)
        questions = self._make("questions", 0, self._prompt_rows(ids, texts, [None] * count, ids, [0] * count, [None] * count), {})
        base = self._eval_answers("base-answer", 0, ids, questions)
        for iteration in range(self.iterations + 1):
            answers = self._eval_answers("eval-answer", iteration, ids, questions)
            verdicts = self.rng.choice(["A>>B", "A>B", "A=B", "B>A", "B>>A", None], 2 * count).tolist()
            raw = [self._hostile(index, "because of the border", 1) for index in range(2 * count)]
            games = [0, 1] * count
            columns = {
                "question_id": [question_id for question_id in ids for _ in range(2)],
                "model": ["policy"] * (2 * count),
                "baseline": ["base"] * (2 * count),
                "game": games,
                "verdict": verdicts,
                "outcome": [outcome_of_label(verdict, game, "v0.1") for verdict, game in zip(verdicts, games, strict=True)],
                "raw": raw,
                "judge": ["judge"] * (2 * count),
            }
            judgment_rows = rows_of("judgments", columns)
            self._make("eval-judge", iteration, judgment_rows, {"questions": questions, "answers": answers, "baseline": base})
            rating = {name: 6 + 0.2 * iteration + 0.1 * index for index, name in enumerate(CATEGORIES)}
            judging = {
                "judge": "gpt-4",
                "judgments": 160,
                "failed_calls": 1,
                "no_verdict": 2,
                "parse_failure_rate": 0.0125,
                "first_place": None,
            }
            estimate = {"value": 6.5 + 0.2 * iteration, "low": 6.2 + 0.2 * iteration, "high": 6.8 + 0.2 * iteration, "n": 80}
            self._score(
                "eval-mt-bench-score", iteration, {"score": estimate, "official": {"score": 6.5, "categories": rating}, "judging": judging}
            )
            games = {**judging, "judgments": 1000, "first_place": 0.56, "consistent": 0.8, "usd": 12.5}
            estimate = {"value": 50 + 3.0 * iteration, "low": 47 + 3.0 * iteration, "high": 53 + 3.0 * iteration, "n": 500}
            self._score("eval-arena-hard-v0.1-score", iteration, {"score": estimate, "official": {"score": 50.1}, "judging": games})

    def _eval_answers(self, stage: str, iteration: int, ids: list[str], questions: str) -> str:
        texts = self._texts(len(ids), self.words)
        single_lists = pa.ListArray.from_arrays(pa.array(np.arange(len(ids) + 1), pa.int32()), texts)
        reasons = pa.array([["stop"]] * len(ids))
        counts = pa.array([[self.words]] * len(ids))
        sample_columns = {"responses": single_lists, "finish_reasons": reasons, "token_counts": counts}
        rows = rows_of(
            "answers", {"prompt_id": ids, **sample_columns, "greedy_responses": single_lists, "generator": ["policy"] * len(ids)}
        )
        return self._make(stage, iteration, rows, {"questions": questions})

    def _score(self, stage: str, iteration: int, scores: dict[str, Any]) -> None:
        folder = self._folder(stage, iteration)
        (folder / "data").mkdir(parents=True)
        self._manifest(folder, stage, iteration, None, {}, {}, scores=scores)

    # --- pieces

    def _ids(self, count: int) -> list[str]:
        """Ids as random as hashes are, each once."""
        new_ids = [f"{int(word):016x}{self._id_count + index:08x}" for index, word in enumerate(self.rng.integers(0, 2**63, count))]
        self._id_count += count
        return new_ids

    def _texts(self, count: int, words: int) -> pa.Array:
        """Slices of one long random text, or hostile ones in turn."""
        text = " ".join(self.rng.choice(WORDS, 20_000))
        starts = self.rng.integers(0, len(text) - 8 * words, count)
        texts = [text[start : start + 6 * words] for start in starts.tolist()]
        return pa.array([self._hostile(index, text, 2) for index, text in enumerate(texts)], pa.string())

    def _hostile(self, index: int, otherwise: str, every: int) -> str:
        return self.hostile[index // every % len(self.hostile)] if self.hostile and index % every == 0 else otherwise

    def _messages(self, texts: pa.Array, role: str) -> pa.Array:
        structs = pa.StructArray.from_arrays([pa.array([role] * len(texts)), texts], names=["role", "content"])
        return pa.ListArray.from_arrays(pa.array(np.arange(len(texts) + 1), pa.int32()), structs)

    def _prompt_rows(
        self,
        ids: list[str],
        texts: pa.Array,
        parents: Sequence[Any],
        roots: Sequence[str],
        generations: Sequence[int],
        mutations: Sequence[Any],
    ) -> pa.Table:
        empty = [None] * len(ids)
        columns = [ids, self._messages(texts, "user"), ["synthetic"] * len(ids), parents, roots, generations, mutations, empty]
        return pa.table(columns, schema=SCHEMAS["prompts"])

    def _folder(self, stage: str, iteration: int) -> Path:
        name = f"{iteration}-{stage}-{len(self.folders):012x}"
        self.folders.append(name)
        return self.root / "stages" / name

    def _make(
        self, stage: str, iteration: int, rows: pa.Table, inputs: Mapping[str, str], counts: Mapping[str, float] | None = None
    ) -> str:
        folder = self._folder(stage, iteration)
        write_rows([rows], rows.schema, folder / "data")
        self._manifest(folder, stage, iteration, len(rows), inputs, counts or {})
        return folder.name

    def _manifest(
        self,
        folder: Path,
        stage: str,
        iteration: int,
        rows: int | None,
        inputs: Mapping[str, str],
        counts: Mapping[str, float],
        **extra_fields: Any,
    ) -> None:
        identity = {"fingerprint": folder.name[-12:] * 5, "digest": "0" * 64}
        fields = {"stage": stage, "iteration": iteration, "version": 1, **identity, "rows": rows}
        input_entries = {
            name: {"fingerprint": artifact[-12:], "digest": "0" * 64, "artifact": artifact} for name, artifact in inputs.items()
        }
        versions = {"packages": {"numpy": np.__version__}, "python": "3.11", "git": None}
        (folder / "manifest.json").write_text(
            json.dumps({**fields, "inputs": input_entries, "counts": dict(counts), **TIMES, **versions, **extra_fields}), encoding="utf-8"
        )
