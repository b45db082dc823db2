"""Online training in intervals: the prompts of every step come from a curriculum, which gets their rewards back.

All intervals are one training: each begins with the checkpoint of the one before, its weights, optimiser, schedule and random streams, and
the schedule has the length of all. The curriculum works in the main process alone; every process gets the step's prompts from it. Its
state is in the folder of each checkpoint, so that both are saved and resumed together.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from distilabel.pipeline import Pipeline
from jinja2 import TemplateError
from torch.utils.data import Sampler
from transformers import TrainerCallback

from eva_stages.core.errors import DataError
from eva_stages.core.failures import commonest
from eva_stages.core.reasoning import UNFINISHED_THOUGHT
from eva_stages.core.rows import Message
from eva_stages.core.stage import Limit, use_of
from eva_stages.core.store import link_or_copy
from eva_stages.models.conversation import Chat, SampledResponse
from eva_stages.models.loading import load_tokenizer
from eva_stages.models.rewards import Score
from eva_stages.solver.fitting import chat_of, last_checkpoint, run_trainer, save_result
from eva_stages.solver.job import ONLINE_FIGURES, OnlineInterval, TrainingJob

TRAINER = "trainer"
"""Folder in an interval's artifact: the last checkpoint, from which the next interval goes on."""
STATE = "curriculum"
"""Folder in a checkpoint."""
JOURNAL = "journal"


class Curriculum(Protocol):
    """`eva_stages.creator.curriculum.Curriculum`, which says what these do."""

    def begin(self, fits: Callable[[Sequence[Message]], bool], state: Path | None, journal: Path, is_new: bool) -> None: ...
    def draw(self, step: int) -> Sequence[Any]: ...
    def record(self, step: int, prompts: Sequence[Any], results: Sequence[dict[str, Any]]) -> dict[str, float]: ...
    def save(self, step: int, folder: Path, journal: Path, is_end: bool) -> None: ...
    def close(self) -> tuple[dict[str, float], dict[str, int]]: ...


class Interval:
    """An interval in one of its training processes."""

    def __init__(self, job: TrainingJob, longest: int) -> None:
        """`longest`: tokens of a prompt."""
        assert job.online is not None
        self._job, self._longest = job, longest
        self.online: OnlineInterval = job.online
        self.curriculum: Curriculum | None = None
        self.sampled_responses: list[tuple[Any, ...]] = []
        """What this process sampled and scored last: text, finish reason, tokens, reward and failure of each response."""
        if PartialState().is_main_process:
            with Pipeline(name="online"):  # steps belong to one
                self.curriculum = use_of(self.online.curriculum).build(job.inputs)

    def note(self, texts: Sequence[str | None], responses: Sequence[SampledResponse], scores: Sequence[Score]) -> None:
        """Take what a reward function has scored."""
        self.sampled_responses = [
            (text, response.reason if text is not None else UNFINISHED_THOUGHT, len(response.ids), score.value, score.failure)
            for text, response, score in zip(texts, responses, scores, strict=True)
        ]

    def from_main(self, call: Callable[[Curriculum], Any]) -> Any:
        """What the main process gets from the curriculum, in every process."""
        return broadcast_object_list([None if self.curriculum is None else call(self.curriculum)])[0]

    def trainer(self, kind: type) -> Callable[..., Any]:
        """A kind of on-policy trainer, with prompts from the curriculum."""
        return partial(type(f"Interval{kind.__name__}", (CurriculumPrompts, kind), {}), interval=self)

    def fit(self, trainer: Any, counts: dict[str, float]) -> None:
        """Train to the end of the interval, from the last complete checkpoint or from the end of the interval before, and save."""
        job, checkpoint = self._job, last_checkpoint(self._job)
        start = checkpoint or (job.policy / TRAINER if self.online.number else None)
        if self.curriculum is not None:
            state = None if start is None else start / STATE
            self.curriculum.begin(self._fits(), state, job.work / JOURNAL, is_new=checkpoint is None)
        run_trainer(trainer, job, start)
        facts: dict[str, Any] = {}
        if self.curriculum is not None:
            totals, facts["failures"] = self.curriculum.close()
            counts = {**counts, **totals}
            self._check_limits(counts, facts["failures"])
        save_result(trainer, job, counts, facts, self._keep_state)

    def save(self, checkpoint: Path, step: int) -> None:
        """Save the curriculum in the folder of a checkpoint."""
        if self.curriculum is not None:
            (checkpoint / "training_args.bin").unlink(missing_ok=True)  # has paths of this machine; resuming does not read it
            self.curriculum.save(step, checkpoint / STATE, self._job.work / JOURNAL, is_end=step == self.online.last_step)

    def _fits(self) -> Callable[[Sequence[Message]], bool]:
        """Whether a prompt leaves room for a response, by a tokenizer of its own: it is called in the evolving thread."""
        chat: Chat = chat_of(self._job, load_tokenizer(str(self._job.policy)))

        def fits(messages: Sequence[Message]) -> bool:
            try:
                return len(chat.prompt_ids(messages)) <= self._longest
            except TemplateError:
                return False

        return fits

    def _check_limits(self, counts: dict[str, float], failures: dict[str, int]) -> None:
        """Raises:
        DataError: if more failed in the interval than the recipe allows.
        """
        for limit in self.online.limits:
            if message := Limit(**limit).excess(counts):
                reason = commonest(failures)
                raise DataError(
                    f"{message}{f'; {reason}' if reason else ''}. The interval was trained without these. To use it, raise "
                    f"{limit['field']}; to train it again, delete {self._job.work / 'checkpoints'} and {self._job.work / JOURNAL}"
                )

    def _keep_state(self, model: Path) -> None:
        """Put the last checkpoint and the journal beside the weights, for the next interval and for the tables of this one."""
        checkpoint = self._job.work / "checkpoints" / f"checkpoint-{self.online.last_step}"
        for source, target in ((checkpoint, TRAINER), (self._job.work / JOURNAL, JOURNAL)):
            shutil.copytree(source, model / target, copy_function=lambda old, new: link_or_copy(Path(old), Path(new)))


