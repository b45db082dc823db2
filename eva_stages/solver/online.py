"""On-policy RLOO on TRL's trainer: in every step the policy answers, the recipe's reward scores, and the policy moves.

With n responses y_i to a prompt and R_i = r(x, y_i) - beta * log pi(y_i | x) / pi_ref(y_i | x), a response's advantage is R_i less the
mean of the others', and the loss -A_i log pi(y_i | x) (Ahmadian et al. 2024). A response that could not be scored is left out of the
others' baseline and moves nothing (TRL does so for None); it is counted, and too many of them fail the training as they fail a
reward stage. The reward runs inside the training processes, each with a copy of its own.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from accelerate import PartialState
from datasets import Dataset
from jinja2 import TemplateError
from torch.utils.data import Sampler
from transformers import TrainerCallback
from trl import RLOOConfig, RLOOTrainer

from eva_stages.core.errors import DataError
from eva_stages.core.rows import Message
from eva_stages.core.stage import use_of
from eva_stages.models.batching import template_messages, with_system_prompt
from eva_stages.models.loading import load_tokenizer
from eva_stages.models.rewards import Conversation, PointwiseReward, finite
from eva_stages.solver.fitting import MetricsFile, common_arguments, fit, load_policy, lora

UNSCORED = "unscored"
PER_RESPONSE = "per_response/"
"""Before the names of logged means over responses, of which the manifest has the sums."""


class PromptGroups(Sampler[int]):
    """Row numbers of an epoch in groups as TRL's trainer takes them, in an order that is a function of (seed, epoch).

    TRL's own sampler goes on shuffling from where it was, which a resumed training cannot know.

    Args:
        each: prompts of an optimiser step; what is left over at the end of an epoch waits for another epoch.
        n: responses per prompt.
        micro: micro steps of an optimiser step, each of which is given the whole step's prompts.
    """

    def __init__(self, rows: int, each: int, n: int, micro: int, seed: int) -> None:
        self._rows, self._each, self._n, self._micro, self._seed = rows, each, n, micro, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return self._rows // self._each * self._each * self._n * self._micro

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(self._rows)
        for start in range(0, self._rows // self._each * self._each, self._each):
            yield from np.tile(order[start : start + self._each].repeat(self._n), self._micro).tolist()


class OnlineTrainer(RLOOTrainer):
    """TRL's trainer with prompts in an order that a resumed training finds again."""

    def _get_train_sampler(self, dataset: Dataset | None = None) -> PromptGroups:
        rows = len(self.train_dataset if dataset is None else dataset)
        each = self.args.generation_batch_size // self.num_generations
        return PromptGroups(rows, each, self.num_generations, self.args.steps_per_generation, self.args.seed)


def load_prompts(path: Path, tokenizer: Any, longest: int, system_prompt: str | None) -> tuple[Dataset, int]:
    """The prompts that take at most `longest` tokens, with their references, and how many do not.

    Raises:
        DataError: if none does.
    """
    dataset = Dataset(pq.read_table(path / "rows.parquet", columns=["messages", "reference"])).rename_column("messages", "prompt")

    def prepared(row: dict[str, Any]) -> dict[str, Any]:
        messages = template_messages(tokenizer, with_system_prompt(row["prompt"], system_prompt))
        tokens = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        return {"prompt": messages, "tokens": len(tokens)}

    try:
        counted = dataset.map(prepared, keep_in_memory=True)
    except TemplateError as error:
        raise DataError(f"the policy's chat template does not take the prompts: {error}") from error
    kept = counted.filter(lambda row: row["tokens"] <= longest, keep_in_memory=True).remove_columns("tokens")
    if len(kept) == 0:
        raise DataError(
            f"none of the {len(dataset)} prompts fits into {longest} tokens, which is what solver.training.max_length leaves beside "
            "policy.generator.max_new_tokens"
        )
    return kept, len(dataset) - len(kept)


