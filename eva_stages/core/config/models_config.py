"""Models that generate: the policy, and the models in other roles (evolver, critic, judge, ...)."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from eva_stages.core.config.function_fields import EvolverFunction
from eva_stages.core.config.paths import MaybeFile, OptionalFile
from eva_stages.core.config.section import Section

DType = Literal["auto", "float32", "bfloat16", "float16"]


class ModelRuntime(Section):
    tokens_per_batch: int = Field(16384, ge=1)
    """Padded tokens per forward pass, including the response; batches are sorted by length."""
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?|balanced(:[1-9]\d*)?)$")
    """auto, cpu, cuda, cuda:1, mps; `balanced` distributes a model over its share of the visible devices, balanced:2 over two. auto does
    the same where the model is too large for one device."""
    replicas: int | None = Field(None, ge=1)
    """Copies of the model on separate devices, which share the rows; null = as many as the devices allow, 1 on CPU."""


class Sampling(Section):
    temperature: float = Field(0.7, ge=0)
    """0 = greedy."""
    top_p: float = Field(0.9, gt=0, le=1)
    """Sample from the most likely tokens that have this probability together; 1 = from all."""
    max_new_tokens: int = Field(2048, ge=1)
    """Tokens of a response; it is cut there."""
    stop: tuple[str, ...] = ()
    """Texts that end a response, in addition to the model's end tokens; the response does not contain them."""
    system_prompt: str | None = None
    """System message for conversations without one. The policy is sampled and trained with it; see policy.system_prompt_scored."""


class LocalSampling(Sampling):
    """Sampling of a model that runs on this machine. Of the model's generation_config.json only the end tokens are used."""

    top_k: int | None = Field(None, ge=1)
    """Sample from the k most likely tokens; null = from all."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Sample from tokens with at least this fraction of the highest probability; 0 = from all."""
    repetition_penalty: float = Field(1.0, gt=0, le=2)
    """Divides the logits of tokens that already occur in the prompt or the response; 1 = no penalty."""


class TransformersGenerator(LocalSampling):
    """`transformers` generation, on CPU, one accelerator, or several that share one model."""

    target: ClassVar[str] = "eva_stages.models.transformers_generator:TransformersGenerator"
    kind: Literal["transformers"]
    dtype: DType = "auto"
    runtime: ModelRuntime = ModelRuntime()


class TransformersModel(TransformersGenerator):
    """A `transformers` generator with its own model."""

    model: MaybeFile
    """A checkpoint folder, or a Hub id."""
    revision: str | None = None
    """Branch, tag or commit of a Hub id."""


class VLLMRuntime(Section):
    tensor_parallel: int | None = Field(None, ge=1)
    """Devices per copy of the model; null = as few as can hold it."""
    replicas: int | None = Field(None, ge=1)
    """Copies of the model on separate devices, which share the rows; null = as many as the devices allow, 1 on CPU."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    max_num_seqs: int = Field(256, ge=1)
    """Sequences that the engine processes at once."""
    enforce_eager: bool = False


class VLLMGenerator(LocalSampling):
    """vLLM's engine: all n responses of a prompt in one request, prefixes cached."""

    target: ClassVar[str] = "eva_stages.models.vllm_generator:VLLMGenerator"
    kind: Literal["vllm"]
    dtype: DType = "auto"
    max_model_len: int | None = Field(None, ge=8)
    """Tokens of prompt and response; null = the model's maximum."""
    lora: OptionalFile = None
    """Folder of a LoRA adapter."""
    runtime: VLLMRuntime = VLLMRuntime()


class VLLMModel(VLLMGenerator):
    """A vLLM generator with its own model."""

    model: MaybeFile
    """A checkpoint folder, or a Hub id."""
    revision: str | None = None
    """Branch, tag or commit of a Hub id."""


