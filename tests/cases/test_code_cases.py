"""Code that a recipe names, and what its relative paths are relative to (CASES.md, K4)."""

import json
import shutil
import sys
from contextlib import chdir
from pathlib import Path

import pytest

from eva_stages.checking.resolution import resolve
from eva_stages.core.durable import write_whole
from eva_stages.core.errors import ConfigError, DataError
from eva_stages.core.manifests import read_manifest
from eva_stages.core.named_functions import load_function, resolve_function
from eva_stages.core.recipe_files import dump_recipe, load_recipe, recipe_text
from eva_stages.core.rows import SCHEMAS
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import closure
from eva_stages.core.tables import write_rows
from eva_stages.models.rewards import Conversation, VerifierReward
from eva_stages.publishing.contents import Selection, repositories
from eva_stages.publishing.privacy import Privacy
from eva_stages.publishing.story import story_of
from eva_stages.views.history import read_history
from tests.building import build_rounds, check
from tests.conftest import function_code, run_eva

REWARD = """
from helper import scale

def reward(messages, response, reference):
    return scale(len(response))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe with a reward function, a module that it imports and a prompt file beside it; the working directory is another folder."""
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "functions.py").write_text(REWARD)
    (folder / "helper.py").write_text("def scale(n):\n    return n / 10\n")
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"Say {n}."}) + "\n" for n in range(60)))
    text = recipe_text("quickstart")[1]
    head, _, rest = text.partition("reward:\n")
    tail = rest[rest.index("\n\n") :] if "\n\n" in rest else rest[rest.index("\n") :]
    (folder / "my.yaml").write_text(f"{head}reward: {{kind: verifier, function: functions.py:reward}}\n{tail}")
    (tmp_path / "shell").mkdir()
    return folder


def changes(**settings: object) -> list[str]:
    fields = {"prompts": {"kind": "file", "path": "prompts.jsonl"}, "trust_code": True, **settings}
    return [f"{name}={json.dumps(value)}" for name, value in fields.items()]


