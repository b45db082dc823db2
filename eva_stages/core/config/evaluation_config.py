"""Benchmarks and their judges."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from eva_stages.core.config.function_fields import Scorer
from eva_stages.core.config.models_config import DType, ModelChoice
from eva_stages.core.config.paths import FilePath, OptionalFile, OptionalMaybeFile
from eva_stages.core.config.prompts_config import Families, LettercraftDistribution
from eva_stages.core.config.section import Section


class Lettercraft(Section):
    """Held-out Lettercraft: harder than the seed prompts and disjoint from them. `exact` is the share of exact responses."""

    kind: Literal["lettercraft"]
    prompts: int = Field(300, ge=10)
    distribution: LettercraftDistribution = "classic_target"
    """`classic_target`: one to three operations; `deep_target`: four or five, for the deep world."""
    samples: int = Field(4, ge=1)
    """Sampled responses per prompt, in addition to the greedy one."""
    judge: ModelChoice
    confidence: float = Field(0.95, gt=0, lt=1)


class ReasoningGym(Section):
    """Held-out tasks of reasoning-gym, scored by the percentage of correct responses: sampled (`score`) and greedy (`greedy`). They are the
    same in every run with one version of the package, and no seed prompt of kind reasoning_gym and no evolution of it is among them."""

    kind: Literal["reasoning_gym"]
    families: Families = Field(min_length=1)
    """As in prompts.families; harder than the seed prompts, if evolving is to help."""
    questions: int = Field(200, ge=8)
    demonstrations: int = Field(0, ge=0, le=8)
    """As in prompts.demonstrations."""
    samples: int = Field(4, ge=1)
    """Sampled responses per question, in addition to the greedy one."""


class Benchmark(Section):
    """Questions for a policy; temperature and length here replace those of `policy.generator`."""

    questions: OptionalFile = None
    """File with the questions; null = the public file."""
    temperature: float | None = Field(0.0, ge=0)
    """0 = greedy."""
    max_new_tokens: int = Field(2048, ge=1)
    """Tokens of a response; it is cut there."""


class JudgedBenchmark(Benchmark):
    """A benchmark with a judge. Judge settings that a recipe omits have their official values."""

    OFFICIAL: ClassVar[dict[str, Any]] = {"temperature": 0.0, "top_p": 1.0}
    JUDGE: ClassVar[str] = "gpt-4-1106-preview"

    judge: ModelChoice = Field(json_schema_extra={"default": {"kind": "litellm"}})
    """Without it, the official model, called by litellm."""

    @model_validator(mode="before")
    @classmethod
    def _officially(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        judge = data.get("judge", {"kind": "litellm"})
        if isinstance(judge, dict) and judge.get("kind") == "litellm":
            judge = {"model": cls.judge_model(data), **judge}
        if isinstance(judge, dict) and judge.get("kind") in ("litellm", "transformers", "vllm", "policy"):
            judge = {**cls.judge_settings(data), **judge}
        return {**data, "judge": judge}

    @classmethod
    def judge_model(cls, data: dict[str, Any]) -> str:
        return cls.JUDGE

    @classmethod
    def judge_settings(cls, data: dict[str, Any]) -> dict[str, Any]:
        return cls.OFFICIAL


class MTBench(JudgedBenchmark):
    """MT-Bench: 80 questions of two turns, each turn graded from 1 to 10."""

    JUDGE = "gpt-4"
    OFFICIAL = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 2048}
    TEMPERATURES: ClassVar[dict[str, float]] = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
    """FastChat's temperatures of the responses by category; 0 for all other categories."""

    kind: Literal["mt_bench"]
    references: OptionalFile = None
    """File with the reference answers (math, reasoning, coding); null = the public file."""
    prompts: OptionalFile = None
    """File with the judge's prompts; null = the public file."""
    temperature: float | None = Field(None, ge=0)
    """null = the official one of each category (0.7 for writing and roleplay, 0.1 for stem and humanities, 0 for the rest)."""
    max_new_tokens: int = Field(1024, ge=1)


class ArenaHard(JudgedBenchmark):
    """Arena-Hard: hard questions; each response is compared with a baseline model's in both orders."""

    kind: Literal["arena_hard"]
    version: Literal["v0.1", "v2.0"] = "v0.1"
    baseline: OptionalMaybeFile = None
    """File with the baseline's responses, a model with published responses, or `base` for the base policy; null = the official baseline."""
    prompts: OptionalFile = None
    """The official settings file with the judge's template; null = the public file."""
    system_prompts: OptionalFile = None
    """File with the judge's system prompt of every category, where the settings file has none; null = the public file."""
    max_new_tokens: int = Field(4096, ge=1)

    @classmethod
    def judge_model(cls, data: dict[str, Any]) -> str:
        return "gpt-4.1" if data.get("version") == "v2.0" else cls.JUDGE

    @classmethod
    def judge_settings(cls, data: dict[str, Any]) -> dict[str, Any]:
        return {**cls.OFFICIAL, "max_new_tokens": 16000 if data.get("version") == "v2.0" else 4096}


