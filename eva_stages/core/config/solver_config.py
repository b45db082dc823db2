"""The solver: pairs, losses, training."""

import re
from typing import Annotated, Literal

from pydantic import Field, model_validator

from eva_stages.core.config.function_fields import LossFunction
from eva_stages.core.config.models_config import ModelChoice, PolicyModel
from eva_stages.core.config.paths import MaybeFile
from eva_stages.core.config.section import Section


class PairLoss(Section):
    """Settings of every loss over pairs."""

    nll_alpha: float = Field(0.0, ge=0)
    """Weight alpha of (alpha / |y+|) * -log pi(y+|x)."""


class ReferenceLoss(PairLoss):
    """A loss over the log-ratios of policy and reference policy."""

    beta: float = Field(0.1, gt=0)
    """Weight of the log-ratios: the larger, the closer the policy stays to the reference policy."""
    ld_alpha: float | None = Field(None, ge=0, le=1)
    """LD-DPO: weight of the log-probabilities beyond the shorter response's length; null = 1."""


class DPO(ReferenceLoss):
    """Direct preference optimisation."""

    kind: Literal["dpo"]
    nll_alpha: float = Field(1.0, ge=0)
    """Weight alpha of (alpha / |y+|) * -log pi(y+|x)."""
    length_normalized: bool = False
    """Divide each log-ratio by its response's length; use a larger beta then (2 to 10)."""


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
    """TRL's other losses over pairs, by TRL's name. `aot` and `aot_unpaired` sort each micro batch, so its size affects them."""

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
    """Assumed share of flipped preferences, for exo_pair (above 0), robust, aot and aot_unpaired."""

    @model_validator(mode="after")
    def _smoothing_fits(self) -> "OtherDPO":
        if self.kind == "exo_pair" and self.label_smoothing == 0:
            raise ValueError("exo_pair needs label_smoothing above 0, for example 0.001")
        if self.label_smoothing and self.kind not in ("exo_pair", "robust", "aot", "aot_unpaired"):
            raise ValueError(f"{self.kind} has no label_smoothing; remove it, or use robust")
        return self


class CustomLoss(PairLoss):
    """A function in a file, over the log-probabilities of a micro batch of pairs (`PairLogProbs` in solver/losses.py)."""

    kind: Literal["custom"]
    function: LossFunction
    """Returns the loss of each pair and a dict of metrics to log."""


class OnPolicyRuntime(Section):
    vllm: bool = False
    """Sample with vLLM; needs GPUs and a version of vLLM that TRL supports."""
    gpu_memory_utilization: float = Field(0.3, gt=0, le=1)
    """Share of each GPU's memory for a vLLM engine inside the training processes; a server has its own setting."""
    server: str | None = None
    """Address of the vLLM server to sample with, such as http://127.0.0.1:8000; null = an engine inside the training processes."""

    @model_validator(mode="after")
    def _server_fits(self) -> "OnPolicyRuntime":
        if self.server is None:
            return self
        if not self.vllm:
            raise ValueError(f"server: is {self.server}, and vllm is false; give vllm: true, or leave server out")
        if self.gpu_memory_utilization != type(self).model_fields["gpu_memory_utilization"].default:
            raise ValueError("gpu_memory_utilization: has no effect on a server; leave it out, and start the server with the share")
        if not re.fullmatch(r"https?://[^/?#\s]+", self.server):
            raise ValueError(f"server: {self.server!r} is not the address of a server; give one such as http://127.0.0.1:8000")
        return self


class RLOO(Section):
    """On-policy REINFORCE with the leave-one-out mean of a prompt's `solver.responses` responses as baseline; needs no pairs."""

    kind: Literal["rloo"]
    beta: float = Field(0.05, ge=0)
    """Weight of the KL divergence from the reference policy in the reward; 0 = no reference."""
    runtime: OnPolicyRuntime = OnPolicyRuntime()


class GRPO(Section):
    """TRL's GRPO: on-policy, with advantages (r - mean) / std over the responses to a prompt, and a mean over the tokens of a step."""

    kind: Literal["grpo"]
    beta: float = Field(0.04, ge=0)
    """Weight of the KL divergence per token from the reference policy in the loss; 0 = no reference."""
    runtime: OnPolicyRuntime = OnPolicyRuntime()


class OnlineDPO(Section):
    """DPO on the best and the worst of the responses that each optimiser step samples to a prompt."""

    kind: Literal["online_dpo"]
    beta: float = Field(0.1, gt=0)
    runtime: OnPolicyRuntime = OnPolicyRuntime()


