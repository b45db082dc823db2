"""Checks of the solver's settings against the recipe, the policy's files and this machine, before any model is loaded."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain, islice
from shutil import which
from typing import get_args

from eva_stages.checking.on_policy_checks import check_on_policy, check_sampling_engine
from eva_stages.core.config.prompts_config import LettercraftPrompts, ReasoningGymPrompts
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import PairwiseReward
from eva_stages.core.config.solver_config import ORPO, SPPO, OnPolicyLoss, Optimisation, SimPO, TrainingRuntime
from eva_stages.core.devices import present_devices
from eva_stages.core.errors import DataError
from eva_stages.core.resolved import Resolved
from eva_stages.core.rows import Message
from eva_stages.creator.hub_prompts import prompt_source
from eva_stages.models.architecture import first_line
from eva_stages.models.conversation import Chat
from eva_stages.models.loading import load_tokenizer
from eva_stages.solver.launch_file import missing_gpus, read_launch_file
from eva_stages.solver.launching import training_length

PACKAGES = {"liger": "liger-kernel", "qlora": "bitsandbytes", "DEEPSPEED": "deepspeed"}
"""Packages that a setting requires beyond eva's own."""
TEMPLATE_TOKENS = 64
"""More than a chat template puts around a prompt."""


def _win_probabilities(recipe: Recipe, _: Resolved) -> Iterator[str]:
    if isinstance(recipe.solver.loss, SPPO) and not isinstance(recipe.reward, PairwiseReward):
        pairwise = ", ".join(get_args(reward.model_fields["kind"].annotation)[0] for reward in get_args(PairwiseReward))
        yield (
            f"solver.loss: sppo trains on win probabilities, and {recipe.reward.kind} rewards have none; "
            f"give a reward that compares responses ({pairwise}), or take sppo_hard"
        )


def _reference(recipe: Recipe, _: Resolved) -> Iterator[str]:
    solver = recipe.solver
    if solver.reference and isinstance(solver.loss, SimPO | ORPO):
        yield (
            f"solver.reference: is {solver.reference}, and {solver.loss.kind} has no reference policy; leave solver.reference out, "
            "or take a loss that has one, such as dpo"
        )


def trainings(recipe: Recipe) -> Iterator[tuple[str, Optimisation]]:
    """The trainings of a recipe, with their places."""
    yield "solver.training", recipe.solver.training
    if recipe.creator.training:
        yield "creator.training", recipe.creator.training


