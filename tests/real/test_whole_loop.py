"""The packaged recipe `smollm2-135m/offline` as a user starts it, on a real model; the evolver and the judge are a server on loopback.

One run serves all tests of it. Real weights, real text, a real sentence embedder; what the server leaves out is in its docstring.
"""

import importlib.resources
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

from configs.smollm2_135m import positivity  # noqa: F401
from eva_stages.core.rows import prompt_id
from tests import official_files
from tests.browser import CHROMIUM, browser
from tests.conftest import manifests, overrides, run_eva
from tests.real.large_model import LargeModel, large_model
