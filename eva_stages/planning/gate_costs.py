"""The cost of the gate's judge and of its audit's before they run: the questions are known, the evolved prompts and the replies are not."""

from collections.abc import Sequence

from eva_stages.core.config.gate_config import Gate, GateAudit
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.stage import Stage
from eva_stages.creator.gate_questions import PASSES, judged_tests, question
from eva_stages.planning.judge_costs import JudgeCost, cost_of_calls, token_count
from eva_stages.planning.sizes import Size

PROMPT = 150
"""Tokens of an evolved prompt or its parent, for the expected cost."""
VERDICT = 40
"""Tokens of a reply: a sentence and the verdict, for the expected cost."""


def gate_costs(recipe: Recipe, stages: Sequence[Stage], sizes: dict[str, Size]) -> dict[str, JudgeCost]:
    """The cost of each stage of the gate that asks a judge, by fingerprint; none online, where training asks it."""
    gate = recipe.creator.curate.gate
    if gate is None or recipe.online is not None:
        return {}
    configs = {"gate-verdicts": gate, "gate-audit": gate.audit}
    costs = {}
    for stage in stages:
        config = configs.get(stage.name)
        if config is not None and config.judge is not None and judged_tests(config):
            costs[stage.fingerprint] = gate_cost(config, sizes[stage.fingerprint].rows or 0, recipe.creator.evolve.max_characters)
    return costs


def gate_cost(config: Gate | GateAudit, rows: int, max_characters: int) -> JudgeCost:
    """The cost for `rows` evolutions. At most: every text as long as an evolution may be, a token per character; earlier turns and
    references are not included."""
    assert config.judge is not None
    tests = judged_tests(config)
    questions = [question(test, turn, [], [], None) for test in tests for turn in range(PASSES)]
    texts = PASSES * sum(2 if test == "relevant" else 1 for test in tests)
    calls, known_tokens = rows * len(questions), rows * token_count(questions)
    most_tokens = known_tokens + rows * texts * max_characters, calls * config.judge.max_new_tokens
    expected_tokens = known_tokens + rows * texts * min(PROMPT, max_characters), calls * min(VERDICT, config.judge.max_new_tokens)
    return cost_of_calls(config.judge, calls, most_tokens, expected_tokens)
