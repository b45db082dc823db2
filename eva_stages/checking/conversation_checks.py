"""What the policy's chat template and sampling settings make of a recipe, looked at before any model is loaded.

What cannot work is an error. What works otherwise than somebody may expect who knows the model's own files is a note.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import takewhile
from pathlib import Path
from textwrap import shorten

from jinja2 import TemplateError

from eva_stages.core.config.models_config import TransformersModel, VLLMModel
from eva_stages.core.config.recipe import Recipe
from eva_stages.core.config.rewards_config import EnsembleReward, LocalReward
from eva_stages.core.errors import ConfigError
from eva_stages.core.rows import Message
from eva_stages.core.terminal import note
from eva_stages.models.choosing import RENDERED
from eva_stages.models.conversation import Chat, template_source
from eva_stages.models.loading import LETTERCRAFT, load_tokenizer, locate
from eva_stages.models.sampling import model_settings

QUESTION: list[Message] = [{"role": "user", "content": "Question7"}]
ANSWER = "Answer7"
THOUGHT = f"<think>\nThought7\n</think>\n\n{ANSWER}"


def conversation_looks(recipe: Recipe) -> list[Callable[[], object]]:
    """One check per kind of fault; each raises ConfigError."""
    return [partial(look, recipe) for look in (_policy_template, _reward_templates, _settings)]


def _policy_template(recipe: Recipe) -> None:
    """The policy can be asked, and what its template does with responses is known."""
    model, folder = recipe.policy.model, locate(recipe.policy.model, recipe.policy.revision, "policy.model")
    if model == LETTERCRAFT or not template_source(folder):
        return
    chat = Chat(load_tokenizer(str(folder)), None, recipe.policy.generator.system_prompt)
    if reason := chat.refusal(QUESTION):
        raise ConfigError([f"policy.model: the chat template of {model} does not take a message of the user ({reason}); mend the template"])
    if QUESTION[0]["content"] not in chat.prompt_text(QUESTION):
        raise ConfigError([f"policy.model: the chat template of {model} leaves out the messages of the user; mend the template"])
    if recipe.solver.rewrite and chat.opens_thought(QUESTION):
        raise ConfigError(
            [
                f"solver.rewrite: the chat template of {model} begins every response with a thought, and a rewritten response has none, so "
                "that it would be trained as one; leave solver.rewrite out"
            ]
        )
    if changes := list(_changes(chat)):
        note(
            f"policy.model: the chat template of {model} {' and '.join(changes)}. eva trains responses as they were sampled; only earlier "
            "turns of prompts are rendered so"
        )


def _changes(chat: Chat) -> Iterator[str]:
    """What a template does to responses of earlier turns."""
    plain, thoughtful = (_rendered(chat, text) for text in (ANSWER, THOUGHT))
    if plain is None or thoughtful is None:
        yield "does not take responses of earlier turns"
        return
    if ANSWER not in plain:
        yield "leaves out responses"
        return
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(plain, chat.prompt_text(QUESTION), strict=False)))
    if before := plain[shared : plain.index(ANSWER)].strip():
        yield f"puts {before!r} before a response"
    if "Thought7" not in thoughtful:
        yield "leaves out the thoughts of a response"
    elif THOUGHT not in thoughtful:
        yield "changes the text of a response"


def _rendered(chat: Chat, text: str) -> str | None:
    """The question with a response; None if the template refuses it."""
    try:
        return chat.conversation_text([*QUESTION, {"role": "assistant", "content": text}])
    except (TemplateError, TypeError):
        return None


def _reward_templates(recipe: Recipe) -> None:
    """With `reasoning: keep`, a reward's template shows it the thoughts."""
    if recipe.policy.reasoning == "strip":
        return
    members = [member.reward for member in recipe.reward.members] if isinstance(recipe.reward, EnsembleReward) else [recipe.reward]
    for reward in members:
        if not isinstance(reward, LocalReward) or not isinstance(reward, RENDERED):
            continue
        folder = locate(reward.model, reward.revision, "reward.model")
        if "think>" in template_source(folder):
            chat = Chat(load_tokenizer(str(folder)))
            if "Thought7" not in chat.conversation_text([*QUESTION, {"role": "assistant", "content": THOUGHT}]):
                note(
                    f"reward.model: the chat template of {reward.model} leaves out thoughts, so policy.reasoning=keep shows it none; "
                    "policy.reasoning=strip says so openly"
                )


def _settings(recipe: Recipe) -> None:
    """Sampling settings in a model's files that the recipe overrules. vLLM reads them all the same, and has to be able to."""
    for place, model, revision, kind in _local_models(recipe):
        folder = locate(model, revision, place)
        if kind == "vllm" and (fault := _unreadable(folder)):
            raise ConfigError([f"{place}: vLLM cannot read the generation_config.json of {model} ({fault}); mend the file"])
        if wanted := model_settings(folder):
            told = ", ".join(f"{name} {shorten(str(value), 60)}" for name, value in sorted(wanted.items()))
            note(f"{place}: the files of {model} ask for {told}. eva samples as the recipe says and takes only end tokens from them")


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


def _local_models(recipe: Recipe) -> Iterator[tuple[str, str, str | None, str]]:
    """Every model that is sampled here: its place in the recipe, its name and revision, and its kind of generator."""
    yield "policy.model", recipe.policy.model, recipe.policy.revision, recipe.policy.generator.kind
    creator, rewrite = recipe.creator, recipe.solver.rewrite
    players = {
        "creator.evolve.generator": creator.evolve.generator,
        "creator.evolve.feedback.critic": creator.evolve.feedback and creator.evolve.feedback.critic,
        "creator.analysis.scorer": creator.analysis and creator.analysis.scorer,
        "solver.rewrite.generator": rewrite and rewrite.generator,
    }
    for place, player in players.items():
        if isinstance(player, TransformersModel | VLLMModel):
            yield f"{place}.model", player.model, player.revision, player.kind
