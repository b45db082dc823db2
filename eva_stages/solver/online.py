"""On-policy RLOO on TRL's trainer: every step samples responses, scores them with the recipe's reward, and updates the policy.

With n responses y_i to a prompt and R_i = r(x, y_i) - beta * log pi(y_i | x) / pi_ref(y_i | x), a response's advantage is R_i less the
mean of the others', and the loss -A_i log pi(y_i | x) (Ahmadian et al. 2024). A response that could not be scored is left out of the
baselines and has no gradient (TRL does so for None). Such responses are counted; too many of them end the training as they end a
reward stage. The reward runs inside the training processes, a copy in each.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from accelerate import PartialState
from datasets import Dataset
from jinja2 import TemplateError
from torch.utils.data import Sampler
from transformers import AutoModelForCausalLM, LogitsProcessorList, TrainerCallback
from trl import RLOOConfig, RLOOTrainer

from eva_stages.core.config.solver_config import RLOO, RLOORuntime
from eva_stages.core.errors import DataError
from eva_stages.core.failures import commonest, plain
from eva_stages.core.patches import RepetitionPenalty, reference_settings
from eva_stages.core.reasoning import UNFINISHED_THOUGHT, answer_of
from eva_stages.core.rows import Message
from eva_stages.core.stage import Limit, use_of
from eva_stages.models.conversation import Chat, with_system_prompt
from eva_stages.models.loading import load_tokenizer
from eva_stages.models.rewards import Conversation, PointwiseReward, Score, finite
from eva_stages.models.weights import check_weights
from eva_stages.solver.fitting import chat_of, common_arguments, fit, load_policy, lora
from eva_stages.solver.job import OnPolicy, TrainingJob

UNSCORED_COUNT = "unscored"
MEAN_TOKENS = "completions/mean_length"
"""TRL's name of the logged mean number of tokens of the responses of a step."""
PER_RESPONSE = "per_response/"
"""Prefix of the names of logged means over responses; the manifest has their sums."""


