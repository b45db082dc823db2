"""The recipe: one frozen, strictly typed description of a run.

Everything a run means is here, with the paper's values as defaults; a choice is a tagged union on `kind`. What only concerns the
machine sits under a `runtime:` key and never changes what a stage is. Fields that are never read do not exist. Reading recipes
from YAML, overriding and reporting faults is `core/recipes.py`.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

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
    """Use a seeded sample of this many; null = all. The control `human` takes as many others for each iteration."""
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
    """The stage stops before a call that could cost more than what is left of this; raise it and run again to go on. All judges of a
    run share what the run has spent on judging."""
    requests_per_minute: float | None = Field(None, gt=0)
    """Requests are spread over time to stay below this."""
    cache: str | None = None
    """File with the answers to every call of all runs that name it, read and added to; a call found there is not made again."""


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


class MicroworldJudgeReward(Section):
    """Lettercraft's exact judge: compares every two responses of a prompt by their grades; win 1, tie 1/2, loss 0."""

    kind: Literal["microworld_judge"]


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


PairwiseReward = MicroworldJudgeReward | PairRMReward | PairPreferenceReward
"""Rewards that compare the responses of a prompt with each other and give win probabilities."""


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
    MicroworldReward | SequenceClassifierReward | ArmoRMReward | VerifierReward | LLMJudgeReward | EnsembleReward | PairwiseReward,
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


# --- solver ------------------------------------------------------------------------------------------------------------


class PairLoss(Section):
    """What every loss over pairs takes."""

    nll_alpha: float = Field(0.0, ge=0)
    """Weight alpha of (alpha / |y+|) * -log pi(y+|x)."""


class ReferenceLoss(PairLoss):
    """A loss over the log-ratios of policy and reference policy."""

    beta: float = Field(0.1, gt=0)
    ld_alpha: float | None = Field(None, ge=0, le=1)
    """LD-DPO: weight of the log-probabilities past the shorter response's length; null = 1."""


class DPO(ReferenceLoss):
    """Direct preference optimisation."""

    kind: Literal["dpo"]
    nll_alpha: float = Field(1.0, ge=0)
    """Weight alpha of (alpha / |y+|) * -log pi(y+|x)."""
    length_normalized: bool = False
    """Divide each log-ratio by its response's length; beta then wants to be larger (2 to 10)."""


class IPO(ReferenceLoss):
    """Identity preference optimisation, over log-ratios per token."""

    kind: Literal["ipo"]


class SPPO(PairLoss):
    """Self-play preference optimisation on the responses' own win probabilities: needs a pairwise reward."""

    kind: Literal["sppo"]
    beta: float = Field(0.001, gt=0)
    """1 / eta."""


class SimPO(PairLoss):
    """Simple preference optimisation: log-probabilities per token, no reference policy."""

    kind: Literal["simpo"]
    beta: float = Field(10.0, gt=0)
    gamma_ratio: float = Field(0.5, ge=0)
    """Target margin gamma / beta, in nats per token."""


class ORPO(Section):
    """Odds-ratio preference optimisation: NLL and odds ratio in one, no reference policy."""

    kind: Literal["orpo"]
    beta: float = Field(0.1, gt=0)
    """lambda, the weight of the odds ratio."""
    nll_alpha: float = Field(1.0, ge=0)
    """Weight alpha of (alpha / |y+|) * -log pi(y+|x); ORPO's own is 1."""


class OtherDPO(ReferenceLoss):
    """TRL's other losses over pairs, by TRL's name. `aot` and `aot_unpaired` compare sorted batches, so micro batches matter to them."""

    kind: Literal[
        "hinge",
        "exo_pair",
        "nca_pair",
        "robust",
        "bco_pair",
        "sppo_hard",
        "aot",
        "aot_unpaired",
        "apo_zero",
        "apo_down",
        "discopop",
    ]
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of preferences taken as flipped, for exo_pair (needs it above 0), robust, aot and aot_unpaired."""

    @model_validator(mode="after")
    def _smoothing_fits(self) -> "OtherDPO":
        if self.kind == "exo_pair" and self.label_smoothing == 0:
            raise ValueError("exo_pair needs label_smoothing above 0, such as 0.001")
        if self.label_smoothing and self.kind not in ("exo_pair", "robust", "aot", "aot_unpaired"):
            raise ValueError(f"{self.kind} has no label_smoothing; leave it out, or take robust")
        return self


class RLOORuntime(Section):
    vllm: bool = False
    """Sample with a vLLM engine inside the training processes; needs GPUs and a version of vLLM that TRL supports."""
    gpu_memory_utilization: float = Field(0.3, gt=0, le=1)
    """Share of each GPU's memory for that engine."""


class RLOO(Section):
    """On-policy REINFORCE with the leave-one-out mean of a prompt's `solver.responses` responses as baseline; needs no pairs."""

    kind: Literal["rloo"]
    beta: float = Field(0.05, ge=0)
    """Weight of the KL divergence from the reference policy in the reward; 0 = no reference."""
    runtime: RLOORuntime = RLOORuntime()


