"""All checks of a recipe before a stage runs; they report all errors together."""

from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec

from eva_stages.checking.conversation_checks import CONVERSATION_CHECKS
from eva_stages.checking.creator_training_checks import check_creator_training
from eva_stages.checking.credential_checks import check_credentials
from eva_stages.checking.function_checks import check_functions
from eva_stages.checking.gate_checks import check_band, check_gate
from eva_stages.checking.health_checks import check_health
from eva_stages.checking.model_checks import check_models
from eva_stages.checking.online_checks import check_online
from eva_stages.checking.provider_checks import check_providers
from eva_stages.checking.recipe_references import sections
from eva_stages.checking.reference_checks import check_evolver, check_held_out_reference, check_references
from eva_stages.checking.selection_checks import SELECTION_CHECKS
from eva_stages.checking.solver_checks import SOLVER_CHECKS, SOLVER_MACHINE_CHECKS
from eva_stages.checking.task_checks import check_tasks
from eva_stages.core.config.evaluation_config import Benchmark, LMEval, benchmark_name
from eva_stages.core.config.models_config import VLLMGenerator
from eva_stages.core.config.prompts_config import FilePrompts, LettercraftPrompts, ReasoningGymPrompts
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import EnsembleReward, PairwiseReward
from eva_stages.core.errors import ConfigError, DataError
from eva_stages.core.question_files import question_source, read_questions
from eva_stages.core.resolved import Resolved
from eva_stages.core.terminal import note
from eva_stages.evaluation.benchmark_files import check_files

Check = Callable[[Recipe, Resolved], Iterator[str]]
NUMBER_FOR_HUMAN = "prompts.size: creator.control `human` takes that many new prompts for each iteration; give their number"


def errors_of(recipe: Recipe, resolved: Resolved, checks: Sequence[Check]) -> list[str]:
    """What checks find in a recipe, each with its place."""
    errors = list[str]()
    for check in checks:
        try:
            errors += check(recipe, resolved)
        except ConfigError as error:
            errors += error.faults
        except DataError as error:  # a file that cannot be read
            errors += [] if any(str(error) in text for text in errors) else [str(error)]
    return list(dict.fromkeys(errors))


def _prompts(recipe: Recipe, resolved: Resolved) -> Iterator[str]:
    """The source has as many prompts as the recipe takes. Rows that are left out get a note with the reasons."""
    prompts, source = recipe.prompts, resolved.prompts
    human = recipe.creator.control == "human"
    if isinstance(prompts, LettercraftPrompts) and prompts.fresh is not None and not human:
        control = "not set" if recipe.creator.control is None else f"`{recipe.creator.control}`"
        yield (
            f"prompts.fresh: is {prompts.fresh}, and only creator.control `human` takes fresh prompts, but creator.control is {control}; "
            "leave prompts.fresh out, or set creator.control=human"
        )
    if isinstance(prompts, LettercraftPrompts | ReasoningGymPrompts):
        return
    if human and prompts.size is None:
        yield NUMBER_FOR_HUMAN
    elif source is not None:
        place = prompts.path if isinstance(prompts, FilePrompts) else prompts.id
        rounds = recipe.iterations + 1 if human else 1
        lacks_prompts = prompts.size is not None and prompts.size * rounds > source.usable
        if not source.usable:
            yield f"prompts: {place} has no prompt that can be used: {source.reasons}"
        elif human and lacks_prompts and prompts.size is not None:
            yield (
                f"prompts.size: creator.control `human` takes {prompts.size} new prompts for each of {rounds} rounds, "
                f"{prompts.size * rounds} in all, and {place} has {source.usable} that can be used; give at most "
                f"{source.usable // rounds}, fewer iterations, or a larger file"
            )
        if source.usable and source.left_out_rows:
            note(f"prompts: {source.left_out_rows} of {source.rows} rows of {place} are left out: {source.reasons}")
        if source.usable and lacks_prompts and not human:
            usable = source.usable
            note(f"prompts.size: is {prompts.size}, but {place} has {usable} usable prompts; the run uses these {usable}")


