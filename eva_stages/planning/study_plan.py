"""The plan of a study: what every arm needs, what the runs share, and what remains to be computed. Shared stages count once."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Group

from eva_stages.core.config.recipe import Recipe
from eva_stages.core.progress import duration, span
from eva_stages.core.resolved import Resolved
from eva_stages.core.rounds import Iteration
from eva_stages.core.run_folder import Run
from eva_stages.core.stage import Stage
from eva_stages.core.study_record import StudyRecord, is_generating
from eva_stages.core.text_table import TextTable, as_rich
from eva_stages.planning.plan_document import plan_document
from eva_stages.planning.plan_tables import money
from eva_stages.planning.rates import Rates, done_rates, rates_of_run
from eva_stages.planning.sizes import prompt_count, sizes

SECONDS = ("seconds_expected", "seconds_low", "seconds_high")
SUMMED_FIELDS = ("tokens", "output_tokens", *SECONDS, "gpu_hours", "bytes", "usd", "usd_expected")
STAGE_HEADS = ("arm", "runs", "iterations", "stages", "shared", "done", "to do")
AMOUNT_HEADS = ("arm", "tokens", "at most", "time", "interval", "GPU-h", "USD")
UNKNOWN = "-"


class PlannedArm(NamedTuple):
    """An arm with the stages of each of its runs; `rounds` are those of the first seed."""

    name: str
    recipe: Recipe
    resolved: Resolved
    rounds: list[Iteration]
    run: Run
    stages: list[list[Stage]]
    """By seed."""


def study_rates(arms: Sequence[PlannedArm], given_rates: Rates) -> Rates:
    """Given rates, then those of the arms' complete stages and those that `eva plan --measure` saved, earlier arms first."""
    rates = given_rates
    for arm in arms:
        units = sizes(arm.recipe, arm.rounds, prompt_count(arm.recipe, arm.resolved, arm.rounds, arm.run))
        run_rates = done_rates(arm.run, arm.stages[0], {fingerprint: size.units for fingerprint, size in units.items()})
        rates = rates.complete_with(run_rates.complete_with(rates_of_run(arm.run)))
    return rates


def iterations_within(arm: PlannedArm, tokens: float, rates: Rates) -> int:
    """After how many iterations an arm has generated so many tokens: as expected, or by the upper limits where there is no rate."""
    entries = plan_document(arm.recipe, arm.resolved, arm.rounds, arm.run, rates)["stages"]
    token_sum = 0.0
    for number in sorted({entry["iteration"] for entry in entries}):
        own_entries = [entry for entry in entries if entry["iteration"] == number and is_generating(entry["stage"].partition("-")[2])]
        token_sum += sum((entry["tokens"] if entry["output_tokens"] is None else entry["output_tokens"]) or 0 for entry in own_entries)
        if token_sum >= tokens:
            return int(number)
    return arm.recipe.iterations


def study_plan(record: StudyRecord, folder: str, arms: Sequence[PlannedArm], rates: Rates) -> dict[str, Any]:
    """Every arm with what only it needs, of stages that it shares with an earlier arm none; and sums of all that is to do.

    `stages` counts the stages of all runs, `distinct_stages` those that differ. `to_do` has the sums over distinct stages that are not
    complete, `unshared` the sums if every run computed all of them. Sums leave null parts out, which `unmeasured` and `unpriced` count.
    """
    counted_stages: set[str] = set()
    arm_entries, to_do_entries, unshared_entries = [], list[Mapping[str, Any]](), list[Mapping[str, Any]]()
    complete_count = 0
    for arm in arms:
        entries = plan_document(arm.recipe, arm.resolved, arm.rounds, arm.run, rates)["stages"]
        entry_by_label = {entry["stage"]: entry for entry in entries}
        own_entries = []
        own_count = own_complete_count = 0
        for stages in arm.stages:
            for stage in stages:
                entry, is_complete = entry_by_label[stage.label], arm.run.is_complete(stage)
                unshared_entries += [] if is_complete else [entry]
                if stage.fingerprint in counted_stages:
                    continue
                counted_stages.add(stage.fingerprint)
                own_count += 1
                own_complete_count += is_complete
                own_entries += [] if is_complete else [entry]
        to_do_entries += own_entries
        complete_count += own_complete_count
        total = sum(map(len, arm.stages))
        counts = {"runs": len(arm.stages), "iterations": arm.recipe.iterations, "stages": total, "shared_stages": total - own_count}
        arm_entries.append({"arm": arm.name, **counts, "complete_stages": own_complete_count, "to_do": _sums(own_entries)})
    return {
        "study": record.name,
        "folder": folder,
        "question": record.question,
        "measure": record.measure,
        "seeds": list(record.seeds),
        "contrasts": [list(contrast) for contrast in record.contrasts],
        "budget": record.budget.model_dump(),
        "arms": arm_entries,
        "stages": sum(entry["stages"] for entry in arm_entries),
        "distinct_stages": len(counted_stages),
        "complete_stages": complete_count,
        "to_do": _sums(to_do_entries),
        "unshared": _sums(unshared_entries),
    }


