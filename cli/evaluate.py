"""`eva eval`: held-out evaluation."""

from typing import Annotated

import typer

from cli.completion import complete_benchmarks, complete_recipe
from cli.next_steps import after_evaluation
from cli.output_options import with_output_options
from cli.scoring import ManyFiles, compare, score, table
from cli.shared import JsonOption, RepairOption, RunDirOption, SetOption, StoreOption, TrustOption, changes_of

app = typer.Typer(no_args_is_help=True, help="Evaluate policies on held-out benchmarks.")
app.command("score", cls=ManyFiles)(with_output_options(score))
app.command("compare")(with_output_options(compare))
app.command("table")(with_output_options(table))


@app.command("run")
@with_output_options
def run(
    target: Annotated[
        str,
        typer.Argument(metavar="RECIPE|MODEL", help="A recipe, or a model: checkpoint folder or Hub id.", autocompletion=complete_recipe),
    ],
    bench: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", autocompletion=complete_benchmarks, help="Benchmarks, separated by commas.", show_default="the recipe's"
        ),
    ] = None,
    judge: Annotated[str | None, typer.Option(metavar="JUDGE", help="LiteLLM's name of a model, a folder, or a mapping.")] = None,
    baseline: Annotated[str | None, typer.Option(metavar="ANSWERS", help="File, published model, or `base`.")] = None,
    max_cost: Annotated[float | None, typer.Option(metavar="USD", help="What this run may spend on judges.", min=0)] = None,
    overrides: SetOption = None,
    run_dir: RunDirOption = None,
    store: StoreOption = None,
    repair: RepairOption = False,
    trust: TrustOption = False,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a model, or the base policy and the policy of every iteration of a recipe.

    Benchmarks: mt-bench, arena-hard, arena-hard-v2.0, alpaca-eval, lettercraft, gsm8k, ifeval, lm-eval.
    """
    from cli.eval_requests import MODEL_RECIPE, is_model, model_overrides, requested_recipe
    from cli.running import run_stages

    model = is_model(target)
    changes = [*(model_overrides(target) if model else []), *changes_of(overrides, trust)]
    run_stages(
        MODEL_RECIPE if model else target,
        changes,
        run_dir,
        store,
        lambda rounds: [stage for iteration in rounds for stage in iteration.evaluation],
        as_json,
        after_evaluation,
        repair=repair,
        change=lambda recipe: requested_recipe(recipe, bench, judge, baseline, max_cost),
    )
