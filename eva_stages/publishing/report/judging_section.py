"""The judging: its position bias, how often it gave no verdict, wins and losses, MT-Bench by category."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from matplotlib.axes import Axes

from eva_stages.core.kinds import EVAL, JUDGE, LETTERCRAFT, SCORE, stage_name
from eva_stages.core.tables import read_table
from eva_stages.core.verdicts import outcome_of_row
from eva_stages.publishing.report.numbers import mean_interval, n_of
from eva_stages.publishing.report.palette import CHOSEN, GRID, MUTED_COLOUR, REJECTED, iteration_colour, iteration_of, iteration_style
from eva_stages.publishing.report.plots import Plot, draw, outcomes, short
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.views.history import Artifact, History

OUTCOMES = {"won": CHOSEN, "tied": MUTED_COLOUR, "lost": REJECTED, "no verdict": GRID}


@dataclass(frozen=True)
class JudgedPolicy:
    """What the judging of one policy was like. Shares are None where they are not known."""

    benchmark: str
    policy: str
    judge: str
    judgments: int
    failed_count: int | None
    no_verdict: int
    first_place: tuple[float, float, float] | None
    """Share of games that the response in the first place won, with a 95 % interval where there is one (else NaN)."""
    consistent: float | None
    games: dict[str, float] | None
    """Percent of games won, tied, lost and without verdict."""
    usd: float | None

    @property
    def label(self) -> str:
        return f"{self.benchmark}, {self.policy}"

    @property
    def colour(self) -> str:
        return iteration_colour(iteration_of(self.policy))


def judging(history: History) -> Section:
    judged_policies = sorted([*_lettercraft(history), *_benchmarks(history)], key=lambda policy_games: policy_games.benchmark)
    radar = _radar(history)
    if not judged_policies and radar is None:
        return Section("judging", "Judging", missing=["No benchmark of this run has been judged yet."])
    plots = [_position_bias(judged_policies), _parse_failures(judged_policies)] if judged_policies else []
    plots += [_games(judged_policies)] if any(policy_games.games for policy_games in judged_policies) else []
    plots += [radar] if radar else []
    missing = [] if radar else ["No MT-Bench in this run, so no ratings by category."]
    return Section("judging", "Judging", (), plots, [_table(judged_policies)] if judged_policies else [], missing)


def judged_rows(artifact: Artifact, columns: list[str]) -> list[dict[str, Any]]:
    """Rows of judgments with these columns and `outcome`; empty if there are none."""
    if artifact.rows is None:
        return []
    column_names = [*columns, "question_id", "game", "judge", "outcome", "verdict", "score"]
    benchmark = artifact.parsed_name.benchmark
    present = [name for name in dict.fromkeys(column_names) if name in pq.read_schema(artifact.rows).names]
    return [{**row, "outcome": outcome_of_row(row, benchmark)} for row in read_table(artifact.rows.parent, present).to_pylist()]


def _lettercraft(history: History) -> list[JudgedPolicy]:
    judged_policies = []
    for artifact in history.every(stage_name(JUDGE, LETTERCRAFT, EVAL)):
        rows = judged_rows(artifact, [])
        if not rows:
            continue
        outcomes = np.array([np.nan if row["outcome"] is None else row["outcome"] for row in rows])
        first = np.where([row["game"] == 1 for row in rows], outcomes, 1 - outcomes)
        by_question: dict[str, list[tuple[float, float]]] = {}
        for row, *scores in zip(rows, first, outcomes, strict=True):
            by_question.setdefault(row["question_id"], []).append((float(scores[0]), float(scores[1])))
        places = np.array([np.mean([game[0] for game in two]) for two in by_question.values()])
        order_agreements = [two[0][1] == two[1][1] for two in by_question.values() if len(two) == 2 and np.isfinite(two).all()]
        judged_policies.append(
            JudgedPolicy(
                LETTERCRAFT,
                artifact.policy,
                str(rows[0]["judge"]),
                len(rows),
                None,
                int(np.isnan(outcomes).sum()),
                mean_interval(places),
                float(np.mean(order_agreements)) if order_agreements else None,
                _percent(outcomes),
                artifact.manifest["counts"].get("cost_usd"),
            )
        )
    return judged_policies


def _percent(win_shares: np.ndarray) -> dict[str, float]:
    outcomes = {"won": win_shares > 0.5, "tied": win_shares == 0.5, "lost": win_shares < 0.5, "no verdict": np.isnan(win_shares)}
    return {name: 100 * float(outcome.mean()) for name, outcome in outcomes.items()}


def _benchmarks(history: History) -> list[JudgedPolicy]:
    """From the judging statistics of the public benchmarks' score stages."""
    judged_policies = []
    for artifact, figures in _score_artifacts(history):
        about = figures.get("judging")
        if not about:
            continue
        place = about.get("first_place")
        judged_policies.append(
            JudgedPolicy(
                str(artifact.parsed_name.benchmark),
                artifact.policy,
                str(about["judge"]),
                int(about["judgments"]),
                about.get("failed_calls"),
                int(about["no_verdict"]),
                None if place is None else (float(place), np.nan, np.nan),
                about.get("consistent"),
                _games_of(history, artifact),
                about.get("usd"),
            )
        )
    return judged_policies


def _games_of(history: History, score: Artifact) -> dict[str, float] | None:
    """Wins, ties and losses of the games of a score; None if responses are rated singly, without a baseline."""
    judgment_artifact = history.input_artifact(score, "judgments")
    if judgment_artifact is None or "baseline" not in score.manifest["inputs"]:
        return None
    outcomes = [row["outcome"] for row in judged_rows(judgment_artifact, [])]
    return _percent(np.array([np.nan if outcome is None else outcome for outcome in outcomes])) if outcomes else None


