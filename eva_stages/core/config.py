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
    reference_column: str | None = None
    """Column with what a verifier checks answers against; kept as text, or as JSON where it is no text."""
    size: int | None = Field(None, ge=1)
    """Use a seeded sample of this many; null = all."""
    max_characters: int = Field(8000, ge=1)
    """Longer prompts are left out and counted."""


class HubPrompts(Section):
    """Prompts from a data set on the Hub, such as another run's pushed one."""

    kind: Literal["hub"]
    id: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """As in user/run."""
    config: str | None = None
    """Configuration of the data set, such as pairs-1; null = its default."""
    split: str = "train"
    revision: str | None = None
    """Branch, tag or commit; null = main. It is resolved to a commit before anything runs."""
    column: str | None = None
    """Column with the prompt: a string, or a list of chat messages; null = messages, or prompt."""
    reference_column: str | None = None
    """Column with what a verifier checks answers against; kept as text, or as JSON where it is no text."""
    size: int | None = Field(None, ge=1)
    """Use a seeded sample of this many; null = all."""
    max_characters: int = Field(8000, ge=1)
    """Longer prompts are left out and counted."""


Prompts = Annotated[MicroworldPrompts | FilePrompts | HubPrompts, Field(discriminator="kind")]


# --- models ------------------------------------------------------------------------------------------------------------


DType = Literal["auto", "float32", "bfloat16", "float16"]


class ModelRuntime(Section):
    tokens_per_batch: int = Field(16384, ge=1)
    """Padded tokens per forward pass, room for the answer included; batches are sorted by length."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps; `balanced` spreads one model over all visible devices."""


class Sampling(Section):
    temperature: float = Field(0.7, ge=0)
    """0 = greedy."""
    top_p: float = Field(0.9, gt=0, le=1)
    max_new_tokens: int = Field(2048, ge=1)
    stop: tuple[str, ...] = ()
    """Texts at which an answer ends, besides the model's own end token; they are left out of it."""
    system_prompt: str | None = None
    """Put before conversations that have no system message."""


class TransformersGenerator(Sampling):
    """`transformers` generation, on CPU, one accelerator, or several that share one model."""

    kind: Literal["transformers"]
    dtype: DType = "auto"
    runtime: ModelRuntime = ModelRuntime()


class TransformersModel(TransformersGenerator):
    """A `transformers` generator over a model of its own."""

    model: str
    revision: str | None = None


class VLLMRuntime(Section):
    tensor_parallel: int = Field(1, ge=1)
    """Devices that share one copy of the model."""
    replicas: int = Field(1, ge=1)
    """Copies of the model, each on devices of its own, that take turns at the rows."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    max_num_seqs: int = Field(256, ge=1)
    """Sequences that the engine works on at once."""
    enforce_eager: bool = False


class VLLMGenerator(Sampling):
    """vLLM's engine: all n responses of a prompt in one request, prefixes cached."""

    kind: Literal["vllm"]
    dtype: DType = "auto"
    max_model_len: int | None = Field(None, ge=8)
    """Tokens of prompt and answer; null = what the model takes."""
    lora: str | None = None
    """Folder of a LoRA adapter to answer with."""
    runtime: VLLMRuntime = VLLMRuntime()


class VLLMModel(VLLMGenerator):
    """A vLLM generator over a model of its own."""

    model: str
    revision: str | None = None


class Price(Section):
    """US dollars per million tokens, for models that LiteLLM's price list does not know."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class LiteLLMRuntime(Section):
    concurrency: int = Field(16, ge=1)
    """Requests under way at once."""
    attempts: int = Field(6, ge=1)
    """Tries per request; a Retry-After of the server is honoured between them."""
    timeout: float = Field(120, gt=0)
    """Seconds per request."""
    api_key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable with the key; null = the provider's usual one. Keys never stand in a recipe."""
    price: Price | None = None
    max_cost_usd: float | None = Field(None, gt=0)
    """The stage stops before a call that could cost more than what is left of this; raise it and run again to go on."""


class LiteLLMModel(Sampling):
    """Any provider that LiteLLM speaks to, or any OpenAI-compatible server."""

    kind: Literal["litellm"]
    model: str
    """LiteLLM's name, such as openai/gpt-4.1 or hosted_vllm/my-model."""
    api_base: str | None = None
    """Address of an OpenAI-compatible server."""
    runtime: LiteLLMRuntime = LiteLLMRuntime()


class PolicyPlayer(Sampling):
    """The current policy itself, with its own sampling settings."""

    kind: Literal["policy"]


class MicroworldPlayer(Section):
    """Lettercraft's exact player: as evolver it rewrites instructions, as judge it grades answers."""

    kind: Literal["microworld"]


