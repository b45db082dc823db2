"""On-policy training: every step samples responses, scores them with the recipe's reward, and updates the policy.

The losses are in `online_trainers`. Responses that could not be scored are counted; too many of them end the training as they end a
reward stage. The reward runs inside the training processes, a copy in each.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from jinja2 import TemplateError
from transformers import AutoModelForCausalLM, LogitsProcessorList, TrainerCallback

from eva_stages.core.config.solver_config import OnPolicyLoss, OnPolicyRuntime
from eva_stages.core.errors import DataError
from eva_stages.core.failures import commonest, plain
from eva_stages.core.patches import RepetitionPenalty, reference_settings
from eva_stages.core.reasoning import UNFINISHED_THOUGHT, answer_of
from eva_stages.core.rows import Message
from eva_stages.core.stage import Limit, use_of
from eva_stages.core.study_record import TOKENS
from eva_stages.models.conversation import Chat, SampledResponse, with_system_prompt
from eva_stages.models.loading import load_tokenizer
from eva_stages.models.rewards import Conversation, PointwiseReward, Score, finite
from eva_stages.models.weights import check_weights
from eva_stages.solver.fitting import chat_of, common_arguments, fit, load_policy, lora
from eva_stages.solver.interval_training import Interval, SaveCurriculum
from eva_stages.solver.job import OnPolicy, TrainingJob
from eva_stages.solver.online_trainers import PAIR_COUNT, PER_RESPONSE, trainer_and_arguments
from eva_stages.solver.training_health import WatchHealth
from eva_stages.solver.vllm_server import server_faults

UNSCORED_COUNT = "unscored"
OF_REWARD = {name: f"reward_{name}" for name in TOKENS}
"""Names of the tokens of a judging reward among the counts of a training, whose own are those of the policy."""
MEAN_TOKENS = "completions/mean_length"
"""TRL's name of the logged mean number of tokens of the responses of a step."""


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
    note: Callable[[Sequence[str | None], Sequence[SampledResponse], Sequence[Score]], None] | None = None,
) -> Callable[..., list[float | None]]:
    """A reward as TRL calls it: None where a response could not be scored. The share of those and the statistics of scoring are logged.

    Args:
        ends: tokens that end a response.
        keep_thoughts: whether the reward reads the thoughts of a model that reasons.
        system_prompt: the part of the policy's system prompt that the reward reads.
        failures: collects the reasons for missing rewards.
        note: takes the texts that were scored, the responses and their scores.

    Raises:
        DataError: from the function, if no response of a step could be scored, in any process: the step would learn nothing, silently.
    """

    def answer(prompt: list[Message], response: SampledResponse) -> str | None:
        text = response.text or ""
        return text if keep_thoughts else answer_of(text, chat.opens_thought(prompt))

    def score(
        prompts: list[list[Message]],
        completion_ids: list[list[int]],
        reference: list[str | None],
        log_metric: Callable[[str, float], None],
        **_: Any,
    ) -> list[float | None]:
        responses = [chat.read(ids, ends) for ids in completion_ids]
        answers = [answer(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        conversations = [
            Conversation(with_system_prompt(prompt, system_prompt), text, known_reference)
            for prompt, text, known_reference in zip(prompts, answers, reference, strict=True)
            if text is not None
        ]
        known_scores = iter(reward.score(conversations))
        scores = [Score(None, UNFINISHED_THOUGHT) if text is None else _trainable(finite(next(known_scores))) for text in answers]
        if note is not None:
            note(answers, responses, scores)
        reasons = Counter(plain(score.failure or "") for score in scores if score.value is None)
        outcomes = gather_object([(len(scores), reasons)])  # a process may have only a few responses of a step
        if (step_reasons := sum((reasons for _, reasons in outcomes), Counter[str]())).total() == sum(count for count, _ in outcomes):
            raise DataError(f"no response of a batch could be scored; {commonest(step_reasons)}")
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

    Args:
        failures: the reasons that the reward function collected in this process.
        first_step: optimiser steps that do not count.
    """

    def __init__(
        self, counts: dict[str, float], responses: int, limit: float, failures: Counter[str], checkpoints: Path, first_step: int = 0
    ) -> None:
        self._counts, self._responses, self._failures, self._checkpoints = counts, responses, failures, checkpoints
        self._first_step = first_step
        self._limit = Limit(UNSCORED_COUNT, "responses", limit, "responses have no reward", "check the reward", "limits.unscored")

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        means: Counter[str] = Counter()
        history = [entry for entry in state.log_history if entry["step"] > self._first_step]
        for entry in history:
            means.update({name: value for name, value in entry.items() if name.startswith(PER_RESPONSE)})
        total = self._responses * (state.global_step - self._first_step)
        names = {name: name.removeprefix(PER_RESPONSE) for name in means}
        totals = {OF_REWARD.get(name, name): round(self._responses * means[logged_name], 6) for logged_name, name in names.items()}
        tokens = self._responses * sum(entry.get(MEAN_TOKENS, 0.0) for entry in history)
        whole_counts = {name: round(totals[name]) for name in (UNSCORED_COUNT, PAIR_COUNT) if name in totals}
        self._counts |= {"responses": total, "output_tokens": round(tokens), **totals, **whole_counts}
        if limit_message := self._limit.excess(self._counts):
            reason = commonest(self._failures)
            raise DataError(
                f"{limit_message}{f'; {reason}' if reason else ''}. The checkpoints were trained without these responses. To use them, "
                f"raise limits.unscored; to retrain with a reward that works, delete {self._checkpoints}"
            )


def train(job: TrainingJob) -> None:
    """One round of on-policy training over a file of prompts."""
    loss, training, settings = job.loss, job.training, job.on_policy
    assert isinstance(loss, OnPolicyLoss) and settings is not None
    tokenizer = load_tokenizer(str(job.policy), padding_side="left")
    chat = chat_of(job, tokenizer)
    longest = training.max_length - settings.sampling["max_new_tokens"]
    with PartialState().main_process_first():
        prompts, too_long = load_prompts(job.inputs["prompts"], chat, longest)
    each_step = training.batch_size // settings.responses
    if len(prompts) < each_step:
        raise DataError(f"an optimiser step needs {each_step} prompts, and there are {len(prompts)}; lower solver.training.batch_size")
    if loss.runtime.server and PartialState().is_main_process and (faults := server_faults(loss, training.max_length)):
        raise DataError("; ".join(faults))
    reward = use_of(settings.reward).build(job.inputs)
    reward.load()
    failures: Counter[str] = Counter()
    counts: dict[str, float] = {"prompts": len(prompts), "too_long": too_long}
    policy = _policy(job, settings)
    ends = policy.generation_config.eos_token_id
    interval = None if job.online is None else Interval(job, longest)
    rows = len(prompts) // each_step * training.batch_size if job.online is None else job.online.steps * training.batch_size
    note = None if interval is None else interval.note
    trainer_class, trainer_arguments, config, loss_arguments = trainer_and_arguments(
        loss, settings.sampling["temperature"], settings.min_gap
    )
    counting = CountResponses(counts, training.batch_size, settings.unscored_limit, failures, job.work / "checkpoints", job.first_step)
    trainer = (trainer_class if interval is None else interval.trainer(trainer_class))(
        chat=chat,
        model=policy,
        reward_funcs=reward_function(reward, chat, ends, settings.keep_thoughts, settings.shown_system_prompt, failures, note),
        args=config(
            **common_arguments(job, rows, PartialState().num_processes),
            **generation_arguments(loss.runtime, settings.sampling, training.max_length, ends, loss_arguments),
            beta=loss.beta,
            num_generations=settings.responses,
            model_init_kwargs=reference_settings(policy, job.reference, training.dtype),
        ),
        train_dataset=prompts,
        processing_class=tokenizer,
        peft_config=lora(job),
        callbacks=[counting] if interval is None else [counting, SaveCurriculum(interval), WatchHealth(job)],
        **trainer_arguments,
    )
    if interval is None:
        fit(trainer, job, counts)
    else:
        interval.fit(trainer, counts)


def _policy(job: TrainingJob, settings: OnPolicy) -> Any:
    """The policy to train, with the recipe's repetition penalty."""
    policy = load_policy(job)
    check_weights(AutoModelForCausalLM, job.reference)
    if (penalty := settings.sampling["repetition_penalty"]) != 1:
        steps = LogitsProcessorList([RepetitionPenalty(penalty, pad=policy.generation_config.pad_token_id)])
        policy.generate = partial(policy.generate, logits_processor=steps)
    return policy


def generation_arguments(
    runtime: OnPolicyRuntime, sampling: Mapping[str, Any], max_length: int, ends: Sequence[int], loss_arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of sampling by TRL's names, and those of the loss, which include the temperature.

    vLLM has no padding, so that it gets the repetition penalty; otherwise `_policy` adds it.
    """
    arguments = {
        "max_completion_length": sampling["max_new_tokens"],
        **{name: sampling[name] for name in ("top_p", "min_p")},
        "top_k": sampling["top_k"] or 0,
        "repetition_penalty": sampling["repetition_penalty"] if runtime.vllm else 1.0,
        **loss_arguments,
    }
    if not runtime.vllm:
        return arguments
    arguments |= {"use_vllm": True, "generation_kwargs": {**arguments.get("generation_kwargs", {}), "stop_token_ids": list(ends)}}
    if runtime.server:
        return {**arguments, "vllm_mode": "server", "vllm_server_base_url": runtime.server}
    return {
        **arguments,
        "vllm_mode": "colocate",
        "vllm_enable_sleep_mode": True,
        "vllm_gpu_memory_utilization": runtime.gpu_memory_utilization,
        "vllm_max_model_length": max_length,
    }
