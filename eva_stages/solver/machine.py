"""One machine's share of a training on several: `python -m eva_stages.solver.machine ORDER.json [RANK]`, its own `accelerate launch`.

Slurm or Ray start one of these per machine; under Slurm the rank is `SLURM_PROCID`. The first machine writes its address to a file in the
shared work folder. Output goes to a log per machine; after a failure, one line on standard output names the machine and the cause.
"""

import contextlib
import glob
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from eva_stages.core.durable import write_whole
from eva_stages.core.errors import StageError
from eva_stages.core.job_context import ECHO_SECONDS, check_interruption, job_environment
from eva_stages.core.logs import clean_log
from eva_stages.core.process_ending import ending, kill_tree

LAUNCHER = "EVA_LAUNCHER"
"""Environment variable with the process whose end ends a training process."""
ADDRESS = "EVA_ADDRESS"
"""Environment variable with the address of this machine for the others; default: its host name."""
MACHINE = "machine "
MEETING_SECONDS = 600
GRACE_SECONDS = 10
POLL_SECONDS = 0.2
LAUNCHER_SECONDS = 3
"""How long a launcher may run on after one of its processes has ended."""
_ROOT_CAUSE = re.compile(r"Root Cause.*?rank\s*: (?P<rank>\d+).*?exitcode\s*: (?P<code>-?\d+) \(pid: (?P<pid>\d+)\)", re.DOTALL)
"""In the report of torch's launcher."""


def launcher() -> int:
    """The process whose end ends this one; by default its parent."""
    return int(os.environ.get(LAUNCHER, os.getppid()))


def main(order_file: str, rank: int) -> None:
    """Run the share of machine `rank` of an order: `command`, `environment`, `work` folder, `meeting` file.

    Raises:
        SystemExit: if it fails, with a line that names the machine and the cause.
    """
    order = json.loads(Path(order_file).read_text(encoding="utf-8"))
    log = Path(order["work"]) / f"training-{rank}.log"
    parent = os.getppid()

    def end_with_parent() -> None:
        if os.getppid() != parent:
            sys.exit(1)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that child processes are ended first
    try:
        address, port = meeting(Path(order["meeting"]), rank)
        place = ["--machine_rank", str(rank), "--main_process_ip", address, "--main_process_port", str(port)]
        launch([*order["command"], *place, *order["job"]], order["environment"], log, end_with_parent)
    except StageError as error:
        print(f"{MACHINE}{rank} ({socket.gethostname()}): {error}", flush=True)
        sys.exit(1)


def meeting(file: Path, rank: int) -> tuple[str, int]:
    """Address and port of the first machine, which writes them to the file; the other machines wait for it.

    Raises:
        StageError: if the first machine does not write them in time.
    """
    if rank == 0:
        write_whole(file, json.dumps([os.environ.get(ADDRESS) or socket.gethostname(), free_port()]))
    waited_seconds = 0.0
    while not file.is_file():
        if waited_seconds > MEETING_SECONDS:
            raise StageError(
                f"the first machine has not written its address to {file} within {MEETING_SECONDS} s; check that all machines share the "
                "run folder"
            )
        time.sleep(POLL_SECONDS)
        waited_seconds += POLL_SECONDS
    address, port = json.loads(file.read_text(encoding="utf-8"))
    return address, port


def free_port() -> int:
    """A port of this machine that no process uses now."""
    with socket.socket() as free:
        free.bind(("", 0))
        return int(free.getsockname()[1])


def launch(command: list[str], environment: dict[str, str], log: Path, poll: Callable[[], None], gently: bool = False) -> None:
    """Run a training to its end. Its processes end with the current process.

    Args:
        environment: added to this process's.
        log: file to which the output is appended.
        poll: called repeatedly meanwhile.
        gently: to break off, send SIGTERM first, for a command that has to end processes on other machines.

    Raises:
        StageError: with the cause.
    """
    start, marks = log.stat().st_size if log.is_file() else 0, None if gently else Marks(log.parent)
    with clean_log(log) as output:
        process = subprocess.Popen(
            command,
            stdout=output.fileno(),
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **job_environment(), **environment, LAUNCHER: str(os.getpid())},
        )
        try:
            while process.poll() is None and not (marks and marks.has_lost_process()):
                check_interruption()
                poll()
                time.sleep(POLL_SECONDS)
        finally:
            if gently and process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_SECONDS)
            code = process.poll()
            kill_tree(process.pid)
            process.wait()
    if not code and marks and (lost_pids := marks.lost_processes()):
        raise StageError(f"training process {lost_pids[0]} ended before training had finished, without an error; its output is in {log}")
    if code != 0:
        check_interruption(ECHO_SECONDS)
        raise StageError(failure(process.returncode, log, start))


class Marks:
    """Files in the work folder by which the training processes of this machine show that they are running; deleted when training is done.

    A launcher regards a process that exits with 0 as finished, and the other processes wait for it.
    """

    def __init__(self, work: Path) -> None:
        self._work = work
        self._lost_time: float | None = None
        for mark in self._files():
            mark.unlink()

    @staticmethod
    def own_mark(work: Path) -> Path:
        """The mark of the current process."""
        return work / f"at-work-{socket.gethostname()}-{os.getpid()}"

    def _files(self) -> list[Path]:
        return list(self._work.glob(f"at-work-{glob.escape(socket.gethostname())}-*"))

    def lost_processes(self) -> list[int]:
        """The processes that ended before they had finished."""
        pids = [(mark, int(mark.name.rpartition("-")[2])) for mark in self._files()]
        return [pid for mark, pid in pids if not psutil.pid_exists(pid) and mark.exists()]

    def has_lost_process(self) -> bool:
        """Whether a process ended so long ago that the launcher, whose message would be better, will not end because of it."""
        if not self.lost_processes():
            self._lost_time = None
            return False
        self._lost_time = self._lost_time or time.monotonic()
        return time.monotonic() - self._lost_time > LAUNCHER_SECONDS


def failure(code: int, log: Path, start: int = 0) -> str:
    """The cause of a failed training, from its exit code and its log from byte `start` on.

    With several machines it is the cause of the machine that was killed, or of the first to fail: the others only lost the connection to
    it. With several processes the launcher names the first to fail.
    """
    log_bytes = log.read_bytes()[start:] if log.is_file() else b""
    lines = [line for line in log_bytes.decode(errors="replace").splitlines() if line.strip()]
    if machines := [line for line in lines if line.startswith(MACHINE)]:
        return next((line for line in machines if "was killed" in line), machines[0])
    plain = [line.partition("]: ")[2] if line.startswith("[rank") else line for line in lines]
    launchers = ("CalledProcessError", "ChildFailedError")
    errors = [line for line in plain if "Error" in line and not line.startswith(" ") and not any(name in line for name in launchers)]
    first = _ROOT_CAUSE.search("\n".join(lines))
    exit_code = int(first["code"]) if first else code
    if exit_code < 0 or exit_code > 128 or not errors:
        subject = f"training process {first['rank']} (process {first['pid']})" if first else "training"
        last = "" if first or exit_code < 0 or not lines else f": {lines[-1]}"
        return f"{subject} {ending(exit_code)}{last}; its output is in {log}"
    return f"training ended with code {code}: {errors[-1]}; its output is in {log}"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2] if len(sys.argv) > 2 else os.environ["SLURM_PROCID"]))