class Price(Section):
    """US dollars per million tokens, for models that are not in LiteLLM's price list."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class LiteLLMRuntime(Section):
    concurrency: int = Field(16, ge=1)
    """Concurrent requests."""
    attempts: int = Field(6, ge=1)
    """Attempts per request; the server's Retry-After is respected."""
    timeout: float = Field(120, gt=0)
    """Seconds per attempt, from the first byte sent to the last byte received."""
    max_wait: float = Field(300, ge=0)
    """Longest wait in seconds that a server's Retry-After can cause."""
    api_key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable with the key; null = the provider's usual variable. A recipe never contains keys."""
    price: Price | None = None
    max_cost_usd: float | None = Field(None, gt=0)
    """The stage stops before a call that could exceed this sum; raise it and rerun to resume. All judges of a run share the run's cost of
    judging."""
    requests_per_minute: float | None = Field(None, gt=0)
    """Limit; requests are distributed over time."""
    cache: OptionalFile = None
    """File that caches the responses to all calls; runs that name the same file share it, and do not repeat a cached call."""


class LiteLLMModel(Sampling):
    """Any provider that LiteLLM supports, or any OpenAI-compatible server."""

    target: ClassVar[str] = "eva_stages.models.litellm_generator:LiteLLMGenerator"
    kind: Literal["litellm"]
    model: str
    """LiteLLM's name, for example openai/gpt-4.1 or hosted_vllm/my-model."""
    api_base: str | None = None
    """Address of an OpenAI-compatible server."""
    runtime: LiteLLMRuntime = LiteLLMRuntime()


class PolicyModel(LocalSampling):
    """The current policy, with separate sampling settings."""

    kind: Literal["policy"]


class LettercraftModel(Section):
    """Lettercraft's exact model: as evolver it rewrites instructions, as judge it grades responses."""

    target: ClassVar[str] = "eva_stages.lettercraft.player:LettercraftLLM"
    kind: Literal["lettercraft"]
    mutations: Literal["classic", "deep"] = "classic"
    """What it makes of the evolve templates. `deep` mostly keeps the operations and stays within the deep world's word length."""
    errors: float = Field(0.0, ge=0, le=1)
    """Share of its evolutions that cannot be answered, contradict themselves, or are far out of reach."""


class ReasoningGymModel(Section):
    """Evolver of reasoning-gym's tasks, for creator.evolve.method turn_knob: it returns a prompt with its reference. No model is called."""

    target: ClassVar[str] = "eva_stages.models.task_evolver:TaskEvolver"
    kind: Literal["reasoning_gym"]


class FunctionEvolver(Section):
    """Evolver in a file: a function `f(text, reference, rng)` that returns the new prompt, its reference or None, and the name of the
    mutation."""

    target: ClassVar[str] = "eva_stages.creator.function_evolver:EvolveByFunction"
    kind: Literal["function"]
    function: EvolverFunction
    """As in evolvers.py:name, or module:name for a module beside the recipe. It needs trust_code, or --trust. None = a failed call."""


PolicyGenerator = Annotated[TransformersGenerator | VLLMGenerator, Field(discriminator="kind")]
ModelChoice = Annotated[PolicyModel | TransformersModel | VLLMModel | LiteLLMModel | LettercraftModel, Field(discriminator="kind")]
Evolver = Annotated[
    PolicyModel | TransformersModel | VLLMModel | LiteLLMModel | LettercraftModel | ReasoningGymModel | FunctionEvolver,
    Field(discriminator="kind"),
]


class Policy(Section):
    """The policy to align; `model` is the base policy."""

    model: MaybeFile
    """`lettercraft`, `lettercraft-deep`, a checkpoint folder, or a Hub id."""
    revision: str | None = None
    """Branch, tag or commit of a Hub id."""
    generator: PolicyGenerator
    system_prompt_scored: bool = False
    """Include the generator's system prompt in what rewards (and the judge of an llm_judge reward) read. Benchmark judges always read their
    official prompts."""
    reasoning: Literal["keep", "strip"] = "keep"
    """Whether rewards, judges and benchmarks read a response's reasoning (<think>...</think>, a prefilled <think>, gpt-oss channels), or
    only the text after it. With `strip`, a response that ends within its reasoning is null (unfinished_reasoning). Training always uses
    the response as sampled."""
