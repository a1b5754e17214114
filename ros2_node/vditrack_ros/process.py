"""Use of memory and processor cores by the node's process."""

import ctypes

from vditrack.inference.cpu import count_cores

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""
_LARGEST_REUSED = 32 * 1024 * 1024
"""Bytes of the largest block that is reused; the maximum that glibc takes on 64 bits."""
_KEPT_FREE = 128 * 1024 * 1024
"""Bytes that the process keeps for the next image, at most."""


def reuse_large_blocks() -> bool:
    """Let freed blocks of an image's size be used for the next image.

    By default glibc returns each large block to the kernel, and the kernel clears the pages of the
    next one, one by one. rclpy takes three such blocks for an image. This must run before other
    threads start. It does nothing for another C library.

    Returns:
        Whether the allocator took the settings.

    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_REUSED) and mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE)
    )


def return_free_memory() -> None:
    """Return to the system what is free; the next image takes new memory.

    It does nothing for another C library than glibc.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def choose_thread_count() -> int:
    """Return the threads for the model that leave one core of this process to everything else."""
    return max(1, count_cores() - 1)


def choose_label_thread_count() -> int:
    """Return the threads for labels while the model describes the next image: half of the cores."""
    return max(1, count_cores() // 2)
