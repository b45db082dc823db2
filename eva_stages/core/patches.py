"""Every workaround for an error or a missing feature of another library, each with its reason.

A patch is a function below, called where the library is used; libraries are imported inside it. `tests/core/test_patches.py` (for vLLM:
`tests/vllm/test_vllm.py`) has a test for each that fails once the library no longer needs it, and checks the installed versions. Subclasses
of distilabel's classes are in `pipeline_patches.py`, which imports distilabel. Documented settings of a library are no patches and stay
where it is used.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    import torch

Target = TypeVar("Target", bound=Callable[..., Any])


class Patch(NamedTuple):
    """What a patch works around; its reason is the docstring of the patch."""

    library: str
    """Name of the distribution."""
    versions: str
    """Versions that were checked to need it."""
    upstream: str
    """The function, class or behaviour of the library."""


PATCHES: dict[str, Patch] = {}


def patch(library: str, versions: str, upstream: str) -> Callable[[Target], Target]:
    """Record a patch under its name."""

    def register(target: Target) -> Target:
        PATCHES[target.__name__] = Patch(library, versions, upstream)
        return target

    return register


@patch("torch", ">=2.9,<2.14", "libgomp and libomp: waiting threads spin")
def let_waiting_threads_sleep() -> None:
    """OpenMP threads that wait for others spin. On a machine with other work they spin while the thread that they wait for does not
    run: sampling fell to a hundredth of its speed. The libraries read these variables when they load.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # libgomp
    os.environ.setdefault("KMP_BLOCKTIME", "0")  # LLVM's and Intel's OpenMP


@patch("typer", ">=0.29,<0.30", "typer.core.build_runtime_param")
def complete_without_pydantic() -> None:
    """typer converts every word of a command line by a pydantic adapter, also where a shell asks for completions. Importing pydantic takes
    as long as everything else together, so completion takes the words as they are.
    """
    import typer.core

    class Word:
        def __init__(self, descriptor: Any) -> None:
            pass

        def coerce(self, value: Any, **context: Any) -> Any:
            return value

    vars(typer.core)["build_runtime_param"] = Word


# --- distilabel


@patch("distilabel", ">=1.5.3,<1.6", "distilabel.steps: Field(default=None) in Annotated types")
def ignore_field_warnings() -> None:
    """pydantic warns about distilabel's own classes whenever distilabel is imported."""
    warnings.filterwarnings("ignore", message="The 'default' attribute with value None was provided to the `Field\\(\\)` function")


@patch("distilabel", ">=1.5.3,<1.6", "distilabel/__init__.py: rich_traceback.install(show_locals=True)")
def remove_rich_tracebacks() -> None:
    """Importing distilabel installs a hook for uncaught exceptions that prints the values of all variables, API keys among them."""
    if sys.excepthook.__module__ == "rich.traceback":
        sys.excepthook = sys.__excepthook__


@patch("distilabel", ">=1.5.3,<1.6", "distilabel.utils.logging.setup_logging")
def process_name() -> str:
    """The name of a process that runs a pipeline: distilabel writes its log file only in a process with Python's name of the first one."""
    return "MainProcess"


# --- LiteLLM


@patch("litellm", ">=1.106,<1.107", "litellm.model_cost = get_model_cost_map(url) at import")
def import_litellm() -> Any:
    """The module. Importing it downloads the current price list unless this variable selects the installed one: costs would depend on
    the day, and a machine without network could not compute them.
    """
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm

    litellm.suppress_debug_info = True  # it prints to stdout, which is for results
    return litellm


@patch("litellm", ">=1.106,<1.107", "AsyncHTTPHandler.create_async_transport")
def wrap_litellm_transports(wrap: Callable[[Any], Any]) -> None:
    """Pass the request handler of every HTTP transport that LiteLLM creates from now on through `wrap`.

    `acompletion` takes no transport from its caller. LiteLLM reports a cut connection as status 500, retries some requests by itself,
    follows redirects and reads bodies of any size; a spending cap needs to know the requests that were sent.
    """
    from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler

    create: Callable[..., Any] = AsyncHTTPHandler.create_async_transport

    def create_wrapped(*arguments: Any, **settings: Any) -> Any:
        transport = create(*arguments, **settings)
        if transport is not None:
            transport.handle_async_request = wrap(transport.handle_async_request)
        return transport

    AsyncHTTPHandler.create_async_transport = staticmethod(create_wrapped)  # type: ignore[method-assign]


@patch("litellm", ">=1.106,<1.107", "litellm.acompletion: _skip_mcp_handler")
def without_mcp(request: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `acompletion` for a request. With tools in it LiteLLM imports a package for the Model Context Protocol, which is not
    installed, to search for servers that a request does not name.
    """
    return {**request, "_skip_mcp_handler": True} if "tools" in request else request


@patch("litellm", ">=1.106,<1.107", "litellm.litellm_core_utils.logging_worker.GLOBAL_LOGGING_WORKER")
async def end_litellm_tasks() -> None:
    """End what LiteLLM leaves running in an event loop: its logging worker, of which asyncio complains when the loop is closed."""
    import asyncio

    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@patch("tiktoken", ">=0.12,<0.15", "tiktoken.load.read_file_cached")
def use_packaged_encodings() -> None:
    """tiktoken downloads its encodings on first use. LiteLLM ships them in the layout of tiktoken's cache."""
    package = find_spec("litellm")
    assert package is not None and package.origin is not None
    os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(Path(package.origin).parent / "litellm_core_utils" / "tokenizers"))


