"""The alpaca_eval package, in a process of its own: `python -m eva_stages.evaluation.alpaca_package FOLDER`.

Importing the package takes seconds, reads `.env`, and changes scikit-learn's settings; none of that may touch the caller. Its metrics
look for two files in the Hub's cache, so the caller lays out a cache in FOLDER/hub and names it in the environment. Reads
FOLDER/request.json, writes FOLDER/reply.json.

    request: models: [{rows, lc}], weights: path of GLM coefficients or null
    reply:   models: [{metrics, glm: P(model wins) per row or null, predicted: 0 to 1 or null}]
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Answer the request in `folder`."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    replies = [_metrics(one["rows"], one["lc"], request["weights"]) for one in request["models"]]
    (folder / "reply.json").write_text(json.dumps({"models": replies}), encoding="utf-8")


def _metrics(rows: list[dict[str, Any]], length_controlled: bool, weights: str | None) -> dict[str, Any]:
    import pandas as pd
    from alpaca_eval.metrics import get_length_controlled_winrate, get_winrate
    from alpaca_eval.metrics.glm_winrate import predict_winrate

    table = pd.DataFrame(rows)
    found = get_length_controlled_winrate(table, save_weights_dir=None) if length_controlled else get_winrate(table)
    metrics = {name: float(value) for name, value in found.items() if pd.notna(value)}
    glm = [float(value) for value in table["glm_preference"]] if length_controlled else None
    model, baseline = rows[0]["generator_2"], rows[0]["generator_1"]
    known = weights is not None and {model, baseline} <= set(pd.read_csv(weights, index_col=0).index)
    predicted = float(predict_winrate(model, baseline, weights)) if known else None
    return {"metrics": metrics, "glm": glm, "predicted": predicted}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
