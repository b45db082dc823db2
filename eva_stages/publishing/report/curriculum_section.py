"""The curriculum: what the prompts of each iteration are like, where they come from, and what was turned away."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes

from eva_stages.core.kinds import KINDS
from eva_stages.core.parts import FAILED_CALLS
from eva_stages.core.text_table import count_text
from eva_stages.publishing.report.coverage_table import coverage_table
from eva_stages.publishing.report.creator_table import creator_table
from eva_stages.publishing.report.gate_tables import gate_tables
from eva_stages.publishing.report.numbers import last_texts, mean_interval, n_of, sizes, table, word_counts
from eva_stages.publishing.report.palette import EVOLVED, START
from eva_stages.publishing.report.plots import BINS, Plot, draw, grouped_bars, grouped_points, histograms, iteration_points, stacked_bars
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.views.history import History

MOST_TOPICS = 12


def curriculum(history: History) -> Section:
    sets = {
        iteration: table(prompt_set, ["prompt_id", "messages", "generation", "mutation", "origin"])
        for iteration, prompt_set in history.prompt_sets.items()
    }
    filled_sets = {iteration: rows for iteration, rows in sets.items() if rows is not None and len(rows)}
    rejected = {iteration: reasons for iteration in history.iterations if (reasons := rejections(history, iteration))}
    topics = _topic_counts(history)
    plots: list[Plot] = []
    plots += [_topics(topics)] if topics else []
    plots += [plot for name in ("complexity", "quality") if (plot := _scores(history, name))]
    plots += [_lengths(filled_sets), _generations(filled_sets)] if filled_sets else []
    plots += [_rejections(history, rejected)] if rejected else []
    missing = []
    if not topics:
        missing.append("No topics were computed; set `creator.analysis.topics` in the recipe.")
    if not history.every("analyse-scores"):
        missing.append("Complexity and quality were not scored; set `creator.analysis.scorer` in the recipe.")
    tables = [_table(filled_sets)] if filled_sets else []
    tables += [_mutations(history)] if history.every("evolve") else []
    tables += [creator_table(history), coverage_table(history)]
    tables += gate_tables(history)
    return Section("curriculum", "Curriculum", [], plots, [table for table in tables if table.rows], missing)


def rejections(history: History, iteration: int) -> dict[str, int]:
    """Number of rejected evolutions of an iteration by reason."""
    count_by_reason: dict[str, int] = {}
    for kind in KINDS.values():
        artifact = history.find(kind.name, iteration) if kind.kept_counts else None
        if artifact is None or (kind.name == "decontaminate" and iteration == 0):
            continue
        for reason, count in artifact.counts.items():
            if reason not in kind.kept_counts and count:
                count_by_reason[with_spaces(reason)] = count_by_reason.get(with_spaces(reason), 0) + int(count)
    return count_by_reason


def with_spaces(name: str) -> str:
    """A name from the code as people write it."""
    return name.replace("_", " ")


def _topic_counts(history: History) -> dict[int, dict[str, int]]:
    """Labelled prompts by topic and iteration."""
    counts_found = {}
    for artifact in history.every("analyse-topics"):
        rows = table(artifact, ["topic"])
        if rows is not None and len(rows["topic"].drop_null()):
            counts_found[artifact.iteration] = {
                str(entry["values"]): entry["counts"] for entry in rows["topic"].drop_null().value_counts().to_pylist()
            }
    return counts_found


def _topics(counts: dict[int, dict[str, int]]) -> Plot:
    sizes = {iteration: sum(mix.values()) for iteration, mix in counts.items()}
    shares = {iteration: {topic: 100 * count / sizes[iteration] for topic, count in mix.items()} for iteration, mix in counts.items()}
    totals: dict[str, float] = {}
    for mix in shares.values():
        for topic, share in mix.items():
            totals[topic] = totals.get(topic, 0) + share
    top_topics = sorted(totals, key=lambda topic: -totals[topic])[:MOST_TOPICS]
    names = list(top_topics)
    groups = {iteration: [mix.get(topic, 0.0) for topic in top_topics] for iteration, mix in shares.items()}
    if len(totals) > len(top_topics):
        names.append(f"{len(totals) - len(top_topics)} others")
        groups = {iteration: [*values, 100 - sum(values)] for iteration, values in groups.items()}

    def paint(axes: Axes) -> None:
        grouped_points(axes, names, groups)
        axes.set_xlim(left=0)

    return draw(
        "topics",
        "Topic mix",
        n_of(sizes.values(), "labelled prompts"),
        "share of prompts, %",
        "topic",
        paint,
        "Topics by a zero-shot classifier.",
        height=1.7 + 0.22 * len(names),
    )


def _scores(history: History, name: str) -> Plot | None:
    values = {
        artifact.iteration: rows[name].to_numpy(zero_copy_only=False).astype(float)
        for artifact in history.every("analyse-scores")
        if (rows := table(artifact, [name])) is not None
    }
    values = {iteration: value for iteration, value in values.items() if np.isfinite(value).any()}
    if not values:
        return None
    points = {iteration: mean_interval(value) for iteration, value in values.items()}

    def paint(axes: Axes) -> None:
        iteration_points(axes, points)
        axes.set_ylim(1, 5)

    n = sizes(values, "prompts")
    return draw(
        name, f"{name.capitalize()} of the prompts", n, "iteration", "mean score, 1 to 5", paint, "By the recipe's scorer; bars: 95 %."
    )


def _lengths(sets: dict[int, pa.Table]) -> Plot:
    samples = {number: word_counts(last_texts(rows["messages"])).astype(float) for number, rows in sets.items()}
    longest = max(float(np.percentile(values, 99.5)) for values in samples.values())
    long_count = sum(int((values > longest).sum()) for values in samples.values())
    samples_shown = {number: values[values <= longest] for number, values in samples.items()}
    bins = int(min(BINS, max(5, longest)))
    note = f"Histogram of {bins} equal bins."
    note += f" Off the scale: {count_text(long_count, 'prompt')} of more than {longest:,.0f} words." if long_count else ""
    return draw(
        "length",
        "Length of the prompts",
        sizes(samples, "prompts"),
        "words in the last user turn",
        "share of prompts per bin, %",
        lambda axes: histograms(axes, samples_shown, bins),
        note,
    )


def _generations(sets: dict[int, pa.Table]) -> Plot:
    by_set = {number: rows["generation"].to_numpy() for number, rows in sets.items()}
    deepest = max(int(values.max()) for values in by_set.values())
    groups = _generation_groups(deepest)
    parts = {label: [100 * float(np.isin(values, list(members)).mean()) for values in by_set.values()] for label, members in groups.items()}
    styles = [{"color": EVOLVED, "alpha": 0.25 + 0.75 * place / max(len(groups) - 1, 1)} for place in range(len(groups))]
    styles[0] = {"color": START}
    return draw(
        "generations",
        "Generations in the prompt sets",
        n_of(map(len, by_set.values()), "prompts"),
        "iteration",
        "share of prompts, %",
        lambda axes: stacked_bars(axes, [str(number) for number in sets], parts, styles),
        "0 = seed prompt; each evolution adds one, in a fuller colour.",
        height=3.2,
    )


def _generation_groups(deepest: int) -> dict[str, range]:
    """One group per generation; if there are many, the deepest share a group."""
    last = min(deepest, 5)
    groups = {str(number): range(number, number + 1) for number in range(last + 1)}
    if deepest > last:
        groups[f"{last + 1} to {deepest}"] = range(last + 1, deepest + 1)
    return groups


def _rejections(history: History, rejected: dict[int, dict[str, int]]) -> Plot:
    evolved = {iteration: history.size(entry) for iteration in rejected if (entry := history.find("evolve", iteration))}
    reasons = list(dict.fromkeys(reason for count_by_reason in rejected.values() for reason in count_by_reason))
    reasons.sort(key=lambda reason: -sum(count_by_reason.get(reason, 0) for count_by_reason in rejected.values()))
    groups = {
        iteration: [100 * rejected[iteration].get(reason, 0) / max(count, 1) for reason in reasons] for iteration, count in evolved.items()
    }
    n = n_of(evolved.values(), "evolutions")
    height = 1.4 + 0.22 * len(reasons) * max(1, len(groups)) ** 0.5
    return draw(
        "rejections",
        "Why evolutions were left out",
        n,
        "share of evolutions, %",
        "reason",
        lambda axes: grouped_bars(axes, reasons, groups),
        height=height,
    )


def _table(sets: dict[int, pa.Table]) -> Table:
    rows: list[list[Cell]] = []
    for number, set in sets.items():
        words = word_counts(last_texts(set["messages"]))
        evolved = int(pc.sum(pc.greater(set["generation"], 0)).as_py())
        origin = int(pc.sum(pc.equal(set["origin"], "evolved")).as_py() or 0) if "origin" in set.column_names else 0
        rows.append([number, len(set), origin, evolved, float(pc.mean(set["generation"]).as_py()), float(words.mean()), int(words.max())])
    heads = ["iteration", "prompts", "new in it", "evolved in all", "mean generation", "mean words", "longest, words"]
    return Table("Prompt sets", heads, rows)


def _mutations(history: History) -> Table:
    """What each mutation was asked for and how much of it was usable."""
    rows: list[list[Cell]] = []
    for artifact in history.every("evolve"):
        evolutions = table(artifact, ["mutation", "rejected"])
        if evolutions is None:
            continue
        evolutions = evolutions.filter(pc.not_equal(pc.fill_null(evolutions["rejected"], ""), FAILED_CALLS))
        usable_rows = pa.table({"mutation": evolutions["mutation"], "usable": pc.cast(pc.is_null(evolutions["rejected"]), pa.int64())})
        mutation_counts = (
            usable_rows.group_by("mutation").aggregate([("usable", "count"), ("usable", "sum")]).sort_by("mutation").to_pylist()
        )
        rows += [
            [artifact.iteration, with_spaces(entry["mutation"]), entry["usable_count"], 100 * entry["usable_sum"] / entry["usable_count"]]
            for entry in mutation_counts
        ]
    return Table(
        "Mutations",
        ["iteration", "mutation", "evolutions", "usable, %"],
        rows,
        "Usable: before the removal of duplicates. Failed calls do not count.",
        is_folded=True,
    )