def _score_artifacts(history: History) -> list[tuple[Artifact, dict[str, Any]]]:
    artifacts_with_scores = [(artifact, artifact.manifest.get("scores")) for artifact in history.of_kind(SCORE)]
    return [(policy_games, scores) for policy_games, scores in artifacts_with_scores if isinstance(scores, dict)]


def _position_bias(judged_policies: list[JudgedPolicy]) -> Plot:
    known_policies = [policy_games for policy_games in judged_policies if policy_games.first_place is not None]

    def paint(axes: Axes) -> None:
        shares, lows, highs = np.array([policy_games.first_place for policy_games in known_policies], dtype=float).reshape(-1, 3).T
        places = np.arange(len(known_policies))[::-1]
        errors = np.nan_to_num(np.vstack([shares - lows, highs - shares])).clip(min=0)
        for policy_games, share, place, error in zip(known_policies, shares, places, errors.T, strict=True):
            axes.errorbar([share], [place], xerr=error[:, None], capsize=3, color=policy_games.colour, marker="o")
        axes.axvline(0.5, color=MUTED_COLOUR, linestyle=":", linewidth=1, label="no position bias")
        axes.set_yticks(places, [short(policy_games.label) for policy_games in known_policies])
        axes.set_xlim(0, 1)
        axes.margins(y=0.2)

    n = n_of((policy_games.judgments for policy_games in known_policies), "games")
    note = "Both orders of every two responses are judged, so a position bias cancels out in the scores. Bars: 95 % over questions."
    return draw(
        "position-bias",
        "Position bias",
        n,
        "games won by the first place, 0 to 1",
        "benchmark, policy",
        paint,
        note,
        height=1.7 + 0.25 * len(known_policies),
    )


def _parse_failures(judged_policies: list[JudgedPolicy]) -> Plot:
    shares = [100 * policy_games.no_verdict / max(policy_games.judgments, 1) for policy_games in judged_policies]

    def paint(axes: Axes) -> None:
        places = np.arange(len(judged_policies))[::-1]
        bars = axes.barh(places, shares, 0.65, color=[policy_games.colour for policy_games in judged_policies])
        axes.bar_label(bars, fmt="%.3g", padding=2, fontsize=8)
        axes.set_yticks(places, [short(policy_games.label) for policy_games in judged_policies])
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, max(5.0, 1.15 * max(shares)))

    n = n_of((policy_games.judgments for policy_games in judged_policies), "judgments")
    note = "Judgments without a verdict are left out of every score and counted here."
    title, unit = "Judgments without a verdict", "share of judgments, %"
    return draw("parse-failures", title, n, unit, "benchmark, policy", paint, note, height=1.5 + 0.25 * len(judged_policies), legend=False)


def _games(judged_policies: list[JudgedPolicy]) -> Plot:
    known_policies = [(policy_games, policy_games.games) for policy_games in judged_policies if policy_games.games]
    parts = {name: [games[name] for _, games in known_policies] for name in OUTCOMES}
    n = n_of((policy_games.judgments for policy_games, _ in known_policies), "games")

    labels = [policy_games.label for policy_games, _ in known_policies]
    title, unit = "Games against the baseline", "share of games, %"
    paint = partial(outcomes, labels=labels, parts=parts, colours=list(OUTCOMES.values()))
    return draw("games", title, n, unit, "benchmark, policy", paint, height=1.8 + 0.25 * len(known_policies))


def _radar(history: History) -> Plot | None:
    """MT-Bench ratings by category, one outline per policy."""
    rating_by_label = {}
    for artifact, figures in _score_artifacts(history):
        official = figures.get("official") or {}
        if str(artifact.parsed_name.benchmark) == "mt-bench" and official.get("categories"):
            ratings = {name: value["score"] if isinstance(value, dict) else value for name, value in official["categories"].items()}
            rating_by_label[artifact.policy] = {name: value for name, value in ratings.items() if value is not None}
    if not rating_by_label:
        return None
    names = list(dict.fromkeys(name for ratings in rating_by_label.values() for name in ratings))
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)

    def paint(axes: Axes) -> None:
        for policy, ratings in rating_by_label.items():
            values = [ratings.get(name, np.nan) for name in names]
            axes.plot([*angles, angles[0]], [*values, values[0]], label=policy, **iteration_style(iteration_of(policy)))
        axes.set_xticks(angles, [short(name) for name in names])
        axes.set_ylim(0, 10)

    n = f"n = 2 turns of each question, {len(names)} categories"
    return draw("mt-bench-radar", "MT-Bench by category", n, "category; rating from 1 to 10", "", paint, height=3.9, polar=True)


def _table(judged_policies: list[JudgedPolicy]) -> Table:
    rows: list[list[Cell]] = [
        [
            policy_games.benchmark,
            policy_games.policy,
            policy_games.judge,
            policy_games.judgments,
            policy_games.failed_count,
            policy_games.no_verdict,
            None if policy_games.first_place is None else policy_games.first_place[0],
            policy_games.consistent,
            policy_games.usd,
        ]
        for policy_games in judged_policies
    ]
    heads = ["benchmark", "policy", "judge", "judgments", "failed calls", "no verdict", "first place won", "same in both orders", "USD"]
    return Table("Judging", heads, rows, "Shares from 0 to 1; empty = not known or free.")