def reward_function(reward: PointwiseReward) -> Callable[..., list[float | None]]:
    """A reward as TRL calls it: None where a response could not be scored. The share of those and what scoring took are logged.

    Raises:
        DataError: from the function, if no response of a call could be scored: nothing would be learnt, silently.
    """

    def score(
        prompts: list[list[Message]],
        completions: list[list[Message]],
        reference: list[str | None],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float | None]:
        conversations = [
            Conversation(prompt, completion[-1]["content"], known)
            for prompt, completion, known in zip(prompts, completions, reference, strict=True)
        ]
        scores = [finite(one) for one in reward.score(conversations)]
        reasons = [one.failure for one in scores if one.value is None]
        if len(reasons) == len(scores):
            raise DataError(f"no response of a whole batch could be scored: {reasons[0]}")
        took = Counter({UNSCORED: len(reasons)})
        for one in scores:
            took.update(one.statistics)
        for name, total in took.items():
            log_metric(PER_RESPONSE + name, total / len(scores))
        return [one.value for one in scores]

    return score


class CountResponses(TrainerCallback):
    """Counts the responses, those without a reward and what scoring took, over resumptions too; too many unscored end the training."""

    def __init__(self, counts: dict[str, float], responses: int, limit: float) -> None:
        self._counts, self._responses, self._limit = counts, responses, limit

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        means: Counter[str] = Counter()
        for entry in state.log_history:
            means.update({name: value for name, value in entry.items() if name.startswith(PER_RESPONSE)})
        total = self._responses * state.global_step
        taken = {name.removeprefix(PER_RESPONSE): round(self._responses * mean, 6) for name, mean in means.items()}
        self._counts |= {"responses": total, **taken, UNSCORED: round(taken[UNSCORED])}
        if self._counts[UNSCORED] > self._limit * total:
            raise DataError(
                f"{self._counts[UNSCORED]} of {total} responses could not be scored, above the limit of {self._limit:.1%}: mend the "
                "reward, or raise limits.unscored. What was trained is kept"
            )


def train(job: dict[str, Any]) -> None:
    """One round of RLOO over a file of prompts."""
    tokenizer = load_tokenizer(job["policy"], padding_side="left")
    sampling, n = job["sampling"], job["responses"]
    longest = job["max_length"] - sampling["max_new_tokens"]
    with PartialState().main_process_first():
        prompts, too_long = load_prompts(Path(job["prompts"]), tokenizer, longest, sampling["system_prompt"])
    each_step = job["batch_size"] // n
    if len(prompts) < each_step:
        raise DataError(f"{len(prompts)} prompts are fewer than the {each_step} of an optimiser step; lower solver.training.batch_size")
    reward = use_of(job["reward"]).build({name: Path(folder) for name, folder in job["inputs"].items()})
    reward.load()
    counts: dict[str, float] = {"prompts": len(prompts), "too_long": too_long}
    trainer = OnlineTrainer(
        model=_policy(job),
        reward_funcs=reward_function(reward),
        args=RLOOConfig(
            **common_arguments(job, len(prompts) // each_step * job["batch_size"], PartialState().num_processes),
            **_vllm(job["loss"]["runtime"], job["max_length"]),
            beta=job["loss"]["beta"],
            num_generations=n,
            max_completion_length=sampling["max_new_tokens"],
            temperature=sampling["temperature"],
            top_p=sampling["top_p"],
            model_init_kwargs={"dtype": job["dtype"], "use_safetensors": True},  # of the reference
        ),
        train_dataset=prompts,
        processing_class=tokenizer,
        peft_config=lora(job),
        callbacks=[MetricsFile(Path(job["work"]) / "metrics.jsonl"), CountResponses(counts, job["batch_size"], job["unscored"])],
    )
    fit(trainer, job, counts)


def _policy(job: dict[str, Any]) -> Any:
    """The policy to train. TRL loads the reference from where the policy's configuration says that it came from."""
    policy = load_policy(job)
    policy.config._name_or_path = job["reference"]
    return policy


def _vllm(runtime: dict[str, Any], max_length: int) -> dict[str, Any]:
    """TRL's settings for sampling with a vLLM engine inside the training processes; none where it is not asked for."""
    if not runtime["vllm"]:
        return {}
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_enable_sleep_mode": True,
        "vllm_gpu_memory_utilization": runtime["gpu_memory_utilization"],
        "vllm_max_model_length": max_length,
    }
