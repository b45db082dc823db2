"""What eva uses of Slurm's srun, with this machine as every node: tasks that know their rank; the first bad exit or a SIGTERM ends all."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def main(arguments: list[str]) -> int:
    options = dict(word.removeprefix("--").split("=") for word in arguments if word.startswith("--") and "=" in word)
    assert options["ntasks-per-node"] == options["kill-on-bad-exit"] == "1"
    command = arguments[len(options) :]
    tasks = [subprocess.Popen(command, env={**os.environ, "SLURM_PROCID": str(rank)}) for rank in range(int(options["ntasks"]))]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        while (codes := [task.poll() for task in tasks]) != [0] * len(tasks):
            if bad := [code for code in codes if code]:
                return bad[0]
            time.sleep(0.05)
    finally:
        for task in tasks:
            task.terminate()
            task.wait()
    return 0


def install(folder: Path) -> None:
    """Put an executable `srun` into a folder."""
    folder.mkdir()
    program = folder / "srun"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
    program.chmod(0o755)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
