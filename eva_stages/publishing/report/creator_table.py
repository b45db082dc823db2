"""A table of the creator: how good its evolutions are, and its training."""

from eva_stages.publishing.report.section_html import Cell, Table
from eva_stages.views.creator_figures import creator_figures
from eva_stages.views.history import History

COLUMNS = {
    "scored_children": "evolutions scored",
    "learnable_share": "learnable share",
    "valid_share": "valid share",
    "mean_utility": "mean utility",
    "pairs": "pairs",
    "replayed_pairs": "replayed pairs",
    "steps": "steps",
}
NOTE = (
    "Learnable: evolutions that the policy solves in 20 to 80 % of its responses. With rewards other than 0 and 1: those whose rewards "
    "spread more than noise, which is measured on the same evolutions, so such shares of two creators cannot be compared. Utility: "
    "spread_at_median of a valid evolution less its similarity to earlier prompts; the mean is over valid ones. Loss and accuracy: of "
    "the creator's training, mean over the last quarter of the steps."
)


def creator_table(history: History) -> Table:
    """One row per iteration in which the policy responded to the evolutions; none in other runs."""
    rows: list[list[Cell]] = []
    for iteration in history.iterations:
        if figures := creator_figures(history, iteration):
            training = figures["training"] or {}
            rows.append([iteration, *(figures[name] for name in COLUMNS), training.get("loss"), training.get("reward_accuracy")])
    return Table("The creator", ["iteration", *COLUMNS.values(), "loss", "accuracy"], rows, NOTE)
