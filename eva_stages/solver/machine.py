"""One machine's share of a training on several: `python -m eva_stages.solver.machine ORDER.json [RANK]`, its own `accelerate launch`.

Slurm or Ray start one of these per machine; under Slurm the rank is `SLURM_PROCID`. The first machine says in a file of the shared
work folder where to meet. What happens here goes to a log of the machine's own; if it goes wrong, one line on standard output says
which machine failed and why.
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
from eva_stages.core.logs import clean_log
from eva_stages.core.process import ending, kill_tree

LAUNCHER = "EVA_LAUNCHER"
"""Environment variable with the process on whose life a training process depends."""
ADDRESS = "EVA_ADDRESS"
"""Environment variable with the address at which the other machines reach this one; without, its host name."""
MACHINE = "machine "
MEETING_SECONDS = 600
GRACE_SECONDS = 10
POLL_SECONDS = 0.2
LAUNCHER_SECONDS = 3
"""How long a launcher may take to end after one of its processes has."""
_ROOT_CAUSE = re.compile(r"Root Cause.*?rank\s*: (?P<rank>\d+).*?exitcode\s*: (?P<code>-?\d+) \(pid: (?P<pid>\d+)\)", re.DOTALL)
"""In the report of torch's launcher."""


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
    waited_seconds = 0.0
    while not file.is_file():
        if waited_seconds > MEETING_SECONDS:
            raise StageError(f"the first machine has not said within {MEETING_SECONDS} s where to meet ({file}); is the run folder shared?")
        time.sleep(POLL_SECONDS)
        waited_seconds += POLL_SECONDS
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
    start, marks = log.stat().st_size if log.is_file() else 0, None if gently else Marks(log.parent)
    with clean_log(log) as output:
        process = subprocess.Popen(
            command,
            stdout=output.fileno(),
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment, LAUNCHER: str(os.getpid())},
        )
        try:
            while process.poll() is None and not (marks and marks.has_lost_process()):
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
        raise StageError(f"training process {lost_pids[0]} ended before training was done, without an error; its output is in {log}")
    if code != 0:
        raise StageError(failure(process.returncode, log, start))


class Marks:
    """Files by which the training processes of this machine say that they are at work, in the work folder: deleted when training is done.

    A launcher takes a process that exits with 0 for one that is done, and the others wait for it.
    """

    def __init__(self, work: Path) -> None:
        self._work = work
        self._since: float | None = None
        for mark in self._files():
            mark.unlink()

    @staticmethod
    def own_mark(work: Path) -> Path:
        """This process's mark."""
        return work / f"at-work-{socket.gethostname()}-{os.getpid()}"

    def _files(self) -> list[Path]:
        return list(self._work.glob(f"at-work-{glob.escape(socket.gethostname())}-*"))

    def lost_processes(self) -> list[int]:
        """The processes that are gone and were not done."""
        pids = [(mark, int(mark.name.rpartition("-")[2])) for mark in self._files()]
        return [pid for mark, pid in pids if not psutil.pid_exists(pid) and mark.exists()]

    def has_lost_process(self) -> bool:
        """Whether one has been gone for so long that the launcher, which knows more, will not end because of it."""
        if not self.lost_processes():
            self._since = None
            return False
        self._since = self._since or time.monotonic()
        return time.monotonic() - self._since > LAUNCHER_SECONDS


def failure(code: int, log: Path, start: int = 0) -> str:
    """Why a training ended, by its exit code and by what it has written into its log from byte `start` on.

    Of several machines the one counts that was killed, or else the first to fail: the others only lost it. So it is with processes, of
    which the launcher names the first to fail.
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
