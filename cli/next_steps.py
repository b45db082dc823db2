"""What to do after a command, one line each: true in the state in which the command ends."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli.output_options import following_command


def command(*words: object) -> str:
    return shlex.join(["eva", *map(str, words)])


def resuming_command(run: str) -> str:
    """The command that completes a run from its folder alone."""
    return command("run", Path(run) / "recipe.yaml", "--run-dir", run)


def after_run(document: Mapping[str, Any]) -> str:
    """After `eva run`, from the run's summary."""
    run, remaining_count = document["run"], sum(not entry["done"] for entry in document["iterations"])
    if remaining_count:
        return f"complete the run: {following_command('run', {'--until': 1})}"
    return f"see the results: {command('report', run, '--open')}; all stages: {command('status', run)}"


def after_creator(iteration: int) -> str:
    return f"train the policy on these prompts: {following_command('solver', {'--repair': 0})}"


def after_solver(document: Mapping[str, Any], iteration: int) -> str:
    """The next iteration's creator, or the evaluation after the last one."""
    if iteration < document["iterations"][-1]["iteration"]:
        changes = {"--iteration": str(iteration + 1)}
        return f"evolve the next prompts: {following_command('creator', {'--repair': 0, '--accelerate': 1}, changes)}"
    return f"evaluate the policies: {following_command('eval run', {'--repair': 0, '--accelerate': 1, '--iteration': 1})}"


def after_evaluation(document: Mapping[str, Any]) -> str:
    run = document["run"]
    comparison = "" if document["only"] else f"; compare the policies: {command('eval', 'compare', run)}"
    return f"see all scores: {command('eval', 'table', run)}{comparison}"


def after_plan(document: Mapping[str, Any]) -> str:
    if not document["to_do"]["stages"]:
        return f"all stages are done; see the results: {command('report', document['run'], '--open')}"
    return f"run it: {following_command('run', {'--measure': 0, '--rates': 1, '--online': 0})}"


def after_study_plan() -> str:
    """After `eva plan` or `eva ablate --plan` of a study."""
    dropped_options = {"--plan": 0, "--measure": 0, "--rates": 1, "--online": 0}
    return f"run it: {following_command('ablate', dropped_options)}"


def after_study(folder: Path) -> str:
    return f"open the report in a browser; all runs: {command('status', folder)}"


def after_doctor() -> str:
    """After `eva doctor` found nothing broken."""
    validation = following_command("validate", {"--deep": 0, "--online": 0})
    return f"run the quickstart: {command('run')}" if validation == command("validate") else f"check the recipe: {validation}"


def after_validation() -> str:
    return f"see what a run would take: {following_command('plan', {'--online': 0})}"


def after_status(document: Mapping[str, Any]) -> str:
    """From the document of `eva status`."""
    run, states = document["run"], {entry["state"] for entry in document["stages"]}
    if document["locked_by"]:
        return f"it is running; see what is complete: {command('report', run, '--open')}"
    if states == {"done"}:
        return f"see the results: {command('report', run, '--open')}"
    return f"complete the run: {resuming_command(run)}"


def after_study_status(document: Mapping[str, Any]) -> str:
    folder = document["folder"]
    if document["locked_by"]:
        return f"it is running; see how far it is: {command('status', folder)}"
    if all(entry["state"] == "done" for entry in document["runs"]):
        return f"open in a browser: {Path(folder) / 'report.html'}"
    return f"complete the study: {document['command'] or f'the eva ablate command that made it, with --study-dir {folder}'}"


def after_list(document: Mapping[str, Any]) -> str:
    """After `eva runs`: the run that was active last."""
    runs = [entry for entry in document["runs"] if entry["last_activity"]]
    if not runs:
        return f"run the quickstart: {command('run')}"
    return f"see the stages of a run: {command('status', max(runs, key=lambda entry: entry['last_activity'])['run'])}"


def after_collection(document: Mapping[str, Any]) -> str:
    """After `eva gc`."""
    if document["dry_run"] and document["deleted"]:
        return f"delete it: {following_command('gc', {'--dry-run': 0})}"
    return f"see the sizes of the runs: {command('runs', document['folder'])}"


def after_lineage(run: str, prompt_id: str, from_seed: bool) -> str:
    if from_seed:
        return f"see its responses, rewards and pairs: {command('lineage', run, prompt_id)}"
    return f"see all evolutions of its seed: {command('lineage', run, prompt_id, '--from-seed')}"


def after_report(runs: list[str], is_open: bool) -> str:
    if not is_open:
        return f"open it in the browser: {command('report', *runs, '--open')}"
    if len(runs) > 1:
        return f"test the differences: {command('eval', 'compare', *runs)}"
    return f"list what a push to the Hub would send: {command('push', *runs, '--to', 'NAMESPACE', '--dry-run')}"


def after_push(dry_run: bool, collection: str | None) -> str:
    if dry_run:
        return f"push it: {following_command('push', {'--dry-run': 0})}"
    if not collection:
        return "open the repositories on the Hub in a browser"
    from huggingface_hub.constants import ENDPOINT

    return f"open in a browser: {ENDPOINT}/collections/{collection}"


def after_pull(root: Path) -> str:
    return f"see the results: {command('report', root, '--open')}"


def after_audit(run: str, has_influence: bool) -> str:
    if not has_influence:
        return f"measure what a training step on each prompt changes: {command('audit', run, '--influence', 200)}"
    return f"see the results of the run: {command('report', run, '--open')}"


def after_scores(bench: str) -> str:
    return f"test the difference of two files of judgments: {command('eval', 'compare', 'A', 'B', '--bench', bench)}"


def after_table(run: str) -> str:
    return f"test the differences to the base policy: {command('eval', 'compare', run)}"


def after_comparison(runs: list[str], bench: str | None) -> str:
    if bench is not None:
        return f"see the official scores: {command('eval', 'score', bench, '--judgments', runs[0])}"
    return f"see the results in plots: {command('report', *runs, '--open')}"


def after_conversion(folder: Path) -> str:
    return f"set policy.model: {folder} in a recipe; evaluate it as it is: {command('eval', 'run', folder, '--bench', 'gsm8k')}"
