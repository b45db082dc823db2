"""`--quiet` and `--verbose`, the same for every command that prints; and the line with what to do next."""

import functools
import inspect
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

QUIET = "Print results, warnings and errors only: no progress, no lines about stages, no next step."
VERBOSE = "Also print what the processes of the stages and their libraries write to their logs."
_OWN_OPTIONS = {"-q": 0, "--quiet": 0, "-v": 0, "--verbose": 0, "--json": 0}


def with_output_options(command: Callable[..., None], next_step: Callable[[], str] | None = None) -> Callable[..., None]:
    """A command with `-q/--quiet` and `-v/--verbose`; what it prints on stdout is the same with both.

    Args:
        next_step: what to do after it, if the command does not say so itself.
    """

    @functools.wraps(command)
    def run(*arguments: Any, quiet: bool, verbose: bool, **options: Any) -> None:
        from eva_stages.core.terminal import Verbosity, set_verbosity

        if quiet and verbose:
            raise typer.BadParameter("--quiet and --verbose exclude each other; use one")
        set_verbosity(Verbosity.QUIET if quiet else Verbosity.VERBOSE if verbose else Verbosity.NORMAL)
        command(*arguments, **options)
        if next_step is not None:
            show_next(next_step(), options.get("as_json", False))

    hints = {
        "quiet": Annotated[bool, typer.Option("--quiet", "-q", help=QUIET)],
        "verbose": Annotated[bool, typer.Option("--verbose", "-v", help=VERBOSE)],
    }
    kind = inspect.Parameter.KEYWORD_ONLY
    signature = inspect.signature(command)
    added_parameters = [inspect.Parameter(name, kind, default=False, annotation=hint) for name, hint in hints.items()]
    run.__annotations__ = {**command.__annotations__, **hints}
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), *added_parameters])  # type: ignore[attr-defined]
    return run


def show_next(text: str, as_json: bool = False) -> None:
    """Print what to do next, as the last line on standard error; nothing with `--json` or `--quiet`."""
    from eva_stages.core.terminal import Verbosity, note, verbosity

    if not as_json and verbosity() != Verbosity.QUIET:
        note(f"next: {text}")


def following_command(name: str, dropped_options: Mapping[str, int], replaced_options: Mapping[str, str] | None = None) -> str:
    """The command as typed, as another command with the same arguments.

    Args:
        name: of the other command, in place of the first word.
        dropped_options: options that it does not have, with their number of values; those of all commands are dropped in any case.
        replaced_options: options with new values.
    """
    dropped_options, words, remaining_words = {**_OWN_OPTIONS, **dropped_options}, list[str](), sys.argv[2:]
    while remaining_words:
        word = remaining_words.pop(0)
        option, sign, _ = word.partition("=")
        if option in dropped_options:
            del remaining_words[: 0 if sign else dropped_options[option]]
        elif replaced_options and option in replaced_options:
            words += [option, replaced_options[option]]
            del remaining_words[: 0 if sign else 1]
        else:
            words.append(word)
    return shlex.join(["eva", *name.split(), *words])
