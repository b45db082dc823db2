"""How people call the measures of the benchmarks."""

UNITS = {
    ("lettercraft", "sampled"): ("Mean reward of sampled responses", "reward, 0 to 1", None),
    ("lettercraft", "greedy"): ("Mean reward of greedy responses", "reward, 0 to 1", None),
    ("lettercraft", "exact"): ("Exact sampled responses", "share, 0 to 1", None),
    ("lettercraft", "exact_greedy"): ("Exact greedy responses", "share, 0 to 1", None),
    ("lettercraft", "sampled_gain"): ("Gain in sampled reward over base", "reward difference", 0.0),
    ("lettercraft", "win_rate"): ("Judged win rate against base", "share of games won, 0 to 1", 0.5),
    ("reasoning-gym", "score"): ("reasoning-gym, sampled responses", "correct responses, %", None),
    ("reasoning-gym", "greedy"): ("reasoning-gym, greedy responses", "correct responses, %", None),
    ("mt-bench", "score"): ("MT-Bench", "rating, 1 to 10", None),
    ("alpaca-eval", "score"): ("AlpacaEval 2.0, raw win rate", "win rate, %", 50.0),
    ("gsm8k", "score"): ("GSM8K", "correct responses, %", None),
    ("ifeval", "score"): ("IFEval, strict", "prompts followed, %", None),
    ("arena-hard-v0.1", "score"): ("Arena-Hard v0.1", "win rate, %", 50.0),
    ("arena-hard-v2.0", "score"): ("Arena-Hard v2.0", "win rate, %", 50.0),
}
"""Title, unit, and the value that stands for as good as the baseline."""


def about_measure(benchmark: str, name: str) -> tuple[str, str, float | None]:
    return UNITS.get((benchmark, name), (f"{benchmark}: {name.replace('_', ' ')}", "score, in the benchmark's unit", None))


def about_tested(bench: str) -> str:
    """The title of a measure by its name in a comparison (`views.comparison`), such as "lettercraft, sampled" or "mt-bench"."""
    benchmark, _, name = bench.partition(", ")
    return about_measure(benchmark, name or "score")[0]
