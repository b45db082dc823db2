"""The complete data path of an iteration, without models: does memory stay flat as the prompt set grows, and time per row?

    python -m benchmarks.data_path                            20,000 and 200,000 prompts, and the ratios

The stages are those of a run, started, committed and verified by its runner: prompts from a file, responses, rewards, informativeness,
selection, evolution, contamination, curating, mixing, pairs; then novelty and coverage of the mixed set against the first one, the
archive of both, and the prompts drawn from it. Steps that generate random responses, rewards and evolutions in the same rows replace the
models. Memory is the proportional set size of all processes together, sampled ten times a second.
"""

import argparse
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from distilabel.steps import Step, StepInput

from benchmarks import large, sides
from benchmarks.sides import options, parse
from eva_stages.core.fingerprint import derive_seed, file_digest
from eva_stages.core.progress import Reporter
from eva_stages.core.rows import prompt_row
from eva_stages.core.run_folder import Run
from eva_stages.core.runner import execute
from eva_stages.core.stage import FunctionStage, Input, Outside, RowStage, Stage, TableStage, Use

if TYPE_CHECKING:
    from distilabel.typing import StepOutput

RESPONSES = 6
GENERATIONS = 4
QUESTIONS = 200


class Respond(Step):
    """Answers every prompt with some of its words."""

    @property
    def inputs(self) -> list[str]:
        return ["prompt_id", "messages"]

    @property
    def outputs(self) -> list[str]:
        return ["responses", "finish_reasons", "token_counts", "response_ids", "generator", "seed"]

    def process(self, inputs: StepInput) -> "StepOutput":
        for row in inputs:
            words = row["messages"][-1]["content"].split()
            row["seed"] = derive_seed(row["prompt_id"])
            starts = np.random.default_rng(row["seed"]).integers(len(words), size=RESPONSES)
            row["responses"] = [" ".join(words[start:] + words) for start in starts]
            row["finish_reasons"], row["response_ids"], row["generator"] = ["stop"] * RESPONSES, None, "words"
            row["token_counts"] = [len(words)] * RESPONSES
        yield inputs


class Score(Step):
    """Rewards responses by their length, with noise."""

    @property
    def inputs(self) -> list[str]:
        return ["prompt_id", "responses"]

    @property
    def outputs(self) -> list[str]:
        return ["rewards", "failures"]

    def process(self, inputs: StepInput) -> "StepOutput":
        for row in inputs:
            noise = np.random.default_rng(derive_seed(row["prompt_id"])).normal(size=RESPONSES)
            row["rewards"] = [len(text) + float(noise_value) for text, noise_value in zip(row["responses"], noise, strict=True)]
            row["failures"] = [None] * RESPONSES
        yield inputs


class Reward(Step):
    """Random rewards, without responses."""

    @property
    def inputs(self) -> list[str]:
        return ["prompt_id"]

    @property
    def outputs(self) -> list[str]:
        return ["rewards", "failures"]

    def process(self, inputs: StepInput) -> "StepOutput":
        for row in inputs:
            row["rewards"] = np.random.default_rng(derive_seed(row["prompt_id"], "new")).normal(size=RESPONSES).tolist()
            row["failures"] = [None] * RESPONSES
        yield inputs


class Evolve(Step):
    """Evolves every prompt into several, each with some of its words put elsewhere."""

    @property
    def inputs(self) -> list[str]:
        return ["prompt_id", "messages", "root_id"]

    @property
    def outputs(self) -> list[str]:
        return ["prompt_id", "messages", "source", "parent_id", "root_id", "generation", "mutation", "reference", "rejected"]

    def process(self, inputs: StepInput) -> "StepOutput":
        yield [{**row, **self._child(row, generation)} for row in inputs for generation in range(GENERATIONS)]

    def _child(self, row: dict, generation: int) -> dict:
        words = row["messages"][-1]["content"].split()
        np.random.default_rng(derive_seed(row["prompt_id"], generation)).shuffle(words)
        lineage = {"parent_id": row["prompt_id"], "root_id": row["root_id"], "generation": 1, "mutation": "shuffled"}
        return {**prompt_row([{"role": "user", "content": " ".join(words)}], "shuffled", **lineage), "rejected": None}


