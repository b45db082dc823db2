"""The recipe: one frozen, strictly typed description of a run.

Everything a run means is here, with the paper's values as defaults; a choice is a tagged union on `kind`. What only concerns the
machine sits under a `runtime:` key and never changes what a stage is. Fields that are never read do not exist. Reading recipes
from YAML, overriding and reporting faults is `core/recipes.py`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Metric = Literal[
    "reward_gap",
    "reward_max_minus_mean",
    "reward_best_minus_second",
    "reward_variance",
    "reward_mean",
    "reward_mean_inverse",
    "reward_gap_inverse",
    "uniform",
]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


# --- prompts -----------------------------------------------------------------------------------------------------------


class MicroworldPrompts(Section):
    """Lettercraft instructions: mostly short, with a thin tail of hard ones."""

    kind: Literal["microworld"]
    size: int = Field(480, ge=8)
    """Number of seed prompts."""


class FilePrompts(Section):
    """Prompts from a local .jsonl, .json, .csv or .parquet file."""

    kind: Literal["file"]
    path: str
    column: str = "prompt"
    """Column with the prompt: a string, or a list of chat messages."""
    size: int | None = Field(None, ge=1)
    """Use a seeded sample of this many; null = all."""
    max_characters: int = Field(8000, ge=1)
    """Longer prompts are left out and counted."""


Prompts = Annotated[MicroworldPrompts | FilePrompts, Field(discriminator="kind")]


# --- models ------------------------------------------------------------------------------------------------------------


class ModelRuntime(Section):
    batch_size: int = Field(256, ge=1)
    """Sequences per forward pass."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""


class Sampling(Section):
    temperature: float = Field(0.7, ge=0)
    """0 = greedy."""
    top_p: float = Field(0.9, gt=0, le=1)
    max_new_tokens: int = Field(2048, ge=1)


class TransformersGenerator(Sampling):
    """`transformers` generation, on CPU or one GPU."""

    kind: Literal["transformers"]
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    runtime: ModelRuntime = ModelRuntime()


class TransformersModel(TransformersGenerator):
    """A `transformers` generator over a model of its own."""

    model: str
    revision: str | None = None


class PolicyPlayer(Sampling):
    """The current policy itself, with its own sampling settings."""

    kind: Literal["policy"]


class MicroworldPlayer(Section):
    """Lettercraft's exact player: as evolver it rewrites instructions, as judge it grades answers."""

    kind: Literal["microworld"]


PolicyGenerator = TransformersGenerator
Player = Annotated[PolicyPlayer | TransformersModel | MicroworldPlayer, Field(discriminator="kind")]


class Policy(Section):
    """The policy to align: theta_0."""

    model: str
    """`microworld`, a checkpoint folder, or a Hub id."""
    revision: str | None = None
    """Branch, tag or commit of a Hub id."""
    generator: PolicyGenerator


# --- rewards -----------------------------------------------------------------------------------------------------------


class MicroworldReward(Section):
    """Lettercraft's exact graded reward in [0, 1]."""

    kind: Literal["microworld"]


