"""`eva eval score`, `compare` and `table`: scores of judgments and runs, and whether a difference is significant. No model, no network."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from cli.bench_names import JUDGED_BENCHMARKS
from cli.completion import complete_run
from cli.next_steps import after_comparison, after_scores, after_table
from cli.output_options import show_next
from cli.shared import JsonOption, RunArgument, existing_run, show

if TYPE_CHECKING:
    from eva_stages.core.text_table import TextTable
    from eva_stages.views.comparison import Measurement

_LIST_OPTIONS = ("--judgments", "--answers")

CsvOption = Annotated[bool, typer.Option("--csv", help="The table as CSV on stdout, numbers in full.")]
MarkdownOption = Annotated[bool, typer.Option("--markdown", help="The tables as Markdown on stdout.")]
BenchArgument = Annotated[
    str, typer.Argument(metavar="BENCH", help=" | ".join(JUDGED_BENCHMARKS), autocompletion=lambda: JUDGED_BENCHMARKS)
]


class ManyFiles(TyperCommand):
    """A command whose `--judgments` and `--answers` take any number of files, as in `--judgments a.jsonl b.jsonl`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        expanded_arguments: list[str] = []
        option = ""
        for word in args:
            if word.startswith("-"):
                option = name if (name := word.partition("=")[0]) in _LIST_OPTIONS else ""
                expanded_arguments += [] if word in _LIST_OPTIONS else [word]
            elif option and (word not in JUDGED_BENCHMARKS or Path(word).exists()):
                expanded_arguments += [option, word]
            else:
                expanded_arguments.append(word)
        return super().parse_args(ctx, expanded_arguments)


def score(
    bench: BenchArgument,
    judgments: Annotated[list[Path], typer.Option("--judgments", metavar="FILE...", help="Judgment files, plain or gzipped.")],
    answers: Annotated[
        list[Path] | None,
        typer.Option("--answers", metavar="FILE...", help="Answer files, for lengths, style control and AlpacaEval's order."),
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="MT-Bench questions, for other categories than the official.")
    ] = None,
    gamed: Annotated[Path | None, typer.Option(metavar="FILE", help="AlpacaEval's df_gamed.csv.", show_default="the Hub's cache")] = None,
    instruction_difficulty: Annotated[
        Path | None, typer.Option(metavar="FILE", help="AlpacaEval's instruction_difficulty.csv.", show_default="the Hub's cache")
    ] = None,
    glm_weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Published GLM coefficients of AlpacaEval, where df_gamed.csv is missing.")
    ] = None,
    radar: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw MT-Bench's categories to a PNG or SVG file.")] = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    as_markdown: MarkdownOption = False,
) -> None:
    """Score existing judgments of FastChat, arena-hard-auto or alpaca_eval as the official tools do."""
    from eva_stages.evaluation.alpaca import available_hub_files
    from eva_stages.evaluation.file_scores import score_files
    from eva_stages.views.score_tables import score_tables

    mt_bench_options = {"--questions": questions, "--radar": radar}
    files = {"--gamed": gamed, "--instruction-difficulty": instruction_difficulty, "--glm-weights": glm_weights}
    _check(bench, {"mt-bench": mt_bench_options, "alpaca-eval": files}, radar)
    hub_files = available_hub_files(gamed, instruction_difficulty, glm_weights) if bench == "alpaca-eval" else None
    document = score_files(bench, judgments, answers or [], questions, hub_files)
    if radar is not None:
        from eva_stages.evaluation.mt_bench import radar as draw

        names = [model["model"] for model in document["models"]]
        labels = [
            model["model"] if names.count(model["model"]) == 1 else f"{model['model']} ({model['judge']})" for model in document["models"]
        ]
        draw({label: model["categories"] for label, model in zip(labels, document["models"], strict=True)}, radar)
    _print(document, score_tables(document), as_json, as_csv, as_markdown)
    show_next(after_scores(bench), as_json or as_csv or as_markdown)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", autocompletion=complete_run, help="A run, or a file of judgments with --bench.")],
    other_sides: Annotated[
        list[str] | None,
        typer.Argument(metavar="B", autocompletion=complete_run, help="Others; without them, A's iterations against its base policy."),
    ] = None,
    bench: Annotated[
        str | None,
        typer.Option(
            metavar="BENCH", autocompletion=lambda: JUDGED_BENCHMARKS, help=f"A and B are judgments of: {' | '.join(JUDGED_BENCHMARKS)}"
        ),
    ] = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    as_markdown: MarkdownOption = False,
) -> None:
    """Differences with intervals, P(better) and corrected p values, on the benchmarks that A and each B share."""
    from eva_stages.core.errors import ConfigError
    from eva_stages.views.comparison import compare as compare_values
    from eva_stages.views.comparison import compare_iterations
    from eva_stages.views.score_tables import comparison_tables

    if bench is not None:
        _check(bench, {}, None)
    if not other_sides and bench is not None:
        raise ConfigError([f"--bench {bench} compares two files of judgments; give a second one"])
    sides = [_values(side, bench) for side in (a, *(other_sides or []))]
    document = compare_values(sides) if other_sides else compare_iterations(sides[0])
    _print(document, comparison_tables(document), as_json, as_csv, as_markdown)
    show_next(after_comparison([a, *(other_sides or [])], bench), as_json or as_csv or as_markdown)


