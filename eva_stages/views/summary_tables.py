"""The results of a run for a terminal: what each iteration trained on, how its policy scores, and where everything is."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from eva_stages.core.progress import dollars, facts
from eva_stages.core.text_table import TextTable, as_rich
from eva_stages.views.gate_summary import gate_text
from eva_stages.views.online_figures import online_text
from eva_stages.views.policy_costs import cost_table

SHOWN_REASONS = 3
WIDEST = 1e9
"""Larger figures are written with an exponent."""


def summary_tables(document: dict[str, Any]) -> Group:
    """The tables that have rows: a run that stopped early (`--until`) has neither empty tables nor empty rows."""
    base, iterations = document["base"], [entry for entry in document["iterations"] if entry["seconds"] or entry["done"]]
    benchmarks = (
        [_benchmark_table(scored_entries)] if (scored_entries := [entry for entry in document["benchmarks"] if entry["scores"]]) else []
    )
    failures = [f"{_name(entry)}: {name}: {_failure_text(reasons)}" for entry in iterations for name, reasons in entry["failures"].items()]
    place = f"all stages: {document['stages']}"
    if document["only"]:
        return Group(as_rich(benchmarks), *(Text(note, style="dim") for note in failures), Text(place))
    warnings = [f"{_name(entry)}: {warning}" for entry in iterations if entry["health"] for warning in entry["health"]["warnings"]]
    held_out_table = _held_out_table(base, iterations) if base else None
    tables = [*([held_out_table] if held_out_table and held_out_table.rows else []), *benchmarks]
    tables += [cost_table(document["costs"])] if document["costs"]["policies"] else []
    return Group(
        as_rich([_training_table(document["recipe"], iterations, failures)]),
        *(Text(warning, style="bold red") for warning in warnings),
        *_below_a_line(tables),
        Text(""),
        Text(f"policy: {document['policy']}\n{place}" if document["policy"] else place),
    )


def _below_a_line(tables: list[TextTable]) -> list[RenderableType]:
    return [Text(""), as_rich(tables)] if tables else []


def counted_warnings(warnings: Sequence[str]) -> str:
    """As in "2 warnings"; nothing for none."""
    return f"{len(warnings)} warning{'s' if len(warnings) > 1 else ''}" if warnings else ""


def _name(entry: dict[str, Any]) -> str:
    return f"iteration {entry['iteration']}"


def _training_table(recipe: str, iterations: list[dict[str, Any]], failures: list[str]) -> TextTable:
    heads = ("iteration", "prompts", "evolved", "reward", "gap", "pairs", "loss", "margin", "time", "health")
    notes = [f"{_name(entry)}: {text}" for entry in iterations if (text := _left_out_text(entry))]
    notes += [f"{_name(entry)}: {online_text(entry['online'])}" for entry in iterations if entry["online"]]
    notes += [f"{_name(entry)}: {gate_text(entry['gate'])}" for entry in iterations if entry["gate"]]
    notes += [
        f"{_name(entry)}: {stage}: references: {facts(counts)}" for entry in iterations for stage, counts in entry["references"].items()
    ]
    notes += [f"{_name(entry)}: {_analysis_text(entry['analysis'])}" for entry in iterations if entry["analysis"]]
    notes += [f"{_name(entry)}: {_creator_text(entry['creator'])}" for entry in iterations if entry["creator"]]
    notes += [f"{_name(entry)}: {_rewrite_text(entry['rewrites'])}" for entry in iterations if entry["rewrites"]]
    rows = [_training_row(entry) for entry in iterations]
    return TextTable(f"{recipe}: training", heads, rows, [*notes, *failures], "l" + "r" * 8 + "l", optional=("margin", "gap"))


def _held_out_table(base: dict[str, Any], iterations: list[dict[str, Any]]) -> TextTable:
    policies = [("base", base["held_out"]), *((_name(entry), entry["held_out"]) for entry in iterations)]
    keys = ("sampled", "greedy", "sampled_gain", "win_rate")
    rows = [(name, *(_interval(scores, key) for key in keys)) for name, scores in policies if scores]
    heads = ("policy", "sampled reward", "greedy reward", "gain over base", "win rate")
    return TextTable("held out, intervals over prompts", heads, rows, alignment="Lrrrr")


def _benchmark_table(entries: list[dict[str, Any]]) -> TextTable:
    """Benchmark by policy, with eva's own interval over questions, and facts about the judging."""
    heads = ("benchmark", "policy", "score", "official", "questions", "first place", "no verdict", "failed calls", "USD")
    rows = [row for entry in entries for row in _benchmark_rows(entry)]
    return TextTable("benchmarks, eva's 95 % intervals over questions", heads, rows, alignment="ll" + "r" * 7)


