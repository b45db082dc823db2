"""Starts a training on several machines by srun: `python -m eva_stages.solver.slurm ORDER.json`, in a Slurm allocation.

srun continues when eva is killed. This process then terminates srun, which ends its processes on the machines.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

from eva_stages.core.process_ending import call_after_end
from eva_stages.solver.machine import launcher


def main(order_file: str) -> None:
    """Run all shares.

    Raises:
        SystemExit: with srun's code.
    """
    machines = json.loads(Path(order_file).read_text(encoding="utf-8"))["machines"]
    nodes = [f"--nodes={machines}", f"--ntasks={machines}", "--ntasks-per-node=1", "--kill-on-bad-exit=1"]
    process = subprocess.Popen(["srun", *nodes, sys.executable, "-m", "eva_stages.solver.machine", order_file])
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    call_after_end(launcher(), process.terminate)
    code = process.wait()
    sys.exit(code if code >= 0 else 128 - code)  # killed by a signal, with the exit code of shells


if __name__ == "__main__":
    main(sys.argv[1])