# --- vLLM


@patch("vllm", ">=0.32,<0.33", "vllm.logger: configuration at import")
def prepare_vllm() -> None:
    """Call this before vLLM is imported. Its logging set-up flushes the log files of the process that forked this one, whose locks may
    be held for ever, and its workers cannot be forked once torch has started threads.
    """
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB


@patch("vllm", ">=0.32,<0.33", "the CPU model runner's random generators")
def cpu_engine_settings(on_cpu: bool) -> dict[str, Any]:
    """Settings of the engine on a CPU: seeded draws of a prompt that is prefilled in chunks end it, as it cannot rewind a generator."""
    return {"enable_chunked_prefill": False} if on_cpu else {}


# --- transformers, accelerate, TRL, peft


@patch("transformers", ">=5.19,<5.20", "PreTrainedModel.from_pretrained(attn_implementation=...)")
def set_attention(config: Any, code: str) -> None:
    """Choose the attention code of a model: its configuration file takes precedence over the argument of `from_pretrained`."""
    config._attn_implementation = code


@patch("transformers", ">=5.19,<5.20", "Trainer._save_checkpoint: rotate_checkpoints(use_mtime=True)")
def keep_last_checkpoints(folder: str, count: int) -> None:
    """Delete all but the last checkpoints, by their steps. `save_total_limit` of the trainer orders them by file time, and after the clock
    was set back deletes each checkpoint when it is written.
    """
    from transformers.trainer_utils import rotate_checkpoints

    rotate_checkpoints(folder, count)


@patch("transformers", ">=5.19,<5.20", "RepetitionPenaltyLogitsProcessor")
class RepetitionPenalty:
    """Divides positive scores of the tokens that a row has already, and multiplies negative ones [Keskar et al. 2019].

    The penalty of transformers counts the padding of a batch as tokens of the row.

    Args:
        starts: where each row begins behind its padding; None = behind the pad tokens that it begins with.
    """

    def __init__(self, penalty: float, starts: Sequence[int] | None = None, pad: int | None = None) -> None:
        self._penalty, self._starts, self._pad = penalty, starts, pad

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        import torch

        if self._starts is not None:
            has_begun = torch.arange(input_ids.shape[1]) >= torch.tensor(self._starts)[:, None]
        else:
            has_begun = (input_ids != self._pad).cumsum(dim=1) > 0
        is_seen = torch.zeros_like(scores, dtype=torch.bool)
        rows, places = has_begun.to(scores.device).nonzero(as_tuple=True)
        is_seen[rows, input_ids[rows, places]] = True
        return torch.where(is_seen, torch.where(scores > 0, scores / self._penalty, scores * self._penalty), scores)

    def keep(self, places: "torch.Tensor") -> None:
        """Continue with these rows of the batch."""
        if self._starts is not None:
            self._starts = [self._starts[place] for place in places.tolist()]


@patch("accelerate", ">=1.15,<1.16", "accelerate.commands.launch has no public function for this")
def single_process_environment(launch_file: str) -> dict[str, str]:
    """The environment in which `accelerate launch` would start the one process of a launch file."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import prepare_simple_launcher_cmd_env

    arguments = launch_command_parser().parse_args(["--config_file", launch_file, "-m", "module"])
    valid_arguments, *_ = _validate_launch_command(arguments)
    _, environment = prepare_simple_launcher_cmd_env(valid_arguments)
    return environment


@patch("accelerate", ">=1.15,<1.16", "accelerate.utils.launch.prepare_multi_gpu_env")
def processor_environment(use_cpu: bool) -> dict[str, str]:
    """accelerate passes a launch file's `use_cpu` on to the processes only where it starts a single one."""
    return {"ACCELERATE_USE_CPU": "true"} if use_cpu else {}


class _NoSettings(dict[str, Any]):
    """A generation configuration without entries. Trackers write it as JSON, so it is a dict."""

    def to_dict(self) -> dict[str, Any]:
        return {}


@patch("trl", ">=1.16,<1.17", "RLOOTrainer.__init__, GRPOTrainer.__init__: create_model_from_path(get_config_model_id(...))")
def reference_settings(policy: Any, reference: Path, dtype: str) -> dict[str, Any]:
    """Make TRL load its reference from a folder; returns `model_init_kwargs` for it.

    These trainers take no reference: they load one from the path in the policy's configuration. They would read the generation settings of
    that checkpoint, which may be unreadable and are not used.
    """
    policy.config._name_or_path = str(reference)
    return {"dtype": dtype, "use_safetensors": True, "generation_config": _NoSettings()}


@patch("peft", ">=0.21,<0.22", "PeftConfig.save_pretrained")
def write_canonical_config(path: Path) -> None:
    """Rewrite peft's configuration of an adapter so that equal trainings give equal bytes.

    peft writes the names of the adapted layers in the order of a set, and the path of the base on this machine. The base is the
    policy that the training stage started from; the stage's manifest names it.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    canonical = {name: sorted(value) if isinstance(value, list) else value for name, value in config.items()}
    path.write_text(json.dumps({**canonical, "base_model_name_or_path": None}, indent=2, sort_keys=True) + "\n", encoding="utf-8")
