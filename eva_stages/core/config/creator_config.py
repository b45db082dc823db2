"""The creator: metric, selection, evolving, curating, mixing."""

from typing import Literal

from pydantic import Field

from eva_stages.core.config.creator_training_config import CreatorTraining
from eva_stages.core.config.function_fields import Cell, EvolveMethod, Filters, Metric, SelectionKind
from eva_stages.core.config.gate_config import Gate
from eva_stages.core.config.models_config import DType, Evolver, ModelChoice, ModelRuntime
from eva_stages.core.config.paths import MaybeFile, MaybeFiles
from eva_stages.core.config.section import Section


class Selection(Section):
    kind: SelectionKind = "weighted"
    fraction: float = Field(0.25, gt=0, le=1)
    """Share of the prompts that are selected to be evolved."""
    topic_share: float = Field(0.0, ge=0, le=1)
    """c in w' = (1 - c) w + c * inverse topic frequency; needs creator.analysis.topics. The paper's scripts: 0.25."""


class Feedback(Section):
    """Gives the evolver the best and the worst response to the prompt with their rewards."""

    critic: ModelChoice | None = None
    """Model that also writes a critique of the two responses for the evolver."""


class MultiShot(Section):
    """Gives the evolver other selected prompts as examples."""

    examples: int = Field(3, ge=1, le=16)
    by: Literal["similar", "diverse"] = "similar"
    """Nearest to the prompt, or far from it and from each other; by the embeddings of creator.curate.diversity, else by TF-IDF."""


class Evolve(Section):
    method: EvolveMethod = "evol_instruct"
    generations: int = Field(4, ge=1, le=16)
    """Evolutions of each selected prompt; all are candidates."""
    shape: Literal["chain", "siblings"] = "chain"
    """`chain` evolves each evolution further [paper]; `siblings` evolves the selected prompt itself every time, at the same cost.
    self_instruct always starts from the selected prompt, so both are the same there."""
    returns: Literal["prompt", "prompt_and_reference"] = "prompt"
    """`prompt_and_reference` shows the evolver the prompt's reference, where it has one, and asks for a prompt with its own reference, as a
    JSON object; a reply without both is rejected (no_prompt_and_reference). turn_knob always does. An evolver by `function` returns what
    it returns; here, its evolutions without a reference are rejected too."""
    generator: Evolver
    """`reasoning_gym` with the method `turn_knob`, and only with it. With `function` no method is used."""
    max_characters: int = Field(4000, ge=1)
    """Longer evolutions are rejected."""
    feedback: Feedback | None = None
    multi_shot: MultiShot | None = None


class Decontaminate(Section):
    """Leaves out prompts of the evaluation sets, among seed prompts and evolved prompts."""

    against: MaybeFiles = Field(min_length=1)
    """alpaca-eval, mt-bench, arena-hard, or a file with prompts (.jsonl, .json, .csv, .parquet, also .gz)."""
    ngram: int = Field(13, ge=3)
    """Words; a shorter question counts when the prompt contains all of it."""
    overlap: float = Field(0.2, gt=0, le=1)
    """A prompt that contains at least this share of a question's n-grams is contaminated."""


class Diversity(Section):
    """Distance of every evolved prompt to its nearest neighbour among all prompts, by sentence embeddings."""

    model: MaybeFile
    """Sentence-embedding model: folder or Hub id."""
    revision: str | None = None
    min_distance: float = Field(0.0, ge=0, le=2)
    """Evolved prompts with a smaller cosine distance are left out."""
    runtime: ModelRuntime = ModelRuntime()


class Novelty(Section):
    """Selection prefers prompts that are unlike all prompts of earlier sets: w' = w (1 + weight * distance to the nearest of them). It has
    an effect from iteration 2 on; the first iteration has no earlier sets.

    Distances are from 0 to 1: by the embeddings of creator.curate.diversity, else by the estimated Jaccard similarity of 5-grams."""

    weight: float = Field(1.0, gt=0)


