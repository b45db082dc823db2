"""The response player: pairs, losses, training."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from eva_stages.core.config.function_fields import LossFunction
from eva_stages.core.config.models_config import Player, PolicyPlayer
from eva_stages.core.config.paths import MaybeFile
from eva_stages.core.config.section import Section


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


class CustomLoss(PairLoss):
    """A loss of your own over the log-probabilities of a micro batch of pairs (`PairLogProbs` in solver/losses.py)."""

    kind: Literal["custom"]
    function: LossFunction
    """Returns the loss of each pair and a dict of metrics to log."""


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


Loss = Annotated[DPO | IPO | SPPO | SimPO | ORPO | OtherDPO | CustomLoss | RLOO, Field(discriminator="kind")]


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
    launch: MaybeFile = "cpu"
    """Packaged accelerate launch file by name, or a path."""
    starter: Literal["slurm", "ray"] | None = None
    """What starts a launch file with several machines on each of them: `slurm` by srun within this job's allocation, `ray` on a cluster
    (that of runtime.engine, or the one that this machine is a node of)."""
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