OnPolicyLoss = RLOO | GRPO | OnlineDPO
"""The losses that sample and score responses during training."""
ON_POLICY_LOSSES = ("rloo", "grpo", "online_dpo")
Loss = Annotated[DPO | IPO | SPPO | SimPO | ORPO | OtherDPO | CustomLoss | RLOO | GRPO | OnlineDPO, Field(discriminator="kind")]


class SiblingRLOO(PairLoss):
    """RLOO over the recorded siblings of a parent, as a sum over their pairs; only for the creator."""

    kind: Literal["sibling_rloo"]
    beta: float = Field(0.1, gt=0)
    """Weight of the KL divergence from the reference in the reward."""


class BestSibling(PairLoss):
    """Negative log-likelihood of the chosen responses per token; only for the creator."""

    kind: Literal["supervised"]


JobLoss = Annotated[
    DPO | IPO | SPPO | SimPO | ORPO | OtherDPO | CustomLoss | RLOO | GRPO | OnlineDPO | SiblingRLOO | BestSibling,
    Field(discriminator="kind"),
]
"""The loss of a training job, of the solver or of the creator."""


class Adapter(Section):
    """LoRA over all linear layers; the checkpoint has the merged weights."""

    kind: Literal["lora", "qlora"]
    """qlora holds the frozen weights in 4 bits (NF4); needs bitsandbytes."""
    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)


class TrainingRuntime(Section):
    micro_batch_size: int = Field(8, ge=1)
    """Pairs per device and forward pass; gradient accumulation gives the batch size."""
    launch: MaybeFile = "cpu"
    """Packaged accelerate launch file by name, or a path."""
    starter: Literal["slurm", "ray"] | None = None
    """Starts a launch file with several machines on each of them: `slurm` by srun within this job's allocation, `ray` on a cluster (that of
    runtime.engine, or the cluster of this node)."""
    precompute_reference: bool = True
    """Precompute (and cache) reference log-probabilities; false recomputes them every step."""
    liger: bool = False
    """Liger kernels; needs liger-kernel and a GPU."""
    report_to: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Trackers, in addition to the metrics file."""


class Optimisation(Section):
    """How weights are trained, those of the policy and those of the creator."""

    batch_size: int = Field(64, ge=1)
    """Pairs per optimiser step, over all devices; pairs from the start of the epoch complete its last step. On-policy losses: responses."""
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup", "inverse_sqrt"] = "cosine"
    optimizer: Literal["adamw_torch", "adamw_torch_fused", "rmsprop", "adafactor"] = "adamw_torch"
    warmup_ratio: float = Field(0.1, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, gt=0)
    max_length: int = Field(2048, ge=8)
    """Tokens of prompt and response."""
    too_long: Literal["drop", "truncate"] = "drop"
    """Drop longer pairs, or cut their responses at the end; both are counted, and prompts are never cut."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    attention: Literal["eager", "sdpa", "flash_attention_2"] | None = None
    """Attention implementation; null = the model's default. Gemma 2 needs eager for correct training."""
    adapter: Adapter | None = None
    """null = train all weights."""
    gradient_checkpointing: bool = True
    checkpoints_per_epoch: int = Field(2, ge=1)
    """Checkpoints per epoch from which training can resume."""
    runtime: TrainingRuntime = TrainingRuntime()


class Training(Optimisation):
    """How the policy is trained."""

    start: Literal["incremental", "scratch"] = "incremental"
    """`incremental`: from the last iteration's policy, on this iteration's pairs. `scratch`: from the base policy, on the pairs of this and
    all earlier iterations, each prompt once with its first pair [paper, table 5]."""
    learning_rate: float = Field(5e-7, gt=0)
    epochs: int = Field(2, ge=1)


class Pairs(Section):
    min_gap: float = Field(0.0, ge=0)
    """Only pairs with a larger reward gap are used."""


class Rewrite(Section):
    """The rewriter in the loop: the chosen response is rewritten before training [paper, D.2.1]."""

    generator: ModelChoice = PolicyModel(kind="policy")
    """Model that rewrites; the policy itself in the paper."""
    keep: Literal["always", "if_no_worse"] = "always"
    """Train on every usable rewrite, as in the paper, or only on rewrites with at least the original's reward."""
    shortest: float = Field(0.5, gt=0, le=1)
    """Minimum length of a rewrite in characters, relative to the original."""
    longest: float = Field(1.5, ge=1)
    """Maximum length of a rewrite in characters, relative to the original."""


class Solver(Section):
    """The solver: responses, pairs and training."""

    responses: int = Field(6, ge=2)
    pairs: Pairs = Pairs()
    rewrite: Rewrite | None = None
    loss: Loss
    reference: Literal["previous", "initial"] | None = None
    """Reference policy of losses that have one: the policy that the iteration starts from (default), or the base policy."""
    training: Training = Training()
