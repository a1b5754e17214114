"""The scripts in examples/, each run as a user runs it, on clips with known motion."""

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from doubles.ros_loopback import camera_process, process, tracker_node
from vditrack.io.video import read_video, write_video

EXAMPLES = Path(__file__).parents[2] / "examples"
LENGTH, HEIGHT, WIDTH = 12, 192, 256
VELOCITY = np.array([3, 2])
"""Pixels (x, y) that the camera's picture moves in a frame."""


@pytest.fixture(scope="module")
def frames():
    """A smooth random texture [T, H, W, 3] that moves by VELOCITY."""
    rng = np.random.default_rng(0)
    margin = LENGTH * VELOCITY.max()
    texture = rng.normal(size=(HEIGHT + margin, WIDTH + margin, 3))
    texture = gaussian_filter(texture, (1.5, 1.5, 0))
    texture = np.clip(128 + 160 * texture / texture.std() / 3, 0, 255).astype(np.uint8)
    corners = margin - np.arange(LENGTH)[:, None] * VELOCITY
    return np.stack([texture[y : y + HEIGHT, x : x + WIDTH] for x, y in corners])


@pytest.fixture(scope="module")
def video(frames, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "moving.mp4"
    write_video(path, frames, np.arange(LENGTH) / 30)
    return path


def run_example(name, *arguments):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_track_video_writes_positions_and_an_overlay(video, tmp_path):
    printed = run_example("track_video.py", video, tmp_path / "out")
    assert printed.startswith("48 points")
    assert len(read_video(tmp_path / "out" / "overlay.mp4").frames) == LENGTH
    saved = np.load(tmp_path / "out" / "positions.npz")
    expected = saved["points"][:, :1] + np.arange(LENGTH)[:, None] * VELOCITY
    error = np.linalg.norm(saved["points"] - expected, axis=2)
    inside = (expected < (WIDTH - 8, HEIGHT - 8)).all(axis=2)
    assert np.median(error[inside & saved["visible"]]) < 0.5
    assert saved["visible"][inside].mean() > 0.9


def test_live_camera_keeps_points_on_a_stream(video):
    lines = run_example("live_camera.py", video).splitlines()
    counts = [tuple(map(int, re.findall(r"\d+", line))) for line in lines]
    assert len(counts) == LENGTH
    assert counts[0] == (0, 0)
    assert all(visible >= 20 for visible, _ in counts[1:])


@pytest.mark.slow
def test_propagate_mask_follows_a_marked_object(frames, tmp_path):
    """A bright square moves over a dark background of another texture."""
    rng = np.random.default_rng(1)
    clip = (frames[0] // 3)[None].repeat(LENGTH, axis=0)
    square = np.clip(gaussian_filter(rng.normal(size=(64, 64, 3)), 1) * 200 + 190, 0, 255)
    for t, frame in enumerate(clip):
        left, top = np.array([40, 50]) + t * VELOCITY
        frame[top : top + 64, left : left + 64] = square
    path = tmp_path / "square.mp4"
    write_video(path, clip, np.arange(LENGTH) / 30)
    printed = run_example("propagate_mask.py", path, 40, 50, 64, 64, tmp_path / "masks.mp4")
    assert len(read_video(tmp_path / "masks.mp4").frames) == LENGTH
    areas = [int(area) for area in re.findall(r"(\d+) pixels", printed)]
    assert len(areas) == LENGTH
    assert areas[0] == 64 * 64
    assert all(0.8 < area / 64**2 < 1.2 for area in areas)
    assert printed.count("centre point on the object") >= LENGTH - 1


@pytest.mark.slow
def test_subscribe_tracks_prints_points_of_the_node(frames, tmp_path):
    script = str(EXAMPLES / "subscribe_tracks.py")
    with (
        process(tmp_path / "example.log", script, "/tracker/tracks") as example,
        tracker_node(tmp_path) as node,
        camera_process(tmp_path, frames, 15),
    ):
        deadline = time.monotonic() + 60
        while example.log.count("point ") < 5:
            assert time.monotonic() < deadline, example.log + node.log
            assert example.alive, example.log
            time.sleep(0.1)
        example.stop()
    places = re.findall(r"point \d+ at \(([\d.]+), ([\d.]+)\)", example.log)
    assert all(0 <= float(x) <= WIDTH and 0 <= float(y) <= HEIGHT for x, y in places)


@pytest.mark.slow
def test_control_node_changes_a_parameter_that_is_read_when_configuring(tmp_path):
    with tracker_node(tmp_path) as node:
        words = ("deactivate", "cleanup", "depth=none", "configure", "activate")
        printed = run_example("control_node.py", "/tracker", "points=5", *words)
        assert printed.count(": done") == 6 and node.log.count("Listening on") >= 2
        script = str(EXAMPLES / "control_node.py")
        with process(tmp_path / "example.log", script, "/tracker", "depth=auto") as example:
            deadline = time.monotonic() + 60
            while example.alive:
                assert time.monotonic() < deadline, example.log + node.log
                time.sleep(0.1)
        assert "depth is not set: depth cannot be set now; it is read when" in example.log
