"""Damage to what was finished is named with the command that mends it; `--repair` makes anew what is damaged, and no more."""

import shutil
from pathlib import Path

from tests.conftest import TINY, artifact_folder, events, manifests, overrides, run_eva


def flip(run: Path, label: str) -> None:
    path = artifact_folder(run, label) / "data" / "rows.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_damage_is_named_and_every_command_that_runs_stages_repairs_its_own(tiny_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    arguments = ("quickstart", "--run-dir", str(run), *overrides(TINY))
    flip(run, "1-curate")
    (scores,) = run.glob("stages/1-eval-score-*/manifest.json")
    scores.write_text(scores.read_text()[:200])

    error_text = run_eva("run", *arguments, code=1).stderr
    assert "1-curate" in error_text and "has changed since it was built" in error_text
    last = error_text.strip().splitlines()[-1]
    assert last.startswith(f"repair with: eva run quickstart --run-dir {run} ") and last.endswith(" --repair")

    event_count = len(events(run))
    second_error = run_eva("creator", *arguments, "--iteration", "1", "--repair").stderr
    assert "1-curate: " in second_error and str(run / "damaged") in second_error
    run_eva("eval", "run", *arguments, "--repair")
    (pairs,) = run.glob("stages/1-pair-*/data/rows.parquet")
    pairs.write_bytes(pairs.read_bytes()[:100])
    run_eva("solver", *arguments, "--iteration", "1", "--repair")
    flip(run, "0-pair")
    run_eva("run", *arguments, "--repair")
    repaired_labels = ["1-curate", "1-eval-score", "1-pair", "0-pair"]
    for kind in ("repair", "start", "done"):
        assert [event["stage"] for event in events(run)[event_count:] if event["event"] == kind] == repaired_labels, (
            "what was made from them stands"
        )
    assert {label: manifest["digest"] for label, manifest in manifests(run).items()} == {
        label: manifest["digest"] for label, manifest in manifests(tiny_run).items()
    }
    assert len(list((run / "damaged").iterdir())) == len(repaired_labels)
