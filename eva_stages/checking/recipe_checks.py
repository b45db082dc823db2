"""Everything a recipe points to, looked at before anything expensive starts; all faults at once."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from eva_stages.checking.conversation_checks import conversation_looks
from eva_stages.checking.credential_checks import check_credentials
from eva_stages.checking.function_checks import check_functions, check_references
from eva_stages.checking.model_checks import check_embedder, check_generator, check_policy, check_reward, check_topics
from eva_stages.checking.provider_checks import ask_servers, check_provider
from eva_stages.checking.solver_checks import solver_looks
from eva_stages.core.cluster import check_row_stages
from eva_stages.core.config.creator_config import Topics
from eva_stages.core.config.evaluation_config import JudgedBenchmark, Lettercraft, LMEval, OneBenchmark, benchmark_name
from eva_stages.core.config.models_config import LiteLLMModel, Player, TransformersModel, VLLMGenerator, VLLMModel
from eva_stages.core.config.prompts_config import FilePrompts, HubPrompts
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import EnsembleReward, LLMJudgeReward, LocalReward, PairwiseReward
from eva_stages.core.errors import ConfigError, DataError, HubError, MissingKeyError
from eva_stages.core.question_files import find_questions
from eva_stages.core.stage import closure
from eva_stages.core.terminal import note
from eva_stages.creator.prompt_loading import LeftOutRows, count_usable
from eva_stages.creator.prompt_sources import prompt_source
from eva_stages.models.choosing import OneReward
from eva_stages.models.loading import locate, resolve
from pipelines.benchmarks import check_files, measured
from pipelines.iteration import iterations

NUMBER_FOR_HUMAN = "prompts.size: creator.control `human` takes that many new prompts for each iteration; give their number"


def check(recipe: Recipe, keys: bool = True, online: bool = False) -> list[str]:
    """Look at everything that can be known before a stage runs. `eva validate`, `eva plan` and whatever runs stages call this alone.

    Args:
        keys: providers' keys have to be there too; a plan costs nothing and needs none, and has the missing ones among its notes.
        online: ask every server of the recipe one question, which needs keys and costs next to nothing.

    Returns:
        Notes for the person: what is missing that only spending money needs, and what asking cost.

    Raises:
        ConfigError: with every model, file, function and launch file that is missing or does not fit, or every server that does not answer.
    """
    faults, notes = list[str](), list[str]()
    for look in _looks(recipe):
        try:
            look()
        except MissingKeyError as error:
            (faults if keys or online else notes).extend(error.faults)
        except ConfigError as error:
            faults += error.faults
        except DataError as error:  # a file that cannot be read
            faults += [] if any(str(error) in fault for fault in faults) else [str(error)]
    if not faults:
        faults += _stage_faults(recipe)
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    return [*dict.fromkeys(notes), *(ask_servers(recipe) if online else [])]


def _stage_faults(recipe: Recipe) -> list[str]:
    """What only making the stages finds; nothing runs."""
    try:
        stages = closure([stage for one in iterations(recipe) for stage in one.stages])
        check_row_stages(recipe.runtime.engine, stages)
    except ConfigError as error:
        return error.faults
    except DataError as error:
        return [str(error)]
    return []


def _looks(recipe: Recipe) -> list[Callable[[], object]]:
    looks: list[Callable[[], object]] = [
        lambda: check_credentials(recipe),
        lambda: check_policy(recipe),
        lambda: _player(recipe.creator.evolve.generator, "creator.evolve.generator"),
        lambda: _benchmarks(recipe),
        lambda: _vllm(recipe),
        lambda: check_functions(recipe),
        lambda: check_references(recipe),
        lambda: _rewrite(recipe),
        lambda: _curating(recipe),
        lambda: _mixing(recipe),
        lambda: _analysis(recipe),
    ]
    looks += [*solver_looks(recipe), *conversation_looks(recipe)]
    looks += [partial(_reward, recipe, config, place) for config, place in _rewards(recipe)]
    for index, benchmark in enumerate(recipe.evaluation.benchmarks):
        looks.append(partial(_benchmark, recipe, benchmark, f"evaluation.benchmarks.{index}"))
    if isinstance(recipe.prompts, FilePrompts | HubPrompts):
        looks.append(partial(_prompts, recipe, recipe.prompts))
    if recipe.publish:
        looks.append(partial(_account, recipe.publish.to))
    return looks


def _prompts(recipe: Recipe, prompts: FilePrompts | HubPrompts) -> None:
    """That there are prompts, as many as are asked for; what is left out of them, and why, is said."""
    human = recipe.creator.control == "human"
    if human and prompts.size is None:
        raise ConfigError([NUMBER_FOR_HUMAN])
    policy = str(locate(recipe.policy.model, recipe.policy.revision, "policy.model"))
    left_out, place = LeftOutRows(), prompts.path if isinstance(prompts, FilePrompts) else prompts.id
    usable = count_usable(prompt_source(prompts), prompts.max_characters, policy, left_out)
    if not usable:
        raise ConfigError([f"prompts: {place} has no prompt that can be used: {left_out.summary()}"])
    if left_out.rows:
        total = sum(left_out.counts[reason] for reason in left_out.rows)
        note(f"prompts: {total} of {left_out.counts['read']} rows of {place} are left out: {left_out.summary()}")
    rounds = recipe.iterations + 1 if human else 1
    if prompts.size is None or prompts.size * rounds <= usable:
        return
    if not human:
        note(f"prompts.size: is {prompts.size}, and {place} has {usable} prompts that can be used; the run takes those {usable}")
        return
    raise ConfigError(
        [
            f"prompts.size: creator.control `human` takes {prompts.size} new prompts for each of {rounds} rounds, "
            f"{prompts.size * rounds} in all, and {place} has {usable} that can be used; give at most {usable // rounds}, "
            "fewer iterations, or a larger file"
        ]
    )


def _account(namespace: str) -> None:
    """A Hub that cannot be reached now is no fault of the recipe, and the run can go on without it."""
    from eva_stages.publishing.hub import Hub

    try:
        Hub(note).check_account(namespace)
    except ConfigError as error:
        raise MissingKeyError([f"publish: {fault}" for fault in error.faults]) from error
    except HubError as error:
        note(f"publish: {error}; the run goes on, and is pushed after the first iteration that finds the Hub")


def _rewards(recipe: Recipe) -> list[tuple[OneReward, str]]:
    """Every reward of the recipe that scores by itself, with its place."""
    if isinstance(recipe.reward, EnsembleReward):
        return [(member.reward, f"reward.members.{index}.reward") for index, member in enumerate(recipe.reward.members)]
    return [(recipe.reward, "reward")]


def _reward(recipe: Recipe, config: OneReward, place: str) -> None:
    match config:
        case LocalReward():
            check_reward(config, place)
        case LLMJudgeReward():
            _player(config.judge, f"{place}.judge")


def _player(player: Player, place: str) -> None:
    match player:
        case TransformersModel() | VLLMModel():
            check_generator(player, place)
        case LiteLLMModel():
            check_provider(player, place)


def _vllm(recipe: Recipe) -> None:
    creator = recipe.creator
    asked = {
        "policy.generator": recipe.policy.generator,
        "creator.evolve.generator": creator.evolve.generator,
        "creator.evolve.feedback.critic": creator.evolve.feedback and creator.evolve.feedback.critic,
        "creator.analysis.scorer": creator.analysis and creator.analysis.scorer,
        "solver.rewrite.generator": recipe.solver.rewrite and recipe.solver.rewrite.generator,
        **{
            f"evaluation.benchmarks.{place}.judge": one.judge
            for place, one in enumerate(recipe.evaluation.benchmarks)
            if isinstance(one, JudgedBenchmark)
        },
    }
    if places := [place for place, one in asked.items() if isinstance(one, VLLMGenerator) and find_spec("vllm") is None]:
        raise ConfigError(
            [
                f"{place}: kind vllm needs vLLM, which is not installed: pip install 'eva-align[vllm]', or take kind transformers"
                for place in places
            ]
        )


def _mixing(recipe: Recipe) -> None:
    replay, evolved = recipe.creator.replay, recipe.creator.mix.evolved_share
    if replay and evolved + replay.share > 1:
        raise ConfigError(
            [
                f"creator.replay.share: {replay.share} and creator.mix.evolved_share, {evolved}, are more than the whole; "
                f"give at most {1 - evolved:.3g}, or fewer evolved prompts"
            ]
        )
    feedback = recipe.creator.evolve.feedback
    if feedback and feedback.critic:
        _player(feedback.critic, "creator.evolve.feedback.critic")


def _analysis(recipe: Recipe) -> None:
    analysis = recipe.creator.analysis
    if recipe.creator.selection.topic_share and not (analysis and analysis.topics):
        raise ConfigError(["creator.selection.topic_share: balances topics, and there are none; give creator.analysis.topics, or 0"])
    if analysis and not analysis.scorer and not analysis.topics:
        raise ConfigError(["creator.analysis: has nothing to look for; give it a scorer, topics, or both"])
    if analysis and analysis.scorer:
        _player(analysis.scorer, "creator.analysis.scorer")
    if analysis and analysis.topics:
        _classifier(analysis.topics)


def _classifier(topics: Topics) -> None:
    place = "creator.analysis.topics"
    if len(set(topics.labels)) < len(topics.labels):
        raise ConfigError([f"{place}.labels: {', '.join(topics.labels)} names a topic twice"])
    check_topics(topics, place)


def _rewrite(recipe: Recipe) -> None:
    rewrite = recipe.solver.rewrite
    if rewrite is None:
        return
    if isinstance(recipe.reward, EnsembleReward | PairwiseReward):
        raise ConfigError(
            [
                f"solver.rewrite: a rewrite is scored by itself, and {recipe.reward.kind} rewards only compare the responses of a stage; "
                "give a reward that scores single responses, or leave solver.rewrite out"
            ]
        )
    _player(rewrite.generator, "solver.rewrite.generator")


def _curating(recipe: Recipe) -> None:
    curate = recipe.creator.curate
    for name in curate.decontaminate.against if curate.decontaminate else ():
        find_questions(name, "creator.curate.decontaminate.against")
    if curate.diversity:
        check_embedder(curate.diversity.model, curate.diversity.revision, "creator.curate.diversity.model")


def _benchmarks(recipe: Recipe) -> None:
    names = [benchmark_name(benchmark) for benchmark in recipe.evaluation.benchmarks]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError([f"evaluation.benchmarks: {', '.join(twice)} stands there twice; keep one of each"])


def _benchmark(recipe: Recipe, benchmark: OneBenchmark, place: str) -> None:
    """A benchmark's judge and files, and that its files are what they should be."""
    if isinstance(benchmark, LMEval):
        if find_spec("lm_eval") is None:
            raise ConfigError([f"{place}: lm_eval needs lm-evaluation-harness: pip install 'eva-align[eval]'"])
        if benchmark.include is not None and not Path(benchmark.include).expanduser().is_dir():
            raise ConfigError([f"{place}.include: there is no folder {benchmark.include}"])
        return
    if isinstance(benchmark, Lettercraft | JudgedBenchmark):
        _player(benchmark.judge, f"{place}.judge")
    if isinstance(benchmark, Lettercraft):
        return
    policy = resolve(recipe.policy.model, recipe.policy.revision, "policy.model")
    try:
        check_files(benchmark, measured(recipe, benchmark, "base", 0, policy, policy, None, place).stages)
    except DataError as error:
        raise ConfigError([f"{place}: {error}"]) from error
