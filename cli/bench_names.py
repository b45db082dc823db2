"""The benchmarks of `eva eval run --bench`, by name."""

from typing import Any

BENCHMARKS: dict[str, dict[str, Any]] = {
    "lettercraft": {"kind": "lettercraft", "judge": {"kind": "lettercraft"}},
    "mt-bench": {"kind": "mt_bench"},
    "arena-hard": {"kind": "arena_hard"},
    "arena-hard-v0.1": {"kind": "arena_hard", "version": "v0.1"},
    "arena-hard-v2.0": {"kind": "arena_hard", "version": "v2.0"},
    "alpaca-eval": {"kind": "alpaca_eval"},
    "gsm8k": {"kind": "gsm8k"},
    "ifeval": {"kind": "ifeval"},
    "lm-eval": {"kind": "lm_eval"},
}
"""With the settings for a recipe without that benchmark."""
JUDGED_BENCHMARKS = ("mt-bench", "arena-hard", "alpaca-eval")
"""Those that `eva eval score` knows."""
