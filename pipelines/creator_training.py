"""The training of the creator: the utility of every evolution, pairs of siblings, and the next creator.

The creator is a network of its own, the policy itself (the solver then goes on from the trained creator), or an adapter on the policy. Its
reference is the present creator, which wrote the evolutions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from eva_stages.core.config.creator_training_config import CreatorTraining
from eva_stages.core.config.engine_config import RayEngine
from eva_stages.core.config.models_config import PolicyModel, TransformersModel, VLLMModel
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.solver_config import Adapter, Optimisation
from eva_stages.core.fingerprint import derive_seed
from eva_stages.core.manifests import artifact_name
from eva_stages.core.resolved import Resolved
from eva_stages.core.stage import FunctionStage, Input, Outside, Stage, Use
from pipelines.model_calls import Inputs, date_of, generator
from pipelines.table_stages import table_stage

ADAPTER_INPUT = "adapter"
RATES = {False: 1e-6, True: 1e-5}
"""Default learning rates, by whether an adapter is trained."""


@dataclass(frozen=True)
class Evolutions:
    """An iteration's evolutions, and the stages with their verdicts, rewards and similarities."""

    evolved: Stage
    """All of them, in the order in which pairs are made."""
    children: Stage
    """Those that neither evolving nor a filter rejected, each prompt once."""
    rewards: Stage
    """Of the policy's responses to the children, with a gate to those that passed it."""
    new_prompts: Stage
    """Those that are no duplicates."""
    memory: Sequence[Stage]
    """The present prompt set and the sets before it."""
    verdicts: Stage | None
    """Of the gate."""


def last_creator(earlier_stages: Sequence[Stage]) -> Stage | None:
    """The creator as it was trained last; None before the first training, and without one."""
    return next((stage for stage in reversed(earlier_stages) if stage.name == "creator-train"), None)


def solver_start(recipe: Recipe, creator: Sequence[Stage], policy: Stage | Outside) -> Stage | Outside:
    """Where an iteration's solver starts: at the policy, or, if the creator shares its network, at what the creator's training made of it.

    Args:
        creator: the stages of the iteration's creator.
    """
    training = recipe.creator.training
    return (last_creator(creator) if training and training.network == "shared" else None) or policy


def trained_evolver(recipe: Recipe, resolved: Resolved, policy: Stage | Outside, creator: Stage | None) -> tuple[Use, Inputs]:
    """The evolver of the recipe with the weights of the last training, and the inputs it needs."""
    config, training = recipe.creator.evolve.generator, recipe.creator.training
    own_model = creator if training and training.network == "own" else None
    evolver, inputs = generator(config, recipe, resolved, policy, "evolver", trained_model=own_model)
    if creator is None or training is None or training.network != "adapter":
        return evolver, inputs
    arguments = {**evolver.arguments, "lora": Input(ADAPTER_INPUT), "label": artifact_name(creator)}
    return Use(evolver.target, arguments, evolver.runtime), {**inputs, ADAPTER_INPUT: creator}


def children_stage(recipe: Recipe, resolved: Resolved, iteration: int, evolutions: Stage) -> Stage:
    """The evolutions that neither evolving nor a filter rejected, each prompt once; `evolutions`: without those of evaluation sets."""
    filters = [resolved.function(spec) for spec in recipe.creator.curate.filters]
    return table_stage(
        "creator-children",
        iteration,
        {"evolved": evolutions},
        "eva_stages.creator.utilities:Children",
        {"filters": filters} if filters else {},
    )