def table(run: RunArgument, as_json: JsonOption = False, as_csv: CsvOption = False, as_markdown: MarkdownOption = False) -> None:
    """The scores of a run, benchmark by policy, with published scores of known models beside them."""
    from eva_stages.core.terminal import note
    from eva_stages.core.variants import other_variants
    from eva_stages.views.history import read_history
    from eva_stages.views.run_scores import run_results, run_table
    from eva_stages.views.run_summary import summary

    folder = existing_run(run)
    for variant in other_variants(folder):
        note(variant.description(folder.root))
    document = run_results(summary(read_history(folder)))
    _print(document, run_table(document), as_json, as_csv, as_markdown)
    show_next(after_table(run), as_json or as_csv or as_markdown)


def _values(side: str, bench: str | None) -> "list[Measurement]":
    from eva_stages.core.errors import ConfigError
    from eva_stages.views.comparison import file_values, run_values
    from eva_stages.views.history import read_history

    if bench is not None:
        return file_values(bench, Path(side))
    if Path(side).is_file():
        raise ConfigError([f"{side} is a file; to compare judgments, give their benchmark with --bench {' | '.join(JUDGED_BENCHMARKS)}"])
    return run_values(side, read_history(existing_run(side)))


def _check(bench: str, options_of_benchmarks: dict[str, dict[str, Path | None]], radar: Path | None) -> None:
    """Report all errors of the arguments at once."""
    from eva_stages.core.errors import ConfigError

    errors = [] if bench in JUDGED_BENCHMARKS else [f"there is no benchmark {bench!r}; known: {', '.join(JUDGED_BENCHMARKS)}"]
    for owner, options in options_of_benchmarks.items():
        errors += [f"{name} is for {owner} only" for name, value in options.items() if value is not None and bench != owner]
    if radar is not None and radar.suffix not in (".png", ".svg"):
        errors.append(f"--radar {radar}: the suffix decides the format; use .png or .svg")
    if radar is not None and not radar.parent.is_dir():
        errors.append(f"--radar {radar}: there is no folder {radar.parent}")
    if errors:
        raise ConfigError(errors)


def _print(document: dict[str, Any], tables: "list[TextTable]", as_json: bool, as_csv: bool, as_markdown: bool) -> None:
    from eva_stages.core import text_table
    from eva_stages.core.errors import ConfigError
    from eva_stages.core.terminal import print_text

    if as_json + as_csv + as_markdown > 1:
        raise ConfigError(["--json, --csv and --markdown exclude each other; use one"])
    if as_csv:
        print_text(text_table.as_csv(tables[0]))
    elif as_markdown:
        print_text(text_table.as_markdown(tables))
    else:
        show(document, lambda _: text_table.as_rich(tables), as_json)
