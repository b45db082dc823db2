"""lm-evaluation-harness on a policy: the harness's tasks and code, with the policy's checkpoint as its model.

An optional extra (`pip install 'eva-align[eval]'`). The harness runs in a separate process; an interrupted run starts again. Its complete
report is in `results.json`; `score.json` has the main metric of each task with the harness's standard error. Groups of tasks are
reported as the harness aggregates them.
"""

import json
from pathlib import Path
from typing import Any

from eva_stages.core.errors import StageError
from eva_stages.core.ourfiles import read_json
from eva_stages.core.process import run_in_child
from eva_stages.core.runner import Context

RESULTS = "results.json"
METRICS = ("exact_match,flexible-extract", "exact_match,strict-match", "acc_norm,none", "acc,none", "exact_match,none", "bleu_acc,none")
"""Main metrics in order of preference; a task with none of them reports its first metric."""


def score(
    context: Context,
    tasks: list[str],
    limit: int | None,
    chat_template: bool,
    dtype: str,
    seed: int,
    runtime: dict[str, Any],
) -> dict[str, Any]:
    """Run the harness on the stage's `policy` and write its results.

    Args:
        tasks: names of the harness, or of the task files in the stage's `include`.
        limit: questions per task; None = all.
        chat_template: apply the policy's chat template to the questions.
        seed: of the harness's few-shot examples and sampling.

    Raises:
        StageError: with the harness's own message.
    """
    arguments = {
        "model": str(context.inputs["policy"]),
        "tasks": list(tasks),
        "limit": limit,
        "chat_template": chat_template,
        "dtype": dtype,
        "seed": seed,
        "include": str(context.inputs["include"]) if "include" in context.inputs else None,
        "runtime": runtime,
        "out_file": context.work / RESULTS,
    }
    run_in_child("eva_stages.evaluation.harness:run_harness", arguments, context.work / "harness.log", lambda: None)
    results = read_json(context.work / RESULTS, dict)
    main_metrics = {task: _main(task, figures) for task, figures in results["results"].items()}
    scores = {"score": None, "official": {"tasks": main_metrics}, "judging": None}
    context.artifact.mkdir(parents=True)
    (context.work / RESULTS).replace(context.artifact / RESULTS)
    (context.artifact / "score.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    return {"counts": {"tasks": len(main_metrics)}, "scores": scores}


def _main(task: str, figures: dict[str, Any]) -> dict[str, Any]:
    """The main metric of a task: its name, value and standard error."""
    names = [name for name, value in figures.items() if isinstance(value, int | float) and "," in name and "_stderr," not in name]
    if not names:
        raise StageError(f"lm-evaluation-harness reported no metric for {task}; see {RESULTS}")
    name = next((metric for metric in METRICS if metric in names), names[0])
    metric, _, kind = name.partition(",")
    error = figures.get(f"{metric}_stderr,{kind}")
    return {"metric": name, "value": figures[name], "stderr": error if isinstance(error, int | float) else None}


def run_harness(
    model: str,
    tasks: list[str],
    limit: int | None,
    chat_template: bool,
    dtype: str,
    seed: int,
    include: str | None,
    runtime: dict[str, Any],
    out_file: Path,
) -> None:
    """Evaluate and write the harness's results as JSON. Runs in a child process."""
    import lm_eval
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM

    from eva_stages.models.architecture import attention_code
    from eva_stages.models.loading import pick_device
    from eva_stages.models.weights import check_weights

    check_weights(AutoModelForCausalLM, Path(model))  # the harness loads the model itself
    code = attention_code(Path(model))
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args={"pretrained": model, "dtype": dtype, "trust_remote_code": False, **({"attn_implementation": code} if code else {})},
        tasks=tasks,
        task_manager=TaskManager(include_path=include),
        batch_size=runtime["batch_size"],
        device=pick_device(runtime["device"]),
        limit=limit,
        apply_chat_template=chat_template,
        random_seed=seed,
        numpy_random_seed=seed,
        torch_random_seed=seed,
        fewshot_random_seed=seed,
        log_samples=False,
    )
    out_file.write_text(
        json.dumps({name: results[name] for name in ("results", "versions", "n-shot")}, default=str, indent=2), encoding="utf-8"
    )