def write_recipe(folder: Path, **settings: object) -> Path:
    """Write the recipe with additional fields; return its path."""
    import yaml

    recipe = yaml.safe_load((folder / "my.yaml").read_text())
    recipe.update({"prompts": {"kind": "file", "path": "prompts.jsonl"}, "trust_code": True, **settings})
    (folder / "written.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "written.yaml"


def fingerprints(recipe: Path) -> dict[str, str]:
    return {
        stage.label: stage.fingerprint for iteration in build_rounds(load_recipe(str(recipe))) for stage in closure(list(iteration.stages))
    }


def changed_stages(earlier_prints: dict[str, str], later_prints: dict[str, str]) -> set[str]:
    return {label for label in earlier_prints if earlier_prints[label] != later_prints[label]}


@pytest.mark.parametrize("file", ["functions.py", "helper.py"])
def test_editing_a_function_or_what_it_imports_reruns_its_stage_and_no_earlier_one(folder: Path, file: str) -> None:
    recipe = write_recipe(folder)
    earlier_prints = fingerprints(recipe)
    (folder / file).write_text((folder / file).read_text() + "\n# another version\n")
    stages = changed_stages(earlier_prints, fingerprints(recipe))
    assert {"0-reward", "0-pair", "0-train"} <= stages and not {"0-prompts", "0-respond"} & stages


def test_moving_a_function_or_renaming_its_file_reruns_nothing(folder: Path) -> None:
    earlier_prints = fingerprints(write_recipe(folder))
    moved_folder = folder.parent / "moved"
    shutil.move(folder, moved_folder)
    assert fingerprints(moved_folder / "written.yaml") == earlier_prints
    (moved_folder / "functions.py").rename(moved_folder / "rewards.py")
    assert fingerprints(write_recipe(moved_folder, reward={"kind": "verifier", "function": "rewards:reward"})) == earlier_prints


def test_paths_in_a_recipe_are_relative_to_it_and_paths_of_the_command_line_to_the_working_directory(folder: Path) -> None:
    recipe = write_recipe(folder, policy={"model": "policy", "generator": {"kind": "transformers"}})
    shutil.copytree(Path(__file__).parents[2] / "eva_stages/lettercraft/base_policy", folder / "policy")
    (folder.parent / "shell" / "other.jsonl").write_text('{"prompt": "hello"}\n')
    with chdir(folder.parent / "shell"):
        loaded_recipe = load_recipe(str(recipe))
        assert loaded_recipe.prompts.path == str(folder / "prompts.jsonl") and loaded_recipe.policy.model == str(folder / "policy")
        assert loaded_recipe.reward.function == f"{folder / 'functions.py'}:reward"
        assert loaded_recipe.solver.training.runtime.launch == "cpu", "a packaged name stays one"
        overridden_recipe = load_recipe(str(recipe), ["prompts.path=other.jsonl", "reward.function=math"])
        assert (
            overridden_recipe.prompts.path == str(folder.parent / "shell" / "other.jsonl") and overridden_recipe.reward.function == "math"
        )
        assert load_recipe("quickstart", ["prompts={kind: file, path: other.jsonl}"]).prompts.path == overridden_recipe.prompts.path
        with pytest.raises(
            ConfigError, match=r"prompts\.path: there is no other\.jsonl in .*recipe.*; if you mean .*shell/other\.jsonl, write"
        ):
            load_recipe(str(write_recipe(folder, prompts={"kind": "file", "path": "other.jsonl"})))
        check(loaded_recipe)


def test_an_override_of_a_section_is_relative_to_the_working_directory(folder: Path) -> None:
    recipe, shell = write_recipe(folder), folder.parent / "shell"
    with chdir(shell):
        loaded_recipe = load_recipe(str(recipe), ["reward={kind: verifier, function: other.py:f}"])
        assert loaded_recipe.reward.function == f"{shell / 'other.py'}:f", "the field also has a line in the file"
        with pytest.raises(ConfigError, match=r"^--set reward=.*: reward\.function: is 'f'"):
            load_recipe(str(recipe), ["reward={kind: verifier, function: f}"])


def test_a_saved_recipe_names_a_function_in_a_folder_with_a_colon(folder: Path) -> None:
    moved_folder = folder.rename(folder.with_name("a: b"))
    recipe = load_recipe(str(write_recipe(moved_folder)))
    (moved_folder / "saved.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(str(moved_folder / "saved.yaml")) == recipe
    check(recipe)


def test_code_is_not_imported_without_consent(folder: Path) -> None:
    (folder / "functions.py").write_text("open('imported', 'w')\n" + REWARD)
    recipe = write_recipe(folder, trust_code=False)
    shell = folder.parent / "shell"
    with chdir(shell), pytest.raises(ConfigError, match=r"reward\.function: reward is code in .*functions\.py.*--trust.*trust_code: true"):
        check(load_recipe(str(recipe)))
    assert not (shell / "imported").exists()
    run_eva("validate", str(recipe), "--trust", cwd=shell)
    assert (shell / "imported").exists()


@pytest.mark.parametrize(
    "function", ["os:spawnlp", "subprocess:run", "json:dumps", "eva_stages.core.event_log:utc_now", "nowhere:f", "nowhere.py:f"]
)
def test_a_function_comes_only_from_a_file_beside_the_recipe(folder: Path, function: str) -> None:
    recipe = load_recipe(str(write_recipe(folder, reward={"kind": "verifier", "function": function})))
    with pytest.raises(ConfigError, match=r"reward\.function: there is no file .*recipe/"):
        check(recipe)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def other(a, b, c): local = a", r"defines no 'reward'; it defines other\Z"),
        ("def reward(:", "cannot be read as Python"),
        ("\0", "cannot be read as Python"),
        ("import nothing_of_that_name\ndef reward(a, b, c): return 1", "cannot be imported: ModuleNotFoundError"),
        ("raise SystemExit(3)\ndef reward(a, b, c): return 1", "cannot be imported: SystemExit: 3"),
        ("reward = 3", "is a int; expected a function"),
        ("class Odd(BaseException): pass\nraise Odd('no')\ndef reward(a, b, c): return 1", "cannot be imported: Odd: no"),
    ],
)
def test_a_function_that_cannot_be_loaded_is_an_error_of_the_recipe(folder: Path, source: str, says: str) -> None:
    (folder / "functions.py").write_text(source)
    with pytest.raises(ConfigError, match=says):
        check(load_recipe(str(write_recipe(folder))))