Loss = Annotated[DPO | IPO | SPPO | SimPO | ORPO | OtherDPO | RLOO, Field(discriminator="kind")]


class Adapter(Section):
    """LoRA over all linear layers; merged into the checkpoint that training leaves."""

    kind: Literal["lora", "qlora"]
    """qlora holds the frozen weights in 4 bits (NF4); needs a CUDA device and bitsandbytes."""
    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)


class TrainingRuntime(Section):
    micro_batch_size: int = Field(8, ge=1)
    """Pairs per device and forward pass; accumulation makes up the batch size."""
    launch: str = "cpu"
    """Packaged accelerate launch file by name, or a path."""
    precompute_reference: bool = True
    """Take the reference's log-probabilities before training, once per run and content; false = at every step anew."""
    liger: bool = False
    """Liger kernels; needs liger-kernel and a GPU."""
    report_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Trackers, besides the metrics file that is always there."""


class Training(Section):
    start: Literal["incremental", "scratch"] = "incremental"
    """`incremental`: from the last iteration's policy, on this iteration's pairs. `scratch`: from theta_0, on the pairs of this and
    all earlier iterations, each prompt once with the pair it gave first [paper, table 5]."""
    learning_rate: float = Field(5e-7, gt=0)
    batch_size: int = Field(64, ge=1)
    """Pairs (rloo: responses) per optimiser step, over all devices; the last step of an epoch is filled up from its first pairs."""
    epochs: int = Field(2, ge=1)
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup", "inverse_sqrt"] = "cosine"
    optimizer: Literal["adamw_torch", "adamw_torch_fused", "rmsprop", "adafactor"] = "adamw_torch"
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, gt=0)
    max_length: int = Field(2048, ge=8)
    """Tokens of prompt and response."""
    too_long: Literal["drop", "truncate"] = "drop"
    """What happens to longer pairs: dropped, or their responses cut at the end; the prompt is never cut. Counted either way."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    attention: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    """Attention code; null = the model's own choice. Gemma 2 trains right with eager only."""
    adapter: Adapter | None = None
    """null = all weights are trained."""
    gradient_checkpointing: bool = True
    checkpoints_per_epoch: int = Field(2, ge=1)
    """How often training can be resumed from."""
    runtime: TrainingRuntime = TrainingRuntime()


class Pairs(Section):
    min_gap: float = Field(0.0, ge=0)
    """Pairs need a reward gap above this."""


class Rewrite(Section):
    """The rewriter in the loop: the chosen response is rewritten before training [paper, D.2.1]."""

    generator: Player = PolicyPlayer(kind="policy")
    """Who rewrites; the policy itself in the paper."""
    keep: Literal["always", "if_no_worse"] = "always"
    """Train on every usable rewrite, as in the paper, or on those whose reward is at least the original's."""
    shortest: float = Field(0.5, gt=0, le=1)
    """Characters of a rewrite over the original's; below this it is not used."""
    longest: float = Field(1.5, ge=1)
    """The same, above which it is not used."""


class Solver(Section):
    """The response player."""

    responses: int = Field(6, ge=2)
    pairs: Pairs = Pairs()
    rewrite: Rewrite | None = None
    loss: Loss
    reference: Literal["previous", "initial"] | None = None
    """Reference policy of the losses that have one: what the iteration starts from (null as well), or theta_0."""
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


class Benchmark(Section):
    """Questions that a policy answers; its temperature and length here go before the policy's own."""

    questions: str | None = None
    """File with the questions; null = the public home."""
    temperature: float | None = Field(0.0, ge=0)
    max_new_tokens: int = Field(2048, ge=1)


class JudgedBenchmark(Benchmark):
    """A benchmark with a judge. What a recipe leaves open of the judge is as in the official settings."""

    OFFICIAL: ClassVar[dict[str, Any]] = {"temperature": 0.0, "top_p": 1.0}
    JUDGE: ClassVar[str] = "gpt-4-1106-preview"

    judge: Player

    @model_validator(mode="before")
    @classmethod
    def _officially(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        judge = data.get("judge", {"kind": "litellm"})
        if isinstance(judge, dict) and judge.get("kind") == "litellm":
            judge = {"model": cls.judge_model(data), **judge}
        if isinstance(judge, dict) and judge.get("kind") in ("litellm", "transformers", "vllm", "policy"):
            judge = {**cls.judge_settings(data), **judge}
        return {**data, "judge": judge}

    @classmethod
    def judge_model(cls, data: dict[str, Any]) -> str:
        return cls.JUDGE

    @classmethod
    def judge_settings(cls, data: dict[str, Any]) -> dict[str, Any]:
        return cls.OFFICIAL


class MTBench(JudgedBenchmark):
    """MT-Bench: 80 questions of two turns, each turn graded from 1 to 10."""

    JUDGE = "gpt-4"
    OFFICIAL = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 2048}
    TEMPERATURES: ClassVar[dict[str, float]] = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
    """FastChat's temperatures of the answers by category; 0 for the others."""

    kind: Literal["mt_bench"]
    references: str | None = None
    """File with the reference answers (math, reasoning, coding); null = the public home."""
    prompts: str | None = None
    """File with the judge's prompts; null = the public home."""
    temperature: float | None = Field(None, ge=0)
    """null = the official one of each category (0.7 for writing and roleplay, 0.1 for stem and humanities, 0 for the rest)."""
    max_new_tokens: int = Field(1024, ge=1)


