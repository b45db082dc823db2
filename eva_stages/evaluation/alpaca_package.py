"""The alpaca_eval package in a separate process: `python -m eva_stages.evaluation.alpaca_package FOLDER`.

Importing the package takes seconds, reads `.env` and changes scikit-learn's settings; a separate process leaves the caller unchanged. Its
metrics read two files from the Hub's cache, so the caller writes a cache to FOLDER/hub and sets it in the environment. Reads
FOLDER/request.json, writes FOLDER/reply.json.

    request: models: [{rows, lc}], weights: path of GLM coefficients or null
    reply:   models: [{metrics, glm: P(model wins) per row or null, predicted: 0 to 1 or null}]
"""

import json
import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Process the request in `folder`."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    replies = [_metrics(model["rows"], model["lc"], request["weights"]) for model in request["models"]]
    (folder / "reply.json").write_text(json.dumps({"models": replies}), encoding="utf-8")


def _metrics(rows: list[dict[str, Any]], length_controlled: bool, weights: str | None) -> dict[str, Any]:
    import pandas as pd
    from alpaca_eval.metrics import get_length_controlled_winrate, get_winrate
    from alpaca_eval.metrics.glm_winrate import predict_winrate

    table = pd.DataFrame(rows)
    values = get_length_controlled_winrate(table, save_weights_dir=None) if length_controlled else get_winrate(table)
    metrics = {name: float(value) for name, value in values.items() if pd.notna(value)}
    glm = [float(value) for value in table["glm_preference"]] if length_controlled else None
    model, baseline = rows[0]["generator_2"], rows[0]["generator_1"]
    is_published = weights is not None and {model, baseline} <= set(pd.read_csv(weights, index_col=0).index)
    prediction = float(predict_winrate(model, baseline, weights)) if is_published else None
    return {"metrics": metrics, "glm": glm, "predicted": prediction}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
