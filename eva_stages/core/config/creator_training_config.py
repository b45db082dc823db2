"""The training of the creator: the evolver learns from the utility of its own evolutions."""

from typing import Literal

from pydantic import Field, model_validator

from eva_stages.core.config.solver_config import Optimisation

OBJECTIVE_FIELDS = {
    "dpo": frozenset({"beta", "nll_alpha", "pairs_per_parent", "replay"}),
    "rloo": frozenset({"beta"}),
    "supervised": frozenset({"replay"}),
}
"""Fields that only some objectives read, by objective."""


class CreatorTraining(Optimisation):
    """Trains the evolver after every iteration's evolutions have been scored; needs siblings.

    The utility of a valid evolution is its `metric` less `similarity_penalty` times its similarity to the nearest earlier prompt; that of
    an invalid one is 0.
    """

    objective: Literal["dpo", "rloo", "supervised"] = "dpo"
    """`dpo` on pairs of siblings; `rloo`: one policy-gradient pass over all recorded siblings, with the utility (at least 0) as reward;
    `supervised` on the best sibling of each parent."""
    network: Literal["own", "shared", "adapter"] = "own"
    """What is trained: `own` the model of creator.evolve.generator, `shared` the policy itself, from which the solver goes on, `adapter` a
    LoRA adapter on the policy. The last two need the generator `policy`."""
    preferences: Literal["utility", "shuffled"] = "utility"
    """`shuffled` exchanges the two evolutions of a pair at random: a control that trains as much and learns nothing."""
    metric: Literal["spread_at_median", "learnability"] = "spread_at_median"
    """Informativeness of an evolution, in its utility. `spread_at_median` is relative to the evolutions' own median difficulty, so it asks
    for easy prompts where most of them are easy; `learnability`, for rewards of 0 and 1, asks for those solved half of the time."""
    beta: float = Field(0.1, gt=0)
    """Of dpo, or the weight of the KL divergence from the present creator in the reward of rloo."""
    nll_alpha: float = Field(0.0, ge=0)
    """Adds (alpha / |c+|) * -log pi(c+ | parent) to dpo: small networks otherwise unlearn to write valid evolutions."""
    pairs_per_parent: int = Field(4, ge=1)
    """At most; pairs with the largest difference of utility come first."""
    replay: float = Field(0.25, ge=0, lt=1)
    """Share of the pairs that come from earlier iterations, as far as there are enough."""
    similarity_penalty: float = Field(0.3, ge=0)
    learning_rate: float | None = Field(None, gt=0)
    """null = 1e-6 for all weights, 1e-5 for an adapter."""
    epochs: int = Field(1, ge=1)
    warmup_ratio: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _fields_fit_the_objective(self) -> "CreatorTraining":
        unused_fields = frozenset().union(*OBJECTIVE_FIELDS.values()) - OBJECTIVE_FIELDS[self.objective]
        fields = type(self).model_fields
        if changed_fields := [name for name in sorted(unused_fields) if getattr(self, name) != fields[name].default]:
            raise ValueError(f"{self.objective} does not read {', '.join(changed_fields)}; leave it out")
        return self
