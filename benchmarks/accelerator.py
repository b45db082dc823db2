"""What works on this machine's accelerator, how fast, and in how much memory: eva's own stages on a random model of a real size.

    python -m benchmarks.accelerator                             every check, on a model of 1.2 billion parameters
    python -m benchmarks.accelerator --size tiny --jobs 6        only whether it works, several checks side by side
    python -m benchmarks.accelerator --checks respond,dpo,lora

Each check runs in a separate process and through the runner, as `eva run` does: distilabel pipelines, TRL under accelerate,
durable artifacts. `peak` is the device's memory as nvidia-smi reports it, summed over all processes, so it is only measured with one job.
Without a CUDA device the checks that can run on the CPU do; the others report why they cannot.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.accelerator_checks import CHECKS, SHAPES, Figures, save_models

SAMPLE_SECONDS = 0.3
LIMIT_SECONDS = 240.0


class PeakMemory(threading.Thread):
    """The most memory of the first device that is in use while this runs, in MiB; None where nvidia-smi is not available."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak: int | None = None
        self._stop_event = threading.Event()

    def run(self) -> None:
        while not self._stop_event.wait(SAMPLE_SECONDS):
            try:
                result = subprocess.run(
                    ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
                    capture_output=True,
                    text=True,
                    check=True,
                    encoding="utf-8",
                )
            except (OSError, subprocess.CalledProcessError):
                return
            self.peak = max(self.peak or 0, int(result.stdout.split()[0]))

    def stop(self) -> int | None:
        self._stop_event.set()
        self.join()
        return self.peak


def run_check(name: str, models: Path, folder: Path, size: str, memory: bool, logs: Path | None) -> Figures:
    """One check in a separate process: its figures, or the end of its output."""
    sampler = PeakMemory()
    if memory:
        sampler.start()
    command = [sys.executable, "-m", "benchmarks.accelerator", "--check", name, "--size", size, "--models", str(models)]
    began = time.monotonic()
    try:
        result = subprocess.run(
            [*command, "--folder", str(folder / name)], capture_output=True, text=True, timeout=LIMIT_SECONDS, encoding="utf-8"
        )
        output, code = result.stdout + result.stderr, result.returncode
        line = next((line for line in reversed(result.stdout.splitlines()) if line.startswith("{")), None)
    except subprocess.TimeoutExpired as error:
        output, code, line = f"{error.stdout}{error.stderr}", None, None
    if logs is not None:
        logs.mkdir(parents=True, exist_ok=True)
        (logs / f"{name}.log").write_text(output[-200_000:], encoding="utf-8")
    peak = {"peak": sampler.stop()} if memory else {}
    shutil.rmtree(folder / name, ignore_errors=True)
    wall = round(time.monotonic() - began, 1)
    if line is None or code:
        reason = "ran out of time" if code is None else " | ".join(output.strip().splitlines()[-3:])[-400:]
        return {"check": name, "works": False, "wall": wall, **peak, "reason": reason}
    return {"check": name, "works": True, "wall": wall, **peak, **json.loads(line)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=list(SHAPES), default="1b")
    parser.add_argument("--checks", default=",".join(CHECKS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--logs", type=Path, help="folder for the output of every check")
    parser.add_argument("--check", choices=list(CHECKS))
    parser.add_argument("--models", type=Path)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.check:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(CHECKS[arguments.check](arguments.models, arguments.folder, arguments.size)))
        return
    with tempfile.TemporaryDirectory() as name:
        models = Path(name) / "models"
        save_models(models, arguments.size)
        names = arguments.checks.split(",")

        def check_figures(check: str) -> Figures:
            figures = run_check(check, models, Path(name), arguments.size, arguments.jobs == 1, arguments.logs)
            print(json.dumps(figures), flush=True)
            return figures

        with ThreadPoolExecutor(arguments.jobs) as pool:
            rows = list(pool.map(check_figures, names))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    table = Table("check", "works", "wall s", "tokens/s", "peak MiB", "more", title=f"{device}, model {arguments.size}")
    for row in rows:
        other_figures = {key: value for key, value in row.items() if key not in ("check", "works", "wall", "tokens/s", "peak")}
        details = ", ".join(f"{key} {value}" for key, value in other_figures.items())
        table.add_row(row["check"], str(row["works"]), str(row["wall"]), str(row.get("tokens/s")), str(row.get("peak")), details)
    Console(width=180).print(table)
    sys.exit(not all(row["works"] for row in rows))


if __name__ == "__main__":
    main()
