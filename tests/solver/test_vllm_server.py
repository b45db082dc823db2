"""The vLLM server that on-policy training samples with, as its HTTP interface shows it to be fit or not."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from eva_stages.checking.provider_checks import ask_servers
from eva_stages.core.config.solver_config import GRPO, RLOO, OnPolicyRuntime
from eva_stages.core.errors import ConfigError
from eva_stages.core.recipe_files import load_recipe
from eva_stages.solver.vllm_server import server_faults
from tests.fault_server import serving

READY: dict[str, tuple[int, Any]] = {
    "/health": (200, {}),
    "/v1/models": (200, {"data": [{"id": "policy", "max_model_len": 64}]}),
    "/server_info": (
        200,
        {"vllm_config": {"weight_transfer_config": {"backend": "nccl"}, "model_config": {"logprobs_mode": "processed_logprobs"}}},
    ),
}


@contextmanager
def vllm_server(changes: dict[str, tuple[int, Any]]) -> Iterator[str]:
    """A server that responds as vLLM does, with changes; its address."""
    replies = READY | changes

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content = replies[self.path.partition("?")[0]]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *arguments: Any) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def config(**changes: Any) -> dict[str, tuple[int, Any]]:
    return {"/server_info": (200, {"vllm_config": READY["/server_info"][1]["vllm_config"] | changes})}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"/health": (503, {})}, "is not healthy (HTTP 503); restart it, as in: VLLM_SERVER_DEV_MODE=1 vllm serve"),
        ({"/server_info": (404, {})}, "has no /server_info, so that weights cannot be sent to it"),
        ({"/v1/models": (200, {"models": []})}, "does not respond as a vLLM server does"),
        ({"/v1/models": (200, {"data": [{"max_model_len": 32}]})}, "takes 32 tokens of prompt and response, and training needs 64"),
        (config(weight_transfer_config=None), "takes no weights from a training"),
        (config(model_config={"logprobs_mode": "raw_logprobs"}), "has logprobs-mode raw_logprobs, and grpo corrects by"),
    ],
)
def test_what_a_server_lacks_is_reported_with_how_to_start_it(changes: dict[str, tuple[int, Any]], says: str) -> None:
    with vllm_server(changes) as address:
        (fault,) = server_faults(GRPO(kind="grpo", runtime=OnPolicyRuntime(vllm=True, server=address)), 64)
    assert fault.startswith(f"solver.loss.runtime.server: {address} ") and says in fault


def test_a_ready_server_has_no_faults_and_only_grpo_reads_the_probabilities_it_sampled_from() -> None:
    with vllm_server(config(model_config={"logprobs_mode": "raw_logprobs"})) as address:
        assert server_faults(RLOO(kind="rloo", runtime=OnPolicyRuntime(vllm=True, server=address)), 64) == []


def test_validate_online_asks_the_server_and_reports_one_that_cannot_be_reached() -> None:
    def recipe(address: str) -> Any:
        loss = json.dumps({"kind": "grpo", "runtime": {"vllm": True, "server": address}})
        return load_recipe("lettercraft/rloo", [f"solver.loss={loss}", "solver.training.max_length=64"])

    with vllm_server({}) as address:
        assert f"solver.loss.runtime.server: {address} responds, and takes the policy's weights" in ask_servers(recipe(address))
    with pytest.raises(ConfigError, match=r"solver.loss.runtime.server: http://127.0.0.1:\d+ cannot be reached: .*; start it, as in"):
        ask_servers(recipe(address))


@pytest.mark.parametrize(
    ("runtime", "says"),
    [
        ({"server": "http://127.0.0.1:8000"}, "vllm is false; give vllm: true"),
        ({"vllm": True, "server": "127.0.0.1:8000"}, "'127.0.0.1:8000' is not the address of a server"),
        ({"vllm": True, "server": "http://127.0.0.1:8000/"}, "is not the address of a server; give one such as http://127.0.0.1:8000"),
        ({"vllm": True, "server": "http://127.0.0.1:8000", "gpu_memory_utilization": 0.5}, "has no effect on a server"),
    ],
)
def test_settings_of_a_server_that_contradict_each_other_are_errors_of_the_recipe(runtime: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=r"solver\.loss\.runtime") as error:
        load_recipe("lettercraft/rloo", [f"solver.loss={json.dumps({'kind': 'rloo', 'runtime': runtime})}"])
    assert says in str(error.value)