def _sums(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sums: dict[str, Any] = {"stages": len(entries)}
    for name in SUMMED_FIELDS:
        values = [entry[name] for entry in entries if entry[name] is not None]
        sums[name] = round(sum(values), 6) if values or not entries else None
    sums["unmeasured"] = sum(entry["seconds_expected"] is None for entry in entries)
    sums["unpriced"] = sum(entry["usd"] is None for entry in entries)
    return sums


def study_plan_table(document: dict[str, Any]) -> Group:
    """The plan for a terminal."""
    runs = sum(entry["runs"] for entry in document["arms"])
    shared_count = document["stages"] - document["distinct_stages"]
    stage_rows, amount_rows = [], []
    for entry in document["arms"]:
        counts = (entry["runs"], entry["iterations"], entry["stages"], entry["shared_stages"], entry["complete_stages"])
        stage_rows.append([entry["arm"], *(f"{count:,}" for count in (*counts, entry["to_do"]["stages"]))])
        amount_rows.append([entry["arm"], *_amounts(entry["to_do"])])
    all_counts = (document["stages"], shared_count, document["complete_stages"], document["to_do"]["stages"])
    stage_rows.append(["all", f"{runs:,}", "", *(f"{count:,}" for count in all_counts)])
    amount_rows.append(["all", *_amounts(document["to_do"])])
    notes = [
        document["question"],
        f"{runs} runs have {document['stages']:,} stages, {document['distinct_stages']:,} of them different; "
        f"{document['complete_stages']:,} are complete{_savings(document)}",
        "shared: stages that an earlier arm or seed also has; done, to do and the second table leave them out",
        "tokens: generated, as expected; at most: the upper limit",
        "time: of one job; `eva ablate --jobs N` divides it by up to N",
    ]
    tokens = document["budget"]["generated_tokens"]
    unmeasured_count, unpriced_count = document["to_do"]["unmeasured"], document["to_do"]["unpriced"]
    shortfall = "; responses that are shorter than their limit make it more iterations" if unmeasured_count else ""
    notes += [f"iterations: about as many as reach {tokens:,.0f} generated tokens{shortfall}"] if tokens else []
    notes += (
        [f"{unmeasured_count:,} stages have no rate yet and are not in the time; run one seed, or use `eva plan` with --measure or --rates"]
        if unmeasured_count
        else []
    )
    notes += [f"{unpriced_count:,} stages have no price"] if unpriced_count else []
    title = f"{document['study']} in {document['folder']}: {document['measure']}, {len(document['seeds'])} seeds"
    sums = frozenset({len(stage_rows) - 1})
    return as_rich(
        [
            TextTable(title, STAGE_HEADS, stage_rows, [], "Lrrrrrr", sums=sums),
            TextTable("to do", AMOUNT_HEADS, amount_rows, notes, "LrrrRrr", sums=sums),
        ]
    )


def _savings(document: dict[str, Any]) -> str:
    expected, unshared_seconds = (document[name]["seconds_expected"] for name in ("to_do", "unshared"))
    if not expected or unshared_seconds <= expected:
        return ""
    sign = ">= " if document["to_do"]["unmeasured"] else ""
    return f". Sharing saves {sign}{duration(unshared_seconds - expected)} of {sign}{duration(unshared_seconds)}"


def _amounts(sums: Mapping[str, Any]) -> list[str]:
    low, expected, high = (sums[f"seconds_{name}"] for name in ("low", "expected", "high"))
    sign = ">= " if sums["unmeasured"] else ""
    return [
        UNKNOWN if sums["output_tokens"] is None else f"{sign}{sums['output_tokens']:,.0f}",
        f"{sums['tokens'] or 0:,.0f}",
        UNKNOWN if expected is None else f"{sign}{duration(expected)}",
        "" if expected is None or low == high else span(low, high),
        UNKNOWN if sums["gpu_hours"] is None else f"{sign}{sums['gpu_hours']:,.2f}" if sums["gpu_hours"] else "CPU",
        money(sums["usd_expected"], sums["usd"]),
    ]
