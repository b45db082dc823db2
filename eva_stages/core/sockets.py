"""What the processes of a run communicate through: sockets with short paths in the folder for temporary files, and semaphores.

The kernel allows 107 bytes for the path of a socket; multiprocessing and vLLM create theirs below TMPDIR.
"""

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

from eva_stages.core.errors import ConfigError
from eva_stages.core.terminal import note

LONGEST = 60
"""Bytes of the folder, so that `pymp-xxxxxxxx/listener-xxxxxxxx` or a UUID behind it fits."""


def use_short_temporary_folder() -> None:
    """Use another folder for temporary files if the path of the current one is too long for sockets, with a notice.

    Raises:
        ConfigError: if there is none, or this machine has no semaphores.
    """
    present = tempfile.gettempdir()
    if sys.platform != "win32" and len(os.fsencode(present)) > LONGEST:
        other_folder = next((folder for folder in ("/tmp", "/var/tmp") if os.access(folder, os.W_OK | os.X_OK)), None)
        if other_folder is None:
            raise ConfigError(
                [f"TMPDIR: {present} has {len(os.fsencode(present))} bytes; sockets need at most {LONGEST}. Set TMPDIR to a shorter folder"]
            )
        note(f"TMPDIR: {present} is too long for the paths of sockets ({LONGEST} bytes); {other_folder} is used instead")
        os.environ["TMPDIR"] = other_folder
        tempfile.tempdir = None
    try:
        multiprocessing.Lock()
    except OSError as error:
        where = Path("/dev/shm")
        raise ConfigError(
            [f"{where}: this machine has no semaphores ({error.strerror or error}); make {where} writable (docker run --shm-size=1g)"]
        ) from error
