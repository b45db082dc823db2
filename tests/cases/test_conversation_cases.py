"""One conversation: rewards, training and measurements use what was sampled, whatever a chat template or a model's files contain."""

import datetime
import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers import models as models_of_tokenizers
from transformers import PreTrainedTokenizerFast

from eva_stages.checking.resolution import resolve
from eva_stages.core.errors import ConfigError
from eva_stages.core.rows import SCHEMAS, prompt_row
from eva_stages.core.run_folder import Run
from eva_stages.core.tables import write_rows
from eva_stages.creator.prompt_files import prompt_batches
from eva_stages.creator.prompt_loading import count_usable
from eva_stages.models.conversation import Chat
from eva_stages.models.rewards import RewardResponses
from eva_stages.solver.experimental import make_trainer as reference_free_trainer
from eva_stages.solver.fitting import tokenized_pairs
from eva_stages.solver.online_trainers import OnPolicyTrainer
from eva_stages.solver.preference import make_trainer
from eva_stages.solver.tokens import read_tokens, tokenize
from tests.building import build_rounds, check
from tests.cases.conversations import DIALOGUE, QUESTION, SYSTEM, TEXTS, Echo, recipe, sampled_pair
from tests.chat_templates import FAMILIES, family_tokenizer
from tests.solver.jobs import job
from tests.tiny_models import save_policy, save_reward, tokenizer


def places(policy: Path, pairs: Path) -> dict[str, str]:
    return {"policy": str(policy), "reference": str(policy), "pairs": str(pairs)}


@pytest.mark.parametrize("system_prompt", [None, SYSTEM])
@pytest.mark.parametrize("name", list(FAMILIES))
def test_training_uses_the_ids_of_the_prompt_and_the_sampled_response(
    models: Path, tmp_path: Path, name: str, system_prompt: str | None
) -> None:
    exchanges, row = sampled_pair(
        models / name, tmp_path / "pairs", DIALOGUE, system_prompt=system_prompt, date="2024-02-03", temperature=1.5
    )
    prompt = exchanges[0][0]
    words = family_tokenizer(FAMILIES[name], TEXTS)
    places = {"policy": str(models / name), "reference": str(models / name), "pairs": str(tmp_path / "pairs")}
    settings = job(tmp_path / "work", places, "dpo", system_prompt=system_prompt, date="2024-02-03")
    _, training_rows, _ = tokenized_pairs(settings, words)
    assert training_rows[0]["prompt_ids"] == prompt
    if system_prompt:
        assert SYSTEM in words.decode(prompt)
    for ids, (_, sampled_ids) in zip(row["response_ids"], exchanges, strict=True):
        assert ids == sampled_ids[: len(ids)] and set(sampled_ids[len(ids) :]) <= {words.pad_token_id}
    assert [training_rows[0]["chosen_ids"], training_rows[0]["rejected_ids"]] == row["response_ids"]
    chat = Chat(words, "2024-02-03", system_prompt)
    online, *_ = OnPolicyTrainer._tokenize_prompts(SimpleNamespace(_chat=chat), [DIALOGUE])  # type: ignore[arg-type]
    assert online == [prompt]


@pytest.mark.parametrize("kind", ["dpo", "ipo", "sppo", "sppo_hard", "simpo", "orpo"])
def test_every_loss_trains_the_ids_that_were_sampled_under_the_system_prompt(models: Path, tmp_path: Path, kind: str) -> None:
    folder = models / "qwen-3"
    exchanges, row = sampled_pair(folder, tmp_path / "pairs", QUESTION, system_prompt=SYSTEM)
    wins = {"chosen_win_probability": pa.array([0.9]), "rejected_win_probability": pa.array([0.1])}
    table = pa.parquet.read_table(tmp_path / "pairs" / "rows.parquet")
    for column, values in wins.items():
        table = table.set_column(table.column_names.index(column), column, values)
    write_rows([table], SCHEMAS["pairs"], tmp_path / "pairs")
    places = {"policy": str(folder), "reference": str(folder), "pairs": str(tmp_path / "pairs")}
    changes = {"batch_size": 1, "micro_batch_size": 1, "precompute_reference": False, "system_prompt": SYSTEM}
    settings = job(tmp_path / "work", places, kind, **changes)
    trainer, _ = (reference_free_trainer if kind in ("simpo", "orpo") else make_trainer)(settings)
    (batch,) = list(trainer.get_train_dataloader())
    if kind in ("simpo", "orpo"):
        rows = [(batch[f"{side}_input_ids"], batch[f"{side}_attention_mask"]) for side in ("chosen", "rejected")]
        whole = [ids[0][mask[0].bool()].tolist() for ids, mask in rows]
    else:
        whole = [ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]
    assert whole == [exchanges[0][0] + ids for ids in row["response_ids"]]


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_response_without_ids_is_tokenised_from_its_text_and_ends_the_turn(models: Path, tmp_path: Path, name: str) -> None:
    family, words = FAMILIES[name], family_tokenizer(FAMILIES[name], TEXTS)
    chat = Chat(words)
    text = "<think>\nHm.\n</think>\n\nMars."
    assert words.decode(chat.response_ids(text)) == text + family.end
    assert chat.response_ids("Mars.")[-1] == words.convert_tokens_to_ids(family.end)
    old = {name: value for name, value in prompt_row(QUESTION, "old").items() if name == "prompt_id"}
    sides = {side: [{"role": "assistant", "content": content}] for side, content in (("chosen", text), ("rejected", ""))}
    schema = pa.schema([field for field in SCHEMAS["pairs"] if not field.name.endswith("_ids")])  # of a run before there were any
    write_rows([pa.Table.from_pylist([{**old, "prompt": QUESTION, **sides}], schema=schema)], schema, tmp_path)
    tokenize(tmp_path, chat, 1000, "drop", tmp_path / "tokens.arrow")
    training_rows, _ = read_tokens(tmp_path / "tokens.arrow")
    assert training_rows[0]["prompt_ids"] == chat.prompt_ids(QUESTION)
    assert training_rows[0]["chosen_ids"] == chat.response_ids(text) and words.decode(training_rows[0]["rejected_ids"]) == family.end