def stages(folder: Path) -> list[Stage]:
    """The stages of one iteration over the prompts in `folder`."""
    file, questions = (Outside(name, folder / name, file_digest(folder / name)) for name in ("prompts.jsonl", "questions.jsonl"))
    settings = {"column": "prompt", "size": None, "max_characters": 8000, "seed": 1}
    load = Use("eva_stages.creator.prompt_loading:load_file", {"file": Input("file"), **settings})
    prompts = FunctionStage("prompts", 0, {"file": file}, function=load)
    responses = _rows("respond", "responses", "Respond", prompts=prompts)
    rewards = _rows("reward", "rewards", "Score", prompts=prompts, responses=responses)
    info = _table("inform", "creator.informativeness:Informativeness", {}, rewards=rewards)
    selection = _table("select", "creator.selection:Select", {"fraction": 0.25, "seed": 1}, info=info)
    evolved = _rows("evolve", "evolutions", "Evolve", drawn=selection, prompts=prompts)
    benchmark = {"benchmarks": {"questions": Input("questions")}}
    matches = _table("contamination", "creator.contamination:Contamination", benchmark, prompts=evolved, questions=questions)
    clean = _table("decontaminate", "creator.contamination:DropMatches", {}, prompts=evolved, matches=matches)
    curated_prompts = _table("curate", "creator.curation:Curate", {"near_duplicate": 0.8}, evolved=clean, prompts=prompts)
    mixture = _table("mix", "creator.mixture:Mix", {"seed": 1}, evolved=curated_prompts, present=prompts)
    pairs = _table("pair", "solver.pairing:MakePairs", {}, prompts=prompts, responses=responses, rewards=rewards)
    return [mixture, pairs, *_memory_stages(prompts, info, mixture)]


def _memory_stages(prompts: Stage, info: Stage, mixture: Stage) -> list[Stage]:
    """What the next iteration does with the memory of the first set; the mixed set has random rewards."""
    rewards = _rows("new-reward", "rewards", "Reward", prompts=mixture)
    new_info = _table("new-inform", "creator.informativeness:Informativeness", {}, rewards=rewards)
    novelty = _table("novelty", "creator.novelty:Novelty", {}, present=mixture, prompts=prompts)
    use = {"cell": "lettercraft"}
    earlier = _table("old-archive", "creator.archive:UpdateArchive", use, prompts=prompts, info=info)
    settings = {**use, "iteration": 2, "novelty_weight": 1.0}
    archive = _table("archive", "creator.archive:UpdateArchive", settings, prompts=mixture, info=new_info, archive=earlier, novelty=novelty)
    selection = _table("archive-select", "creator.archive:SelectFromArchive", {"seed": 1}, archive=archive, prompts=mixture)
    rows = _table("archived", "creator.archive:ArchivedPrompts", {}, selected=selection, present=mixture, prompts=prompts)
    return [rows, _table("coverage", "creator.coverage:Coverage", {"sets": 2, **use}, present=mixture, prompts=prompts)]


def _rows(name: str, schema: str, step: str, **sources: Stage) -> Stage:
    use = Use(f"benchmarks.data_path:{step}")
    return RowStage(name, 0, sources, sources=tuple(sources), steps=(use,), schema=schema, rows_per_part=512)


def _table(name: str, step: str, arguments: dict, **inputs: Stage | Outside) -> Stage:
    sources = tuple(key for key, upstream in inputs.items() if isinstance(upstream, Stage))
    return TableStage(name, 0, inputs, sources=sources, step=Use(f"eva_stages.{step}", arguments))


