"""Every patch of another library is still needed: the library, unpatched, has the error or lacks the feature.

A failure here means that a patch can be deleted, or that the versions in its record have to be checked again.
"""

import inspect
import json
import multiprocessing
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import distilabel.pipeline.batch
import pytest
import torch
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts, Step, StepInput
from packaging.specifiers import SpecifierSet
from transformers import AutoModelForCausalLM, LlamaForCausalLM, Trainer

from eva_stages.core import patches, pipeline_patches
from eva_stages.core.errors import StageError
from eva_stages.core.patches import PATCHES, RepetitionPenalty
from eva_stages.core.pipeline_patches import LoudStep
from tests.tiny_models import config, tokenizer


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python program without eva in it."""
    plain = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "KMP_", "TIKTOKEN", "LITELLM", "PYTHONPATH"))
    }
    return subprocess.run([sys.executable, "-c", code], env={**plain, **environment}, capture_output=True, text=True, check=True)


def source(value: Any) -> str:
    return inspect.getsource(value)


@pytest.mark.parametrize("name", PATCHES)
def test_a_patch_has_a_reason_a_test_and_the_versions_that_are_installed(name: str) -> None:
    patch = PATCHES[name]
    target = getattr(patches, name, None) or getattr(pipeline_patches, name)
    is_of_vllm = patch.library == "vllm"
    tests = Path(__file__).parents[1] / "vllm" / "test_vllm.py" if is_of_vllm else Path(__file__)
    assert target.__doc__ and name in tests.read_text()
    assert is_of_vllm or version(patch.library) in SpecifierSet(patch.versions), "check whether this version still needs the patch"


def test_let_waiting_threads_sleep() -> None:
    settings = run_python("import torch; torch.ones(9) + 1", OMP_DISPLAY_ENV="VERBOSE").stderr
    spins = [int(line.partition("= '")[2].rstrip("'")) for line in settings.splitlines() if "GOMP_SPINCOUNT" in line]
    assert all(count > 0 for count in spins), "patch: let_waiting_threads_sleep"


def test_typer_imports_pydantic_to_complete_a_word() -> None:
    code = (
        "import sys, typer\n"
        "sys.argv = ['eva']\n"
        "app = typer.Typer()\n"
        "app.command()(lambda count=1: None)\n"
        "try: app()\n"
        "finally: print('pydantic' in sys.modules)\n"
    )
    result = run_python(code, _EVA_COMPLETE="complete_bash", COMP_WORDS="eva --count 2 ", COMP_CWORD="3")
    assert result.stdout.strip() == "True", "patch: complete_without_pydantic"


def test_importing_distilabel_warns_and_replaces_the_hook_for_exceptions() -> None:
    result = run_python("import sys, distilabel.steps; print(sys.excepthook.__module__)")
    assert "The 'default' attribute with value None was provided to the `Field()` function" in result.stderr, "patch: ignore_field_warnings"
    assert result.stdout.strip() == "rich.traceback", "patch: remove_rich_tracebacks"


def test_distilabel_sets_its_log_up_by_the_name_of_a_process() -> None:
    from distilabel.utils.logging import setup_logging

    assert f'current_process().name == "{patches.process_name()}"' in source(setup_logging)
    assert multiprocessing.current_process().name == patches.process_name() or "PYTEST_XDIST_WORKER" in os.environ


def test_distilabel_polls_slowly_turns_failed_rows_into_none_and_keeps_the_rows_of_every_step() -> None:
    from distilabel.pipeline import base, local
    from distilabel.pipeline.batch_manager import _BatchManagerStep
    from distilabel.pipeline.step_wrapper import _StepWrapper

    assert "time.sleep(2.5)" in source(base), "patch: poll_often"
    assert "impute_step_outputs" in source(_StepWrapper._impute_step_outputs), "patch: StepWorker"
    assert "self._impute_step_outputs(batch)" in source(_StepWrapper._non_generator_process_loop)
    assert "remaining_rows: int = self.input_batch_size" in source(_BatchManagerStep._get_data_normal), "patch: WholeBatches"
    assert "steps_data_path" in source(base.BasePipeline._register_batch), "patch: ThrowAwayPipeline"
    assert "self.signature" in source(base.BasePipeline._cache_location.fget)
    assert "_StepWrapper(" in source(local.Pipeline._run_step) and "exitcode" not in source(local), "patch: ProcessPipeline"
    assert "mp.Manager()" in source(local.Pipeline.run) and "_NoDaemonPool(" in source(local.Pipeline.run), "patch: ThreadPipeline"


def test_litellm_downloads_prices_takes_no_transport_and_leaves_a_task_running() -> None:
    litellm = patches.import_litellm()
    from litellm.litellm_core_utils.get_model_cost_map import get_model_cost_map
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

    assert "model_cost_map_url" in source(litellm) and "url" in inspect.signature(get_model_cost_map).parameters
    assert "transport" not in inspect.signature(litellm.acompletion).parameters, "patch: wrap_litellm_transports"
    assert patches.without_mcp({"tools": []}) == {"tools": [], "_skip_mcp_handler": True} and patches.without_mcp({}) == {}
    assert 'kwargs.pop("_skip_mcp_handler", False)' in source(litellm.main)
    assert hasattr(GLOBAL_LOGGING_WORKER, "_worker_task"), "patch: end_litellm_tasks"


def test_tiktoken_downloads_encodings_unless_they_are_in_its_cache() -> None:
    from tiktoken.load import read_file_cached

    assert 'os.environ["TIKTOKEN_CACHE_DIR"]' in source(read_file_cached), "patch: use_packaged_encodings"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    words = tokenizer(["a b c"])
    LlamaForCausalLM(config(words)).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def test_a_configuration_file_overrides_the_attention_that_a_caller_asks_for(checkpoint: Path, tmp_path: Path) -> None:
    content = json.loads((checkpoint / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "_attn_implementation": "flash_attention_2"}))
    (tmp_path / "model.safetensors").symlink_to(checkpoint / "model.safetensors")
    with pytest.raises(ImportError, match="FlashAttention2"):  # patch: set_attention
        AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")


def test_transformers_keeps_checkpoints_by_file_time() -> None:
    assert "use_mtime=True" in source(Trainer), "patch: keep_last_checkpoints"


def test_the_penalty_of_transformers_counts_padding() -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    ids, scores = torch.tensor([[0, 0, 3]]), torch.ones(1, 5)
    assert RepetitionPenaltyLogitsProcessor(2.0)(ids, scores.clone()).tolist() == [[0.5, 1.0, 1.0, 0.5, 1.0]]
    assert RepetitionPenalty(2.0, pad=0)(ids, scores).tolist() == [[1.0, 1.0, 1.0, 0.5, 1.0]]


def test_accelerate_tells_only_a_single_process_of_the_processor(tmp_path: Path) -> None:
    from accelerate.commands import launch
    from accelerate.utils.launch import prepare_multi_gpu_env

    (tmp_path / "launch.yaml").write_text("use_cpu: true\nnum_processes: 2\ndistributed_type: MULTI_CPU\n")
    arguments = launch.launch_command_parser().parse_args(["--config_file", str(tmp_path / "launch.yaml"), "-m", "module"])
    valid_arguments, *_ = launch._validate_launch_command(arguments)
    assert "ACCELERATE_USE_CPU" not in prepare_multi_gpu_env(valid_arguments), "patch: processor_environment"
    assert not hasattr(launch, "validate_launch_command"), "patch: single_process_environment"


def test_trl_loads_the_reference_of_on_policy_losses_from_the_name_in_the_policy(checkpoint: Path) -> None:
    from trl import GRPOTrainer, RLOOTrainer

    for trainer in (RLOOTrainer, GRPOTrainer):
        assert "ref_model" not in inspect.signature(trainer.__init__).parameters, "patch: reference_settings"
        assert "create_model_from_path(get_config_model_id(self.model.config)" in source(trainer)


def test_peft_keeps_layer_names_in_a_set_and_saves_the_path_of_the_base(checkpoint: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(AutoModelForCausalLM.from_pretrained(checkpoint), LoraConfig(target_modules=["q_proj", "v_proj"]))
    assert isinstance(model.peft_config["default"].target_modules, set), "patch: write_canonical_config"
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == str(checkpoint)
    patches.write_canonical_config(tmp_path / "adapter_config.json")
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] is None


class Failing(Step):
    """An ordinary step whose error distilabel hides."""

    @property
    def inputs(self) -> list[str]:
        return ["number"]

    @property
    def outputs(self) -> list[str]:
        return ["result"]

    def process(self, inputs: StepInput) -> Any:
        raise ConnectionError("refused")
        yield inputs


class LoudFailing(LoudStep, Failing):
    """The same as a step of eva."""


def test_distilabel_hides_the_error_of_a_step(tmp_path: Path) -> None:
    for kind in (Failing, LoudFailing):
        with Pipeline(name=kind.__name__, cache_dir=tmp_path) as pipeline:
            LoadDataFromDicts(data=[{"number": 1}]) >> kind()
        if kind is Failing:
            rows = pipeline.run(use_cache=False)["default"]["train"]
            assert rows["result"] == [None], "patch: LoudStep"
        else:
            with pytest.raises(StageError, match="step loud_failing_0: ConnectionError: refused"):
                pipeline.run(use_cache=False)


def test_distilabel_reads_the_inputs_of_a_global_step_in_no_order() -> None:
    text = source(distilabel.pipeline.batch)
    assert "for file in self._fs.ls(self.data_path):" in text, "patch: read_inputs_in_order"