class Archive(Section):
    """Parents come from an archive of cells with the most informative prompts of all sets, so that every kind of prompt is evolved further.

    A cell is drawn with probability softmax(value / temperature); its value is the scaled weight of its best prompt."""

    cell: Cell = "topic_complexity"
    """`topic_complexity` needs a scorer and topics in creator.analysis; `lettercraft`: last operation and number of operations;
    `reasoning_gym`: family and knobs; or a function in a file, as in cells.py:name, that returns the name of a prompt's cell."""
    temperature: float = Field(0.2, ge=0.01)


class Admit(Section):
    """Admits only some evolved prompts: the policy responds to them and the reward scores them first (ACCEL)."""

    band: tuple[float, float] | None = None
    """[low, high]: admits prompts whose share of successful responses is in this range, ends included; for rewards of 0 and 1."""
    fraction: float | None = Field(None, gt=0, le=1)
    """Share of the prompts, with a band of those in it, that are admitted, the most informative ones; null = 0.5, with a band 1."""


class Curate(Section):
    near_duplicate: float | None = Field(0.8, gt=0, lt=1)
    """Prompts with at least this estimated Jaccard similarity of character 5-grams are near duplicates; null = exact duplicates only."""
    filters: Filters = ()
    """Functions in files, as in filters.py:name, that return the reason why an evolved prompt is left out, or None."""
    decontaminate: Decontaminate | None = None
    diversity: Diversity | None = None
    gate: Gate | None = None
    novelty: Novelty | None = None
    archive: Archive | None = None
    admit: Admit | None = None


class Mix(Section):
    evolved_share: float = Field(0.8, ge=0, le=1)
    """Share of evolved prompts in the next set; the rest is sampled uniformly from the current set."""


class Replay(Section):
    """Replaces uniformly sampled prompts by informative prompts of earlier sets (PLR), from iteration 2 on."""

    share: float = Field(0.1, gt=0, le=1)
    """Share of the next set."""


class Topics(Section):
    """A zero-shot classifier that labels each prompt with a topic."""

    model: MaybeFile
    """Natural-language inference model: folder or Hub id."""
    revision: str | None = None
    labels: tuple[str, ...] = Field(min_length=2)
    dtype: DType = "auto"
    runtime: ModelRuntime = ModelRuntime()


class Analysis(Section):
    """Scores and topics of the prompts of every iteration, for the report."""

    scorer: ModelChoice | None = None
    """Model that scores quality and complexity from 1 to 5. A `policy` scorer is the base policy in every iteration."""
    topics: Topics | None = None
    coverage: bool = False
    """Diversity of all prompts up to each iteration: Vendi score, share in BLEU clusters, cells, distance to the nearest prompt."""


class Posterior(Section):
    """Pools the successes of a prompt over the iterations that scored it: Beta posterior, prior Beta(1, 1). For the metric learnability."""

    discount: float = Field(0.8, gt=0, le=1)
    """Factor of the earlier evidence for each iteration that has passed since."""


class Creator(Section):
    """The creator of prompts, or the control that replaces it."""

    control: Literal["longer", "human", "no_evolve"] | None = None
    """Prompts that an iteration trains on instead of evolved ones [paper, figure 5 and table 4]: `longer` the seed prompts again, `human`
    the next `prompts.size` prompts of the source, `no_evolve` the selected seed prompts; null = eva."""
    responses: int = Field(6, ge=2)
    """Responses per prompt."""
    metric: Metric = Field("reward_gap", json_schema_extra={"nullable": True})
    """Measure of how informative a prompt is. Without it, or null: reward_gap, and reward_max_minus_mean where the loss is on-policy
    (`rloo`, `grpo`, `online_dpo`). `learnability` is p (1 - p) for rewards of 0 and 1; `spread_at_median` is the standard deviation of the
    rewards, lower the further the prompt's mean reward is from the median of the set."""
    posterior: Posterior | None = None
    selection: Selection = Selection()
    evolve: Evolve
    curate: Curate = Curate()
    mix: Mix = Mix()
    replay: Replay | None = None
    analysis: Analysis | None = None
    training: CreatorTraining | None = None
    """null = the evolver is not trained."""
