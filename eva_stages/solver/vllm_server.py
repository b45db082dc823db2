"""What a vLLM server must be like for on-policy training to sample with it.

TRL sends the policy's weights to the server after every optimiser step. It waits forever for a server that is not healthy, and only warns
of log-probabilities that its correction cannot use, so both are checked before. One server serves one training at a time.
"""

from typing import Any

import httpx

from eva_stages.core.config.solver_config import GRPO, OnPolicyLoss

DEADLINE = 20.0
"""Seconds in which a server has to respond."""
COMMAND = 'VLLM_SERVER_DEV_MODE=1 vllm serve POLICY --weight-transfer-config \'{"backend": "nccl"}\' --logprobs-mode processed_logprobs'
"""How a server is started."""


def server_faults(loss: OnPolicyLoss, max_length: int) -> list[str]:
    """What is wrong with the server of a loss, each with what to do; empty if training can sample with it.

    Args:
        max_length: tokens of prompt and response.
    """
    address = str(loss.runtime.server)
    place = f"solver.loss.runtime.server: {address}"
    try:
        with httpx.Client(base_url=address, timeout=DEADLINE) as client:
            if (status := client.get("/health").status_code) != 200:
                return [f"{place} is not healthy (HTTP {status}); restart it, as in: {COMMAND}"]
            model = client.get("/v1/models").raise_for_status().json()["data"][0]
            response = client.get("/server_info", params={"config_format": "json"})
            if response.status_code == 404:
                return [
                    f"{place} has no /server_info, so that weights cannot be sent to it; start it with VLLM_SERVER_DEV_MODE=1: {COMMAND}"
                ]
            config = response.raise_for_status().json()["vllm_config"]
    except httpx.HTTPError as error:
        return [f"{place} cannot be reached: {error or type(error).__name__}; start it, as in: {COMMAND}"]
    except (ValueError, LookupError, TypeError) as error:
        return [f"{place} does not respond as a vLLM server does ({type(error).__name__}: {error}); give the address of one"]
    return [f"{place} {fault}; restart it, as in: {COMMAND}" for fault in _config_faults(loss, max_length, model, config)]


def _config_faults(loss: OnPolicyLoss, max_length: int, model: dict[str, Any], config: dict[str, Any]) -> list[str]:
    faults = []
    if config.get("weight_transfer_config") is None:
        faults.append("takes no weights from a training: it has no weight-transfer-config")
    if (length := model.get("max_model_len")) is not None and length < max_length:
        faults.append(f"takes {length} tokens of prompt and response, and training needs {max_length}: raise max-model-len")
    mode = (config.get("model_config") or {}).get("logprobs_mode")
    if isinstance(loss, GRPO) and mode != "processed_logprobs":
        faults.append(f"has logprobs-mode {mode}, and grpo corrects by the probabilities that the server sampled from: processed_logprobs")
    return faults
