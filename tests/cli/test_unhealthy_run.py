"""A run that an unhealthy iteration ends, and how it goes on."""

import json
import shutil
from pathlib import Path

from eva_stages.core.manifests import read_manifest
from tests.conftest import TINY, events, manifests, overrides, run_eva

PROBE_STAGES = ["0-probe", "0-base-probe", "0-base-probe-reward", "0-eval-probe", "0-eval-probe-reward", "0-health"]


def test_a_figure_that_stops_ends_the_run_after_its_iteration_and_another_limit_goes_on(tiny_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    for folder in run.glob("stages/1-*"):
        shutil.rmtree(folder)
    event_count = len(events(run))
    settings = TINY | {"evaluation.benchmarks": [], "health.answers": 32, "runtime.rows_per_part": 64, "health.stop": ["equal_responses"]}
    arguments = ("run", "quickstart", "--run-dir", str(run), *overrides(settings))

    error_text = run_eva(*arguments, "--set", "health.equal_responses=0", code=1).stderr
    health = run / "stages" / f"0-health-{events(run)[-1]['fingerprint'][:12]}"  # beside the tiny run's own
    figures = read_manifest(health)["figures"]
    value = figures["equal_responses"]
    assert f"equal another one is {value:.3g}, above the limit health.equal_responses=0: the policy may have collapsed" in error_text
    assert (
        "stops after iteration 0" in error_text
        and "--set health.equal_responses=..." in error_text
        and "resume with: eva run quickstart" in error_text
    )
    new = events(run)[event_count:]
    assert sorted(event["stage"] for event in new if event["event"] == "done") == sorted(PROBE_STAGES)
    assert (new[-1]["event"], new[-1]["stage"]) == ("stopped", "0-health")

    manifest_by_label = manifests(run)
    assert manifest_by_label["0-probe"]["rows"] == 8 and manifest_by_label["0-eval-probe"]["counts"]["responses"] == 32
    assert abs(figures["kl"]) > abs(figures["kl_per_token"]) > 0 and figures["reward"] is not None and figures["win_rate"] is None

    event_count += len(new)
    goes_on = run_eva(*arguments, "--set", "health.equal_responses=1", "--iterations", "0", "--json")
    assert json.loads(goes_on.stdout)["iterations"][0]["health"] == {"figures": figures, "warnings": []}
    assert events(run)[event_count:] == []


def test_a_figure_that_warns_is_told_and_the_table_shows_it(tiny_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    result = run_eva("run", "quickstart", "--run-dir", str(run), *overrides(TINY), "--set", "health.equal_responses=0")
    assert "1-health: warning: share of sampled responses that equal another one is " in result.stderr
    assert "iteration 1: share of sampled responses" in result.stdout and "1 warning" in result.stdout
