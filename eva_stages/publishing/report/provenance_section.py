"""Where the run comes from: recipe, versions, fingerprints. What belongs to the machine is left out."""

from collections.abc import Sequence
from typing import Any

import yaml

from eva_stages.publishing.privacy import Privacy
from eva_stages.publishing.report.section_html import Cell, Section, Table
from eva_stages.views.history import History
from eva_stages.views.run_groups import runs_by_arm

MOST_DIGITS = 12
"""Hex digits of a digest that are shown; the manifests have all."""


def recipe_of(history: History, privacy: Privacy) -> dict[str, Any]:
    """The run's recipe without paths, servers and secrets."""
    recipe: dict[str, Any] = privacy.settings(dict(history.recipe))
    return recipe


def provenance(histories: Sequence[History], privacy: Privacy) -> Section:
    texts = [
        (f"Recipe of {history.name}", yaml.safe_dump(recipe_of(history, privacy), sort_keys=False, allow_unicode=True))
        for history in histories
    ]
    tables = [_versions(histories)]
    tables += [_fingerprints(history) for history in histories]
    lead = [
        "A stage's fingerprint is the hash of its definition and of its inputs' fingerprints; its digest is the hash of its files. "
        "The same recipe on the same code has the same fingerprints."
    ]
    return Section("provenance", "Provenance", lead, (), tables, texts=texts)


def _versions(histories: Sequence[History]) -> Table:
    """Every version that the stages of an arm ran with; more than one where the run went on after an update."""
    versions_by_arm: dict[str, dict[str, list[str]]] = {}
    arms = runs_by_arm(histories)
    for arm, artifact in ((arm, artifact) for arm, of_arm in arms.items() for history in of_arm for artifact in history.artifacts):
        versions = {
            **artifact.manifest["packages"],
            "python": artifact.manifest["python"],
            "eva's commit": artifact.manifest["git"] or "unknown",
        }
        for name, version in versions.items():
            versions_of_arm = versions_by_arm.setdefault(name, {}).setdefault(arm, [])
            versions_of_arm += [] if version in versions_of_arm else [version]
    rows: list[list[Cell]] = [[name, *(", ".join(by_arm.get(arm, [])) for arm in arms)] for name, by_arm in versions_by_arm.items()]
    return Table("Versions", ["package", *arms], rows)


def _fingerprints(history: History) -> Table:
    rows: list[list[Cell]] = []
    for artifact in history.artifacts:
        manifest = artifact.manifest
        inputs = ", ".join(f"{name}: {upstream['artifact']}" for name, upstream in manifest["inputs"].items())
        rows.append(
            [
                artifact.iteration,
                artifact.stage,
                manifest["version"],
                manifest["fingerprint"][:MOST_DIGITS],
                manifest["digest"][:MOST_DIGITS],
                inputs,
                manifest["started"],
                manifest["ended"],
            ]
        )
    heads = ["iteration", "stage", "version", "fingerprint", "digest", "made from", "started", "ended"]
    return Table(f"Fingerprints of {history.name}", heads, rows, is_folded=True)