def _batches(recipe: Recipe, _: Resolved) -> Iterator[str]:
    for place, training in trainings(recipe):
        processes = read_launch_file(training.runtime.launch).processes
        micro = min(training.runtime.micro_batch_size, max(1, training.batch_size // processes))
        if training.batch_size % (micro * processes):
            yield (
                f"{place}.batch_size: {training.batch_size} pairs are not a multiple of {micro} pairs per micro batch x "
                f"{processes} processes; give a multiple of {micro * processes}"
            )


def _machines(recipe: Recipe, _: Resolved) -> Iterator[str]:
    for place, training in trainings(recipe):
        yield from _machines_of(f"{place}.runtime", training.runtime)


def _machines_of(section: str, runtime: TrainingRuntime) -> Iterator[str]:
    file = read_launch_file(runtime.launch)
    machines, processes = file.machines, file.processes
    place = f"{section}.starter"
    if machines > 1 and runtime.starter is None:
        yield f"{place}: {runtime.launch} has {machines} machines; give the starter of training, slurm or ray"
    if machines == 1 and runtime.starter:
        yield f"{place}: {runtime.launch} has one machine, which needs no starter; remove it, or use multi_node"
    if file.distributed_type == "FSDP" and file.use_cpu:
        yield f"{section}.launch: {runtime.launch} shards with FSDP, which accelerate does on GPUs only; use cpu or cpu_2 on a CPU"
    if processes % machines:
        yield f"{section}.launch: {processes} processes cannot be divided equally among {machines} machines"
    if runtime.starter == "slurm" and which("srun") is None:
        yield f"{place}: srun is not installed here; run eva within a Slurm job (configs/cluster/), or use ray"
    if runtime.starter == "ray" and find_spec("ray") is None:
        yield f"{place}: needs Ray, which is not installed: pip install 'eva-align[ray]', or use slurm"


def check_devices(recipe: Recipe) -> Iterator[str]:
    """The devices of this machine suffice for the launch files. Where a run starts; a recipe may be validated on a machine without them."""
    launches = {place: training.runtime.launch for place, training in trainings(recipe)}
    if sys.platform == "darwin" or not any(read_launch_file(launch).gpus_per_machine for launch in launches.values()):
        return
    gpus = len(present_devices().ids)
    for place, launch in launches.items():
        if missing := missing_gpus(launch, gpus):
            yield f"{place}.runtime.launch: {'; '.join(missing)}"


def _packages(recipe: Recipe, _: Resolved) -> Iterator[str]:
    for place, training in trainings(recipe):
        yield from _packages_of(place, training)


def _packages_of(place: str, training: Optimisation) -> Iterator[str]:
    runtime = training.runtime
    distribution = read_launch_file(runtime.launch).distributed_type
    required_packages: dict[str, str] = {f"{place}.runtime.report_to: {name}": name for name in runtime.report_to}
    if runtime.liger:
        required_packages[f"{place}.runtime.liger"] = PACKAGES["liger"]
    if training.adapter and training.adapter.kind == "qlora":
        required_packages[f"{place}.adapter.kind: qlora"] = PACKAGES["qlora"]
    if distribution in PACKAGES:
        required_packages[f"{place}.runtime.launch: {runtime.launch}"] = PACKAGES[distribution]
    missing_packages = {place: package for place, package in required_packages.items() if find_spec(package.replace("-", "_")) is None}
    yield from (f"{place} needs {package}, which is not installed: pip install {package}" for place, package in missing_packages.items())


def _prompts(recipe: Recipe, resolved: Resolved) -> Iterator[str]:
    """At least one prompt leaves room for a response. Without the chat template first, which takes a model library to render."""
    policy = resolved.policy(recipe)
    if policy is None or (resolved.prompts is None and not isinstance(recipe.prompts, LettercraftPrompts | ReasoningGymPrompts)):
        return  # reported by `resolve`
    folder = policy.path
    limit = training_length(recipe.solver.training.max_length, folder)
    if isinstance(recipe.solver.loss, OnPolicyLoss):
        limit -= recipe.policy.generator.max_new_tokens - 1  # room for a complete response
    if (folder / "tokenizer.json").is_file():
        from tokenizers import Tokenizer

        try:
            plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the package has no class for what may be wrong with the file
            yield f"policy.model: {folder / 'tokenizer.json'} cannot be read: {first_line(error)}"
            return
        if any(len(plain.encode(text, add_special_tokens=False).ids) < limit - TEMPLATE_TOKENS for text in _texts(recipe, resolved)):
            return
    try:
        chat = Chat(load_tokenizer(str(folder)), None, recipe.policy.generator.system_prompt)
    except DataError:  # reported with the policy
        return
    conversations: Iterator[list[Message]] = ([{"role": "user", "content": text}] for text in _texts(recipe, resolved))
    first = list(islice(conversations, 1))  # a source without prompts is reported with the prompts
    if chat.tokenizer.chat_template and first and not any(len(chat.prompt_ids(turns)) < limit for turns in chain(first, conversations)):
        yield (
            f"solver.training.max_length: {recipe.solver.training.max_length} tokens leave none of the prompts room for a response: "
            "all are longer; raise it"
        )


def _texts(recipe: Recipe, resolved: Resolved) -> Iterator[str]:
    from eva_stages.creator.conversations import UnusableError, conversation
    from eva_stages.creator.prompt_loading import seed_instructions
    from eva_stages.creator.task_prompts import seed_rows

    prompts = recipe.prompts
    if isinstance(prompts, LettercraftPrompts):
        yield from map(str, seed_instructions(recipe.seed, prompts.size, prompts.distribution))
        return
    if isinstance(prompts, ReasoningGymPrompts):
        try:
            rows = seed_rows(prompts.families, prompts.demonstrations, recipe.seed, prompts.size)
        except DataError:  # reported by `check_tasks`
            return
        yield from ("".join(message["content"] for message in row["messages"]) for row in rows)
        return
    for value in chain.from_iterable(block.values for block in prompt_source(prompts, resolved.commit)):
        try:
            yield "".join(message["content"] for message in conversation(value))
        except UnusableError:
            continue


SOLVER_MACHINE_CHECKS = (_machines, _packages, check_sampling_engine)
"""Of packages and commands of this machine."""
SOLVER_CHECKS = (_win_probabilities, _reference, check_on_policy, _batches, _prompts)
