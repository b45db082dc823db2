"""One machine's share of a training on several: `python -m eva_stages.solver.machine ORDER.json [RANK]`, its own `accelerate launch`.

Slurm or Ray start one of these per machine; under Slurm the rank is `SLURM_PROCID`. The first machine says in a file of the shared
work folder where to meet. What happens here goes to a log of the machine's own; if it goes wrong, one line on standard output says
which machine failed and why.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from eva_stages.core.errors import StageError
from eva_stages.core.process import kill_tree
from eva_stages.core.store import write_whole

LAUNCHER = "EVA_LAUNCHER"
"""Environment variable with the process on whose life a training process depends."""
ADDRESS = "EVA_ADDRESS"
"""Environment variable with the address at which the other machines reach this one; without, its host name."""
MACHINE = "machine "
MEETING_SECONDS = 600
GRACE_SECONDS = 10
POLL_SECONDS = 0.2


def launcher() -> int:
    """The process on whose life this one depends; without word of it, the one that started it."""
    return int(os.environ.get(LAUNCHER, os.getppid()))


def main(order_file: str, rank: int) -> None:
    """Take part as machine `rank` of what the order describes: `command`, `environment`, `work` folder, `meeting` file.

    Raises:
        SystemExit: if it fails, with a line that names the machine and the cause.
    """
    order = json.loads(Path(order_file).read_text(encoding="utf-8"))
    log = Path(order["work"]) / f"training-{rank}.log"
    parent = os.getppid()

    def end_with_parent() -> None:
        if os.getppid() != parent:
            sys.exit(1)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what runs here is ended first
    try:
        address, port = meeting(Path(order["meeting"]), rank)
        place = ["--machine_rank", str(rank), "--main_process_ip", address, "--main_process_port", str(port)]
        launch([*order["command"], *place, *order["job"]], order["environment"], log, end_with_parent)
    except StageError as error:
        print(f"{MACHINE}{rank} ({socket.gethostname()}): {error}", flush=True)
        sys.exit(1)


def meeting(file: Path, rank: int) -> tuple[str, int]:
    """Address and port of the first machine, which puts them into the file; the others wait for it.

    Raises:
        StageError: if the first machine does not come.
    """
    if rank == 0:
        with socket.socket() as free:
            free.bind(("", 0))
            write_whole(file, json.dumps([os.environ.get(ADDRESS) or socket.gethostname(), free.getsockname()[1]]))
    waited = 0.0
    while not file.is_file():
        if waited > MEETING_SECONDS:
            raise StageError(f"the first machine has not said within {MEETING_SECONDS} s where to meet ({file}); is the run folder shared?")
        time.sleep(POLL_SECONDS)
        waited += POLL_SECONDS
    address, port = json.loads(file.read_text(encoding="utf-8"))
    return address, port


def launch(command: list[str], environment: dict[str, str], log: Path, poll: Callable[[], None], gently: bool = False) -> None:
    """Run a training to its end. Its processes end with this one.

    Args:
        environment: added to this process's.
        log: file that takes the output, after what is in it.
        poll: called again and again meanwhile.
        gently: when it has to be broken off, ask first, for a command that has to end what it started on other machines.

    Raises:
        StageError: with the cause.
    """
    start = log.stat().st_size if log.is_file() else 0
    with log.open("a", encoding="utf-8") as stream:
        process = subprocess.Popen(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment, LAUNCHER: str(os.getpid())},
        )
        try:
            while process.poll() is None:
                poll()
                time.sleep(POLL_SECONDS)
        finally:
            if gently and process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_SECONDS)
            kill_tree(process.pid)
            process.wait()
    if process.returncode != 0:
        raise StageError(failure(process.returncode, log, start))


def failure(code: int, log: Path, start: int = 0) -> str:
    """Why a training ended, by its exit code and by what it has written into its log from byte `start` on.

    Of several machines the one counts that was killed, or else the first to fail: the others only lost it.
    """
    lines = [line for line in log.read_bytes()[start:].decode(errors="replace").splitlines() if line.strip()]
    if machines := [line for line in lines if line.startswith(MACHINE)]:
        return next((line for line in machines if "was killed" in line), machines[0])
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL) or any("Signal 9 (SIGKILL) received" in line for line in lines):
        return f"training was killed (out of memory?); its output is in {log}"
    plain = [line.partition("]: ")[2] if line.startswith("[rank") else line for line in lines]
    launchers = ("CalledProcessError", "ChildFailedError")
    errors = [line for line in plain if "Error" in line and not line.startswith(" ") and not any(name in line for name in launchers)]
    return f"training ended with code {code}: {errors[-1] if errors else (lines or ['no output'])[-1]}; its output is in {log}"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2] if len(sys.argv) > 2 else os.environ["SLURM_PROCID"]))
