"""The `eva` command. Nothing heavy is imported here; each command imports what it needs when it runs.

Exit codes: 0 done, 1 failed stage, 2 bad usage or recipe, 130 interrupted.
"""

import io
import locale
import os
import signal
import sys
import threading
from types import FrameType
from typing import Annotated, Any

import typer

from cli import completion, evaluate, recipes
from cli.ablate import ablate
from cli.audit import audit
from cli.convert import convert
from cli.creator_solver import creator, solver
from cli.doctor import doctor
from cli.lineage import lineage
from cli.next_steps import after_doctor, after_validation
from cli.output_options import with_output_options
from cli.plan import plan
from cli.pull import pull
from cli.push import push
from cli.report import report
from cli.run import run
from cli.runs import gc, runs
from cli.shared import present_run, repairing_command, this_command
from cli.status import status

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="eva: open-ended RLHF, where the training prompts evolve together with the policy.",
)
for command in (run, ablate, creator, solver, plan, status, audit, runs, gc, lineage, report, push, pull, convert):
    app.command(command.__name__)(with_output_options(command))
app.command("doctor")(with_output_options(doctor, after_doctor))
app.command("validate")(with_output_options(recipes.validate, after_validation))
app.add_typer(evaluate.app, name="eval")
app.add_typer(recipes.app, name="recipes")


def _print_version(is_given: bool) -> None:
    if is_given:
        from importlib.metadata import version

        print(f"eva {version('eva-align')}")
        raise typer.Exit


@app.callback()
def common_options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Options that stand before the command."""


def main() -> None:
    """Run the command line and exit with its code."""
    if completion.REQUEST in os.environ:
        completion.print_completions(app)
    _use_utf8()
    signal.signal(signal.SIGTERM, _interrupt)
    threading.excepthook = _report_thread_error
    _hide_library_warnings()
    sys.exit(exit_code())


def _hide_library_warnings() -> None:
    """Print warnings of libraries with `--verbose` only; in a stage's process they go to its log. Python's own option -W has precedence."""
    if sys.warnoptions:
        return
    import warnings

    def show_warning(message: Warning | str, category: type[Warning], *place: Any, **output: Any) -> None:
        from eva_stages.core.terminal import Verbosity, note, verbosity

        if verbosity() == Verbosity.VERBOSE:
            note(f"{category.__name__} of a library: {message}")

    warnings.showwarning = show_warning


def _use_utf8() -> None:
    """Continue in Python's UTF-8 mode if the locale has another encoding: files, file names and pipes of eva and its libraries are UTF-8.

    What a terminal cannot show is escaped and never stops a command.
    """
    if not sys.flags.utf8_mode and locale.getencoding().upper() not in ("UTF-8", "UTF8"):
        os.environ["PYTHONUTF8"] = "1"  # for the processes of the stages
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def exit_code() -> int:
    from eva_stages.core.errors import ConfigError, DamagedError, EvaError, StageError

    try:
        app()
    except SystemExit as exit:
        if exit.code == 130:
            _say(f"interrupted; completed work is saved. Resume with: {this_command()}")
        return exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except ConfigError as error:
        for fault in error.faults:
            _say(f"error: {fault}")
        return 2
    except StageError as error:
        _say(f"error: {error}\nresume with: {this_command()}")
    except DamagedError as error:
        _say(f"error: {error}\nrepair with: {error.command or repairing_command()}")
    except EvaError as error:
        _say(f"error: {error}")
    except BaseException as error:
        report_unexpected(error)
    else:
        return 0
    return 1


def _report_thread_error(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_value is not None:
        report_unexpected(failure.exc_value)


def report_unexpected(error: BaseException) -> None:
    """Report an unexpected error in one line; the traceback goes to a file, because it may be long and contain what the user typed."""
    from eva_stages.core.errors import describe
    from eva_stages.core.logs import save_traceback

    _say(f"error: {describe(error)}; the traceback is in {save_traceback(error, present_run())}\nresume with: {this_command()}")


def _say(text: str) -> None:
    from eva_stages.core.terminal import note

    note(text)


if __name__ == "__main__":
    main()
