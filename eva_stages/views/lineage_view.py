"""Lineages for a terminal. Texts from data go in as plain `Text`, so nothing in them is read as markup or as control codes."""

from typing import Any

from rich.console import Group
from rich.text import Text
from rich.tree import Tree

from eva_stages.core.harmless import one_line
from eva_stages.core.rows import last_user_text

PROMPT_CHARACTERS = 400
ANSWER_CHARACTERS = 160
MOST_NODES = 400


def steps_view(document: dict[str, Any]) -> Group:
    """From the seed down to the prompt, one block each."""
    steps = document["lineage"]
    lines: list[Any] = [Text(f"{document['prompt_id']} in {document['run']}", style="bold")]
    if not document["reaches_seed"]:
        lines.append(Text("the run does not hold what came before the first of these", style="red"))
    for step in steps:
        lines += ["", Text(_heading(step), style="bold cyan"), Text(one_line(last_user_text(step["messages"]), PROMPT_CHARACTERS))]
        lines += [Text(f"  {line}") for line in _facts(step)]
    if document["evolutions"]:
        kept = sum(child["rejected"] is None for child in document["evolved_into"])
        lines += ["", Text(f"evolved {document['evolutions']} times, {kept} not rejected; --from-seed shows the whole tree", style="dim")]
    return Group(*lines)


def tree_view(document: dict[str, Any]) -> Group:
    """The tree below a seed; what is beyond `MOST_NODES` is counted."""
    root = document["tree"]
    tree = Tree(_label(root))
    waiting = [(tree, child) for child in root["children"]]
    shown = 0
    while waiting and shown < MOST_NODES:
        above, node = waiting.pop(0)
        branch = above.add(_label(node))
        waiting += [(branch, child) for child in node["children"]]
        shown += 1
    left = document["evolutions"] - shown
    notes = [Text(f"... and {left} more; --json has all", style="dim")] if left else []
    return Group(Text(f"seed {document['seed']} in {document['run']}: {document['evolutions']} evolutions", style="bold"), tree, *notes)


def _label(node: dict[str, Any]) -> Text:
    label = Text(f"{_heading(node)} {node['prompt_id']}\n", style="cyan")
    return label.append(one_line(last_user_text(node["messages"]), ANSWER_CHARACTERS), style="default")


def _heading(step: dict[str, Any]) -> str:
    if step["mutation"] is None:
        return f"seed, from {one_line(step['source'], 80)}: {step['fate']}"
    return f"generation {step['generation']}, {step['mutation']} in iteration {step['iteration']}: {step['fate']}"


def _facts(step: dict[str, Any]) -> list[str]:
    lines = []
    for one in step["answers"]:
        lines.append(
            f"iteration {one['iteration']}, {one['stage']}: {len(one['responses'])} responses, mean reward {_figure(one['mean_reward'])}, "
            f"gap {_figure(one['gap'])}"
        )
        ranked = sorted((answer for answer in one["responses"] if answer["reward"] is not None), key=lambda answer: -answer["reward"])
        for answer in (*ranked[:1], *ranked[-1:]) if len(ranked) > 1 else ranked:
            lines.append(f"  {_figure(answer['reward'])}  {one_line(answer['text'], ANSWER_CHARACTERS)}")
    for one in step["informativeness"]:
        drawn = {True: f"drawn, probability {_figure(one['probability'])}", False: "not drawn", None: "not drawn yet"}[one["selected"]]
        metrics = ", ".join(f"{name.removeprefix('reward_').replace('_', ' ')} {_figure(value)}" for name, value in one["metrics"].items())
        lines.append(f"iteration {one['iteration']}, informativeness: {metrics}; weight {_figure(one['weight'])}, {drawn}")
    for one in step["pairs"]:
        lines.append(
            f"iteration {one['iteration']}, pair: chosen {_figure(one['chosen_reward'])}, rejected {_figure(one['rejected_reward'])}"
        )
    lines += [f"iteration {one['iteration']}, checkpoint trained on it: {one['artifact']}" for one in step["checkpoints"]]
    return lines or ["not answered in this run"]


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