@pytest.mark.parametrize("scheme", ["first", "always"])
def test_a_text_is_tokenised_behind_its_prompt_if_the_tokenizer_adds_a_leading_space(scheme: str) -> None:
    model = Tokenizer(models_of_tokenizers.BPE())
    model.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    trainer = trainers.BpeTrainer(special_tokens=["</s>", "<|user|>", "<|assistant|>"])
    model.train_from_iterator(["Mars. Mars is red. What is a planet?\n"], trainer)
    words = PreTrainedTokenizerFast(tokenizer_object=model, eos_token="</s>")
    words.chat_template = (
        "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
    )
    chat = Chat(words)
    response = chat.response_ids("Mars is red.", QUESTION)
    assert chat.prompt_ids(QUESTION) + response == chat.conversation_ids([*QUESTION, {"role": "assistant", "content": "Mars is red."}])
    assert response != chat.response_ids("Mars is red.") and chat.response_ids("\n", QUESTION)[-1] == words.eos_token_id


def test_a_response_cut_at_the_limit_has_no_end_token(models: Path, tmp_path: Path) -> None:
    _, row = sampled_pair(models / "smollm2", tmp_path, QUESTION, max_new_tokens=2)
    end = Chat(family_tokenizer(FAMILIES["smollm2"], TEXTS)).end_tokens(models / "smollm2")
    for ids, reason in zip(row["response_ids"], row["finish_reasons"], strict=True):
        assert (ids[-1] in end) == (reason == "stop") and len(ids) <= 2


def test_a_template_gets_the_runs_date_on_any_day(models: Path) -> None:
    words = family_tokenizer(FAMILIES["llama-3.2"], TEXTS)
    assert "Today Date: 03 Feb 2024" in Chat(words, "2024-02-03").prompt_text(QUESTION)
    assert "Today Date: 03 Feb 2024" in Chat(words, "2024-02-03").conversation_text(QUESTION)
    assert f"Today Date: {datetime.date.today():%d %b %Y}" in Chat(words).prompt_text(QUESTION)


def test_a_rerun_on_another_day_keeps_the_first_date_and_the_date_identifies_the_stages_that_show_it(models: Path, tmp_path: Path) -> None:
    words = tokenizer(TEXTS)
    save_reward(tmp_path / "reward", words)
    run = Run(tmp_path / "run")
    run.create()
    (run.root / "recipe.yaml").write_text(json.dumps({**recipe(tmp_path).model_dump(mode="json"), "runtime": {"date": "2024-02-03"}}))
    assert str(resolve(recipe(tmp_path), run).date) == "2024-02-03"
    assert str(resolve(recipe(tmp_path, **{"runtime.date": "2023-01-01"}), run).date) == "2023-01-01"
    assert resolve(recipe(tmp_path), Run(tmp_path / "new")).date == datetime.date.today()
    dates = ("2024-02-03", "2024-02-04")
    for name, differ in (("llama-3.2", True), ("llama-3", False)):
        changes = [{"policy.model": str(models / name), "runtime.date": date} for date in dates]
        stages = [build_rounds(recipe(tmp_path, **settings))[0].solver for settings in changes]
        for mine, other_stage in zip(*stages, strict=True):
            assert (mine.fingerprint != other_stage.fingerprint) == differ, mine.label
    first = stages[0][0]
    assert first.name == "respond"