class Memory:
    """The most memory that this process and its descendants use together, in MiB; `by_stage` for the stages that `stage` names."""

    def __init__(self) -> None:
        self.stage, self.by_stage, self._end_event = "", dict[str, float](), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end_event.set()
        self._thread.join()

    def measure(self) -> None:
        """Sample the memory now, so that no stage is too short to be measured."""
        process = psutil.Process()
        used_mib = sum(map(_share, [process, *process.children(recursive=True)])) / 2**20
        self.by_stage[self.stage] = max(self.by_stage.get(self.stage, 0), used_mib)

    def _watch(self) -> None:
        while not self._end_event.wait(0.1):
            self.measure()


def _share(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Run the iteration; seconds, rows and peak memory of every stage."""

    class StageReporter(Reporter):
        def log_start(self, text: str) -> None:
            self.log(text)

        def say(self, text: str) -> None:
            super().say(text)
            memory.measure()
            memory.stage = text.partition(":")[0]

    run = Run(folder / "run")
    run.create()
    with run.lock(), Memory() as memory:
        execute(run, stages(folder), StageReporter())
    done_events = [event for event in run.events() if event["event"] == "done"]
    return {
        event["stage"]: {"seconds": event["seconds"], "rows": event["rows"], "peak_mib": memory.by_stage.get(event["stage"], 0)}
        for event in done_events
    }


def write_inputs(prompts: int, folder: Path) -> None:
    with (folder / "prompts.jsonl").open("w", encoding="utf-8") as stream:
        for text in _texts(prompts):
            stream.write(json.dumps({"prompt": text}) + "\n")
    with (folder / "questions.jsonl").open("w", encoding="utf-8") as stream:
        for number, text in enumerate(large.texts(QUESTIONS, 20, np.random.default_rng(9))):
            stream.write(json.dumps({"question_id": number, "turns": [text]}) + "\n")


def _texts(count: int) -> Iterator[str]:
    for table in large.prompt_tables(count, near=0.0):
        yield from (messages[0]["content"] for messages in table["messages"].to_pylist())


def compare(figures_by_size: dict[int, dict[str, dict[str, float]]]) -> None:
    """Print the larger size stage by stage, and what the sizes take a prompt and in memory."""
    small, big = sorted(figures_by_size)
    print(f"{'stage':<18}{'rows':>10}{'s':>9}{'ms/prompt':>11}{'MiB':>8}   over those of {small:,} prompts: ms/prompt, MiB")
    for stage, figures in figures_by_size[big].items():
        small_figures = figures_by_size[small][stage]
        time_ratio, peak = figures["seconds"] / small_figures["seconds"] * small / big, figures["peak_mib"] / small_figures["peak_mib"]
        print(
            f"{stage:<18}{figures['rows']:>10,}{figures['seconds']:>9.1f}{figures['seconds'] / big * 1000:>11.3f}"
            f"{figures['peak_mib']:>8,.0f}   {time_ratio:.2f}  {peak:.2f}"
        )
    totals = {size: sum(figures["seconds"] for figures in figures_by_size[size].values()) for size in (small, big)}
    peaks = {size: max(figures["peak_mib"] for figures in figures_by_size[size].values()) for size in (small, big)}
    for size in (small, big):
        print(f"{size:,} prompts: {totals[size]:.1f} s, {totals[size] / size * 1000:.3f} ms a prompt, peak {peaks[size]:,.0f} MiB")
    print(f"ratios: time a prompt {totals[big] / totals[small] * small / big:.2f}, peak memory {peaks[big] / peaks[small]:.2f}")


def run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    write_inputs(arguments.prompts[0], folder)
    return measure(folder)


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--prompts", type=int, nargs="+", default=[20_000, 200_000])
    arguments = parse(parser, {"run": run})
    figures: dict[int, Any] = {}
    for size in arguments.prompts:
        figures[size] = sides.measure("benchmarks.data_path", "run", ["--prompts", str(size)])
        print(f"{size:,} prompts: done", file=sys.stderr, flush=True)
    compare(figures)


if __name__ == "__main__":
    main()
