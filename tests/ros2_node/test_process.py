"""Use of memory and processor cores by the node's process."""

import ctypes
import os
import subprocess
import sys

import pytest

from vditrack_ros.process import choose_label_thread_count, choose_thread_count

IMAGES = 20
COUNT_PAGES = f"""
import resource
from vditrack_ros.process import reuse_large_blocks

if REUSE:
    assert reuse_large_blocks()
for n in range(2 + {IMAGES}):
    if n == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    # rclpy's copies of an image.
    copies = [b"x" * (3 * 1920 * 1080) for _ in range(3)]
    del copies
pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(pages)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library")
def test_blocks_of_an_images_size_are_reused():
    """Without the settings, an image of 6.2 MB took 1,519 page faults for each of three copies."""

    def count_pages(reuse):
        code = COUNT_PAGES.replace("REUSE", str(reuse))
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True
        )
        return int(done.stdout)

    assert count_pages(reuse=False) > 1000 * IMAGES
    assert count_pages(reuse=True) < 100


@pytest.mark.parametrize(
    ("cores", "threads", "labels"), [({0}, 1, 1), ({2, 3}, 1, 1), (set(range(8)), 7, 4)]
)
def test_cores_are_left_to_the_camera_and_to_labels(cores, threads, labels, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
    assert (choose_thread_count(), choose_label_thread_count()) == (threads, labels)
