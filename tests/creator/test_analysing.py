import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from eva_stages.core.errors import ConfigError
from eva_stages.core.generating import GeneratorOutput, SeededLLM, generator_output
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.rows import Message, prompt_row
from eva_stages.creator.analysis import LabelTopics, ScorePrompts, read_score, score_question
from eva_stages.lettercraft.player import LettercraftLLM
from tests.building import check
from tests.tiny_models import save_classifier, tokenizer

TEXTS = ["Add 2 and 3.", "Write a poem about the sea and all the ships on it.", "x", "Which words rhyme with moon? " * 40]
LABELS = ["mathematics", "writing", "travel"]


class Echo(SeededLLM):
    """Scores a prompt with what the prompt itself says; says nothing to an empty one."""

    @property
    def model_name(self) -> str:
        return "echo"

    def generate(self, inputs: list[list[Message]], num_generations: int = 1, seeds: Sequence[int] | None = None) -> list[GeneratorOutput]:
        message = [messages[-1]["content"].partition("Start of the Prompt|>\n")[2].rpartition("\n<|")[0] for messages in inputs]
        return [generator_output([text if text != "-" else None], ["stop" if text != "-" else "timeout"], 7, [3]) for text in message]


def rows(*texts: str) -> list[dict]:
    return [prompt_row([{"role": "user", "content": text}], "test") for text in texts]


def score(llm: SeededLLM, *texts: str) -> list[dict]:
    step = ScorePrompts(name="score", llm=llm)
    step.load()
    return next(step.process(rows(*texts)))


@pytest.mark.parametrize(
    ("reply", "quality"),
    [
        ("Quality: 4\nComplexity: 2", 4),
        ("**Quality:** 3.5/5\n**Complexity:** 1", 3.5),
        ("Quality (1-5): 2\nComplexity (1 to 5): 5", 2),
        ("I first thought\nQuality: 1\nbut then\n- quality = 5", 5),
        ("Quality: 7", None),
        ("Quality: 0", None),
        ("The quality is 4", None),
        ("", None),
        (None, None),
    ],
)
def test_scores_are_read_from_a_line_of_their_own(reply: str | None, quality: float | None) -> None:
    assert read_score(reply, "quality") == quality


def test_a_score_that_is_missing_is_null_with_its_reason_and_counted() -> None:
    output = score(Echo(), "Quality: 4\nComplexity: 2", "Quality: 4", "What is this?", "-")
    assert [(row["quality"], row["complexity"]) for row in output] == [(4, 2), (4, None), (None, None), (None, None)]
    assert [row["failure"] for row in output] == [
        None,
        "no complexity from 1 to 5 in the scorer's reply",
        "no quality and no complexity from 1 to 5 in the scorer's reply",
        "timeout",
    ]
    assert [row["_statistics"].get("unscored", 0) for row in output] == [0, 1, 1, 1]
    assert sum(row["_statistics"]["output_tokens"] for row in output) == 12


def test_the_scorer_sees_all_turns_and_lettercraft_scores_its_own() -> None:
    turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}, {"role": "user", "content": "three"}]
    assert "user: one\nassistant: two\nuser: three" in score_question(turns)
    easy, hard, no_instruction = score(
        LettercraftLLM(), "Take abc, reverse it.", "Take abcdefgh, reverse it, then sort its letters.", "Hello"
    )
    assert (easy["quality"], easy["complexity"]) == (5, 1) and hard["complexity"] == 3 and no_instruction["quality"] == 1


def test_topics_do_not_depend_on_batches_and_long_prompts_are_cut_and_counted(tmp_path: Path) -> None:
    save_classifier(tmp_path, tokenizer(TEXTS))

    def label(tokens: int, texts: list[str]) -> list[dict]:
        step = LabelTopics(name="label", model=str(tmp_path), labels=LABELS, tokens_per_batch=tokens, device="cpu")
        step.load()
        return next(step.process(rows(*texts)))

    whole_batch, separate = label(16384, TEXTS), [row for text in TEXTS for row in label(1, [text])]
    assert [row["topic"] for row in whole_batch] == [row["topic"] for row in separate] and {row["topic"] for row in whole_batch} <= set(
        LABELS
    )
    assert [row["topic_score"] for row in whole_batch] == pytest.approx([row["topic_score"] for row in separate], abs=1e-5)
    assert all(1 / 3 <= row["topic_score"] <= 1 and row["failure"] is None for row in whole_batch)
    assert [row["_statistics"].get("cut", 0) for row in whole_batch] == [0, 0, 0, 1]


def test_what_cannot_be_analysed_is_said_before_anything_runs(tmp_path: Path) -> None:
    save_classifier(tmp_path / "good", tokenizer(TEXTS))
    (tmp_path / "bad").mkdir()
    for file in (tmp_path / "good").iterdir():
        (tmp_path / "bad" / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "bad" / "config.json").read_text())
    (tmp_path / "bad" / "config.json").write_text(json.dumps({**config, "label2id": {"NO": 0, "YES": 1}}))

    def faults(*changes: str) -> str:
        with pytest.raises(ConfigError) as error:
            check(load_recipe("quickstart", list(changes)))
        return str(error.value)

    def topics(model: str, labels: str = "[a, b]") -> str:
        return f"creator.analysis.topics={{model: {tmp_path / model}, labels: {labels}}}"

    check(load_recipe("quickstart", [topics("good"), "creator.selection.topic_share=0.25", "creator.replay={share: 0.2}"]))
    message = faults(topics("bad"), "creator.replay={share: 0.3}", "creator.evolve.feedback={critic: {kind: transformers, model: ./gone}}")
    assert "has the labels NO, YES; a zero-shot classifier" in message and "creator.analysis.topics.model" in message
    assert "creator.replay.share: 0.3 and creator.mix.evolved_share, 0.8, add up to more than 1; give at most 0.2" in message
    assert "names a topic twice" in faults(topics("good", "[a, a]"))
    assert "creator.analysis: has nothing to analyse" in faults("creator.analysis={}")
    assert "balances topics, and there are none" in faults("creator.selection.topic_share=0.25")
    assert "creator.evolve.feedback.critic.model: there is no checkpoint at ./gone" in faults(
        "creator.evolve.feedback={critic: {kind: transformers, model: ./gone}}"
    )