def test_a_function_imports_its_local_modules_and_not_others_of_the_same_name(folder: Path) -> None:
    for factor in ("10", "100"):
        (folder / "helper.py").write_text(f"def scale(n):\n    return n / {factor}\n")
        function = resolve_function(f"{folder / 'functions.py'}:reward", "reward.function")
        assert set(function.sources) == {"functions.py", "helper.py"}
        reward = VerifierReward(function=function_code(function.file, "reward"))
        reward.load()
        assert reward.score([Conversation([], "x" * 10)])[0].value == 10 / float(factor)
    (folder / "helper.py").write_text("scale = len")
    with pytest.raises(DataError, match="has changed since the run started"):
        load_function(str(function.file), function.name, function.digest)


def test_a_function_in_a_package_can_use_relative_imports(folder: Path) -> None:
    package = folder / "mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "rewards.py").write_text(
        "from .scaling import scale\ndef reward(messages, response, reference):\n    return scale(response)\n"
    )
    (package / "scaling.py").write_text("def scale(text):\n    return len(text)\n")
    recipe = write_recipe(folder, reward={"kind": "verifier", "function": "mine.rewards:reward"})
    check(load_recipe(str(recipe)))
    earlier_prints = fingerprints(recipe)
    (package / "scaling.py").write_text("def scale(text):\n    return -len(text)\n")
    assert "0-reward" in changed_stages(earlier_prints, fingerprints(recipe))


def test_a_path_through_the_parent_folder_is_read_from_there(folder: Path) -> None:
    (folder / "__init__.py").write_text("")
    (folder / "functions.py").write_text("from .helper import scale\ndef reward(messages, response, reference):\n    return scale(3)\n")
    (folder / "recipes").mkdir()
    write_recipe(
        folder, reward={"kind": "verifier", "function": "../functions.py:reward"}, prompts={"kind": "file", "path": "../prompts.jsonl"}
    )
    recipe = load_recipe(str((folder / "written.yaml").rename(folder / "recipes" / "my.yaml")))
    assert recipe.reward.function == f"{folder / 'functions.py'}:reward" and recipe.prompts.path == str(folder / "prompts.jsonl")
    check(recipe)


def test_a_file_with_the_name_of_an_imported_module_does_not_replace_that_module(folder: Path) -> None:
    (folder / "json.py").write_text("import math\ndef reward(messages, response, reference):\n    return math.sqrt(len(response))\n")
    function = resolve_function(f"{folder / 'json.py'}:reward", "reward.function")
    assert load_function(str(function.file), "reward", function.digest)([], "four", None) == 2 and sys.modules["json"] is json
    (folder / "json.py").write_text("import json\nreward = lambda messages, response, reference: len(json.dumps(response))\n")
    with pytest.raises(ConfigError, match="another module json is installed"):
        check(load_recipe(str(write_recipe(folder, reward={"kind": "verifier", "function": "json.py:reward"}))))
    assert sys.modules["json"] is json


@pytest.mark.parametrize("source", ["scale, reward = 1, len", "from rewards import *"])
def test_functions_that_are_not_defined_by_def_are_found(folder: Path, source: str) -> None:
    (folder / "rewards.py").write_text("def reward(messages, response, reference):\n    return 1\n")
    (folder / "functions.py").write_text(source)
    assert resolve_function(f"{folder / 'functions.py'}:reward", "reward.function").name == "reward"


