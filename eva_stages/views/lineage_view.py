"""Lineages for a terminal. Texts from data go in as plain `Text`, so nothing in them is read as markup or as control codes."""

from typing import Any

from rich.console import Group
from rich.text import Text
from rich.tree import Tree

from eva_stages.core.harmless import one_line
from eva_stages.core.rows import last_user_text

PROMPT_CHARACTERS = 400
RESPONSE_CHARACTERS = 160
MOST_NODES = 400


def steps_view(document: dict[str, Any]) -> Group:
    """From the seed down to the prompt, one block each."""
    steps = document["lineage"]
    lines: list[Any] = [Text(f"{document['prompt_id']} in {document['run']}", style="bold")]
    if not document["reaches_seed"]:
        lines.append(Text("the run has no record of the ancestors of the first prompt", style="red"))
    for step in steps:
        lines += ["", Text(_heading(step), style="bold cyan"), Text(one_line(last_user_text(step["messages"]), PROMPT_CHARACTERS))]
        lines += [Text(f"  {line}") for line in _facts(step)]
    if document["evolutions"]:
        usable_count = sum(child["rejected"] is None for child in document["evolved_into"])
        lines += [
            "",
            Text(
                f"evolutions of it: {document['evolutions']}, not rejected: {usable_count}; --from-seed shows the complete tree",
                style="dim",
            ),
        ]
    return Group(*lines)


def tree_view(document: dict[str, Any]) -> Group:
    """The tree below a seed; nodes beyond `MOST_NODES` are counted."""
    root = document["tree"]
    tree = Tree(_label(root))
    waiting = [(tree, child) for child in root["children"]]
    shown_count = 0
    while waiting and shown_count < MOST_NODES:
        parent_branch, node = waiting.pop(0)
        branch = parent_branch.add(_label(node))
        waiting += [(branch, child) for child in node["children"]]
        shown_count += 1
    hidden_count = document["evolutions"] - shown_count
    notes = [Text(f"... and {hidden_count} more; --json prints all", style="dim")] if hidden_count else []
    return Group(Text(f"seed {document['seed']} in {document['run']}: {document['evolutions']} evolutions", style="bold"), tree, *notes)


def _label(node: dict[str, Any]) -> Text:
    label = Text(f"{_heading(node)} {node['prompt_id']}\n", style="cyan")
    return label.append(one_line(last_user_text(node["messages"]), RESPONSE_CHARACTERS), style="default")


def _heading(step: dict[str, Any]) -> str:
    if step["mutation"] is None:
        return f"seed, from {one_line(step['source'], 80)}: {step['fate']}"
    return f"generation {step['generation']}, {step['mutation']} in iteration {step['iteration']}: {step['fate']}"


def _facts(step: dict[str, Any]) -> list[str]:
    lines = []
    for entry in step["answers"]:
        rewards = f"mean reward {_figure(entry['mean_reward'])}, gap {_figure(entry['gap'])}"
        lines.append(f"iteration {entry['iteration']}, {entry['stage']}: {len(entry['responses'])} responses, {rewards}")
        scored_responses = [response for response in entry["responses"] if response["reward"] is not None]
        ranked_responses = sorted(scored_responses, key=lambda response: -response["reward"])
        for response in (*ranked_responses[:1], *ranked_responses[-1:]) if len(ranked_responses) > 1 else ranked_responses:
            lines.append(f"  {_figure(response['reward'])}  {one_line(response['text'], RESPONSE_CHARACTERS)}")
    for entry in step["informativeness"]:
        draws = {True: f"drawn, probability {_figure(entry['probability'])}", False: "not drawn", None: "not drawn yet"}
        names = {name: name.removeprefix("reward_").replace("_", " ") for name in entry["metrics"]}
        metrics = ", ".join(f"{names[name]} {_figure(value)}" for name, value in entry["metrics"].items())
        weight = f"weight {_figure(entry['weight'])}"
        lines.append(f"iteration {entry['iteration']}, informativeness: {metrics}; {weight}, {draws[entry['selected']]}")
    for entry in step["archive_draws"]:
        lines.append(f"iteration {entry['iteration']}, drawn from the archive, probability of its cell {_figure(entry['probability'])}")
    for entry in step["utilities"]:
        figures = ", ".join(f"{name} {_figure(entry[name])}" for name in ("utility", "spread", "similarity"))
        lines.append(f"iteration {entry['iteration']}, for the creator: {'invalid' if entry['valid'] is False else figures}")
    for entry in step["pairs"]:
        lines.append(
            f"iteration {entry['iteration']}, pair: chosen {_figure(entry['chosen_reward'])}, rejected {_figure(entry['rejected_reward'])}"
        )
    for entry in step["uses"]:
        figures = f"mean reward {_figure(entry['mean_reward'])}, score {_figure(entry['score'])}"
        origin = "drawn from the buffer" if entry["origin"] == "buffer" else "in its turn"
        lines.append(f"iteration {entry['iteration']}, step {entry['step']}, {origin}: {figures}")
    lines += [f"iteration {entry['iteration']}, checkpoint trained on it: {entry['artifact']}" for entry in step["checkpoints"]]
    return lines or ["not answered in this run"]


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
