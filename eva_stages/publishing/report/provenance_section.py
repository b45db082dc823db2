"""Where the run comes from: recipe, versions, fingerprints. What belongs to the machine is left out."""

from collections.abc import Sequence
from typing import Any

import yaml

from eva_stages.publishing.privacy import Privacy
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.views.history import History

SHOWN = 12
"""Hex digits of a digest that are shown; the manifests have all."""


def recipe_of(history: History, privacy: Privacy) -> dict[str, Any]:
    """The run's recipe without paths, servers and secrets."""
    recipe: dict[str, Any] = privacy.settings(dict(history.recipe))
    return recipe


def provenance(histories: Sequence[History], privacy: Privacy) -> Section:
    texts = [(f"Recipe of {one.name}", yaml.safe_dump(recipe_of(one, privacy), sort_keys=False, allow_unicode=True)) for one in histories]
    tables = [_versions(histories)]
    tables += [_fingerprints(one) for one in histories]
    lead = [
        "A stage's fingerprint is the hash of what it computes and of its inputs' fingerprints; its digest is the hash of what came out. "
        "The same recipe on the same code gives the same fingerprints."
    ]
    return Section("provenance", "Provenance", lead, (), tables, texts=texts)


def _versions(histories: Sequence[History]) -> Table:
    """Every version that stages ran with; more than one where the run went on after an update."""
    found: dict[str, dict[str, list[str]]] = {}
    for history in histories:
        for one in history.artifacts:
            versions = {**one.manifest["packages"], "python": one.manifest["python"], "eva's commit": one.manifest["git"] or "unknown"}
            for name, version in versions.items():
                known = found.setdefault(name, {}).setdefault(history.name, [])
                known += [] if version in known else [version]
    rows: list[list[Cell]] = [[name, *(", ".join(by_run.get(one.name, [])) for one in histories)] for name, by_run in found.items()]
    return Table("Versions", ["package", *(one.name for one in histories)], rows)


def _fingerprints(history: History) -> Table:
    rows: list[list[Cell]] = []
    for one in history.artifacts:
        made = one.manifest
        inputs = ", ".join(f"{name}: {upstream['artifact']}" for name, upstream in made["inputs"].items())
        rows.append(
            [
                one.iteration,
                one.stage,
                made["version"],
                made["fingerprint"][:SHOWN],
                made["digest"][:SHOWN],
                inputs,
                made["started"],
                made["ended"],
            ]
        )
    heads = ["iteration", "stage", "version", "fingerprint", "digest", "made from", "started", "ended"]
    return Table(f"Fingerprints of {history.name}", heads, rows, folded=True)
