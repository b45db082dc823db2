"""A run that an unhealthy iteration ends, and how it goes on."""

import json
import shutil
from pathlib import Path

from tests.conftest import TINY, events, manifests, overrides, run_eva


def test_a_figure_that_stops_ends_the_run_after_its_iteration_and_another_limit_goes_on(tiny_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    for folder in run.glob("stages/1-*"):
        shutil.rmtree(folder)
    known = events(run)
    kl = manifests(run)["0-health"]["figures"]["kl"]
    assert kl > 0
    arguments = ("run", "quickstart", "--run-dir", str(run), *overrides(TINY))

    said = run_eva(*arguments, "--set", "health.kl=0", "--set", "health.stop=[kl]", code=1).stderr
    assert f"KL divergence from theta_0 (nats per answer) is {kl:.3g}, above the limit health.kl=0: the policy may have drifted far" in said
    assert "stops after iteration 0" in said and "--set health.kl=..." in said and "resume with: eva run quickstart" in said
    new = events(run)[len(known) :]
    assert [(event["event"], event["stage"]) for event in new] == [("stopped", "0-health")]

    goes_on = run_eva(*arguments, "--set", "health.stop=[kl]", "--set", f"health.kl={kl + 1}", "--iterations", "0", "--json")
    assert json.loads(goes_on.stdout)["iterations"][0]["health"]["warnings"] == []
    assert events(run)[len(known) + 1 :] == []


def test_a_figure_that_warns_is_told_and_the_table_shows_it(tiny_run: Path) -> None:
    done = run_eva("run", "quickstart", "--run-dir", str(tiny_run), *overrides(TINY), "--set", "health.equal_responses=0")
    assert "1-health: warning: share of sampled answers that repeat another one is " in done.stderr
    assert "iteration 1: share of sampled answers" in done.stdout and "1 warning" in done.stdout
