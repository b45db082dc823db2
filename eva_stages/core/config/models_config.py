"""Who answers: generators, players and the policy."""

from typing import Annotated, Literal

from pydantic import Field

from eva_stages.core.config.paths import MaybeFile, OptionalFile
from eva_stages.core.config.section import Section

DType = Literal["auto", "float32", "bfloat16", "float16"]


class ModelRuntime(Section):
    tokens_per_batch: int = Field(16384, ge=1)
    """Padded tokens per forward pass, room for the answer included; batches are sorted by length."""
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?|balanced(:[1-9]\d*)?)$")
    """auto, cpu, cuda, cuda:1, mps; `balanced` spreads a model over its share of the visible devices, balanced:2 over two; auto does so
    where the model is too large for one."""
    replicas: int | None = Field(None, ge=1)
    """Copies of the model, each on devices of its own, that take turns at the rows; null = as many as there are devices for, 1 on CPU."""


class Sampling(Section):
    temperature: float = Field(0.7, ge=0)
    """0 = greedy."""
    top_p: float = Field(0.9, gt=0, le=1)
    max_new_tokens: int = Field(2048, ge=1)
    stop: tuple[str, ...] = ()
    """Texts at which an answer ends, besides the model's own end token; they are left out of it."""
    system_prompt: str | None = None
    """Put before conversations that have no system message. The policy is sampled and trained with it; see policy.system_prompt_scored."""


class LocalSampling(Sampling):
    """Sampling of a model that runs here. The model's own generation_config.json counts for nothing but its end tokens."""

    top_k: int | None = Field(None, ge=1)
    """Draw from the k most likely tokens only; null = from all."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Draw from tokens that are at least this times as likely as the likeliest; 0 = from all."""
    repetition_penalty: float = Field(1.0, gt=0, le=2)
    """Divides the scores of tokens that stand in the prompt or the response already; 1 = none."""


class TransformersGenerator(LocalSampling):
    """`transformers` generation, on CPU, one accelerator, or several that share one model."""

    kind: Literal["transformers"]
    dtype: DType = "auto"
    runtime: ModelRuntime = ModelRuntime()


class TransformersModel(TransformersGenerator):
    """A `transformers` generator over a model of its own."""

    model: MaybeFile
    revision: str | None = None


class VLLMRuntime(Section):
    tensor_parallel: int | None = Field(None, ge=1)
    """Devices that share one copy of the model; null = as few as hold it."""
    replicas: int | None = Field(None, ge=1)
    """Copies of the model, each on devices of its own, that take turns at the rows; null = as many as there are devices for, 1 on CPU."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    max_num_seqs: int = Field(256, ge=1)
    """Sequences that the engine works on at once."""
    enforce_eager: bool = False


class VLLMGenerator(LocalSampling):
    """vLLM's engine: all n responses of a prompt in one request, prefixes cached."""

    kind: Literal["vllm"]
    dtype: DType = "auto"
    max_model_len: int | None = Field(None, ge=8)
    """Tokens of prompt and answer; null = what the model takes."""
    lora: OptionalFile = None
    """Folder of a LoRA adapter to answer with."""
    runtime: VLLMRuntime = VLLMRuntime()


class VLLMModel(VLLMGenerator):
    """A vLLM generator over a model of its own."""

    model: MaybeFile
    revision: str | None = None


class Price(Section):
    """US dollars per million tokens, for models that LiteLLM's price list does not know."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class LiteLLMRuntime(Section):
    concurrency: int = Field(16, ge=1)
    """Requests under way at once."""
    attempts: int = Field(6, ge=1)
    """Tries per request; a Retry-After of the server is honoured between them."""
    timeout: float = Field(120, gt=0)
    """Seconds per try, from the first byte sent to the last one received."""
    max_wait: float = Field(300, ge=0)
    """Seconds that a server may ask to wait (Retry-After); if it asks for more, the next try comes after these."""
    api_key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Environment variable with the key; null = the provider's usual one. Keys never stand in a recipe."""
    price: Price | None = None
    max_cost_usd: float | None = Field(None, gt=0)
    """The stage stops before a call that could cost more than what is left of this; raise it and run again to go on. All judges of a
    run share what the run has spent on judging."""
    requests_per_minute: float | None = Field(None, gt=0)
    """Requests are spread over time to stay below this."""
    cache: OptionalFile = None
    """File with the answers to every call of all runs that name it, read and added to; a call found there is not made again."""


class LiteLLMModel(Sampling):
    """Any provider that LiteLLM speaks to, or any OpenAI-compatible server."""

    kind: Literal["litellm"]
    model: str
    """LiteLLM's name, such as openai/gpt-4.1 or hosted_vllm/my-model."""
    api_base: str | None = None
    """Address of an OpenAI-compatible server."""
    runtime: LiteLLMRuntime = LiteLLMRuntime()


class PolicyPlayer(LocalSampling):
    """The current policy itself, with its own sampling settings."""

    kind: Literal["policy"]


class LettercraftModel(Section):
    """Lettercraft's exact player: as evolver it rewrites instructions, as judge it grades answers."""

    kind: Literal["lettercraft"]


PolicyGenerator = Annotated[TransformersGenerator | VLLMGenerator, Field(discriminator="kind")]
Player = Annotated[PolicyPlayer | TransformersModel | VLLMModel | LiteLLMModel | LettercraftModel, Field(discriminator="kind")]


class Policy(Section):
    """The policy to align: theta_0."""

    model: MaybeFile
    """`lettercraft`, a checkpoint folder, or a Hub id."""
    revision: str | None = None
    """Branch, tag or commit of a Hub id."""
    generator: PolicyGenerator
    system_prompt_scored: bool = False
    """Show rewards (and the judge of an llm_judge reward) the generator's system prompt too. By default they read the conversation that a
    person sees; benchmark judges always read their official prompts."""
    reasoning: Literal["keep", "strip"] = "keep"
    """What rewards, judges and benchmarks read of a response's thought (<think>...</think>, a prefilled <think>, gpt-oss channels):
    all of it, or the answer alone. A response that ends within its thought then has no answer: null, unfinished_reasoning. What is
    trained is always what was sampled."""
