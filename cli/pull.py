"""`eva pull`: a pushed run back from the Hub."""

from pathlib import Path
from typing import Annotated

import typer

from cli.next_steps import after_pull
from cli.output_options import show_next
from cli.shared import opened_folder


def pull(
    name: Annotated[str, typer.Argument(metavar="NAMESPACE/RUN", help="The run's data set on the Hub.")],
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="Folder of the run.", show_default="runs/RUN")] = None,
) -> None:
    """Bring a pushed run back to where status, report, lineage, audit and eval table work on it. An interrupted pull resumes."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    from eva_stages.core.errors import ConfigError
    from eva_stages.core.terminal import note, print_text
    from eva_stages.publishing.hub import Hub
    from eva_stages.publishing.pulling import pull_run

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError([f"{name} is not the name of a repository ({error}); give NAMESPACE/RUN, as in me/quickstart"]) from error
    if "/" not in name:
        raise ConfigError([f"{name} has no namespace; give NAMESPACE/RUN, as in me/{name}"])
    root = opened_folder(to if to is not None else Path("runs") / name.partition("/")[2])
    outcome = pull_run(name, root, Hub(note, reads_only=True), note)
    for sentence in outcome.missing:
        note(f"note: {sentence}")
    print_text(f"{outcome.stages} stages in {outcome.root}; {outcome.files} files are new\n")
    show_next(after_pull(root))