def training_stages(
    recipe: Recipe, resolved: Resolved, iteration: int, evolutions: Evolutions, policy: Stage | Outside, earlier_stages: Sequence[Stage]
) -> tuple[Stage, ...]:
    """Utilities, pairs, and the next creator, which is the last stage.

    Args:
        earlier_stages: those of the creators of earlier iterations.
    """
    training = recipe.creator.training
    assert training is not None
    memory = {f"prompts_{index}": prompts for index, prompts in enumerate(evolutions.memory)}
    if recipe.creator.curate.diversity:
        inputs = evolutions.new_prompts.inputs.items()
        memory |= {name: stage for name, stage in inputs if name.startswith("embeddings") and isinstance(stage, Stage)}
    utility = table_stage(
        "creator-utility",
        iteration,
        {
            "evolved": evolutions.evolved,
            "children": evolutions.children,
            "rewards": evolutions.rewards,
            "new_prompts": evolutions.new_prompts,
            **memory,
            **({"verdicts": evolutions.verdicts} if evolutions.verdicts else {}),
        },
        "eva_stages.creator.utilities:Utilities",
        training.model_dump(include={"similarity_penalty", *(("metric",) if training.metric != "spread_at_median" else ())}),
        version=2,
    )
    earlier_pairs = [stage for stage in earlier_stages if stage.name == "creator-pair"]
    pairs = table_stage(
        "creator-pair",
        iteration,
        {"evolved": evolutions.evolved, "utilities": utility, **_replay_inputs(training, earlier_pairs)},
        "eva_stages.creator.sibling_pairs:SiblingPairs",
        {
            **training.model_dump(include={"objective", "preferences", "pairs_per_parent", "replay"}),
            "iteration": iteration,
            "seed": derive_seed(recipe.seed, "creator-pair", iteration),
        },
    )
    return utility, pairs, _training_stage(recipe, resolved, iteration, pairs, policy, last_creator(earlier_stages))


def _replay_inputs(training: CreatorTraining, earlier_pairs: Sequence[Stage]) -> dict[str, Stage]:
    """The pairs of earlier iterations by the names of inputs; none where the objective replays none."""
    has_replay = training.objective != "rloo" and training.replay > 0
    return {f"pairs_{stage.iteration}": stage for stage in earlier_pairs} if has_replay else {}


def _training_stage(
    recipe: Recipe, resolved: Resolved, iteration: int, pairs: Stage, policy: Stage | Outside, creator: Stage | None
) -> Stage:
    """Training from the present creator, which is the reference too."""
    training, evolver = recipe.creator.training, recipe.creator.evolve.generator
    assert training is not None and isinstance(evolver, PolicyModel | TransformersModel | VLLMModel)  # `check` has seen to it
    start = policy if isinstance(evolver, PolicyModel) else creator or resolved.checkpoint(evolver.model, evolver.revision)
    is_adapter = training.network == "adapter"
    adapter = training.adapter or (Adapter(kind="lora") if is_adapter else None)
    settings = {
        **training.model_dump(include=set(Optimisation.model_fields) - {"runtime", "adapter"}),
        "adapter": adapter.model_dump() if adapter else None,
        "learning_rate": training.learning_rate or RATES[adapter is not None],
        "epochs": training.epochs,
    }
    arguments = {
        "loss": _loss(training),
        "training": settings,
        "keeps_adapter": is_adapter,
        "system_prompt": evolver.system_prompt,
        "date": None,
        **date_of(resolved, start),
        "seed": derive_seed(recipe.seed, "creator-train", iteration) % 2**31,
    }
    engine = recipe.runtime.engine
    cluster = engine.address if isinstance(engine, RayEngine) else "auto"
    runtime = {"training": training.runtime.model_dump(), "cluster": cluster, "unscored": recipe.limits.unscored}
    return FunctionStage(
        "creator-train",
        iteration,
        {"pairs": pairs, "policy": start, "reference": start, **({ADAPTER_INPUT: creator} if is_adapter and creator else {})},
        function=Use("eva_stages.solver.creator_network:train_creator", arguments, {"runtime": runtime}),
        version=2,
    )


def _loss(training: CreatorTraining) -> dict[str, object]:
    match training.objective:
        case "dpo":
            return {"kind": "dpo", "beta": training.beta, "ld_alpha": None, "nll_alpha": training.nll_alpha, "length_normalized": False}
        case "rloo":
            return {"kind": "sibling_rloo", "beta": training.beta, "nll_alpha": 0.0}
        case _:
            return {"kind": "supervised", "nll_alpha": 0.0}
