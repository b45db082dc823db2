"""One conversation: what was sampled is what is scored, trained and measured, whatever a chat template or a model's files want."""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import torch
from transformers import GenerationConfig, LlamaForCausalLM

from eva_stages.core.errors import ConfigError
from eva_stages.core.generating import Generated, SeededLLM, generated
from eva_stages.core.reasoning import answer_of
from eva_stages.core.recipes import load_recipe
from eva_stages.core.responding import Respond
from eva_stages.core.rows import SCHEMAS, Message, prompt_row
from eva_stages.core.store import Run
from eva_stages.core.tables import write_rows
from eva_stages.creator.evolving import EvolvePrompts
from eva_stages.creator.prompts import count_usable, prompt_batches
from eva_stages.models.conversation import Chat
from eva_stages.models.provider_answers import read_choices
from eva_stages.models.rewards import Conversation, PointwiseReward, RewardResponses, Score
from eva_stages.models.sampling import Sampling, model_settings, processors, vllm_settings
from eva_stages.models.transformers_generator import TransformersGenerator
from eva_stages.solver.experimental import make_trainer as reference_free_trainer
from eva_stages.solver.fitting import load_policy, tokenized_pairs
from eva_stages.solver.online import OnlineTrainer, reward_function
from eva_stages.solver.pairing import MakePairs
from eva_stages.solver.preference import make_trainer
from eva_stages.solver.tokens import read_tokens, tokenize
from pipelines.checking import check
from pipelines.dating import dated
from pipelines.iteration import iterations
from tests.chat_templates import FAMILIES, family_tokenizer
from tests.solver.jobs import job
from tests.tiny_models import config, save_policy, save_reward, tokenizer