class PromptGroups(Sampler[int]):
    """Row numbers of an epoch in groups as TRL's trainer takes them, in an order that is a function of (seed, epoch).

    TRL's own sampler continues its random stream across epochs, which a resumed training cannot reproduce.

    Args:
        prompts_per_step: prompts of an optimiser step; a remainder at the end of an epoch is dropped.
        n: responses per prompt.
        micro: micro steps of an optimiser step, each of which gets all prompts of the step.
    """

    def __init__(self, rows: int, prompts_per_step: int, n: int, micro: int, seed: int) -> None:
        self._rows, self._prompts_per_step, self._n, self._micro, self._seed = rows, prompts_per_step, n, micro, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        return self._rows // self._prompts_per_step * self._prompts_per_step * self._n * self._micro

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(self._rows)
        for start in range(0, self._rows // self._prompts_per_step * self._prompts_per_step, self._prompts_per_step):
            yield from np.tile(order[start : start + self._prompts_per_step].repeat(self._n), self._micro).tolist()


class OnlineTrainer(RLOOTrainer):
    """TRL's trainer with prompts as `conversation` renders them, in an order that a resumed training reproduces."""

    def __init__(self, *, chat: Chat, **settings: Any) -> None:
        self._chat = chat
        super().__init__(**settings)

    def _tokenize_prompts(self, prompts: list[list[Message]]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self._chat.prompt_ids(messages) for messages in prompts], None, {}

    def _get_train_sampler(self, dataset: Dataset | None = None) -> PromptGroups:
        rows = len(self.train_dataset if dataset is None else dataset)
        prompts_per_step = self.args.generation_batch_size // self.num_generations
        return PromptGroups(rows, prompts_per_step, self.num_generations, self.args.steps_per_generation, self.args.seed)


def load_prompts(path: Path, chat: Chat, longest: int) -> tuple[Dataset, int]:
    """The prompts that take at most `longest` tokens, with their references, and how many do not.

    Raises:
        DataError: if there is none.
    """
    dataset = Dataset(pq.read_table(path / "rows.parquet", columns=["messages", "reference"])).rename_column("messages", "prompt")
    try:
        short_prompts = dataset.filter(lambda row: len(chat.prompt_ids(row["prompt"])) <= longest, keep_in_memory=True)
    except TemplateError as error:
        raise DataError(f"the policy's chat template rejects the prompts: {error}") from error
    if len(short_prompts) == 0:
        raise DataError(
            f"none of the {len(dataset)} prompts fits into {longest} tokens (solver.training.max_length minus "
            "policy.generator.max_new_tokens); raise solver.training.max_length"
        )
    return short_prompts, len(dataset) - len(short_prompts)


def reward_function(
    reward: PointwiseReward,
    chat: Chat,
    ends: Collection[int],
    keep_thoughts: bool,
    system_prompt: str | None,
    failures: Counter[str] | None = None,
) -> Callable[..., list[float | None]]:
    """A reward as TRL calls it: None where a response could not be scored. The share of those and the statistics of scoring are logged.

    Args:
        ends: tokens that end a response.
        keep_thoughts: whether the reward reads the thoughts of a model that reasons.
        system_prompt: the part of the policy's system prompt that the reward reads.
        failures: collects the reasons for missing rewards.

    Raises:
        DataError: from the function, if no response of a call could be scored: the step would learn nothing, silently.
    """

    def answer(prompt: list[Message], ids: list[int]) -> str | None:
        text = chat.read(ids, ends).text or ""
        return text if keep_thoughts else answer_of(text, chat.opens_thought(prompt))

    def score(
        prompts: list[list[Message]],
        completion_ids: list[list[int]],
        reference: list[str | None],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float | None]:
        answers = [answer(prompt, ids) for prompt, ids in zip(prompts, completion_ids, strict=True)]
        conversations = [
            Conversation(with_system_prompt(prompt, system_prompt), text, known_reference)
            for prompt, text, known_reference in zip(prompts, answers, reference, strict=True)
            if text is not None
        ]
        known_scores = iter(reward.score(conversations))
        scores = [Score(None, UNFINISHED_THOUGHT) if text is None else _trainable(finite(next(known_scores))) for text in answers]
        reasons = Counter(plain(score.failure or "") for score in scores if score.value is None)
        if reasons.total() == len(scores):
            raise DataError(f"no response of a batch could be scored; {commonest(reasons)}")
        if failures is not None:
            failures.update(reasons)
        took = Counter({UNSCORED_COUNT: reasons.total()})
        for score in scores:
            took.update(score.statistics)
        for name, total in took.items():
            log_metric(PER_RESPONSE + name, total / len(scores))
        return [score.value for score in scores]

    return score


def _trainable(score: Score) -> Score:
    """A score outside float32, in which the trainer computes, is a failure."""
    if score.value is None or abs(score.value) <= float(np.finfo(np.float32).max):
        return score
    return Score(None, f"the reward is {score.value:g}, outside the range of float32")


class CountResponses(TrainerCallback):
    """Counts the responses, their tokens, those without a reward and the statistics of scoring, across resumptions; too many unscored end
    the training.

    `failures`: the reasons that the reward function collected in this process.
    """

    def __init__(self, counts: dict[str, float], responses: int, limit: float, failures: Counter[str], checkpoints: Path) -> None:
        self._counts, self._responses, self._failures, self._checkpoints = counts, responses, failures, checkpoints
        self._limit = Limit(UNSCORED_COUNT, "responses", limit, "responses have no reward", "check the reward", "limits.unscored")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        means: Counter[str] = Counter()
        for entry in state.log_history:
            means.update({name: value for name, value in entry.items() if name.startswith(PER_RESPONSE)})
        total = self._responses * state.global_step
        totals = {name.removeprefix(PER_RESPONSE): round(self._responses * mean, 6) for name, mean in means.items()}
        tokens = self._responses * sum(entry.get(MEAN_TOKENS, 0.0) for entry in state.log_history)
        self._counts |= {"responses": total, "output_tokens": round(tokens), **totals, UNSCORED_COUNT: round(totals[UNSCORED_COUNT])}
        if limit_message := self._limit.excess(self._counts):
            reason = commonest(self._failures)
            raise DataError(
                f"{limit_message}{f'; {reason}' if reason else ''}. The checkpoints were trained without these responses. To use them, "
                f"raise limits.unscored; to retrain with a reward that works, delete {self._checkpoints}"
            )


def train(job: TrainingJob) -> None:
    """One round of RLOO over a file of prompts."""
    loss, training, settings = job.loss, job.training, job.on_policy
    assert isinstance(loss, RLOO) and settings is not None
    tokenizer = load_tokenizer(str(job.policy), padding_side="left")
    chat = chat_of(job, tokenizer)
    longest = training.max_length - settings.sampling["max_new_tokens"]
    with PartialState().main_process_first():
        prompts, too_long = load_prompts(job.inputs["prompts"], chat, longest)
    each_step = training.batch_size // settings.responses
    if len(prompts) < each_step:
        raise DataError(f"an optimiser step needs {each_step} prompts, and there are {len(prompts)}; lower solver.training.batch_size")
    reward = use_of(settings.reward).build(job.inputs)
    reward.load()
    failures: Counter[str] = Counter()
    counts: dict[str, float] = {"prompts": len(prompts), "too_long": too_long}
    policy = _policy(job, settings)
    ends = policy.generation_config.eos_token_id
    trainer = OnlineTrainer(
        chat=chat,
        model=policy,
        reward_funcs=reward_function(reward, chat, ends, settings.keep_thoughts, settings.shown_system_prompt, failures),
        args=RLOOConfig(
            **common_arguments(job, len(prompts) // each_step * training.batch_size, PartialState().num_processes),
            **_vllm(loss.runtime, training.max_length, ends),
            beta=loss.beta,
            num_generations=settings.responses,
            max_completion_length=settings.sampling["max_new_tokens"],
            **_sampling(settings.sampling, loss.runtime.vllm),
            model_init_kwargs=reference_settings(policy, job.reference, training.dtype),
        ),
        train_dataset=prompts,
        processing_class=tokenizer,
        peft_config=lora(job),
        callbacks=[CountResponses(counts, training.batch_size, settings.unscored_limit, failures, job.work / "checkpoints")],
    )
    fit(trainer, job, counts)


def _policy(job: TrainingJob, settings: OnPolicy) -> Any:
    """The policy to train, with the recipe's repetition penalty."""
    policy = load_policy(job)
    check_weights(AutoModelForCausalLM, job.reference)
    if (penalty := settings.sampling["repetition_penalty"]) != 1:
        steps = LogitsProcessorList([RepetitionPenalty(penalty, pad=policy.generation_config.pad_token_id)])
        policy.generate = partial(policy.generate, logits_processor=steps)
    return policy


def _sampling(sampling: dict[str, Any], vllm: bool) -> dict[str, Any]:
    """The recipe's sampling settings by TRL's names. vLLM has no padding; otherwise `_policy` adds the penalty."""
    common_settings = {name: sampling[name] for name in ("temperature", "top_p", "min_p")}
    return {**common_settings, "top_k": sampling["top_k"] or 0, "repetition_penalty": sampling["repetition_penalty"] if vllm else 1.0}


def _vllm(runtime: RLOORuntime, max_length: int, ends: list[int]) -> dict[str, Any]:
    """TRL's settings for sampling with a vLLM engine inside the training processes; empty without vLLM."""
    if not runtime.vllm:
        return {}
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_enable_sleep_mode": True,
        "vllm_gpu_memory_utilization": runtime.gpu_memory_utilization,
        "vllm_max_model_length": max_length,
        "generation_kwargs": {"stop_token_ids": ends},
    }
