"""`eva push`: a run's rows and policies on the Hub, with cards."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cli.next_steps import after_push
from cli.output_options import show_next
from cli.shared import RunArgument, existing_run

if TYPE_CHECKING:
    from eva_stages.core.text_table import TextTable
    from eva_stages.publishing.pushing import Outcome


class Part(StrEnum):
    datasets = "datasets"
    models = "models"
    report = "report"


def push(
    run: RunArgument,
    to: Annotated[str, typer.Option("--to", metavar="NAMESPACE", help="User or organisation on the Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Create private repositories.")] = False,
    part: Annotated[Part | None, typer.Option("--only", help="Push this part only.")] = None,
    iteration: Annotated[int | None, typer.Option("--iteration", metavar="T", min=0, help="Push this iteration only.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be pushed; makes no network calls.")] = False,
) -> None:
    """Push a run to the Hub: one data set, a model per iteration, a collection. Repeated pushes send only what has changed."""
    from eva_stages.core.terminal import Terminal, note
    from eva_stages.core.text_table import as_rich
    from eva_stages.publishing.contents import Selection
    from eva_stages.publishing.pushing import push_run

    selection = Selection(part.value if part else None, iteration)
    outcomes, collection = push_run(existing_run(run), to, private, selection, dry_run, note)
    console = Terminal()
    console.print(as_rich([_table(outcomes, dry_run)]))
    if collection:
        console.print(f"collection: {collection}", soft_wrap=True)
    show_next(after_push(dry_run, collection))


def _table(outcomes: "list[Outcome]", dry_run: bool) -> "TextTable":
    from eva_stages.core.text_table import TextTable

    rows = [
        (
            outcome.repository.name,
            f"{len(outcome.repository.files):,}",
            f"{len(outcome.changed_paths):,}",
            f"{outcome.size:,}",
            (outcome.commit or "")[:12],
        )
        for outcome in outcomes
    ]
    heads = ("repository", "files", "to send" if dry_run else "sent", "bytes", "commit")
    return TextTable("would be pushed" if dry_run else "pushed", heads, rows, alignment="lrrrl")
