"""What a study found, in sentences: each contrast's verdict, and the answer to the study's question."""

from collections.abc import Mapping, Sequence
from typing import Any

from eva_stages.core.text_table import count_text
from eva_stages.evaluation.study_statistics import LEVEL, seeds_needed, smallest_p

EFFECT_VERDICT, NO_EFFECT_VERDICT, UNDECIDABLE_VERDICT, UNDECIDED_VERDICT = "effect", "no effect found", "not decidable", "not decided"
VERDICTS = (EFFECT_VERDICT, NO_EFFECT_VERDICT, UNDECIDABLE_VERDICT, UNDECIDED_VERDICT)
MOST_NAMES = 6


def figure(value: float | None) -> str:
    """A score or a difference: four decimals below 1, two above."""
    if value is None:
        return "unknown"
    return f"{value:.4f}" if abs(value) < 1 else f"{value:,.2f}"


def p_text(value: float) -> str:
    return f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def signed_figure(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{figure(abs(value))}"


def is_decidable(seeds: int, contrasts: int) -> bool:
    """Whether any of the contrasts can be significant."""
    return smallest_p(seeds) <= LEVEL / contrasts


def power_limit(seeds: int, contrasts: int) -> str | None:
    """That nothing can be significant, and how many seeds would be needed; None if something can."""
    if is_decidable(seeds, contrasts):
        return None
    level_text = f"{LEVEL}" if contrasts == 1 else f"{p_text(LEVEL / contrasts)} ({LEVEL} corrected for {contrasts} contrasts)"
    return (
        f"Nothing can be significant with {count_text(seeds, 'seed')} and {count_text(contrasts, 'contrast')}: the smallest possible p is "
        f"{p_text(smallest_p(seeds))}, and it must be at most {level_text}. At least {seeds_needed(contrasts)} seeds are needed."
    )


def contrast_sentence(contrast: Mapping[str, Any], contrasts: int) -> str:
    """The verdict on one contrast, with its figures."""
    a, b = contrast["a"], contrast["b"]
    if contrast["verdict"] == UNDECIDED_VERDICT:
        return f"Not decided: {a} against {b}. {_missing_text(contrast['missing'])}"
    seeds = contrast["n"]
    if contrast["low"] is not None:
        figures = f"95 % interval of the difference {signed_figure(contrast['low'])} to {signed_figure(contrast['high'])}"
    else:
        figures = "no interval, as all seeds have the same difference" if seeds > 1 else "no interval with one seed"
    p_name = "p" if contrasts == 1 else "corrected p"
    is_lost_by_correction = contrast["p_value"] <= LEVEL < contrast["p_holm"]
    uncorrected_text = f", {p_text(contrast['p_value'])} before the correction for {contrasts} contrasts" if is_lost_by_correction else ""
    figures = f"{figures}, {p_name} {p_text(contrast['p_holm'])}{uncorrected_text}, {count_text(seeds, 'seed')}"
    comparison = _comparison(contrast)
    if contrast["verdict"] == EFFECT_VERDICT:
        return f"Effect found: {comparison} ({figures})."
    if contrast["verdict"] == UNDECIDABLE_VERDICT:
        return f"Not decidable with {count_text(seeds, 'seed')}, at least {seeds_needed(contrasts)} are needed: {comparison} ({figures})."
    limit = contrast["detectable_effect"]
    power = f" An effect above {figure(limit)} would have been found with 80 % probability." if limit is not None else ""
    return f"No effect found: {comparison} ({figures}).{power}"


def answer(document: Mapping[str, Any]) -> list[str]:
    """The answer to the study's question: the first contrast in one sentence, then all others, or that nothing can be significant."""
    first, *other_contrasts = document["contrasts"]
    limit = power_limit(len(document["seeds"]), len(document["contrasts"]))
    return [first["sentence"], *([limit] if limit else [_summary(other_contrasts)] if other_contrasts else [])]


def _comparison(contrast: Mapping[str, Any]) -> str:
    a, b, mean = contrast["a"], contrast["b"], contrast["mean"]
    scores = f"{figure(contrast['score_a'])} against {figure(contrast['score_b'])}"
    if float(figure(abs(mean)).replace(",", "")) == 0:
        return f"{a} and {b} have the same mean score{'' if mean == 0 else ' to four decimals'}, {scores}"
    return f"{a} scores {figure(abs(mean))} {'more' if mean > 0 else 'less'} than {b}, {scores}"


def _missing_text(missing: Sequence[Mapping[str, Any]]) -> str:
    runs = [f"{entry['arm']} seed {entry['seed']} ({entry['state']})" for entry in missing]
    more_text = f" and {len(runs) - MOST_NAMES} more" if len(runs) > MOST_NAMES else ""
    verb = "is" if len(runs) == 1 else "are"
    return f"{count_text(len(runs), 'run')} of the two arms {verb} not complete: {', '.join(runs[:MOST_NAMES])}{more_text}."


def _summary(contrasts: Sequence[Mapping[str, Any]]) -> str:
    """The sentence of a single contrast; of several, as in "Of the 7 other contrasts: 1 shows an effect (eva 0.03 above inverse)"."""
    if len(contrasts) == 1:
        return str(contrasts[0]["sentence"])
    by_verdict = {verdict: [contrast for contrast in contrasts if contrast["verdict"] == verdict] for verdict in VERDICTS}
    parts = []
    if effects := by_verdict[EFFECT_VERDICT]:
        names = ", ".join(_order_text(contrast) for contrast in effects[:MOST_NAMES])
        parts.append(f"{len(effects)} {'shows' if len(effects) == 1 else 'show'} an effect ({names})")
    if no_effects := by_verdict[NO_EFFECT_VERDICT]:
        parts.append(f"no effect found in {len(no_effects)}")
    if undecidable := by_verdict[UNDECIDABLE_VERDICT]:
        parts.append(f"{len(undecidable)} cannot be decided with so few seeds")
    if undecided_contrasts := by_verdict[UNDECIDED_VERDICT]:
        parts.append(f"{len(undecided_contrasts)} {'is' if len(undecided_contrasts) == 1 else 'are'} not decided, as runs are missing")
    return f"Of the {count_text(len(contrasts), 'other contrast')}: {'; '.join(parts)}."


def _order_text(contrast: Mapping[str, Any]) -> str:
    return f"{contrast['a']} {figure(abs(contrast['mean']))} {'above' if contrast['mean'] > 0 else 'below'} {contrast['b']}"
