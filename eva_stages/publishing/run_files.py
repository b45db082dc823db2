"""The files of a run's own folder that a push sends beside its artifacts, so that `eva pull` brings the run back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from eva_stages.core.event_log import EVENTS, read_events
from eva_stages.core.ledger import PLAN_FILE
from eva_stages.core.ourfiles import read_json, rebuilt
from eva_stages.core.planned_stages import PLAN
from eva_stages.publishing.privacy import Privacy
from eva_stages.publishing.repository import File
from eva_stages.publishing.story import LICENCE
from eva_stages.views.history import read_recipe
from eva_stages.views.influence_file import FOLDER as INFLUENCE

RUN, RECIPE = "run", "recipe.yaml"
"""Folder of the repository with these files, under the names that they have in the run."""
PUSH_EVENTS = ("published", "not-published")
"""Events that pushes add: with them, every push would have something to send."""


def run_files(root: Path, privacy: Privacy) -> list[File]:
    """Recipe, list of stages, plan, licence of the base policy, events and influences, without what belongs to the machine."""
    recipe = yaml.safe_dump(privacy.settings(read_recipe(root)), sort_keys=False, allow_unicode=True)
    files = [File(f"{RUN}/{RECIPE}", recipe.encode())]
    for name, document in (
        (PLAN, _document(root / PLAN, list)),
        (PLAN_FILE, _document(root / PLAN_FILE, dict)),
        (LICENCE, _document(root / LICENCE, dict)),
    ):
        if document:
            files.append(File(f"{RUN}/{name}", (json.dumps(privacy.settings(document), indent=1, ensure_ascii=False) + "\n").encode()))
    lines = [_line(event, privacy) for event in read_events(root) if event["event"] not in PUSH_EVENTS]
    files += [File(f"{RUN}/{EVENTS}", "".join(lines).encode())] if lines else []
    return [*files, *(File(f"{RUN}/{INFLUENCE}/{path.name}", path) for path in sorted((root / INFLUENCE).glob("*.parquet")))]


def _document(path: Path, kind: type[Any]) -> Any:
    return rebuilt(lambda: read_json(path, kind), None, "it is not pushed") if path.is_file() else None


def _line(event: Mapping[str, Any], privacy: Privacy) -> str:
    return json.dumps(privacy.settings(dict(event)), ensure_ascii=False) + "\n"
