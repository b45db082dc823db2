"""Kills a study at random until it has finished, and compares its results with those of an uninterrupted one.

python -m benchmarks.study_chaos --kills 20

The study has two arms and two seeds of a small Lettercraft recipe, two runs at a time. A kill is one of `benchmarks.chaos`: of the process
group, or every third time of a single process. At the end `results.json`, `results.csv`, `report.html` and the plots' files have to be the
same to the byte, without their times and the command, with every stage computed once and nothing left in the store's folder `work`.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from benchmarks.chaos import SMALL, command_of_python, run_to_end, torment
from eva_stages.core.garbage import study_runs
from eva_stages.core.run_folder import Run
from eva_stages.publishing.report.study_page import PLOTS, REPORT
from eva_stages.publishing.study_results import RESULTS_CSV, RESULTS_JSON
from eva_stages.views.study_document import without_times

STUDY = {
    "name": "small",
    "question": "Does selecting by the reward gap make a difference?",
    "base": "quickstart",
    "set": {**SMALL, "prompts.size": 16, "evaluation.benchmarks.0.prompts": 12},
    "seeds": 2,
    "measure": "lettercraft.sampled",
    "arms": {"gap": {}, "uniform": {"creator.metric": "uniform"}},
}
DIFFERENT_PARTS = re.compile(r'<section id="costs">.*?</section>|[^\n]* computes what is missing and writes this report again', re.DOTALL)
"""Of the report: its times, and the command."""


class RunsOfStudy(Run):
    """A study's folder, with the events of all of its runs."""

    def events(self) -> list[dict[str, Any]]:
        return sorted((event for run in study_runs(self.root) for event in run.events()), key=lambda event: event["time"])


def study_command(study: Path, folder: Path) -> list[str]:
    return command_of_python("ablate", str(study), "--jobs", "2", "--study-dir", str(folder), "--store", str(folder / ".store"))


def results(folder: Path) -> dict[str, str]:
    """The texts of the results' files by name, without times and the command."""
    document = without_times(json.loads((folder / RESULTS_JSON).read_text(encoding="utf-8")))
    document.pop("command")
    page = DIFFERENT_PARTS.sub("", (folder / REPORT).read_text(encoding="utf-8"))
    plots = {f"{PLOTS}/{path.name}": path.read_text(encoding="utf-8") for path in sorted((folder / PLOTS).glob("*.svg"))}
    table = (folder / RESULTS_CSV).read_text(encoding="utf-8")
    return {RESULTS_JSON: json.dumps(document, indent=1), RESULTS_CSV: table, REPORT: page, **plots}


def faults_of(folder: Path, reference: Path) -> list[str]:
    texts, reference_texts = results(folder), results(reference)
    faults = [f"{name} differs" for name in sorted(texts | reference_texts) if texts.get(name) != reference_texts.get(name)]
    counts = Counter(event["fingerprint"] for event in RunsOfStudy(folder).events() if event["event"] == "done")
    expected_stages = {event["fingerprint"] for event in RunsOfStudy(reference).events() if event["event"] == "done"}
    faults += [f"{fingerprint[:12]} was computed {count} times" for fingerprint, count in counts.items() if count > 1]
    faults += [] if set(counts) == expected_stages else ["other stages were computed than in the uninterrupted study"]
    return faults + [f"left in work: {path.name}" for path in (folder / ".store" / "work").iterdir()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--mean", type=float, help="mean seconds to a kill; default: a sixth of the uninterrupted study")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, faults = random.Random(arguments.seed), list[str]()
    kills = studies = 0
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        study = home / "small.yaml"
        study.write_text(yaml.safe_dump(STUDY), encoding="utf-8")
        start = time.monotonic()
        run_to_end(study_command(study, home / "unbroken"))
        reference_seconds = time.monotonic() - start
        print(f"uninterrupted: {reference_seconds:.0f} s", flush=True)
        while kills < arguments.kills:
            studies += 1
            folder = home / f"study-{studies}"
            mean = arguments.mean or reference_seconds / 6
            new_kills, starts = torment(study_command(study, folder), folder, arguments.kills - kills, mean, rng, RunsOfStudy(folder))
            kills += len(new_kills)
            faults += faults_of(folder, home / "unbroken")
            print(f"study {studies}: {len(new_kills)} kills, {starts} starts, {time.monotonic() - start:.0f} s so far", flush=True)
    print("\n".join(faults) or f"{kills} kills in {studies} studies: the results equal the uninterrupted study's to the byte")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
