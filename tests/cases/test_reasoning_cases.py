"""Reasoning is cut before a reply is parsed, shown to rewards if the recipe says so, and trained as sampled."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from eva_stages.core.generating import GeneratorOutput, SeededLLM, generator_output
from eva_stages.core.reasoning import answer_of, opens_thought
from eva_stages.core.responding import Respond
from eva_stages.core.rows import Message, prompt_row
from eva_stages.creator.evolving import EvolvePrompts
from eva_stages.models.conversation import Chat
from eva_stages.models.provider_answers import read_choices
from eva_stages.models.rewards import RewardResponses
from eva_stages.solver.online import reward_function
from tests.cases.conversations import QUESTION, SYSTEM, TEXTS, Echo, generator
from tests.chat_templates import FAMILIES, family_tokenizer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Mars.", "Mars."),
        ("<think>Hm.</think>Mars.", "Mars."),
        ("\n<think>\nHm.\n</think>\n\nMars.", "Mars."),
        ("Hm, a red one.\n</think>\n\nMars.", "Mars."),
        ("<think>a</think>\n<think>b</think>Mars.", "Mars."),
        ("<thinking>Hm.</thinking> Mars.", "Mars."),
        ("[THINK]Hm.[/THINK]Mars.", "Mars."),
        ("<|START_THINKING|>Hm.<|END_THINKING|>Mars.", "Mars."),
        ("<Think>Hm.</THINK>Mars.", "Mars."),
        ("Hm.</Think>Mars.", "Mars."),
        ("<think>Hm, <think>a red one</think>, yes.</think>Mars.", "Mars."),
        ("<think>They ask for <think> tags.</think>It is <think> and </think>.", "It is <think> and </think>."),
        ("<think>\n\n</think>\n\n", ""),
        ("<think>Hm, and then", None),
        ("<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Mars.<|return|>", "Mars."),
        ("<|channel|>analysis<|message|>Hm.<|end|>assistant<|channel|>final <|constrain|>json<|message|>{}", "{}"),
        ("<|channel|>final<|message|>Mars.", "Mars."),
        ("<|channel|>analysis<|message|>Hm.", None),
        ("analysisWe need a planet.assistantfinalMars.", "Mars."),
        ("analysisWe need a planet", None),
        ("Explain what <think>x</think> does.", "Explain what <think>x</think> does."),
        ("An analysis of Mars. Analysis is hard.", "An analysis of Mars. Analysis is hard."),
        ("analysis of Mars", "analysis of Mars"),
    ],
)
def test_reasoning_ends_with_its_tag_or_channel(text: str, answer: str | None) -> None:
    assert answer_of(text) == answer


def test_a_generation_prompt_that_opens_the_reasoning_is_detected() -> None:
    assert opens_thought("<|Assistant|><think>\n") and opens_thought("model\n<Thinking>") and not opens_thought("<think></think>\n")
    assert answer_of("Hm, and then", in_thought=True) is None and answer_of("Hm.</think>Mars.", in_thought=True) == "Mars."


class ScriptedLLM(SeededLLM):
    """An LLM behind an API that returns the given texts."""

    texts: list[str | None]

    @property
    def model_name(self) -> str:
        return "scripted"

    def generate(self, inputs: list[list[Message]], num_generations: int = 1, seeds: Sequence[int] | None = None) -> list[GeneratorOutput]:
        return [generator_output(self.texts, ["stop"] * len(self.texts), 1, [5] * len(self.texts)) for _ in inputs]


@pytest.mark.parametrize(
    "reasoning", ["<think>\nHarder: #x#.\n</think>\n\n", "Make it harder.\n</think>\n\n", "<|channel|>analysis<|message|>Harder.<|end|>"]
)
def test_only_the_final_answer_of_a_reasoning_evolver_is_used(reasoning: str) -> None:
    final = "<|start|>assistant<|channel|>final<|message|>" if "channel" in reasoning else ""
    text = f"{reasoning}{final}Name two planets and say which one of them is farther from the sun."
    step = EvolvePrompts(name="evolve", llm=ScriptedLLM(texts=[text]), generations=1, method="evol_instruct", seed=1)
    step.load()
    (rows,) = step.process([prompt_row(QUESTION, "test")])
    assert rows[0]["messages"][-1]["content"] == "Name two planets and say which one of them is farther from the sun."
    assert rows[0]["rejected"] is None
    unfinished_llm = step.llm.model_copy(update={"texts": ["<think>\nMake it harder, as in"]})
    step = EvolvePrompts(name="evolve", llm=unfinished_llm, generations=1, method="evol_instruct", seed=1)
    step.load()
    (rows,) = step.process([prompt_row(QUESTION, "test")])
    assert "Make it harder" not in json.dumps(rows[0]["messages"])


def test_stripping_gives_rewards_the_final_answer_and_training_the_complete_response(models: Path) -> None:
    llm = generator(models / "r1-distill", max_new_tokens=6, temperature=1.0)
    keeping_step, stripping_step = (
        Respond(name=name, llm=llm, num_generations=2, seed=3, keep_thoughts=name == "keep") for name in ("keep", "strip")
    )
    ((whole,),), ((answers,),) = (list(step.process([prompt_row(QUESTION, "test")])) for step in (keeping_step, stripping_step))
    assert whole["response_ids"] == answers["response_ids"] and None not in whole["responses"]
    assert (
        answers["responses"] == [None, None] and answers["finish_reasons"] == ["unfinished_reasoning"] * 2
    )  # random weights never end the reasoning
    scripted_llm = ScriptedLLM(texts=["<think>Hm.</think>Mars.", "<think>Hm"])
    ((row,),) = list(
        Respond(name="answer", llm=scripted_llm, num_generations=2, keep_thoughts=False).process([prompt_row(QUESTION, "test")])
    )
    assert row["responses"] == ["Mars.", None] and row["response_ids"] is None
    (scored_rows,) = list(RewardResponses(name="reward", reward=Echo()).process([row]))
    assert scored_rows[0]["rewards"] == [5.0, None] and scored_rows[0]["failures"] == [None, "no response: unfinished_reasoning"]


def test_reasoning_in_a_field_of_its_own_is_not_part_of_the_text() -> None:
    reasoning = {"role": "assistant", "reasoning_content": "Hm, which one?"}
    replies = [
        ({**reasoning, "content": "Mars."}, "stop"),
        ({**reasoning, "content": None}, "length"),
        ({**reasoning, "content": ""}, "length"),
    ]
    choices = [{"message": message, "finish_reason": reason} for message, reason in replies]
    texts_and_reasons = [(choice["text"], choice["reason"]) for choice in read_choices({"choices": choices}, False)]
    assert texts_and_reasons == [("Mars.", "stop"), (None, "unfinished_reasoning"), (None, "unfinished_reasoning")]


def test_reasoning_marked_by_special_tokens_survives_decoding() -> None:
    chat = Chat(family_tokenizer(FAMILIES["qwen-3"], TEXTS))  # in which <think> is a special token
    ids = chat.ids("<think>\nHm.\n</think>\n\nMars.<|im_end|>")
    assert chat.read(ids, [ids[-1]]).text == "<think>\nHm.\n</think>\n\nMars."


def test_online_and_offline_rewards_read_the_same_text() -> None:
    words = family_tokenizer(FAMILIES["r1-distill"], TEXTS)
    chat = Chat(words, None, SYSTEM)
    ends = [words.eos_token_id]
    ids = [chat.response_ids("Hm.\n</think>\n\nMars."), chat.ids("Hm, and then")]
    arguments = {"prompts": [QUESTION] * 2, "completion_ids": ids, "reference": [None] * 2, "log_metric": lambda name, value: None}
    assert reward_function(Echo(), chat, ends, False, None)(**arguments) == [5.0, None]
    assert reward_function(Echo(), chat, ends, True, SYSTEM)(**arguments) == [100.0 + len("Hm.\n</think>\n\nMars."), 112.0]