def _benchmark_rows(entry: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    scores = entry["scores"] or {}
    official = scores.get("official") or {}
    for task, figures in official.get("tasks", {}).items():
        error = "" if figures["stderr"] is None else f" ± {figures['stderr']:.3f}"
        yield f"lm-eval: {task}", entry["policy"], "", f"{figures['value']:.3f}{error}", *[""] * 5
    if "tasks" in official:
        return
    estimate, judging = scores.get("score"), scores.get("judging") or {}
    yield (
        entry["benchmark"],
        entry["policy"],
        "" if estimate is None else f"{estimate['value']:.2f} [{estimate['low']:.2f}, {estimate['high']:.2f}]",
        _official(official),
        "" if estimate is None else f"{estimate['n']:,}",
        _share(judging.get("first_place")),
        _share(judging.get("parse_failure_rate")),
        _number(judging.get("failed_calls"), "d"),
        _money(judging, entry["spending"] or {}),
    )


def _money(judging: dict[str, Any], spending: dict[str, float]) -> str:
    """What this run paid for judging, in dollars; in brackets how many calls are estimated or reused."""
    usd = spending.get("cost_usd") or judging.get("usd")
    details = [f"{spending['estimated_calls']:.0f} calls estimated"] if spending.get("estimated_calls") else []
    if spending.get("reused_calls"):
        details.append(f"{spending['reused_calls']:.0f} calls reused, first paid with {dollars(spending['reused_usd'])}")
        usd = usd or 0.0
    note = f" ({'; '.join(details)})" if details else ""
    return "" if usd is None else f"{dollars(usd)}{note}"


def _official(figures: dict[str, Any]) -> str:
    """The score by the official rules, with the official interval where there is one."""
    if figures.get("score") is None:
        return ""
    interval = figures["ci"] if figures.get("ci_kind") == "official" else None
    return f"{figures['score']:.2f}" + (f" [{interval[0]:.2f}, {interval[1]:.2f}]" if interval else "")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _training_row(entry: dict[str, Any]) -> tuple[str, ...]:
    training, pairs = entry["training"] or {}, entry["pairs"] or {}
    return (
        "0 (base)" if entry["iteration"] == 0 else str(entry["iteration"]),
        _number(entry["prompts"], "d"),
        _number(entry["evolved"], "d"),
        _number(entry["mean_reward"] if entry["mean_reward"] is not None else training.get("reward"), ".3f"),
        _number(entry["mean_gap"], ".3f"),
        _number(pairs.get("pair"), "d"),
        _number(training.get("loss"), "z.3f"),
        _number(training.get("reward_margin"), "z.3f"),
        f"{entry['seconds']:.0f} s" if entry["seconds"] else "",
        "" if entry["health"] is None else counted_warnings(entry["health"]["warnings"]) or "good",
    )


def _left_out_text(entry: dict[str, Any]) -> str:
    """How many evolutions were rejected, and how many prompts gave no pair or responses got no reward, by reason; as far as computed."""
    parts = [] if entry["rejected"] is None else [f"evolutions rejected: {facts(entry['rejected']) or 'none'}"]
    if entry["unscored"] is not None:
        parts.append(f"responses without a reward: {entry['unscored']}")
    elif entry["pairs"] is not None:
        no_pair = {reason: count for reason, count in entry["pairs"].items() if reason != "pair"}
        parts.append(f"prompts without a pair: {facts(no_pair) or 'none'}")
    return "; ".join(parts)


def _failure_text(failures: dict[str, int]) -> str:
    """How many results of a stage are null, and why."""
    reasons = "; ".join(f"{reason} ({count:,})" for reason, count in list(failures.items())[:SHOWN_REASONS])
    return f"{sum(failures.values()):,} results missing: {reasons}{'; ...' if len(failures) > SHOWN_REASONS else ''}"


def _rewrite_text(counts: dict[str, int]) -> str:
    """How many chosen responses were rewritten, and why the rest were not."""
    unchanged_counts = {reason: count for reason, count in counts.items() if reason not in ("pair", "rewritten")}
    return (
        f"chosen responses rewritten: {counts.get('rewritten', 0)} of {counts['pair']}; not rewritten: {facts(unchanged_counts) or 'none'}"
    )


def _creator_text(figures: dict[str, Any]) -> str:
    """How good the evolutions are, and what the creator was trained on, in one line."""
    shares = {"learnable": figures["learnable_share"], "valid": figures["valid_share"]}
    texts = [f"{name} {_share(value)}" for name, value in shares.items() if value is not None]
    if figures["mean_utility"] is not None:
        texts.append(f"mean utility {_number(figures['mean_utility'], '.3f')}")
    if figures["pairs"] is not None:
        counts = {"pairs": figures["pairs"], "replayed": figures["replayed_pairs"], "steps": figures["steps"] or 0}
        texts.append(f"creator trained ({facts(counts)})" if figures["pairs"] else "no pair, so the creator was not trained")
    return f"evolutions: {'; '.join(texts) or 'no rewards'}"


def _analysis_text(analysis: dict[str, Any]) -> str:
    """Scores and topics of the prompts, in one line."""
    scores = [f"{name} {_number(analysis[name], '.2f') or '?'} of 5" for name in ("quality", "complexity") if name in analysis]
    topics = [f"topics: {facts(analysis['topics']) or 'none'}"] if "topics" in analysis else []
    return f"prompts: {'; '.join([', '.join(scores), *topics] if scores else topics)}"


def _number(value: float | None, form: str) -> str:
    if value is None:
        return ""
    return format(value, form) if abs(value) < WIDEST else f"{value:.3g}"


def _interval(scores: dict[str, Any] | None, name: str) -> str:
    if not scores or name not in scores:
        return ""
    score = scores[name]
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"