PolicyGenerator = Annotated[TransformersGenerator | VLLMGenerator, Field(discriminator="kind")]
Player = Annotated[PolicyPlayer | TransformersModel | VLLMModel | LiteLLMModel | MicroworldPlayer, Field(discriminator="kind")]


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


class LocalReward(Section):
    """A reward model that runs here."""

    model: str
    revision: str | None = None
    max_length: int = Field(4096, ge=8)
    """Longer conversations cannot be scored: null, counted."""
    dtype: DType = "auto"
    runtime: ModelRuntime = ModelRuntime()


class SequenceClassifierReward(LocalReward):
    """A sequence-classification reward model: one logit over the chat (Skywork style)."""

    kind: Literal["sequence_classifier"]


class ArmoRMReward(LocalReward):
    """ArmoRM: a sequence classifier with code of its own; the reward is `output.score`, its objectives are kept beside it."""

    kind: Literal["armorm"]
    trust_remote_code: bool = False
    """Run the Python files that come with the model. A Hub id then needs a full commit hash as its revision."""


class PairRMReward(LocalReward):
    """PairRM: a DeBERTa ranker that compares two responses; every pair in both orders."""

    kind: Literal["pairrm"]
    max_length: int = Field(1224, ge=8)
    """Tokens of the prompt; longer ones are cut, as the model was trained."""
    candidate_max_length: int = Field(412, ge=8)
    """Tokens of a response; longer ones are cut, as the model was trained."""


class PairPreferenceReward(LocalReward):
    """A causal language model that says A or B; every pair in both orders."""

    kind: Literal["pair_preference"]


class VerifierReward(Section):
    """A Python callable `f(messages, response, reference) -> float | None`: `math`, `instruction`, or your own as module:function."""

    kind: Literal["verifier"]
    function: str = Field(pattern=r"^(math|instruction|[\w.]+:\w+)$")


class LLMJudgeReward(Section):
    """A generator that rates each response from 1 to 10."""

    kind: Literal["llm_judge"]
    judge: Player
    rubric: str = "helpfulness, relevance, accuracy, depth, creativity and level of detail"
    """What the rating weighs."""


PointwiseReward = Annotated[
    MicroworldReward | SequenceClassifierReward | ArmoRMReward | VerifierReward | LLMJudgeReward, Field(discriminator="kind")
]


class Member(Section):
    reward: PointwiseReward
    weight: float = Field(1.0, gt=0)


class EnsembleReward(Section):
    """Several rewards as one, each first brought to mean 0 and standard deviation 1 over the stage's responses."""

    kind: Literal["ensemble"]
    members: tuple[Member, ...] = Field(min_length=2)
    combine: Literal["mean", "worst"] = "mean"
    """The weighted mean, or the lowest member (weights then do not count)."""


Reward = Annotated[
    MicroworldReward
    | SequenceClassifierReward
    | ArmoRMReward
    | VerifierReward
    | LLMJudgeReward
    | EnsembleReward
    | PairRMReward
    | PairPreferenceReward,
    Field(discriminator="kind"),
]


# --- creator -----------------------------------------------------------------------------------------------------------


class Selection(Section):
    kind: Literal["weighted", "greedy", "stratified"] = "weighted"
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
    method: Literal["evol_instruct", "evol_complexity", "evol_quality", "self_instruct"] = "evol_instruct"
    generations: int = Field(4, ge=1, le=16)
    """Evolutions in sequence (self_instruct: that many new prompts from the same one); all are kept."""
    generator: Player
    max_characters: int = Field(4000, ge=1)
    """Longer evolutions are rejected."""
    feedback: Feedback | None = None
    multi_shot: MultiShot | None = None


class Decontaminate(Section):
    """Keeps prompts of the evaluation sets out, seed prompts as well as evolved ones."""

    against: tuple[str, ...] = Field(min_length=1)
    """alpaca-eval, mt-bench, arena-hard, or a file with prompts (.jsonl, .json, .csv, .parquet, also .gz)."""
    ngram: int = Field(13, ge=3)
    """Words; questions shorter than that count when they are contained whole."""
    overlap: float = Field(0.2, gt=0, le=1)
    """Share of a question's n-grams from which a prompt holding them is contaminated."""


class Diversity(Section):
    """How far every evolved prompt is from its nearest neighbour among all prompts, by sentence embeddings."""

    model: str
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

    model: str
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
    """The prompt player."""

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


# --- publishing --------------------------------------------------------------------------------------------------------


class Publish(Section):
    """Push the run to the Hub after each iteration; needs a token with write permission (`hf auth login`, or HF_TOKEN)."""

    to: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """User or organisation."""
    private: bool = False


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
    publish: Publish | None = None
    limits: Limits = Limits()
    runtime: Runtime = Runtime()
