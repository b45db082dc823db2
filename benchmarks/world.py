"""Is Lettercraft deep a world in which prompts matter? Its own figures, beside the limits that it is accepted by.

    python -m benchmarks.world                              the figures of the base policy, in about a minute
    eva ablate world --jobs 2                               runs the arms of configs/studies/world.yaml
    python -m benchmarks.world --study runs/world           and the figures of these runs

A prompt's true p(1-p), p the probability that a response is exact, is estimated from 48 responses; the intraclass correlation of siblings
is corrected for what noise is left. Reliability is the correlation of the metric over two independent sets of six responses. Lift is how
much higher the mean p(1-p) of the children is if parents are drawn by the metric of six responses rather than uniformly.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from distilabel.steps.tasks.evol_instruct.utils import MUTATION_TEMPLATES

from eva_stages.core.text_table import TextTable, as_markdown
from eva_stages.creator.informativeness import reward_gap, reward_max_minus_mean, reward_variance
from eva_stages.creator.prompt_loading import held_out_instructions, seed_instructions
from eva_stages.evaluation.audit_statistics import corrected_intraclass_correlation
from eva_stages.lettercraft.language import Instruction, exact_grade, parse
from eva_stages.lettercraft.player import LettercraftLLM
from eva_stages.models.loading import find_checkpoint
from eva_stages.models.transformers_generator import TransformersGenerator
from eva_stages.views.study_document import study_document

RESPONSES, SET, CHILDREN, PARENTS, TARGETS = 48, 6, 4, 200, 300
METRICS = {"p(1-p)": reward_variance, "gap": reward_gap, "max - mean": reward_max_minus_mean}
LIMITS = {
    "siblings, intraclass correlation of p(1-p)": (">=", 0.15),
    "reliability of p(1-p)": (">=", 0.4),
    "lift of p(1-p)": (">=", 0.15),
    "target, any of six exact": ("<=", 0.1),
    "target - static": (">=", 0.15),
    "oracle - uniform": (">=", 0.05),
    "oracle - uniform, in standard deviations over seeds": (">=", 1.5),
}
Figures = dict[str, float]


def successes(generator: TransformersGenerator, instructions: Sequence[Instruction], n: int, seed: int) -> np.ndarray:
    """Whether each of n responses is exact, shape (instructions, n)."""
    seeds = [int(value) for value in np.random.default_rng(seed).integers(2**31, size=len(instructions))]
    outputs = generator.generate([[{"role": "user", "content": str(item)}] for item in instructions], n, seeds=seeds)
    return np.array(
        [[exact_grade(item, text or "") for text in output["generations"]] for item, output in zip(instructions, outputs, strict=True)]
    )


def children(parents: Sequence[Instruction], seed: int) -> list[Instruction]:
    """`CHILDREN` usable evolutions of each parent, in order, by an evolver that does not err."""
    evolver, rng = LettercraftLLM(mutations="deep"), np.random.default_rng(seed)
    instructions: list[Instruction] = []
    for number, parent in enumerate(parents, 1):
        while len(instructions) < CHILDREN * number:
            template = MUTATION_TEMPLATES[str(rng.choice(list(MUTATION_TEMPLATES)))].replace("<PROMPT>", str(parent))
            output = evolver.generate([[{"role": "user", "content": template}]], seeds=[int(rng.integers(2**31))])[0]
            child = parse(str(output["generations"][0]))
            if child is not None and child != parent:
                instructions.append(child)
    return instructions


def base_figures(policy: str) -> Figures:
    """The figures of a policy on seed prompts, their children, and the target."""
    folder = find_checkpoint(policy, None, "--policy").path
    generator = TransformersGenerator(model=str(folder), temperature=1.0, top_p=1.0, max_new_tokens=72)
    generator.load()
    seeds = seed_instructions(42, PARENTS, "deep")
    of_seeds = successes(generator, seeds, RESPONSES, 1)
    of_children = successes(generator, children(seeds, 2), RESPONSES, 3)
    of_target = successes(generator, held_out_instructions(TARGETS, "deep_target"), 2 * SET, 4)
    families = np.repeat(np.arange(PARENTS), CHILDREN)
    correlation = corrected_intraclass_correlation(of_children, reward_variance, families)
    figures = {"siblings, intraclass correlation of p(1-p)": float(correlation(np.ones((1, PARENTS)))[0])}
    family_means = reward_variance(of_children).reshape(PARENTS, CHILDREN).mean(axis=1)
    for name, metric in METRICS.items():
        by_set = np.stack([metric(of_seeds[:, start : start + SET]) for start in range(0, RESPONSES, SET)])
        figures[f"reliability of {name}"] = float(np.corrcoef(by_set)[np.triu_indices(len(by_set), 1)].mean())
        figures[f"lift of {name}"] = float((by_set @ family_means / by_set.sum(axis=1)).mean() / family_means.mean() - 1)
    figures |= {"seed prompts, exact": float(of_seeds.mean()), "children, exact": float(of_children.mean())}
    any_of_six = of_target.reshape(TARGETS, 2, SET).max(axis=2).mean()
    return {**figures, "target, exact": float(of_target.mean()), "target, any of six exact": float(any_of_six)}


def study_figures(document: dict[str, Any]) -> Figures:
    """The figures of the runs of a study, from its document."""
    scores: dict[str, dict[int, float]] = {}
    for run in document["runs"]:
        if run["score"] is not None:
            scores.setdefault(run["arm"], {})[run["seed"]] = run["score"]
    figures = {f"arm {arm}, exact": float(np.mean(list(by_seed.values()))) for arm, by_seed in scores.items()}
    for a, b in (("target", "static"), ("oracle", "uniform"), ("eva", "uniform")):
        of_a, of_b = scores.get(a, {}), scores.get(b, {})
        differences = np.array([of_a[seed] - of_b[seed] for seed in of_a if seed in of_b])
        figures[f"{a} - {b}, seeds"] = len(differences)
        is_known = len(differences) > 1
        figures[f"{a} - {b}"] = float(differences.mean()) if is_known else np.nan
        figures[f"{a} - {b}, in standard deviations over seeds"] = (
            float(differences.mean() / differences.std(ddof=1)) if is_known else np.nan
        )
    return figures


def table(figures: Figures) -> TextTable:
    """Every figure, with its limit and whether it is met where it has one."""
    rows = []
    for name, value in figures.items():
        sign, limit = LIMITS.get(name, (None, None))
        is_met = None if limit is None else value >= limit if sign == ">=" else value <= limit
        rows.append((name, value, None if limit is None else f"{sign} {limit}", None if is_met is None else "yes" if is_met else "NO"))
    return TextTable("Lettercraft deep", ("figure", "value", "limit", "met"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="lettercraft-deep", help="a packaged policy, or a checkpoint folder")
    parser.add_argument("--study", type=Path, help="folder of the study `world`")
    arguments = parser.parse_args()
    figures = base_figures(arguments.policy)
    if arguments.study:
        figures |= study_figures(study_document(arguments.study))
    print(as_markdown([table(figures)]))


if __name__ == "__main__":
    main()
