"""`eva ablate`: is the difference between recipes real? All arms of a study with all seeds, over one store."""

from pathlib import Path
from typing import Annotated

import typer

from cli.completion import complete_field, complete_recipe, complete_study
from cli.next_steps import after_study
from cli.output_options import show_next
from cli.shared import JsonOption, RepairOption, SetOption, TrustOption, changes_of, opened_folder, show, this_command

VARY = (
    "Instead of a study: vary a field of the RECIPE. The first value of each field makes the first arm; every other arm changes one field "
    "to one other value. May be repeated."
)
SEEDS = "Number of seeds, or a list as in 1,2,3; replaces the study's."
JOBS = "Runs at a time."
DEFAULT_JOBS = "one per GPU (per GPUs of the launch file); without GPUs one per core, at most 8"

StudyArgument = Annotated[
    str,
    typer.Argument(
        metavar="STUDY", help="Path of a study, or name of a packaged one; with --vary, a recipe.", autocompletion=complete_study
    ),
]
VaryOption = Annotated[list[str] | None, typer.Option("--vary", metavar="A.B=C,D", help=VARY, autocompletion=complete_field)]
BaseOption = Annotated[
    str | None, typer.Option("--base", metavar="RECIPE", help="The same study on another recipe.", autocompletion=complete_recipe)
]
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
    from cli.plan import plan_study
    from eva_stages.api.study_completion import complete_study, failure_text
    from eva_stages.api.study_preparing import read_request
    from eva_stages.core.errors import StageError
    from eva_stages.core.study_progress import StudyReporter
    from eva_stages.core.terminal import note
    from eva_stages.publishing.report.study_page import REPORT
    from eva_stages.views.study_tables import study_tables

    loaded_study = read_request(study, vary or [], changes_of(overrides, trust), base, measure, seeds)
    folder = opened_folder(study_dir or Path("runs") / loaded_study.name)
    if plan:
        plan_study(loaded_study, folder, store, None, False, False, as_json)
        return
    document, failures = complete_study(loaded_study, folder, store, jobs, repair, StudyReporter, this_command())
    show(document, study_tables, as_json)
    note(f"report: {folder / REPORT}")
    if failures:
        raise StageError(failure_text(failures, len(document["runs"])))
    show_next(after_study(folder), as_json)
