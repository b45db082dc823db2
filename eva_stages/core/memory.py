"""How a stage's process keeps the memory that it frees."""

import ctypes
import sys

KEPT_BYTES = 1 << 28
LARGEST_KEPT_BLOCK = 1 << 25
"""glibc accepts no larger one."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Parameters of `mallopt` in glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Let this process use freed memory again, up to `KEPT_BYTES`.

    glibc returns large blocks to the system at once. A small model frees and allocates such blocks at every layer, and touching them again
    is a page fault per 4 KB: a fifth of the processor time of sampling.
    """
    allocator = ctypes.CDLL(None)
    if sys.platform == "linux" and hasattr(allocator, "mallopt"):
        for parameter, value in ((_TRIM_THRESHOLD, KEPT_BYTES), (_MMAP_THRESHOLD, LARGEST_KEPT_BLOCK), (_ARENA_MAX, 1)):
            allocator.mallopt(parameter, value)
