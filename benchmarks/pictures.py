"""Draw docs/pictures/contrasts.svg: the contrasts of the studies `controls` and `metrics`, from the tables of docs/results.md.

    python -m benchmarks.pictures

The picture has its own background and colours for light and dark. Its text is large enough for a telephone.
"""

import argparse
import re
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[1] / "docs"
PICTURE = DOCS / "pictures" / "contrasts.svg"
STUDIES = {
    "controls": "eva minus its control, at 150,000 generated tokens",
    "metrics": "selected by a metric, minus selected uniformly",
}
CONTROLS = {
    "longer": "the seed prompts again",
    "human": "new prompts of their source",
    "no_evolve": "selected, not evolved",
    "evolve_any": "evolved, not selected",
}
WIDTH, LEFT_EDGE, RIGHT_EDGE, ROW = 560, 240, 530, 27
LOWEST, HIGHEST = -0.05, 0.2
STYLE = """
    text { font: 15px system-ui, "Segoe UI", Helvetica, Arial, "DejaVu Sans", sans-serif; fill: #1f2328 }
    .head { font-weight: 600 }
    .name { text-anchor: end }
    .tick { text-anchor: middle; font-size: 14px; fill: #57606a }
    .note { font-size: 14px; fill: #57606a }
    .page { fill: #ffffff; stroke: #d0d7de }
    .grid { stroke: #d8dee4 }
    .zero { stroke: #57606a }
    .effect { stroke: #0969da; fill: #0969da; stroke-width: 3 }
    .none { stroke: #8c959f; fill: #ffffff; stroke-width: 3 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 }
      .tick, .note { fill: #9198a1 }
      .page { fill: #0d1117; stroke: #3d444d }
      .grid { stroke: #2a313c }
      .zero { stroke: #9198a1 }
      .effect { stroke: #4493f8; fill: #4493f8 }
      .none { stroke: #9198a1; fill: #0d1117 }
    }"""


class Contrast(NamedTuple):
    name: str
    difference: float
    low: float
    high: float
    has_effect: bool


def contrasts(results: str, study: str) -> list[Contrast]:
    """The rows of a study's table in docs/results.md, which has the columns name, scores, difference, interval, p, verdict."""
    section = results.split(f"### `{study}`")[1].split("\n### ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if re.match(r"\| .* to [+-]", line)]
    return [
        Contrast(short_name(row[0]), float(row[2]), *map(float, row[3].split(" to ")), has_effect=row[5] == "effect")  # type: ignore[misc]
        for row in rows
    ]


def short_name(contrast: str) -> str:
    control = re.match(r"eva - (\w+)", contrast)
    return CONTROLS[control[1]] if control else contrast


def place(difference: float) -> float:
    """The horizontal place of a difference."""
    return round(LEFT_EDGE + (difference - LOWEST) / (HIGHEST - LOWEST) * (RIGHT_EDGE - LEFT_EDGE), 1)


def panel(title: str, rows: list[Contrast], top: int) -> list[str]:
    bottom = top + 16 + ROW * len(rows)
    lines = [f'<text class="head" x="18" y="{top}">{title}</text>']
    for tick in (-0.05, 0, 0.05, 0.1, 0.15, 0.2):
        at = place(tick)
        lines.append(f'<path class="{"grid" if tick else "zero"}" d="M{at} {top + 12}V{bottom}"/>')
        lines.append(f'<text class="tick" x="{at}" y="{bottom + 17}">{f"{tick:+.2f}" if tick else "0"}</text>')
    for number, row in enumerate(rows):
        middle = top + 28 + ROW * number
        kind = "effect" if row.has_effect else "none"
        lines.append(f'<text class="name" x="{LEFT_EDGE - 12}" y="{middle + 5}">{row.name}</text>')
        lines.append(f'<path class="{kind}" d="M{place(row.low)} {middle}H{place(row.high)}"/>')
        lines.append(f'<circle class="{kind}" cx="{place(row.difference)}" cy="{middle}" r="5"/>')
    return lines


def picture(results: str) -> str:
    """The SVG of the contrasts in the text of docs/results.md."""
    lines, top = [], 34
    for study, title in STUDIES.items():
        rows = contrasts(results, study)
        lines += panel(title, rows, top)
        top += 16 + ROW * len(rows) + 52
    for note in (
        "Share of exact responses to held-out instructions: the difference,",
        "with 95 % intervals over 10 seeds. Filled: corrected p at most .05.",
    ):
        lines.append(f'<text class="note" x="18" y="{top - 4}">{note}</text>')
        top += 20
    height = top
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img" aria-labelledby="title">',
            '<title id="title">eva beats its four controls; four of seven metrics beat uniform selection</title>',
            f"<style>{STYLE}\n</style>",
            f'<rect class="page" x="1" y="1" width="{WIDTH - 2}" height="{height - 2}" rx="8"/>',
            *lines,
            "</svg>\n",
        ]
    )


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    PICTURE.write_text(picture((DOCS / "results.md").read_text(encoding="utf-8")), encoding="utf-8")
    print(PICTURE)


if __name__ == "__main__":
    main()
