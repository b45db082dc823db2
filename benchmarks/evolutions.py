"""The creator of Lettercraft deep: what its network writes, and what a study's runs trained on.

    python -m benchmarks.evolutions                              the network beside the built-in evolver, in about a minute
    python -m benchmarks.evolutions --study runs/creator-gate    per arm and iteration: training reward, exact reward, children

The training reward and the exact reward are of the same responses: those that the iteration trained on. Their difference is what wrong
references pay for. Learnable is the share of the scored evolutions with a success in [.2, .8]; valid is the share of all evolutions that
neither evolving nor the gate rejected.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from distilabel.steps.tasks.evol_instruct.utils import MUTATION_TEMPLATES

from benchmarks.world import successes
from eva_stages.core.numeric import mean
from eva_stages.core.run_folder import Run
from eva_stages.core.tables import read_table, reward_matrix
from eva_stages.core.text_table import TextTable, as_markdown
from eva_stages.creator.prompt_loading import seed_instructions
from eva_stages.creator.rejecting import read_evolution
from eva_stages.lettercraft.creator_policy import kind_of_evolution
from eva_stages.lettercraft.language import Instruction, exact_grade, parse
from eva_stages.lettercraft.player import LettercraftLLM
from eva_stages.models.loading import find_checkpoint
from eva_stages.models.transformers_generator import TransformersGenerator
from eva_stages.views.history import History, read_history

PARENTS, SIBLINGS, RESPONSES = 64, 8, 6
BAND = (0.2, 0.8)
FIGURES = ("training reward", "exact reward", "target, exact", "valid", "learnable")


def learnable_share(rewards: np.ndarray) -> float:
    """The share of prompts with a success in the band, of those that are scored; rewards of shape (prompts, n)."""
    success = rewards[np.isfinite(rewards).all(axis=1)].mean(axis=1)
    return float(((success >= BAND[0]) & (success <= BAND[1])).mean()) if len(success) else np.nan


def run_figures(history: History, iteration: int) -> dict[str, float]:
    """The figures of an iteration of a run; NaN where it has none."""
    figures = dict.fromkeys(FIGURES, np.nan)
    rewards, responses = history.find("reward", iteration), history.find("respond", iteration)
    prompts = history.prompt_sets.get(iteration)
    if rewards and responses and prompts:
        figures["training reward"] = float(mean(reward_matrix(read_table(rewards.content, ["rewards"])["rewards"])))
        messages = dict(
            zip(
                *(read_table(prompts.content, ["prompt_id", "messages"])[name].to_pylist() for name in ("prompt_id", "messages")),
                strict=True,
            )
        )
        rows = read_table(responses.content, ["prompt_id", "responses"]).to_pylist()
        grades = [
            exact_grade(parse(messages[row["prompt_id"]][-1]["content"]), text)
            for row in rows
            for text in row["responses"]
            if text is not None
        ]
        figures["exact reward"] = float(np.mean(grades)) if grades else np.nan
    if score := history.find("eval-score", iteration):
        figures["target, exact"] = float(score.manifest["scores"]["exact"]["value"])
    evolved, new = history.find("evolve", iteration), history.find("gate", iteration) or history.find("curate", iteration)
    if evolved and new:
        figures["valid"] = float(history.size(new) / history.size(evolved))
    if child_rewards := history.find("admit-reward", iteration):
        figures["learnable"] = learnable_share(reward_matrix(read_table(child_rewards.content, ["rewards"])["rewards"]))
    return figures


def study_table(folder: Path) -> TextTable:
    """The means over the seeds of every arm and iteration."""
    rows = []
    for arm in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        histories = [read_history(Run(root)) for root in sorted(arm.iterdir()) if (root / "recipe.yaml").is_file()]
        for iteration in sorted({number for history in histories for number in history.iterations}):
            figures = [run_figures(history, iteration) for history in histories]
            values = [float(mean(np.array([row[name] for row in figures]))) for name in FIGURES]
            rows.append((arm.name, iteration, len(figures), *(None if np.isnan(value) else round(value, 3) for value in values)))
    return TextTable(f"Study {folder.name}", ("arm", "iteration", "seeds", *FIGURES), rows)


def evolutions_by_network(model: str, parents: list[Instruction]) -> list[tuple[Instruction, str]]:
    """Siblings that a network writes at temperature 1, with their parents."""
    generator = TransformersGenerator(
        model=str(find_checkpoint(model, None, "--model").path), temperature=1.0, top_p=1.0, max_new_tokens=72
    )
    generator.load()
    outputs = generator.generate(
        [[{"role": "user", "content": str(parent)}] for parent in parents], SIBLINGS, seeds=list(range(len(parents)))
    )
    return [(parent, text or "") for parent, output in zip(parents, outputs, strict=True) for text in output["generations"]]


def evolutions_by_program(parents: list[Instruction]) -> list[tuple[Instruction, str]]:
    """Siblings by the built-in evolver with 15 % of errors, with their parents."""
    evolver, rng = LettercraftLLM(mutations="deep", errors=0.15), np.random.default_rng(1)
    repeated_parents = [parent for parent in parents for _ in range(SIBLINGS)]
    templates = [
        MUTATION_TEMPLATES[str(rng.choice(list(MUTATION_TEMPLATES)))].replace("<PROMPT>", str(parent)) for parent in repeated_parents
    ]
    outputs = evolver.generate([[{"role": "user", "content": text}] for text in templates], seeds=list(range(len(templates))))
    return [(parent, read_evolution(output["generations"][0])) for parent, output in zip(repeated_parents, outputs, strict=True)]


def creator_table(model: str) -> TextTable:
    """What the network and the built-in evolver write, and how much of it the base policy can learn from."""
    parents = seed_instructions(42, PARENTS, "deep")
    policy = TransformersGenerator(
        model=str(find_checkpoint("lettercraft-deep", None, "policy").path), temperature=1.0, top_p=1.0, max_new_tokens=72
    )
    policy.load()
    columns: dict[str, dict[str, float]] = {}
    for name, evolutions in (("network", evolutions_by_network(model, parents)), ("built-in evolver", evolutions_by_program(parents))):
        kinds = Counter(kind_of_evolution(parent, text) for parent, text in evolutions)
        shares = {kind: count / len(evolutions) for kind, count in kinds.items()}
        children = [child for _, text in evolutions if (child := parse(text)) is not None and child.answer]
        shares["learnable, of those with an answer"] = learnable_share(successes(policy, children, RESPONSES, 1))
        shares["different siblings"] = len({(str(parent), text) for parent, text in evolutions}) / len(evolutions)
        columns[name] = shares
    names = sorted({name for shares in columns.values() for name in shares})
    rows = [(name, *(round(shares.get(name, 0.0), 3) for shares in columns.values())) for name in names]
    return TextTable("Creator network of Lettercraft deep", ("share", *columns), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="lettercraft-deep-creator", help="a packaged network, or a checkpoint folder")
    parser.add_argument("--study", type=Path, help="folder of a study: prints the figures of its runs instead")
    arguments = parser.parse_args()
    print(as_markdown([study_table(arguments.study) if arguments.study else creator_table(arguments.model)]))


if __name__ == "__main__":
    main()