class AlpacaEval(JudgedBenchmark):
    """AlpacaEval 2: 805 instructions; an annotator of the alpaca_eval package compares each response with the reference output."""

    kind: Literal["alpaca_eval"]
    annotator: Literal["weighted_alpaca_eval_gpt4_turbo", "alpaca_eval_gpt4_turbo_fn"] = "weighted_alpaca_eval_gpt4_turbo"
    """Prompt, parser and settings; the weighted annotator needs log-probabilities (a local judge's word counts as certain)."""
    baseline: OptionalMaybeFile = None
    """File with the reference outputs, or `base` for the base policy; null = the official outputs."""
    difficulty: OptionalFile = None
    """The package's instruction_difficulty.csv; null = fetched from the Hub, for the official `questions` only."""
    gamed: OptionalFile = None
    """The package's df_gamed.csv; null = fetched from the Hub, for the official `questions` only. Without it there is no
    length-controlled win rate."""
    temperature: float | None = Field(0.7, ge=0)

    @classmethod
    def judge_settings(cls, data: dict[str, Any]) -> dict[str, Any]:
        is_weighted = data.get("annotator", "weighted_alpaca_eval_gpt4_turbo") == "weighted_alpaca_eval_gpt4_turbo"
        return {"temperature": 1.0 if is_weighted else 0.0, "top_p": 1.0, "max_new_tokens": 1 if is_weighted else 100}


class GSM8K(Benchmark):
    """1,319 grade-school word problems, checked by the `math` verifier; no judge."""

    score: ClassVar[str] = "math"

    kind: Literal["gsm8k"]
    max_new_tokens: int = Field(1024, ge=1)


class IFEval(Benchmark):
    """541 prompts with instructions that a program can check, by the `instruction` verifier; no judge."""

    score: ClassVar[str] = "instruction"

    kind: Literal["ifeval"]
    max_new_tokens: int = Field(1280, ge=1)


class CustomBenchmark(Benchmark):
    """A benchmark of your own: questions in a file, and a function that scores the response to each."""

    kind: Literal["custom"]
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    """Stages and tables call it custom-NAME."""
    questions: FilePath
    """A .jsonl, .json, .csv or .parquet file with the column `question`, and optionally `reference` and `id`."""
    score: Scorer
    """Scores a response from 0 to 1; the benchmark's figure is the mean in percent."""
    max_new_tokens: int = Field(1024, ge=1)


class LMEvalRuntime(Section):
    batch_size: int = Field(8, ge=1)
    device: str = "auto"


class LMEval(Section):
    """Tasks of lm-evaluation-harness (pip install 'eva-align[eval]') on the policy's checkpoint."""

    kind: Literal["lm_eval"]
    tasks: tuple[str, ...] = Field(
        ("gsm8k", "gsm_plus", "wmdp", "leaderboard_mmlu_pro", "leaderboard_musr", "truthfulqa_gen"), min_length=1
    )
    """Names of tasks of the harness; default: the paper's table 7."""
    include: OptionalFile = None
    """Folder with your own task files."""
    limit: int | None = Field(None, ge=1)
    """Questions per task; null = all."""
    chat_template: bool = True
    """Render the questions with the policy's chat template."""
    dtype: DType = "auto"
    runtime: LMEvalRuntime = LMEvalRuntime()


OneBenchmark = Annotated[
    Lettercraft | ReasoningGym | ArenaHard | MTBench | AlpacaEval | GSM8K | IFEval | CustomBenchmark | LMEval, Field(discriminator="kind")
]


class Evaluation(Section):
    benchmarks: tuple[OneBenchmark, ...] = ()
    only: bool = False
    """Only evaluate policy.model; no iteration runs."""


def benchmark_name(benchmark: OneBenchmark | Benchmark) -> str:
    """What stages, tables and the command line call a benchmark."""
    name = str(benchmark.model_dump()["kind"]).replace("_", "-")
    match benchmark:
        case ArenaHard(version=suffix) | CustomBenchmark(name=suffix):
            return f"{name}-{suffix}"
        case _:
            return name


def judge_name(judge: ModelChoice) -> str:
    """The model that judges, in a word."""
    return str(judge.model_dump().get("model", judge.kind))
