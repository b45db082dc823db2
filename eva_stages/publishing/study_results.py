"""The results of a study as files in its folder: `results.json`, `results.csv` and `report.html` with its plots."""

from pathlib import Path
from typing import Any

from eva_stages.core.durable import write_whole, writing_to
from eva_stages.core.harmless import json_text
from eva_stages.core.study_record import read_study
from eva_stages.publishing.report.study_page import REPORT, study_page
from eva_stages.views.study_document import document_of
from eva_stages.views.study_runs import read_runs
from eva_stages.views.study_tables import study_csv

RESULTS_JSON, RESULTS_CSV = "results.json", "results.csv"


def write_results(folder: Path) -> dict[str, Any]:
    """Write all three from the study's folder alone; returns the document of the study.

    Raises:
        DamagedError: if `study.json` cannot be read.
        ConfigError: if runs have scores, but none of the study's measure.
        StageError: if the folder cannot be written to.
    """
    study = read_study(folder)
    document = document_of(study, read_runs(folder, study))
    with writing_to(folder):
        write_whole(folder / RESULTS_JSON, json_text(document) + "\n")
        write_whole(folder / RESULTS_CSV, study_csv(document))
        write_whole(folder / REPORT, study_page(folder, document))
    return document