class SaveCurriculum(TrainerCallback):
    """Saves the curriculum with every checkpoint, before the checkpoint is declared complete."""

    def __init__(self, interval: Interval) -> None:
        self._interval = interval

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        PartialState().wait_for_everyone()
        self._interval.save(Path(args.output_dir) / f"checkpoint-{state.global_step}", state.global_step)


class IntervalSteps(Sampler[int]):
    """As many row numbers as an interval has; the curriculum decides about the rows."""

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[int]:
        return iter([0] * self._rows)


class CurriculumPrompts:
    """Mixed into an on-policy trainer of TRL, before it: the prompts of a step are the curriculum's.

    The trainer's own data only counts the steps: TRL asks for the responses to a batch when a step needs them, but its data loader reads
    one batch ahead.
    """

    args: Any
    state: Any
    accelerator: Any
    num_generations: int
    _metrics: Any

    def __init__(self, *, interval: Interval, **settings: Any) -> None:
        self._interval = interval
        self._results: list[dict[str, Any]] = []
        super().__init__(**settings)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        return super().create_scheduler(self._interval.online.all_steps, optimizer)  # type: ignore[misc]

    def _get_train_sampler(self, dataset: Any = None) -> IntervalSteps:
        return IntervalSteps(self._interval.online.steps * self.args.generation_batch_size * self.args.steps_per_generation)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Any:
        step = self.state.global_step + 1
        prompts = self._interval.from_main(lambda curriculum: list(curriculum.draw(step)))
        rows = [prompt.row for prompt in prompts for _ in range(self.num_generations)]
        first = self.accelerator.process_index * len(inputs)
        local_rows = [{"prompt": row["messages"], "reference": row["reference"]} for row in rows[first : first + len(inputs)]]
        output = super()._generate_and_score_completions(local_rows)  # type: ignore[misc]
        if self._interval.curriculum is not None:
            for name, value in self._interval.curriculum.record(step, prompts, self._results).items():
                self._metrics["train"][ONLINE_FIGURES + name].append(value)
        return output

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Any:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)  # type: ignore[misc]
        responses = gather_object(self._interval.sampled_responses)
        names = ("responses", "finish_reasons", "token_counts", "rewards", "failures")
        groups = [responses[start : start + self.num_generations] for start in range(0, len(responses), self.num_generations)]
        self._results = [dict(zip(names, map(list, zip(*group, strict=True)), strict=True)) for group in groups]
        return rewards
