"""`eva ablate`: is the difference between recipes real? All arms of a study with all seeds, over one store."""

from pathlib import Path
from typing import Annotated

import typer

from cli.shared import JsonOption, RepairOption, SetOption, TrustOption, changes_of, opened_folder, show, this_command

VARY = (
    "Instead of a study: vary a field of the RECIPE. The first value of each field makes the first arm; every other arm changes one field "
    "to one other value. May be repeated."
)
SEEDS = "Number of seeds, or a list as in 1,2,3; replaces the study's."
JOBS = "Runs at a time."
DEFAULT_JOBS = "one per GPU (per GPUs of the launch file); without GPUs one per core, at most 8"

StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="Path of a study, or name of a packaged one; with --vary, a recipe.")]
VaryOption = Annotated[list[str] | None, typer.Option("--vary", metavar="A.B=C,D", help=VARY)]
BaseOption = Annotated[str | None, typer.Option("--base", metavar="RECIPE", help="The same study on another recipe.")]
MeasureOption = Annotated[
    str | None,
    typer.Option("--measure", metavar="BENCHMARK.SCORE", help="What is compared, as in lettercraft.sampled; replaces the study's."),
]
SeedsOption = Annotated[str | None, typer.Option("--seeds", metavar="N", help=SEEDS)]
StudyDirOption = Annotated[
    Path | None, typer.Option("--study-dir", metavar="D", help="Folder of the study.", show_default="runs/<study name>")
]
StudyStoreOption = Annotated[
    Path | None, typer.Option("--store", metavar="D", help="Folder where runs share artifacts.", show_default=".store beside the study")
]


def ablate(
    study: StudyArgument,
    vary: VaryOption = None,
    base: BaseOption = None,
    measure: MeasureOption = None,
    seeds: SeedsOption = None,
    overrides: SetOption = None,
    jobs: Annotated[int | None, typer.Option("--jobs", metavar="N", min=1, help=JOBS, show_default=DEFAULT_JOBS)] = None,
    study_dir: StudyDirOption = None,
    store: StudyStoreOption = None,
    repair: RepairOption = False,
    plan: Annotated[bool, typer.Option("--plan", help="Show what would be computed, and what it costs; compute nothing.")] = False,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a study: every arm with every seed, and what differs, with intervals. Resumable; shared stages are computed once.

    --set changes all arms; an arm's own settings have precedence.
    """
    from cli.job_shares import job_environments
    from cli.plan import plan_study
    from cli.study_preparing import prepare_study, read_request, study_store
    from cli.study_running import RunOfStudy, write_record
    from eva_stages.core.durable import writing_to
    from eva_stages.core.errors import ConfigError, StageError
    from eva_stages.core.run_folder import Run
    from eva_stages.core.side_by_side import complete_runs
    from eva_stages.core.sockets import use_short_temporary_folder
    from eva_stages.core.study_progress import StudyReporter
    from eva_stages.core.terminal import note
    from eva_stages.publishing.report.study_page import REPORT
    from eva_stages.publishing.study_results import write_results
    from eva_stages.views.study_runs import DONE_STATE
    from eva_stages.views.study_tables import study_tables

    loaded_study = read_request(study, vary or [], changes_of(overrides, trust), base, measure, seeds)
    folder = opened_folder(study_dir or Path("runs") / loaded_study.name)
    if (folder / "recipe.yaml").is_file():
        raise ConfigError([f"{folder} is the folder of a run; choose another one for the study with --study-dir"])
    if plan:
        plan_study(loaded_study, folder, store, None, False, False, as_json)
        return
    use_short_temporary_folder()
    prepared_study = prepare_study(loaded_study, folder, this_command())
    for text in prepared_study.notes:
        note(f"note: {text}")
    record = prepared_study.record
    environments = job_environments(jobs, loaded_study.recipes.values())
    shared_store = store or study_store(folder, record.arms)
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with Run(folder).lock():
            write_record(folder, record)
            tokens = record.budget.generated_tokens
            runs = [RunOfStudy(run, folder / run.label, shared_store, tokens) for run in prepared_study.runs]
            failures = complete_runs(runs, environments, StudyReporter([run.label for run in runs]), repair)
            document = write_results(folder)
    states = {f"{run['arm']}/{run['seed']}": run for run in document["runs"]}
    failures |= {label: run["cause"] for label, run in states.items() if label not in failures and run["state"] != DONE_STATE}
    show(document, study_tables, as_json)
    note(f"report: {folder / REPORT}")
    if failures:
        causes = dict.fromkeys(failures.values())
        texts = [f"{', '.join(run for run, own_cause in failures.items() if own_cause == cause)}: {cause}" for cause in causes]
        raise StageError(f"{len(failures)} of {len(runs)} runs failed; a rerun tries them again. " + "; ".join(texts))