class ArenaHard(JudgedBenchmark):
    """Arena-Hard: hard questions, each answer judged against a baseline model's in both places."""

    kind: Literal["arena_hard"]
    version: Literal["v0.1", "v2.0"] = "v0.1"
    baseline: str | None = None
    """File with the baseline's answers, a model whose answers are published, or `base` for the base policy; null = the official one."""
    prompts: str | None = None
    """The official settings file with the judge's template; null = the public home."""
    system_prompts: str | None = None
    """File with the judge's system prompt of every category, where the settings file has none; null = the public home."""
    max_new_tokens: int = Field(4096, ge=1)

    @classmethod
    def judge_model(cls, data: dict[str, Any]) -> str:
        return "gpt-4.1" if data.get("version") == "v2.0" else cls.JUDGE

    @classmethod
    def judge_settings(cls, data: dict[str, Any]) -> dict[str, Any]:
        return {**cls.OFFICIAL, "max_new_tokens": 16000 if data.get("version") == "v2.0" else 4096}


class AlpacaEval(JudgedBenchmark):
    """AlpacaEval 2: 805 instructions, each answer compared with the reference output by an annotator of the alpaca_eval package."""

    kind: Literal["alpaca_eval"]
    annotator: Literal["weighted_alpaca_eval_gpt4_turbo", "alpaca_eval_gpt4_turbo_fn"] = "weighted_alpaca_eval_gpt4_turbo"
    """Its prompt, parser and settings; the weighted one needs log-probabilities (of a local judge, the word counts as sure)."""
    baseline: str | None = None
    """File with the reference outputs, or `base` for the base policy; null = the official one."""
    difficulty: str | None = None
    """The package's instruction_difficulty.csv; null = fetched from the Hub by the package."""
    gamed: str | None = None
    """The package's df_gamed.csv; null = fetched from the Hub by the package."""
    temperature: float | None = Field(0.7, ge=0)

    @classmethod
    def judge_settings(cls, data: dict[str, Any]) -> dict[str, Any]:
        weighted = data.get("annotator", "weighted_alpaca_eval_gpt4_turbo") == "weighted_alpaca_eval_gpt4_turbo"
        return {"temperature": 1.0 if weighted else 0.0, "top_p": 1.0, "max_new_tokens": 1 if weighted else 100}


class GSM8K(Benchmark):
    """1,319 grade-school word problems, checked by the `math` verifier; no judge."""

    kind: Literal["gsm8k"]
    max_new_tokens: int = Field(1024, ge=1)


class IFEval(Benchmark):
    """541 prompts with instructions that a program can check, by the `instruction` verifier; no judge."""

    kind: Literal["ifeval"]
    max_new_tokens: int = Field(1280, ge=1)


class LMEvalRuntime(Section):
    batch_size: int = Field(8, ge=1)
    device: str = "auto"


class LMEval(Section):
    """Tasks of lm-evaluation-harness (pip install 'eva-align[eval]') on the policy's checkpoint."""

    kind: Literal["lm_eval"]
    tasks: tuple[str, ...] = Field(
        ("gsm8k", "gsm_plus", "wmdp", "leaderboard_mmlu_pro", "leaderboard_musr", "truthfulqa_gen"), min_length=1
    )
    """Names of the harness; the paper's table 7 by default."""
    include: str | None = None
    """Folder with task files of one's own."""
    limit: int | None = Field(None, ge=1)
    """Questions per task; null = all."""
    chat_template: bool = True
    """Put the questions into the policy's chat template."""
    dtype: DType = "auto"
    runtime: LMEvalRuntime = LMEvalRuntime()


OneBenchmark = Annotated[Lettercraft | ArenaHard | MTBench | AlpacaEval | GSM8K | IFEval | LMEval, Field(discriminator="kind")]


class Evaluation(Section):
    benchmarks: tuple[OneBenchmark, ...] = ()
    only: bool = False
    """Nothing but the evaluation of policy.model: no prompts are evolved and nothing is trained."""


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
    unjudged: float = Field(0.02, ge=0, le=1)
    """Judge calls that failed for good. Judgments that were made but hold no verdict are counted and do not fail a stage."""


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
