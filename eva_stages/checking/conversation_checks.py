"""Checks of chat templates and sampling settings, before any model is loaded.

A setting that cannot work is an error. A setting that overrides the model's own files is a note.
"""

from collections.abc import Iterator
from itertools import chain, takewhile
from pathlib import Path
from textwrap import shorten

from jinja2 import TemplateError

from eva_stages.checking.recipe_references import sections
from eva_stages.core.config.models_config import Policy, TransformersModel, VLLMModel
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import LocalReward
from eva_stages.core.resolved import Resolved
from eva_stages.core.rows import Message
from eva_stages.core.terminal import note
from eva_stages.models.conversation import Chat
from eva_stages.models.loading import PACKAGED_POLICIES, load_tokenizer
from eva_stages.models.sampling import model_settings

QUESTION: list[Message] = [{"role": "user", "content": "Question7"}]
ANSWER = "Answer7"
THOUGHT = f"<think>\nThought7\n</think>\n\n{ANSWER}"


def _policy_template(recipe: Recipe, resolved: Resolved) -> Iterator[str]:
    """The policy's template renders prompts; changes that it makes to responses are reported."""
    model, policy = recipe.policy.model, resolved.policy(recipe)
    if model in PACKAGED_POLICIES or policy is None or not policy.template:
        return
    chat = Chat(load_tokenizer(str(policy.path)), None, recipe.policy.generator.system_prompt)
    if reason := chat.refusal(QUESTION):
        yield f"policy.model: the chat template of {model} does not take a message of the user ({reason}); fix the template"
        return
    if QUESTION[0]["content"] not in chat.prompt_text(QUESTION):
        yield f"policy.model: the chat template of {model} leaves out the messages of the user; fix the template"
        return
    if recipe.solver.rewrite and chat.opens_thought(QUESTION):
        yield (
            f"solver.rewrite: the chat template of {model} begins every response with a thought, and a rewritten response has none, so "
            "it would be trained as a thought; leave solver.rewrite out"
        )
    if changes := list(_changes(chat)):
        note(
            f"policy.model: the chat template of {model} {' and '.join(changes)}. eva trains responses as they were sampled; only earlier "
            "turns of prompts are rendered this way"
        )


def _changes(chat: Chat) -> Iterator[str]:
    """What a template does to responses of earlier turns."""
    plain, thoughtful = (_rendered_text(chat, text) for text in (ANSWER, THOUGHT))
    if plain is None or thoughtful is None:
        yield "does not take responses of earlier turns"
        return
    if ANSWER not in plain:
        yield "leaves out responses"
        return
    shared_length = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(plain, chat.prompt_text(QUESTION), strict=False)))
    if prefix := plain[shared_length : plain.index(ANSWER)].strip():
        yield f"puts {prefix!r} before a response"
    if "Thought7" not in thoughtful:
        yield "leaves out the thoughts of a response"
    elif THOUGHT not in thoughtful:
        yield "changes the text of a response"


def _rendered_text(chat: Chat, text: str) -> str | None:
    """The question with a response; None if the template refuses it."""
    try:
        return chat.conversation_text([*QUESTION, {"role": "assistant", "content": text}])
    except (TemplateError, TypeError):
        return None


def _reward_templates(recipe: Recipe, resolved: Resolved) -> Iterator[str]:
    """With `reasoning: keep`, a reward's template must render thoughts."""
    yield from ()
    for place, reward in chain(sections(recipe.reward, "reward"), sections(recipe.health, "health")):
        if recipe.policy.reasoning == "strip" or not (isinstance(reward, LocalReward) and reward.uses_chat_template):
            continue
        if (checkpoint := resolved.checkpoints.get((reward.model, reward.revision))) is None:
            continue
        if "think>" in checkpoint.template:
            chat = Chat(load_tokenizer(str(checkpoint.path)))
            if "Thought7" not in chat.conversation_text([*QUESTION, {"role": "assistant", "content": THOUGHT}]):
                note(
                    f"{place}.model: the chat template of {reward.model} removes thoughts, so the reward does not see them in spite of "
                    "policy.reasoning=keep; set policy.reasoning=strip to make that explicit"
                )


def _settings(recipe: Recipe, resolved: Resolved) -> Iterator[str]:
    """Sampling settings in a model's files that the recipe overrules. vLLM reads them all the same, and has to be able to."""
    for place, section in sections(recipe):
        if not isinstance(section, Policy | TransformersModel | VLLMModel):
            continue
        checkpoint, model, place = resolved.checkpoints.get((section.model, section.revision)), section.model, f"{place}.model"
        if checkpoint is None:
            continue
        folder = checkpoint.path
        kind = section.generator.kind if isinstance(section, Policy) else section.kind
        if kind == "vllm" and (fault := _unreadable(folder)):
            yield f"{place}: vLLM cannot read the generation_config.json of {model} ({fault}); fix the file"
        if model_defaults := model_settings(folder):
            defaults = ", ".join(f"{name} {shorten(str(value), 60)}" for name, value in sorted(model_defaults.items()))
            note(f"{place}: the files of {model} set {defaults}. eva uses the recipe's settings, and only the end tokens of the files")


def _unreadable(folder: Path) -> str | None:
    """Why `transformers` refuses a checkpoint's generation_config.json; None if it does not."""
    from transformers import GenerationConfig

    try:
        GenerationConfig.from_pretrained(folder)
    except OSError:
        return None  # there is none
    except (ValueError, TypeError) as error:
        return " ".join(str(error).split())
    return None


CONVERSATION_CHECKS = (_policy_template, _reward_templates, _settings)
