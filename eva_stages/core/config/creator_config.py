"""The prompt player: metric, selection, evolving, curating, mixing."""

from typing import Literal

from pydantic import Field

from eva_stages.core.config.function_fields import EvolveMethod, Filters, Metric, SelectionKind
from eva_stages.core.config.models_config import DType, ModelRuntime, Player
from eva_stages.core.config.paths import MaybeFile, MaybeFiles
from eva_stages.core.config.section import Section


class Selection(Section):
    kind: SelectionKind = "weighted"
    fraction: float = Field(0.25, gt=0, le=1)
    """Share of the prompts that is drawn to be evolved."""
    topic_share: float = Field(0.0, ge=0, le=1)
    """c in w' = (1 - c) w + c * inverse topic frequency; needs creator.analysis.topics. The paper's scripts: 0.25."""


class Feedback(Section):
    """Shows the evolver the best and the worst response to the prompt with their rewards."""

    critic: Player | None = None
    """Also writes a critique of the two responses for the evolver."""


class MultiShot(Section):
    """Shows the evolver other prompts that were drawn."""

    examples: int = Field(3, ge=1, le=16)
    by: Literal["similar", "diverse"] = "similar"
    """Nearest to the prompt, or far from it and from each other: by creator.curate.diversity's embeddings, else by TF-IDF."""


class Evolve(Section):
    method: EvolveMethod = "evol_instruct"
    generations: int = Field(4, ge=1, le=16)
    """Evolutions in sequence (self_instruct: that many new prompts from the same one); all are kept."""
    generator: Player
    max_characters: int = Field(4000, ge=1)
    """Longer evolutions are rejected."""
    feedback: Feedback | None = None
    multi_shot: MultiShot | None = None


class Decontaminate(Section):
    """Keeps prompts of the evaluation sets out, seed prompts as well as evolved ones."""

    against: MaybeFiles = Field(min_length=1)
    """alpaca-eval, mt-bench, arena-hard, or a file with prompts (.jsonl, .json, .csv, .parquet, also .gz)."""
    ngram: int = Field(13, ge=3)
    """Words; questions shorter than that count when they are contained whole."""
    overlap: float = Field(0.2, gt=0, le=1)
    """Share of a question's n-grams from which a prompt holding them is contaminated."""


class Diversity(Section):
    """How far every evolved prompt is from its nearest neighbour among all prompts, by sentence embeddings."""

    model: MaybeFile
    """Sentence-embedding model: folder or Hub id."""
    revision: str | None = None
    min_distance: float = Field(0.0, ge=0, le=2)
    """Cosine distance below which an evolved prompt is left out."""
    runtime: ModelRuntime = ModelRuntime()


class Admit(Section):
    """Answer and score the evolved prompts first, and keep the most informative ones only (ACCEL)."""

    fraction: float = Field(0.5, gt=0, le=1)


class Curate(Section):
    near_duplicate: float | None = Field(0.8, gt=0, lt=1)
    """Estimated Jaccard similarity of character 5-grams from which a prompt is a near duplicate; null = exact only."""
    filters: Filters = ()
    """Functions (text) -> reason or None, as in filters.py:name, that say why an evolved prompt is left out."""
    decontaminate: Decontaminate | None = None
    diversity: Diversity | None = None
    admit: Admit | None = None


class Mix(Section):
    evolved_share: float = Field(0.8, ge=0, le=1)
    """Share of evolved prompts in the next set; the rest is drawn uniformly from the present one."""


class Replay(Section):
    """Brings informative prompts of earlier sets back (PLR), in the place of uniformly drawn ones; from iteration 2 on."""

    share: float = Field(0.1, gt=0, le=1)
    """Share of the next set."""


class Topics(Section):
    """A zero-shot classifier that names each prompt's topic."""

    model: MaybeFile
    """Model of natural-language inference: folder or Hub id."""
    revision: str | None = None
    labels: tuple[str, ...] = Field(min_length=2)
    dtype: DType = "auto"
    runtime: ModelRuntime = ModelRuntime()


class Analysis(Section):
    """What the prompts of every iteration are like; only for looking at."""

    scorer: Player | None = None
    """Scores quality and complexity from 1 to 5. A `policy` scorer is the base policy in every iteration."""
    topics: Topics | None = None


class Creator(Section):
    """The prompt player, or the control that stands in for it."""

    control: Literal["longer", "human", "no_evolve"] | None = None
    """What an iteration trains on in place of evolved prompts [paper, figure 5 and table 4]: `longer` the seed prompts again, `human`
    the next `prompts.size` of the prompt source, `no_evolve` the subset of the seed prompts that is drawn as informative; null = eva."""
    responses: int = Field(6, ge=2)
    """Responses per prompt."""
    metric: Metric = "reward_gap"
    """What makes a prompt informative."""
    selection: Selection = Selection()
    evolve: Evolve
    curate: Curate = Curate()
    mix: Mix = Mix()
    replay: Replay | None = None
    analysis: Analysis | None = None