class SequenceClassifierReward(Section):
    """A sequence-classification reward model: one logit over the chat (Skywork style)."""

    kind: Literal["sequence_classifier"]
    model: str
    revision: str | None = None
    max_length: int = Field(4096, ge=8)
    """Longer conversations cannot be scored: null, counted."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    runtime: ModelRuntime = ModelRuntime(batch_size=16)


class VerifierReward(Section):
    """A Python callable `f(messages, response) -> float | None`, named as module:function."""

    kind: Literal["verifier"]
    function: str = Field(pattern=r"^[\w.]+:\w+$")


Reward = Annotated[MicroworldReward | SequenceClassifierReward | VerifierReward, Field(discriminator="kind")]


# --- creator -----------------------------------------------------------------------------------------------------------


class Selection(Section):
    kind: Literal["weighted", "greedy", "stratified"] = "weighted"
    fraction: float = Field(0.25, gt=0, le=1)
    """Share of the prompts that is drawn to be evolved."""


class Evolve(Section):
    method: Literal["evol_instruct"] = "evol_instruct"
    generations: int = Field(4, ge=1, le=16)
    """Evolutions in sequence; all are kept."""
    generator: Player
    max_characters: int = Field(4000, ge=1)
    """Longer evolutions are rejected."""


class Curate(Section):
    near_duplicate: float | None = Field(0.8, gt=0, lt=1)
    """Estimated Jaccard similarity of character 5-grams from which a prompt is a near duplicate; null = exact only."""


class Mix(Section):
    evolved_share: float = Field(0.8, ge=0, le=1)
    """Share of evolved prompts in the next set; the rest is drawn uniformly from the present one."""


class Creator(Section):
    """The prompt player."""

    responses: int = Field(6, ge=2)
    """Responses per prompt."""
    metric: Metric = "reward_gap"
    """What makes a prompt informative."""
    selection: Selection = Selection()
    evolve: Evolve
    curate: Curate = Curate()
    mix: Mix = Mix()


# --- solver ------------------------------------------------------------------------------------------------------------


class DPO(Section):
    """Direct preference optimisation, optionally with a length-normalised NLL term on the chosen response."""

    kind: Literal["dpo"]
    beta: float = Field(0.1, gt=0)
    nll_alpha: float = Field(1.0, ge=0)
    """Weight alpha of (alpha / |y+|) * -log pi(y+|x)."""


class TrainingRuntime(Section):
    micro_batch_size: int = Field(8, ge=1)
    """Pairs per device and forward pass; accumulation makes up the batch size."""
    launch: str = "cpu"
    """Packaged accelerate launch file by name, or a path."""


class Training(Section):
    learning_rate: float = Field(5e-7, gt=0)
    batch_size: int = Field(64, ge=1)
    """Pairs per optimiser step, over all devices."""
    epochs: int = Field(2, ge=1)
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup", "inverse_sqrt"] = "cosine"
    optimizer: Literal["adamw_torch", "adamw_torch_fused", "rmsprop", "adafactor"] = "adamw_torch"
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, gt=0)
    max_length: int = Field(2048, ge=8)
    """Tokens of prompt and response; longer pairs are dropped and counted."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    gradient_checkpointing: bool = True
    checkpoints_per_epoch: int = Field(2, ge=1)
    """How often training can be resumed from."""
    runtime: TrainingRuntime = TrainingRuntime()


class Pairs(Section):
    min_gap: float = Field(0.0, ge=0)
    """Pairs need a reward gap above this."""


class Solver(Section):
    """The response player."""

    responses: int = Field(6, ge=2)
    pairs: Pairs = Pairs()
    loss: DPO
    training: Training = Training()


# --- evaluation --------------------------------------------------------------------------------------------------------


class Lettercraft(Section):
    """Held-out Lettercraft: harder than the seed prompts and disjoint from them."""

    kind: Literal["lettercraft"]
    prompts: int = Field(300, ge=10)
    samples: int = Field(4, ge=1)
    """Sampled answers per prompt, besides the greedy one."""
    judge: Player
    confidence: float = Field(0.95, gt=0, lt=1)


class Evaluation(Section):
    benchmarks: tuple[Lettercraft, ...] = ()


# --- the whole ---------------------------------------------------------------------------------------------------------


class Limits(Section):
    """Above these shares a stage fails instead of going on; not part of any stage's identity."""

    unscored: float = Field(0.05, ge=0, le=1)
    """Responses without a reward."""
    empty: float = Field(0.5, ge=0, le=1)
    """Empty or missing responses."""


class Runtime(Section):
    rows_per_part: int = Field(64, ge=1)
    """Rows between two durable writes of a row stage, and rows per call of its model."""


class Recipe(Section):
    """A whole run."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(42, ge=0)
    iterations: int = Field(2, ge=0)
    """eva iterations after the base round (iteration 0) on the seed prompts."""
    prompts: Prompts
    policy: Policy
    reward: Reward
    creator: Creator
    solver: Solver
    evaluation: Evaluation = Evaluation()
    limits: Limits = Limits()
    runtime: Runtime = Runtime()