def _vllm(recipe: Recipe, _: Resolved) -> Iterator[str]:
    for place, section in sections(recipe):
        if isinstance(section, VLLMGenerator) and find_spec("vllm") is None:
            yield f"{place}: kind vllm needs vLLM, which is not installed: pip install 'eva-align[vllm]', or take kind transformers"


def _mixing(recipe: Recipe, _: Resolved) -> Iterator[str]:
    replay, evolved = recipe.creator.replay, recipe.creator.mix.evolved_share
    if replay and evolved + replay.share > 1:
        yield (
            f"creator.replay.share: {replay.share} and creator.mix.evolved_share, {evolved}, add up to more than 1; "
            f"give at most {1 - evolved:.3g}, or fewer evolved prompts"
        )


def _analysis(recipe: Recipe, _: Resolved) -> Iterator[str]:
    analysis = recipe.creator.analysis
    if recipe.creator.selection.topic_share and not (analysis and analysis.topics):
        yield "creator.selection.topic_share: balances topics, and there are none; give creator.analysis.topics, or 0"
    if analysis and not analysis.scorer and not analysis.topics and not analysis.coverage:
        yield "creator.analysis: has nothing to analyse; give a scorer, topics, or coverage: true"
    if analysis and analysis.topics and len(set(analysis.topics.labels)) < len(analysis.topics.labels):
        yield f"creator.analysis.topics.labels: {', '.join(analysis.topics.labels)} names a topic twice"


def _rewrite(recipe: Recipe, _: Resolved) -> Iterator[str]:
    if recipe.solver.rewrite and isinstance(recipe.reward, EnsembleReward | PairwiseReward):
        yield (
            f"solver.rewrite: a rewrite is scored by itself, and {recipe.reward.kind} rewards only compare the responses of a stage; "
            "give a reward that scores single responses, or leave solver.rewrite out"
        )


def _decontamination(recipe: Recipe, resolved: Resolved) -> Iterator[str]:
    decontaminate = recipe.creator.curate.decontaminate
    for name in decontaminate.against if decontaminate else ():
        try:
            if question_source(name) in resolved.files:
                read_questions(resolved.file(question_source(name)).path)
        except DataError as error:
            yield f"creator.curate.decontaminate.against: {error}"


def _benchmarks(recipe: Recipe, resolved: Resolved) -> Iterator[str]:
    """Each benchmark is listed once, and its files are valid."""
    benchmarks = recipe.evaluation.benchmarks
    names = [benchmark_name(benchmark) for benchmark in benchmarks]
    if repeated_names := sorted({name for name in names if names.count(name) > 1}):
        yield f"evaluation.benchmarks: {', '.join(repeated_names)} is listed twice; keep one of each"
    for index, benchmark in enumerate(benchmarks):
        place = f"evaluation.benchmarks.{index}"
        if not isinstance(benchmark, Benchmark):
            continue
        try:
            check_files(benchmark, resolved.benchmarks.get(benchmark_name(benchmark), {}))
        except DataError as error:
            yield f"{place}: {error}"


def _harness(recipe: Recipe, _: Resolved) -> Iterator[str]:
    for index, benchmark in enumerate(recipe.evaluation.benchmarks):
        if isinstance(benchmark, LMEval) and find_spec("lm_eval") is None:
            yield f"evaluation.benchmarks.{index}: lm_eval needs lm-evaluation-harness: pip install 'eva-align[eval]'"


MACHINE_CHECKS = (_vllm, _harness, *SOLVER_MACHINE_CHECKS)
"""What a recipe needs of this machine; nothing that the recipe names is read."""
CHECKS = (
    check_credentials,
    check_models,
    check_providers,
    _benchmarks,
    *MACHINE_CHECKS,
    check_functions,
    check_references,
    check_evolver,
    check_held_out_reference,
    check_tasks,
    check_health,
    check_gate,
    check_band,
    _rewrite,
    _decontamination,
    _mixing,
    _analysis,
    check_creator_training,
    check_online,
    *SELECTION_CHECKS,
    *SOLVER_CHECKS,
    *CONVERSATION_CHECKS,
    _prompts,
)
