"""What a recipe asks of a cluster, looked at before anything starts."""

import socket
from pathlib import Path

import pytest

from eva_stages.core.cluster import check_engine, missing
from eva_stages.core.config.engine_config import Copies, LocalEngine, RayEngine
from eva_stages.core.errors import ConfigError
from eva_stages.core.recipe_files import load_recipe
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import RUN, WORK, Input, RowStage, Use
from tests.building import check

STAGES = [RowStage("respond", 0, {}), RowStage("reward", 0, {})]


def test_a_cluster_that_does_not_answer_and_a_stage_that_there_is_not(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.create()
    check_engine(LocalEngine(), run, STAGES)
    with socket.socket() as closed_socket:
        closed_socket.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed_socket.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"runtime.engine.address: no Ray cluster at {address} .*ray start --head"):
            check_engine(RayEngine(kind="ray", address=address), run, STAGES)
    steps = {"reward": Copies(), "respnd": Copies()}
    with pytest.raises(ConfigError, match=r"runtime\.engine\.steps: unknown row stages: respnd; row stages: respond, reward"):
        check_engine(RayEngine(kind="ray", steps=steps), run, STAGES)
    assert missing([str(tmp_path), str(tmp_path / "gone")]) == [str(tmp_path / "gone")]


@pytest.mark.parametrize(
    ("launch", "starter", "says"),
    [
        ("multi_node", "null", "multi_node has 4 machines; give the starter of training, slurm or ray"),
        ("cpu", "ray", "cpu has one machine, which needs no starter"),
        ("multi_node", "slurm", "srun is not installed here"),
    ],
)
def test_a_launch_file_and_its_starter_belong_together(launch: str, starter: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    runtime = "solver.training.runtime"
    changes = [f"{runtime}.launch={launch}", f"{runtime}.starter={starter}", "solver.training.batch_size=1024"]
    with pytest.raises(ConfigError, match=says):
        check(load_recipe("quickstart", changes))


def test_a_step_that_keeps_something_beside_the_run_says_so() -> None:
    paid_step = Use("step", {"llm": Use("paid", {}, {"journal": Input(RUN)})})
    assert paid_step.needs(RUN) and not paid_step.needs(WORK)
    assert not Use("step", {"llm": Use("own", {"model": Input("policy")})}).needs(RUN)