def test_a_function_that_changes_its_messages_affects_no_other_response(folder: Path) -> None:
    (folder / "functions.py").write_text(
        "def reward(messages, response, reference):\n    messages[-1]['content'] += response\n    messages.append({})\n"
        "    return len(messages) + len(messages[0]['content'])\n"
    )
    function = resolve_function(f"{folder / 'functions.py'}:reward", "reward.function")
    reward = VerifierReward(function=function_code(function.file, "reward"))
    reward.load()
    messages = [{"role": "user", "content": "hi"}]
    assert [score.value for score in reward.score([Conversation(messages, "a")] * 3)] == [5, 5, 5] and messages[0]["content"] == "hi"


def test_a_local_module_with_the_name_of_an_installed_one_is_refused(folder: Path) -> None:
    (folder / "json.py").write_text("def scale(n): return n")
    (folder / "functions.py").write_text(REWARD.replace("helper", "json"))
    with pytest.raises(ConfigError, match="another module json is installed"):
        check(load_recipe(str(write_recipe(folder))))


def test_a_run_saves_and_pushes_the_source_of_its_function_without_paths_of_the_machine(folder: Path) -> None:
    run = Run(folder.parent / "shell" / "run")
    run.create()
    loaded_recipe = load_recipe(str(write_recipe(folder)))
    write_whole(run.root / "recipe.yaml", dump_recipe(loaded_recipe))
    for function in resolve(loaded_recipe).functions.values():
        function.save_sources(run.root)
    (reward_stage,) = (stage for stage in build_rounds(loaded_recipe)[0].solver if stage.name == "reward")
    for stage in closure([reward_stage]):
        write_rows([SCHEMAS["prompts"].empty_table()], SCHEMAS["prompts"], run.workplace(stage) / "data")
        run.commit(stage, run.workplace(stage) / "data", {"rows": 0, "counts": {}, "seconds": 0.0})
    reward = run.stages / reward_stage.folder
    digest = resolve_function(f"{folder / 'functions.py'}:reward", "").digest
    assert digest in json.dumps(read_manifest(reward)["work"])
    saved_source = run.root / "functions" / digest
    assert (saved_source / "functions.py").read_text() == REWARD and (saved_source / "helper.py").is_file()
    saved_recipe = str(run.root / "recipe.yaml")
    recipe = load_recipe(saved_recipe)
    assert recipe.prompts.path == str(folder / "prompts.jsonl")
    with chdir("/"):
        assert build_rounds(load_recipe(saved_recipe))[0].solver[1].folder == reward.name, "its own recipe means the same from everywhere"
    run.plan(closure(build_rounds(recipe)[0].solver[:2]))
    story = story_of(read_history(run), "someone", Privacy(run.root))
    (repository,) = repositories(story, Selection("datasets"), run.root / "report.html", {}, Privacy(run.root), folder.parent / "scratch")
    files = {file.path: file for file in repository.files}
    assert files[f"functions/{digest}/functions.py"].content == REWARD.encode()
    texts = [file.content for file in repository.files if isinstance(file.content, bytes)]
    assert texts and not [text for text in texts if str(folder).encode() in text or str(folder.parent).encode() in text]


def test_a_push_includes_artifacts_of_another_version(folder: Path) -> None:
    run = Run(folder.parent / "run")
    run.create()
    recipe = load_recipe(str(write_recipe(folder)))
    write_whole(run.root / "recipe.yaml", dump_recipe(recipe))
    (reward_stage,) = (stage for stage in build_rounds(recipe)[0].solver if stage.name == "reward")
    for stage in closure([reward_stage]):
        write_rows([SCHEMAS["prompts"].empty_table()], SCHEMAS["prompts"], run.workplace(stage) / "data")
        run.commit(stage, run.workplace(stage) / "data", {"rows": 0, "counts": {}, "seconds": 0.0})
    run.plan(closure([reward_stage]))
    (folder / "functions.py").unlink()
    story = story_of(read_history(run), "someone", Privacy(run.root))
    assert run.stages / reward_stage.folder in [artifact.folder for artifact in story.artifacts]
