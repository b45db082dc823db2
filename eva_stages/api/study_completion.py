"""Running a study: record it in its folder, complete the runs side by side, write the results."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from eva_stages.api.run_places import check_study_folder
from eva_stages.core.study_files import LoadedStudy
from eva_stages.core.study_progress import StudyReporter
from eva_stages.core.terminal import note


def complete_study(
    loaded_study: LoadedStudy,
    folder: Path,
    store: Path | None,
    jobs: int | None,
    repair: bool,
    reporter_for: Callable[[Sequence[str]], StudyReporter],
    command: str | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Complete the runs of a study, and write its results. Runs that are complete are reused.

    Args:
        folder: of the study.
        store: folder where runs share artifacts; None: see `study_store`.
        jobs: runs at a time; None: as many as the GPUs or cores allow.
        reporter_for: from the labels of the runs to what reports their progress.
        command: that reruns the study.

    Returns:
        The document of the study, and the causes of failed runs by their labels.

    Raises:
        ConfigError: with every error of any arm, before anything runs.
    """
    from eva_stages.api.job_shares import job_environments
    from eva_stages.api.study_preparing import prepare_study, study_store
    from eva_stages.api.study_running import RunOfStudy, write_record
    from eva_stages.core.durable import writing_to
    from eva_stages.core.errors import ConfigError
    from eva_stages.core.run_folder import Run
    from eva_stages.core.side_by_side import complete_runs
    from eva_stages.core.sockets import use_short_temporary_folder
    from eva_stages.publishing.study_results import write_results
    from eva_stages.views.study_runs import DONE_STATE

    check_study_folder(folder)
    use_short_temporary_folder()
    prepared_study = prepare_study(loaded_study, folder, command)
    record, runs = prepared_study.record, prepared_study.runs
    reporter = reporter_for([run.label for run in runs])
    for text in prepared_study.notes:
        note(f"note: {text}")
    environments = job_environments(jobs, loaded_study.recipes.values())
    shared_store = store or study_store(folder, record.arms)
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with Run(folder).lock():
            planned_runs = [RunOfStudy(run, folder / run.label, shared_store, record.budget.generated_tokens) for run in runs]
            if errors := dict.fromkeys(error for run in planned_runs for error in run.missing_devices()):
                raise ConfigError(list(errors))
            write_record(folder, record)
            failures = complete_runs(planned_runs, environments, reporter, repair)
            document = write_results(folder)
    states = {f"{run['arm']}/{run['seed']}": run for run in document["runs"]}
    return document, failures | {
        label: str(run["cause"]) for label, run in states.items() if label not in failures and run["state"] != DONE_STATE
    }


def failure_text(failures: Mapping[str, str], runs: int) -> str:
    """How many of the runs failed, and why."""
    causes = dict.fromkeys(failures.values())
    texts = [f"{', '.join(run for run, own_cause in failures.items() if own_cause == cause)}: {cause}" for cause in causes]
    return f"{len(failures)} of {runs} runs failed; a rerun tries them again. " + "; ".join(texts)