def test_rewards_read_the_system_prompt_if_the_recipe_says_so(tmp_path: Path) -> None:
    row = {**prompt_row(QUESTION, "test"), "responses": ["Mars."]}
    for system_prompt, reward in ((None, 5.0), (SYSTEM, 105.0)):
        (scored_rows,) = list(RewardResponses(name="reward", reward=Echo(), system_prompt=system_prompt).process([dict(row)]))
        assert scored_rows[0]["rewards"] == [reward]
    words = tokenizer(TEXTS)
    save_policy(tmp_path / "policy", words)
    save_reward(tmp_path / "reward", words)
    for is_scored in (False, True):
        changes = {"policy.generator.system_prompt": SYSTEM, "policy.system_prompt_scored": is_scored}
        respond, reward_stage, _, train = build_rounds(recipe(tmp_path, **changes))[0].solver
        assert respond.steps[0].arguments["llm"].arguments["system_prompt"] == SYSTEM
        assert train.function.arguments["system_prompt"] == SYSTEM
        assert reward_stage.steps[0].arguments.get("system_prompt") == (SYSTEM if is_scored else None)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_the_system_prompt_reaches_the_model_with_every_template(name: str) -> None:
    words = family_tokenizer(FAMILIES[name], TEXTS)
    assert Chat(words, None, SYSTEM).prompt_text(QUESTION).count(SYSTEM) == 1
    words.chat_template = words.chat_template.replace("message['role'] == 'system'", "false")
    words.chat_template = "{% set messages = messages | rejectattr('role', 'equalto', 'system') | list %}" + words.chat_template
    assert Chat(words, None, SYSTEM).prompt_text(QUESTION).count(SYSTEM) == 1


def test_a_dropped_system_prompt_is_detected_even_if_the_user_quotes_it() -> None:
    words = family_tokenizer(FAMILIES["smollm2"], TEXTS)
    words.chat_template = "{% for message in messages %}{% if message['role'] == 'user' %}{{ message['content'] }}{% endif %}{% endfor %}"
    quoting_question = [{"role": "user", "content": f"What does '{SYSTEM}' mean?"}]
    assert Chat(words, None, SYSTEM).prompt_text(quoting_question).count(SYSTEM) == 2
    assert Chat(family_tokenizer(FAMILIES["smollm2"], TEXTS), None, SYSTEM).prompt_text(quoting_question).count(SYSTEM) == 2


def test_prompts_that_the_template_refuses_are_left_out_counted_and_reported(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_user_turns = [{"role": "user", "content": "Hello."}, {"role": "user", "content": "Are you there?"}]
    rows = [{"messages": QUESTION}, {"messages": two_user_turns}, {"messages": DIALOGUE}, {"messages": [*two_user_turns, *DIALOGUE[1:]]}]
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, usable in (("gemma-2", 2), ("mistral", 2), ("llama-3", 4)):
        assert count_usable(prompt_batches(path, "messages"), 1000, str(models / name)) == usable
    save_reward(tmp_path / "reward", tokenizer(TEXTS))
    changes = {"policy.model": str(models / "gemma-2"), "prompts.column": "messages", "prompts.size": None}
    check(recipe(tmp_path, **changes))
    assert "2 of 4 rows of" in (text := capsys.readouterr().err) and "must alternate" in text
    path.write_text(json.dumps({"messages": two_user_turns}) + "\n")
    with pytest.raises(ConfigError, match=r"has no prompt that can be used: refused by the chat template: .*must alternate"):
        check(recipe(tmp_path, **changes))


@pytest.mark.parametrize(("name", "text"), [("qwen-3", "puts '<think>"), ("r1-distill", "leaves out the thoughts"), ("llama-3", None)])
def test_a_template_that_changes_responses_is_reported(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str | None
) -> None:
    save_reward(tmp_path / "reward", tokenizer(TEXTS))
    check(recipe(tmp_path, **{"policy.model": str(models / name)}))
    message = capsys.readouterr().err
    assert text in message if text else "template" not in message


def test_templates_that_cannot_work_are_refused(models: Path, tmp_path: Path) -> None:
    words = tokenizer(TEXTS)
    save_reward(tmp_path / "reward", words)
    with pytest.raises(ConfigError, match=r"solver\.rewrite: the chat template of .* begins every response with a thought"):
        check(recipe(tmp_path, **{"policy.model": str(models / "r1-distill"), "solver.rewrite": {"generator": {"kind": "policy"}}}))
    for template, text in (("{{ raise_exception('closed today') }}", "does not take a message .*closed today"), ("Hello", "leaves out")):
        words.chat_template = template
        save_policy(tmp_path / "policy", words)
        with pytest.raises(ConfigError, match=f"policy.model: the chat template of .*{text}"):
            check(recipe(tmp_path))