RECIPE = str(Path(__file__).parents[1] / "recipes" / "tiny_text.yaml")
QUESTION: list[Message] = [{"role": "user", "content": "What is a planet?"}]
DIALOGUE: list[Message] = [
    {"role": "user", "content": "What is a planet?"},
    {"role": "assistant", "content": "<think>\nEasy.\n</think>\n\nIt goes round a star."},
    {"role": "user", "content": "Name two of them."},
]
Seen = list[tuple[list[int], list[int]]]
SYSTEM = "Answer like a pirate."
TEXTS = [message["content"] for message in DIALOGUE]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny policy with the tokenizer of each family."""
    folder = tmp_path_factory.mktemp("families")
    for name, family in FAMILIES.items():
        words = family_tokenizer(family, TEXTS)
        torch.manual_seed(0)
        LlamaForCausalLM(config(words)).save_pretrained(folder / name)
        words.save_pretrained(folder / name)
    return folder


def generator(folder: Path, **settings: Any) -> TransformersGenerator:
    made = TransformersGenerator(model=str(folder), **{"max_new_tokens": 12, **settings})
    made.load()
    return made


def watched(made: TransformersGenerator) -> Seen:
    """What the model of a generator is given and what it returns behind that, without the padding on the left."""
    seen: Seen = []
    original = made._model.generate

    def generate(**arguments: Any) -> Any:
        output = original(**arguments)
        for ids, mask, row in zip(arguments["input_ids"], arguments["attention_mask"], output, strict=True):
            seen.append((ids[mask.bool()].tolist(), row[len(ids) :].tolist()))
        return output

    made._model.generate = generate
    return seen


def sampled_pair(
    folder: Path, out: Path, messages: list[Message], **settings: Any
) -> tuple[list[tuple[list[int], list[int]]], dict[str, Any]]:
    """Two responses of a policy by the real steps, as pairs in `out`: what the model was given and drew, and the row of responses."""
    made = generator(folder, **settings)
    seen = watched(made)
    prompt = prompt_row(messages, "test")
    step = Respond(name="respond", llm=made, num_generations=2, seed=3)
    (rows,) = step.process([dict(prompt)])
    responses = pa.Table.from_pylist(rows, schema=SCHEMAS["responses"])
    rewards = pa.table({"prompt_id": [prompt["prompt_id"]], "rewards": [[1.0, 0.0]]})
    pairs, _ = MakePairs(name="pair").transform(pa.Table.from_pylist([prompt], schema=SCHEMAS["prompts"]), responses, rewards)
    write_rows([pairs], SCHEMAS["pairs"], out)
    return seen, responses.to_pylist()[0]


def places(policy: Path, pairs: Path) -> dict[str, str]:
    return {"policy": str(policy), "reference": str(policy), "pairs": str(pairs)}


@pytest.mark.parametrize("system_prompt", [None, SYSTEM])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_what_is_trained_is_what_was_asked_and_sampled(models: Path, tmp_path: Path, name: str, system_prompt: str | None) -> None:
    seen, row = sampled_pair(models / name, tmp_path / "pairs", DIALOGUE, system_prompt=system_prompt, date="2024-02-03", temperature=1.5)
    prompt = seen[0][0]
    words = family_tokenizer(FAMILIES[name], TEXTS)
    settings = job(
        tmp_path / "work", {"policy": str(models / name), "reference": str(models / name), "pairs": str(tmp_path / "pairs")}, "dpo"
    )
    settings |= {"system_prompt": system_prompt, "date": "2024-02-03"}
    _, trained, _ = tokenized_pairs(settings, words)
    assert trained[0]["prompt_ids"] == prompt
    if system_prompt:
        assert SYSTEM in words.decode(prompt)
    for ids, (_, drawn) in zip(row["response_ids"], seen, strict=True):
        assert ids == drawn[: len(ids)] and set(drawn[len(ids) :]) <= {words.pad_token_id}
    assert [trained[0]["chosen_ids"], trained[0]["rejected_ids"]] == row["response_ids"]
    chat = Chat(words, "2024-02-03", system_prompt)
    online, *_ = OnlineTrainer._tokenize_prompts(SimpleNamespace(_chat=chat), [DIALOGUE])  # type: ignore[arg-type]
    assert online == [prompt]


@pytest.mark.parametrize("kind", ["dpo", "ipo", "sppo", "sppo_hard", "simpo", "orpo"])
def test_every_loss_trains_the_ids_that_were_sampled_under_the_system_prompt(models: Path, tmp_path: Path, kind: str) -> None:
    folder = models / "qwen-3"
    seen, row = sampled_pair(folder, tmp_path / "pairs", QUESTION, system_prompt=SYSTEM)
    wins = {"chosen_win_probability": pa.array([0.9]), "rejected_win_probability": pa.array([0.1])}
    table = pa.parquet.read_table(tmp_path / "pairs" / "rows.parquet")
    for column, values in wins.items():
        table = table.set_column(table.column_names.index(column), column, values)
    write_rows([table], SCHEMAS["pairs"], tmp_path / "pairs")
    places = {"policy": str(folder), "reference": str(folder), "pairs": str(tmp_path / "pairs")}
    settings = job(tmp_path / "work", places, kind, batch_size=1, micro_batch_size=1, precompute_reference=False) | {
        "system_prompt": SYSTEM
    }
    trainer, _ = (reference_free_trainer if kind in ("simpo", "orpo") else make_trainer)(settings)
    (batch,) = list(trainer.get_train_dataloader())
    if kind in ("simpo", "orpo"):
        rows = [(batch[f"{side}_input_ids"], batch[f"{side}_attention_mask"]) for side in ("chosen", "rejected")]
        whole = [ids[0][mask[0].bool()].tolist() for ids, mask in rows]
    else:
        whole = [ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    assert whole == [seen[0][0] + ids for ids in row["response_ids"]]


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_response_of_which_only_the_text_is_known_is_its_text_and_the_end_of_a_turn(models: Path, tmp_path: Path, name: str) -> None:
    family, words = FAMILIES[name], family_tokenizer(FAMILIES[name], TEXTS)
    chat = Chat(words)
    text = "<think>\nHm.\n</think>\n\nMars."
    assert words.decode(chat.response_ids(text)) == text + family.end
    assert chat.response_ids("Mars.")[-1] == words.convert_tokens_to_ids(family.end)
    old = {name: value for name, value in prompt_row(QUESTION, "old").items() if name == "prompt_id"}
    sides = {side: [{"role": "assistant", "content": said}] for side, said in (("chosen", text), ("rejected", ""))}
    schema = pa.schema([field for field in SCHEMAS["pairs"] if not field.name.endswith("_ids")])  # of a run before there were any
    write_rows([pa.Table.from_pylist([{**old, "prompt": QUESTION, **sides}], schema=schema)], schema, tmp_path)
    tokenize(tmp_path, chat, 1000, "drop", tmp_path / "tokens.arrow")
    trained, _ = read_tokens(tmp_path / "tokens.arrow")
    assert trained[0]["prompt_ids"] == chat.prompt_ids(QUESTION)
    assert trained[0]["chosen_ids"] == chat.response_ids(text) and words.decode(trained[0]["rejected_ids"]) == family.end


def test_a_response_cut_at_the_limit_has_no_end_token(models: Path, tmp_path: Path) -> None:
    _, row = sampled_pair(models / "smollm2", tmp_path, QUESTION, max_new_tokens=2)
    end = Chat(family_tokenizer(FAMILIES["smollm2"], TEXTS)).end_tokens(models / "smollm2")
    for ids, reason in zip(row["response_ids"], row["finish_reasons"], strict=True):
        assert (ids[-1] in end) == (reason == "stop") and len(ids) <= 2


# --- end tokens


@pytest.mark.parametrize("name", list(FAMILIES))
def test_both_engines_and_training_end_at_the_same_tokens_and_the_templates_own_is_among_them(
    models: Path, tmp_path: Path, name: str
) -> None:
    family, folder = FAMILIES[name], models / name
    words = family_tokenizer(family, TEXTS)
    made = generator(folder)
    ends = set(made._ends)
    assert {words.convert_tokens_to_ids(token) for token in (family.end, family.eos)} <= ends
    assert set(vllm_settings(Sampling(1.0), 1, 1, 8, [], made._ends)["stop_token_ids"]) == ends
    assert set(made._model.generation_config.eos_token_id) == ends
    policy = load_policy(job(tmp_path, {"policy": str(folder), "reference": str(folder)}, "dpo"))
    assert set(policy.generation_config.eos_token_id) == ends


def test_end_tokens_are_those_of_all_files_together(tmp_path: Path) -> None:
    words = tokenizer(TEXTS)
    save_policy(tmp_path, words)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**settings, "eos_token_id": 11}))
    assert Chat(words).end_tokens(tmp_path) == sorted({7, 9, 11, words.eos_token_id})


# --- sampling settings


def test_sampling_settings_in_the_models_files_change_nothing_and_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = tokenizer(TEXTS)
    save_policy(tmp_path / "policy", words)
    plain = generator(tmp_path / "policy", temperature=1.0).generate([QUESTION, DIALOGUE], 2, [1, 2])
    wanted = {
        "repetition_penalty": 3.0,
        "no_repeat_ngram_size": 1,
        "min_new_tokens": 12,
        "suppress_tokens": list(range(5, 60)),
        "begin_suppress_tokens": [70],
        "forced_eos_token_id": words.eos_token_id,
        "bad_words_ids": [[80]],
        "num_beams": 3,
        "num_return_sequences": 2,
        "stop_strings": ["a", "e"],
        "return_dict_in_generate": True,
        "output_scores": True,
        "temperature": 0.1,
        "top_k": 2,
        "min_p": 0.5,
    }
    file = tmp_path / "policy" / "generation_config.json"
    file.write_text(json.dumps({"eos_token_id": words.eos_token_id, **wanted}))
    assert generator(tmp_path / "policy", temperature=1.0).generate([QUESTION, DIALOGUE], 2, [1, 2]) == plain
    assert set(model_settings(tmp_path / "policy")) == set(wanted)
    save_reward(tmp_path / "reward", words)
    check(recipe(tmp_path))
    said = capsys.readouterr().err
    assert "policy.model: the files of" in said and "repetition_penalty 3.0" in said and "num_beams 3" in said


def test_a_policy_whose_files_hold_settings_that_cannot_be_saved_is_trained_and_keeps_them(models: Path, tmp_path: Path) -> None:
    words = tokenizer(TEXTS)
    save_policy(tmp_path / "policy", words)
    file = tmp_path / "policy" / "generation_config.json"
    file.write_text(json.dumps({"do_sample": False, "temperature": 0.6, "eos_token_id": words.eos_token_id}))
    policy = load_policy(job(tmp_path / "work", {"policy": str(tmp_path / "policy"), "reference": str(tmp_path / "policy")}, "dpo"))
    policy.save_pretrained(tmp_path / "saved")
    assert GenerationConfig.from_pretrained(tmp_path / "saved").eos_token_id == [words.eos_token_id]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_responses_under_a_repetition_penalty_do_not_depend_on_their_batch(tmp_path: Path, temperature: float) -> None:
    words = tokenizer(TEXTS)
    words.pad_token = words.eos_token  # padding that is a token which matters
    save_policy(tmp_path, words)
    settings = {"repetition_penalty": 1.8, "top_k": 40, "min_p": 0.01, "temperature": temperature}
    long = [{"role": "user", "content": "What is a planet? " * 20}]
    together = generator(tmp_path, tokens_per_batch=10**6, **settings).generate([QUESTION, long], 2, [1, 2])
    alone = generator(tmp_path, tokens_per_batch=1, **settings).generate([QUESTION, long], 2, [1, 2])
    plain = generator(tmp_path, temperature=temperature).generate([QUESTION, long], 2, [1, 2])
    assert together == alone != plain


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(0.0, repetition_penalty=1.3),
        Sampling(0.7),
        Sampling(0.7, top_p=0.8),
        Sampling(1.5, top_p=0.9, top_k=7, min_p=0.05, repetition_penalty=1.4),
        Sampling(1.0, min_p=0.2, top_p=0.5),
    ],
)
def test_settings_mean_in_transformers_what_they_mean_in_vllm(sampling: Sampling) -> None:
    """Against vLLM's sampler, written out: penalty, temperature, min_p, top_k, top_p."""
    torch.manual_seed(1)
    logits, seen = 3 * torch.randn(2, 50), torch.randint(0, 50, (2, 6))
    starts = [0, 3]
    found = processors(sampling, starts)(seen, logits.clone()).softmax(dim=-1)
    told = vllm_settings(sampling, 5, 4, 9, ["x"], [2])
    for row in range(2):
        scores = logits[row].double()
        for token in set(seen[row, starts[row] :].tolist()):
            scores[token] = scores[token] / told["repetition_penalty"] if scores[token] > 0 else scores[token] * told["repetition_penalty"]
        if told["temperature"] > 0:
            scores = scores / told["temperature"]
            share = scores.softmax(dim=-1)
            scores[share < told["min_p"] * share.max()] = -torch.inf
            if told["top_k"]:
                scores[scores < scores.topk(told["top_k"]).values[-1]] = -torch.inf
            order = scores.argsort(descending=True)
            before = scores.softmax(dim=-1)[order].cumsum(dim=0) - scores.softmax(dim=-1)[order]
            scores[order[before >= told["top_p"]]] = -torch.inf
        assert torch.allclose(found[row].double(), scores.softmax(dim=-1), atol=1e-5)
    assert told["n"] == (4 if sampling.temperature else 1) and told["max_tokens"] == 9 and told["stop"] == ["x"]


