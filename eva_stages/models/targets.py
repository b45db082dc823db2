"""Which code is behind each kind of generator and reward, named without importing it."""

from eva_stages.core.config.rewards_config import ArmoRMReward, PairPreferenceReward, SequenceClassifierReward

GENERATORS = {
    "transformers": "eva_stages.models.transformers_generator:TransformersGenerator",
    "vllm": "eva_stages.models.vllm_generator:VLLMGenerator",
    "litellm": "eva_stages.models.litellm_generator:LiteLLMGenerator",
    "lettercraft": "eva_stages.lettercraft.player:LettercraftLLM",
}
REWARDS = {
    "lettercraft": "eva_stages.models.rewards:LettercraftReward",
    "verifier": "eva_stages.models.rewards:VerifierReward",
    "llm_judge": "eva_stages.models.rewards:LLMJudgeReward",
    "sequence_classifier": "eva_stages.models.reward_models:SequenceClassifierReward",
    "armorm": "eva_stages.models.reward_models:ArmoRMReward",
    "lettercraft_judge": "eva_stages.models.pairwise:LettercraftJudgeReward",
    "pairrm": "eva_stages.models.pairwise:PairRMReward",
    "pair_preference": "eva_stages.models.pairwise:PairPreferenceReward",
}
ROWS = {
    "armorm": "objective_rewards",
    "lettercraft_judge": "pairwise_rewards",
    "pairrm": "pairwise_rewards",
    "pair_preference": "pairwise_rewards",
}

TEMPLATE_REWARDS = (SequenceClassifierReward, ArmoRMReward, PairPreferenceReward)
"""Rewards that read conversations by a chat template of their own."""
