"""Manifests: the record of an artifact, protected by a checksum."""

import hashlib
import json
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from eva_stages.core.durable import write_whole
from eva_stages.core.errors import DamagedError
from eva_stages.core.harmless import finite_json
from eva_stages.core.ourfiles import read_json
from eva_stages.core.redaction import redact_data
from eva_stages.core.stage import Outside, Stage

MANIFEST = "manifest.json"
PIPELINE = "pipeline.yaml"
"""The distilabel pipeline that a row stage ran, beside its data: no part of the artifact's digest."""
CHECKSUM = "checksum"
"""Field with the sha256 of the rest of the manifest."""
FIELDS = {"stage": str, "iteration": int, "fingerprint": str, "digest": str, "inputs": dict}
"""Fields of every manifest."""
PACKAGES = ("eva-align", "torch", "transformers", "trl", "distilabel", "datasets", "accelerate", "pyarrow", "numpy")


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artifact.

    Raises:
        DamagedError: if its checksum does not match; manifests without a checksum, which old versions wrote, are accepted.
    """
    path = folder / MANIFEST
    manifest = read_json(path, dict)
    checksum = manifest.pop(CHECKSUM, None)
    if checksum not in (None, _checksum(manifest)):
        raise DamagedError(f"{path} has changed since it was written: its checksum does not match")
    if bad := [name for name, kind in FIELDS.items() if not isinstance(manifest.get(name), kind)]:
        raise DamagedError(f"{path} is damaged: it has no {', '.join(bad)}")
    if not all(isinstance(entry, dict) and isinstance(entry.get("artifact"), str) for entry in manifest["inputs"].values()):
        raise DamagedError(f"{path} is damaged: its inputs name no artifacts")
    return manifest


def write_manifest(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write an artifact's manifest with its checksum; returns the manifest as a reader gets it."""
    manifest = json.loads(json.dumps(finite_json(redact_data(manifest))))
    text = json.dumps({**manifest, CHECKSUM: _checksum(manifest)}, indent=2, ensure_ascii=False)
    write_whole(folder / MANIFEST, text + "\n")
    return manifest


def content(folder: Path) -> Path:
    """The folder with an artifact's files: `model` for checkpoints, `data` for everything else."""
    return folder / "model" if (folder / "model").is_dir() else folder / "data"


def artifact_name(upstream: Stage | Outside) -> str:
    return upstream.name if isinstance(upstream, Outside) else upstream.folder


def _checksum(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


@cache
def package_versions() -> dict[str, str]:
    versions = {package: package_version(package) for package in PACKAGES}
    return {package: version for package, version in versions.items() if version}


def package_version(package: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@cache
def git_revision() -> str | None:
    """The commit that this code is at, with the suffix `-dirty` where files differ; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
    except OSError:
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None
