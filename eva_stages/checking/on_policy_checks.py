"""Checks of losses that sample and score responses during training, before any model is loaded; with --online, of their vLLM server."""

from collections.abc import Iterator
from importlib.util import find_spec

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import EnsembleReward, PairwiseReward
from eva_stages.core.config.solver_config import OnlineDPO, OnPolicyLoss
from eva_stages.core.resolved import Resolved
from eva_stages.solver.launch_file import read_launch_file
from eva_stages.solver.launching import training_length
from eva_stages.solver.vllm_server import server_faults


def check_on_policy(recipe: Recipe, resolved: Resolved) -> Iterator[str]:
    """An on-policy loss fits the reward and the policy, and no setting is ignored."""
    solver = recipe.solver
    if not isinstance(solver.loss, OnPolicyLoss):
        return
    kind = solver.loss.kind
    if isinstance(recipe.reward, EnsembleReward | PairwiseReward):
        yield (
            f"reward.kind: {kind} scores every response by itself as it comes, and {recipe.reward.kind} rewards only compare the responses "
            "of a stage; give a reward that scores single responses, or another solver.loss"
        )
    yield from _ignored_settings(recipe, solver.loss)
    yield from _sampling(recipe, kind)
    policy = resolved.policy(recipe)
    longest = training_length(solver.training.max_length, policy.path) if policy else None
    if longest is not None and recipe.policy.generator.max_new_tokens >= longest:
        yield (
            f"policy.generator.max_new_tokens: {recipe.policy.generator.max_new_tokens} leave no room for a prompt within the {longest} "
            "tokens of solver.training.max_length and the policy's positions; lower it"
        )
    if solver.training.batch_size % solver.responses:
        yield (
            f"solver.training.batch_size: {solver.training.batch_size} responses are not a multiple of {solver.responses} "
            "(solver.responses); give a multiple"
        )
    prompts, size = solver.training.batch_size // solver.responses, recipe.prompts.size
    if size is not None and size < prompts:
        yield (
            f"prompts.size: is {size}, and an optimiser step takes {prompts} prompts (solver.training.batch_size / solver.responses); "
            "raise it, or lower solver.training.batch_size"
        )


def _ignored_settings(recipe: Recipe, loss: OnPolicyLoss) -> Iterator[str]:
    solver, kind = recipe.solver, loss.kind
    if solver.rewrite:
        yield f"solver.rewrite: {kind} leaves no pairs, so there is no chosen response to rewrite; remove it"
    if solver.pairs.min_gap and not isinstance(loss, OnlineDPO):
        yield f"solver.pairs.min_gap: {kind} makes no pairs; leave it out, or take online_dpo"
    if solver.training.start == "scratch":
        yield f"solver.training.start: {kind} leaves no pairs to start over with; take incremental"
    if solver.training.too_long == "truncate":
        yield (
            f"solver.training.too_long: {kind} samples its responses, and policy.generator.max_new_tokens ends them; leave it out. "
            "Prompts that leave them no room are dropped and counted"
        )
    if solver.training.adapter and solver.reference == "initial" and recipe.mode == "offline":
        yield f"solver.reference: under an adapter {kind}'s reference is what the iteration starts from; take previous"
    if solver.reference and loss.beta == 0:
        yield f"solver.reference: is {solver.reference}, and {kind} with beta 0 has no reference policy; leave solver.reference out"


def _sampling(recipe: Recipe, kind: str) -> Iterator[str]:
    generator = recipe.policy.generator
    if generator.temperature == 0:
        yield f"policy.generator.temperature: is 0, and {kind} learns from how sampled responses differ; give one above 0"
    if generator.stop:
        yield f"policy.generator.stop: {kind} ends responses at the model's own end tokens only; leave it out"


def check_sampling_engine(recipe: Recipe, _: Resolved) -> Iterator[str]:
    """vLLM and a GPU for an on-policy loss that samples with it."""
    solver = recipe.solver
    if not isinstance(solver.loss, OnPolicyLoss) or not solver.loss.runtime.vllm:
        return
    if find_spec("vllm") is None:
        yield "solver.loss.runtime.vllm: needs vLLM, which is not installed: pip install 'eva-align[vllm]'"
    if read_launch_file(solver.training.runtime.launch).use_cpu:
        yield (
            f"solver.loss.runtime.vllm: sends the weights from a GPU, and solver.training.runtime.launch {solver.training.runtime.launch} "
            "trains on CPUs; take a launch file with GPUs, or vllm: false"
        )


def sampling_server(recipe: Recipe) -> tuple[list[str], list[str]]:
    """Ask the vLLM server that an on-policy loss samples with, if there is one: its faults, and a note."""
    loss = recipe.solver.loss
    if not isinstance(loss, OnPolicyLoss) or loss.runtime.server is None:
        return [], []
    if faults := server_faults(loss, recipe.solver.training.max_length):
        return faults, []
    return [], [f"solver.loss.runtime.server: {loss.runtime.server} responds, and takes the policy's weights"]