# --- the date


def test_a_template_is_given_the_runs_date_on_any_day(models: Path) -> None:
    words = family_tokenizer(FAMILIES["llama-3.2"], TEXTS)
    assert "Today Date: 03 Feb 2024" in Chat(words, "2024-02-03").prompt_text(QUESTION)
    assert "Today Date: 03 Feb 2024" in Chat(words, "2024-02-03").conversation_text(QUESTION)
    assert f"Today Date: {datetime.date.today():%d %b %Y}" in Chat(words).prompt_text(QUESTION)


def recipe(folder: Path, **changes: Any) -> Any:
    if not (folder / "prompts.jsonl").is_file():
        (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Say {n}."}) + "\n" for n in range(48)))
    places = {"prompts.path": str(folder / "prompts.jsonl"), "policy.model": str(folder / "policy"), "reward.model": str(folder / "reward")}
    return load_recipe(RECIPE, [f"{name}={json.dumps(value)}" for name, value in {**places, **changes}.items()])


def test_a_rerun_on_another_day_has_the_first_days_date_and_the_date_is_part_of_what_shows_it(models: Path, tmp_path: Path) -> None:
    words = tokenizer(TEXTS)
    save_reward(tmp_path / "reward", words)
    run = Run(tmp_path / "run")
    run.create()
    (run.root / "recipe.yaml").write_text(json.dumps({**recipe(tmp_path).model_dump(mode="json"), "runtime": {"date": "2024-02-03"}}))
    assert str(dated(recipe(tmp_path), run).runtime.date) == "2024-02-03"
    assert str(dated(recipe(tmp_path, **{"runtime.date": "2023-01-01"}), run).runtime.date) == "2023-01-01"
    assert dated(recipe(tmp_path), Run(tmp_path / "new")).runtime.date == datetime.date.today()
    dates = ("2024-02-03", "2024-02-04")
    for name, differ in (("llama-3.2", True), ("llama-3", False)):
        changes = [{"policy.model": str(models / name), "runtime.date": date} for date in dates]
        stages = [iterations(recipe(tmp_path, **one))[0].solver for one in changes]
        for mine, other in zip(*stages, strict=True):
            assert (mine.fingerprint != other.fingerprint) == differ, mine.label
    first = stages[0][0]
    assert first.name == "respond"


# --- reasoning


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


class Echo(PointwiseReward):
    """The number of characters of all that it reads besides the prompt's question."""

    def score(self, conversations: Sequence[Conversation]) -> list[Score]:
        return [Score(len(one.response) + 100.0 * (one.messages[0]["role"] == "system")) for one in conversations]


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


# --- the system prompt


def test_rewards_read_the_system_prompt_if_the_recipe_says_so(tmp_path: Path) -> None:
    row = {**prompt_row(QUESTION, "test"), "responses": ["Mars."]}
    for shown, reward in ((None, 5.0), (SYSTEM, 105.0)):
        (scored,) = list(RewardResponses(name="reward", reward=Echo(), system_prompt=shown).process([dict(row)]))
        assert scored[0]["rewards"] == [reward]
    words = tokenizer(TEXTS)
    save_policy(tmp_path / "policy", words)
    save_reward(tmp_path / "reward", words)
    for scored_too in (False, True):
        changes = {"policy.generator.system_prompt": SYSTEM, "policy.system_prompt_scored": scored_too}
        respond, reward_stage, _, train = iterations(recipe(tmp_path, **changes))[0].solver
        assert respond.steps[0].arguments["llm"].arguments["system_prompt"] == SYSTEM
        assert train.function.arguments["system_prompt"] == SYSTEM
        assert reward_stage.steps[0].arguments.get("system_prompt") == (SYSTEM if scored_too else None)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_the_system_prompt_reaches_the_model_whatever_the_template_does_with_it(name: str) -> None:
    words = family_tokenizer(FAMILIES[name], TEXTS)
    assert Chat(words, None, SYSTEM).prompt_text(QUESTION).count(SYSTEM) == 1
    words.chat_template = words.chat_template.replace("message['role'] == 'system'", "false")
    words.chat_template = "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}" + words.chat_template
    assert Chat(words, None, SYSTEM).prompt_text(QUESTION).count(SYSTEM) == 1


def test_an_online_reward_reads_what_an_offline_one_reads() -> None:
    words = family_tokenizer(FAMILIES["r1-distill"], TEXTS)
    chat = Chat(words, None, SYSTEM)
    ends = [words.eos_token_id]
    ids = [chat.response_ids("Hm.\n</think>\n\nMars."), chat.ids("Hm, and then")]
    arguments = {"prompts": [QUESTION] * 2, "completion_ids": ids, "reference": [None] * 2, "log_metric": lambda name, value: None}
    assert reward_function(Echo(), chat, ends, False, None)(**arguments) == [5.0, None]
    assert reward_function(Echo(), chat, ends, True, SYSTEM)(**arguments) == [100.0 + len("Hm.\n</think>\n\nMars."), 112.0]


# --- prompts that a template refuses


def test_prompts_that_the_template_refuses_are_left_out_counted_and_told(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = [{"role": "user", "content": "Hello."}, {"role": "user", "content": "Are you there?"}]
    rows = [{"messages": QUESTION}, {"messages": twice}, {"messages": DIALOGUE}, {"messages": [*twice, *DIALOGUE[1:]]}]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, usable in (("gemma-2", 2), ("mistral", 2), ("llama-3", 4)):
        assert count_usable(prompt_batches(path, "messages"), "messages", 1000, None, str(models / name)) == usable
    save_reward(tmp_path / "reward", tokenizer(TEXTS))
    changes = {"policy.model": str(models / "gemma-2"), "prompts.column": "messages", "prompts.size": None}
    check(recipe(tmp_path, **changes))
    assert "2 prompts of" in (said := capsys.readouterr().err) and "must alternate" in said
    path.write_text(json.dumps({"messages": twice}) + "\n")
    with pytest.raises(ConfigError, match=r"all prompts of .* are refused by the chat template: .*must alternate"):
        check(recipe(tmp_path, **changes))


# --- what validate says of templates


@pytest.mark.parametrize(("name", "said"), [("qwen-3", "puts '<think>"), ("r1-distill", "leaves out the thoughts"), ("llama-3", None)])
def test_a_template_that_changes_responses_is_told(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, said: str | None
) -> None:
    save_reward(tmp_path / "reward", tokenizer(TEXTS))
    check(recipe(tmp_path, **{"policy.model": str(models / name)}))
    told = capsys.readouterr().err
    assert said in told if said else "template" not in told


def test_templates_that_cannot_work_are_refused(models: Path, tmp_path: Path) -> None:
    words = tokenizer(TEXTS)
    save_reward(tmp_path / "reward", words)
    with pytest.raises(ConfigError, match=r"solver\.rewrite: the chat template of .* begins every response with a thought"):
        check(recipe(tmp_path, **{"policy.model": str(models / "r1-distill"), "solver.rewrite": {"generator": {"kind": "policy"}}}))
    for template, said in (("{{ raise_exception('closed today') }}", "does not take a message .*closed today"), ("Hello", "leaves out")):
        words.chat_template = template
        save_policy(tmp_path / "policy", words)
        with pytest.raises(ConfigError, match=f"policy.model: the chat template of .*{said}"):
            check(recipe(tmp_path))
