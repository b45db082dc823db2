"""Thoughts: cut before anything is parsed, shown to rewards if the recipe says so, trained as sampled."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from eva_stages.core.generating import Generated, SeededLLM, generated
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
def test_a_thought_ends_where_its_tag_or_channel_ends(text: str, answer: str | None) -> None:
    assert answer_of(text) == answer


def test_a_prompt_that_opens_a_thought_is_known_from_the_prompt() -> None:
    assert opens_thought("<|Assistant|><think>\n") and opens_thought("model\n<Thinking>") and not opens_thought("<think></think>\n")
    assert answer_of("Hm, and then", opened=True) is None and answer_of("Hm.</think>Mars.", opened=True) == "Mars."


class Scripted(SeededLLM):
    """A model behind an API that says what it is told to."""

    texts: list[str | None]

    @property
    def model_name(self) -> str:
        return "scripted"

    def generate(self, inputs: list[list[Message]], num_generations: int = 1, seeds: Sequence[int] | None = None) -> list[Generated]:
        return [generated(self.texts, ["stop"] * len(self.texts), 1, [5] * len(self.texts)) for _ in inputs]


@pytest.mark.parametrize(
    "thought", ["<think>\nHarder: #x#.\n</think>\n\n", "Make it harder.\n</think>\n\n", "<|channel|>analysis<|message|>Harder.<|end|>"]
)
def test_an_evolver_that_reasons_gives_its_answer_alone(thought: str) -> None:
    final = "<|start|>assistant<|channel|>final<|message|>" if "channel" in thought else ""
    text = f"{thought}{final}Name two planets and say which one of them is farther from the sun."
    step = EvolvePrompts(name="evolve", llm=Scripted(texts=[text]), generations=1, method="evol_instruct", seed=1)
    (rows,) = step.process([prompt_row(QUESTION, "test")])
    assert rows[0]["messages"][-1]["content"] == "Name two planets and say which one of them is farther from the sun."
    assert rows[0]["rejected"] is None
    unfinished = step.llm.model_copy(update={"texts": ["<think>\nMake it harder, as in"]})
    step = EvolvePrompts(name="evolve", llm=unfinished, generations=1, method="evol_instruct", seed=1)
    (rows,) = step.process([prompt_row(QUESTION, "test")])
    assert "Make it harder" not in json.dumps(rows[0]["messages"])


def test_stripping_leaves_rewards_the_answer_and_training_the_whole(models: Path) -> None:
    made = generator(models / "r1-distill", max_new_tokens=6, temperature=1.0)
    kept, stripped = (Respond(name=name, llm=made, num_generations=2, seed=3, keep_thoughts=name == "keep") for name in ("keep", "strip"))
    ((whole,),), ((answers,),) = (list(step.process([prompt_row(QUESTION, "test")])) for step in (kept, stripped))
    assert whole["response_ids"] == answers["response_ids"] and None not in whole["responses"]
    assert (
        answers["responses"] == [None, None] and answers["finish_reasons"] == ["unfinished_reasoning"] * 2
    )  # random weights close no thought
    scripted = Scripted(texts=["<think>Hm.</think>Mars.", "<think>Hm"])
    ((row,),) = list(Respond(name="answer", llm=scripted, num_generations=2, keep_thoughts=False).process([prompt_row(QUESTION, "test")]))
    assert row["responses"] == ["Mars.", None] and row["response_ids"] is None
    (scored,) = list(RewardResponses(name="reward", reward=Echo()).process([row]))
    assert scored[0]["rewards"] == [5.0, None] and scored[0]["failures"] == [None, "no response: unfinished_reasoning"]


def test_the_thought_that_a_server_gives_apart_is_no_text() -> None:
    thought = {"role": "assistant", "reasoning_content": "Hm, which one?"}
    told = [({**thought, "content": "Mars."}, "stop"), ({**thought, "content": None}, "length"), ({**thought, "content": ""}, "length")]
    choices = [{"message": message, "finish_reason": reason} for message, reason in told]
    read = [(choice["text"], choice["reason"]) for choice in read_choices({"choices": choices}, False)]
    assert read == [("Mars.", "stop"), (None, "unfinished_reasoning"), (None, "unfinished_reasoning")]


def test_thoughts_marked_by_special_tokens_survive_decoding() -> None:
    chat = Chat(family_tokenizer(FAMILIES["qwen-3"], TEXTS))  # whose <think> is a special token here
    ids = chat.ids("<think>\nHm.\n</think>\n\nMars.<|im_end|>")
    assert chat.read(ids, [ids[-1]]).text == "<think>\nHm.\n</think>\n\nMars."


def test_an_online_reward_reads_what_an_offline_one_reads() -> None:
    words = family_tokenizer(FAMILIES["r1-distill"], TEXTS)
    chat = Chat(words, None, SYSTEM)
    ends = [words.eos_token_id]
    ids = [chat.response_ids("Hm.\n</think>\n\nMars."), chat.ids("Hm, and then")]
    arguments = {"prompts": [QUESTION] * 2, "completion_ids": ids, "reference": [None] * 2, "log_metric": lambda name, value: None}
    assert reward_function(Echo(), chat, ends, False, None)(**arguments) == [5.0, None]
    assert reward_function(Echo(), chat, ends, True, SYSTEM)(**arguments) == [100.0 + len("Hm.\n</think>\n\nMars."), 112.0]
