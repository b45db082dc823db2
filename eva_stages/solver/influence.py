"""One-step influence: by how much a training step on a prompt's pair lowers the loss on the pairs of other prompts.

The step is a plain gradient step at the recipe's learning rate on the recipe's loss, from the policy with which the iteration's training
starts. To first order, the held-out loss L falls by

    L(theta) - L(theta - lr g) = lr g . grad L(theta),    g = gradient of the loss of the prompt's pair                        (1)

so one backward pass per pair gives its influence, without moving the weights. Adam's first step would divide every element of g by its
size, which makes all pairs move the policy equally far; the step here keeps how much a pair has to say. There is no dropout, no clipping
and no schedule.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from eva_stages.core.errors import DataError
from eva_stages.core.fingerprint import uniforms
from eva_stages.core.process import run_in_child
from eva_stages.core.stage import WORK, load_attribute
from eva_stages.core.tables import read_table, write_rows
from eva_stages.solver.launch_file import read_launch_file
from eva_stages.solver.launching import JOB, environment_of, training_job

HELD_OUT_PAIRS = 256
LEAST_HELD_OUT_PAIRS = 10
VERSION = 2
"""Raised when what is computed changes."""


class PairInfluence(NamedTuple):
    """The influence of sampled prompts."""

    prompt_ids: list[str]
    values: list[float]
    """Fall of the held-out loss (1), in the unit of the loss."""
    held_out_count: int
    """Pairs of other prompts that the held-out loss is the mean of."""


def measure_influence(
    work: Path, log: Path, inputs: Mapping[str, Path], arguments: Mapping[str, Any], prompts: Path, size: int
) -> PairInfluence:
    """The influence of up to `size` prompts of an iteration, in a child process.

    Args:
        work: an empty folder.
        log: file for what the libraries print.
        inputs, arguments: folders and arguments (with `runtime`) of the training stage.
        prompts: the iteration's prompt set.

    Raises:
        DataError: if there are too few pairs.
        StageError: with the cause, if the child raised or died.
    """
    sample = _write_pairs(inputs["pairs"], prompts, size, work / "pairs")
    folders = {WORK: work, **{name: path.resolve() for name, path in inputs.items()}, "pairs": work / "pairs"}
    job = training_job(work, folders, work / "cache", "influence", **arguments)
    # no experiment tracker gets this run; one process computes the influence, also where several processes train
    runtime = job.training.runtime.model_copy(update={"report_to": ()})
    job = job.model_copy(update={"training": job.training.model_copy(update={"runtime": runtime})})
    job.write(work / JOB)
    file = read_launch_file(job.training.runtime.launch)
    single_file = file if file.is_single else read_launch_file("cpu" if file.use_cpu else "single_gpu")
    child_arguments = {
        "job_file": str(work / JOB),
        "launch_file": str(single_file.path),
        "environment": environment_of(job, single_file, work),
        "sample": len(sample),
    }
    places, values, held_out_count = run_in_child(f"{__name__}:influence_here", child_arguments, log, lambda: None)
    return PairInfluence([sample[place] for place in places], values, held_out_count)


def _write_pairs(pairs: Path, prompts: Path, size: int, folder: Path) -> list[str]:
    """Write the pairs of up to `size` sampled prompts, then those of held-out prompts that descend from other seed prompts.

    A larger sample than the pairs allow leaves half of them: the gradient of a few held-out pairs would be noise. Seeds are drawn in an
    order that depends on their ids alone.

    Returns:
        The ids of the sampled prompts, in the order of their pairs.
    """
    rows, prompt_rows = read_table(pairs), read_table(prompts, ["prompt_id", "root_id"])
    places = pc.index_in(rows["prompt_id"].combine_chunks(), value_set=prompt_rows["prompt_id"].combine_chunks())
    rows = rows.filter(places.is_valid())  # a pool also has the pairs of earlier sets
    roots = prompt_rows["root_id"].combine_chunks().take(places.drop_null())
    encoded_roots = roots.dictionary_encode()
    order = np.argsort(uniforms(0, encoded_roots.dictionary)[encoded_roots.indices.to_numpy()], kind="stable")
    sorted_roots = encoded_roots.indices.to_numpy()[order]
    ends = np.flatnonzero(np.diff(sorted_roots, append=-1)) + 1  # of the pairs of each seed
    held_out_count = max(LEAST_HELD_OUT_PAIRS, min(HELD_OUT_PAIRS, len(order) // 2))
    count = int(max(ends[ends <= min(size, len(order) - held_out_count)], default=0))
    if count == 0:
        raise DataError(
            f"the iteration has {len(order):,} pairs of {len(ends):,} seed prompts; an influence needs a sample and {held_out_count} "
            "pairs of other seed prompts"
        )
    chosen_rows = rows.take(pa.array(order[: count + HELD_OUT_PAIRS]))
    write_rows([chosen_rows], chosen_rows.schema, folder)
    sample: list[str] = chosen_rows["prompt_id"][:count].to_pylist()
    return sample


def influence_here(job_file: str, launch_file: str, environment: dict[str, str], sample: int) -> tuple[list[int], list[float], int]:
    """In this process: the rows of the sampled pairs that fit the recipe's length limit, their influence, and the number of held-out pairs.

    Args:
        job_file: a training job whose first `sample` pairs are those of the sampled prompts.
        launch_file, environment: see `train_here`.
    """
    from eva_stages.models.loading import load_tokenizer
    from eva_stages.solver.fitting import chat_of
    from eva_stages.solver.tokens import fate, pair_ids
    from eva_stages.solver.train import started_job, trainer_target, use_this_process

    use_this_process(launch_file, environment)
    job = started_job(job_file)
    module = trainer_target(job.loss.kind).partition(":")[0]
    trainer, _ = load_attribute(f"{module}:make_trainer")(job)
    chat, limits = chat_of(job, load_tokenizer(str(job.policy))), (job.training.max_length, job.training.too_long)
    rows = read_table(job.inputs["pairs"]).to_pylist()
    lengths = [[len(ids) for ids in pair_ids(chat, row)] for row in rows]
    kept_places = [place for place, sizes in enumerate(lengths) if fate(sizes, *limits) in ("pairs", "truncated")]
    sampled_places = [place for place in kept_places if place < sample]
    held_out_count = len(kept_places) - len(sampled_places)
    if not sampled_places or held_out_count < LEAST_HELD_OUT_PAIRS:
        raise DataError(
            f"only {len(sampled_places)} sampled and {held_out_count} held-out pairs fit into max_length {job.training.max_length}"
        )
    values = influences(trainer, len(sampled_places), job.training.runtime.micro_batch_size)
    return sampled_places, [job.training.learning_rate * value for value in values], held_out_count


def influences(trainer: Any, sample: int, batch_size: int) -> Iterator[float]:
    """g . grad L of (1) for each of the first `sample` pairs of a trainer; the others are held out."""
    import torch

    trainer.model.eval()
    parameters = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    held_out_places = range(sample, len(trainer.train_dataset))
    gradient = [torch.zeros_like(parameter) for parameter in parameters]
    for start in range(0, len(held_out_places), batch_size):
        places = held_out_places[start : start + batch_size]
        for total, part in zip(gradient, _gradient(trainer, parameters, places), strict=True):
            total.add_(part, alpha=len(places) / len(held_out_places))
    for place in range(sample):
        parts = zip(gradient, _gradient(trainer, parameters, [place]), strict=True)
        yield sum(float((total * part).sum(dtype=torch.float64)) for total, part in parts)


def _gradient(trainer: Any, parameters: list[Any], places: Any) -> Iterator[Any]:
    import torch

    gradients = torch.autograd.grad(pair_loss(trainer, places), parameters, allow_unused=True, materialize_grads=True)
    return iter(gradients)


def pair_loss(trainer: Any, places: Any) -> Any:
    """The recipe's loss on pairs of a trainer, by row, as a scalar tensor."""
    batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[place] for place in places]))
    with trainer.accelerator.autocast():
        return trainer.compute_loss(trainer.model, batch)
