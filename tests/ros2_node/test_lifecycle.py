"""The node's transitions, its start and end, and its parameters while it runs."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image

from doubles.failing_tracker import FailingTracker, out_of_memory
from doubles.ros_loopback import Camera, tracker_node
from vditrack import Tracker
from vditrack.bundle.folder import bundled_model
from vditrack.errors import install_command
from vditrack_ros.camera.camera import CameraPipeline, SharedModel
from vditrack_ros.diagnostics import ERROR, OK, WARN
from vditrack_ros.parameters.table import PARAMETERS
from vditrack_ros.transforms import FrameTransforms

pytestmark = pytest.mark.slow
FRAME = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)


def await_status(peer, told, level, text):
    """Wait until the status of the model, which is there in all states, has a level and a text."""

    def is_told():
        if not len(told):
            return False
        model, *cameras = told[-1].status
        assert model.name == "tracker: model"
        found = model.level == bytes([level]) and text in model.message
        return found and (level == OK) == bool(cameras)

    peer.until(is_told, text)


def test_transitions_make_and_free(peer, tmp_path):
    publishers = lambda: peer.node.count_publishers("/tracker/tracks")  # noqa: E731
    listeners = lambda: peer.node.count_subscribers("/image")  # noqa: E731
    with tracker_node(tmp_path, autostart=False, max_age=0.0) as node:
        assert peer.state() == "unconfigured"
        assert (publishers(), listeners()) == (0, 0)
        told = peer.collect(DiagnosticArray, "/diagnostics")
        await_status(peer, told, WARN, "is unconfigured: it tracks nothing until")
        # Publishers are there from configuring on, the subscription to the images while active.
        assert peer.transition("configure") and peer.state() == "inactive"
        peer.until(lambda: (publishers(), listeners()) == (1, 0), "that publishers are there")
        assert not peer.transition("configure"), "not from here"
        await_status(peer, told, WARN, "is inactive: it tracks nothing until it is activated")
        camera, highest = Camera(peer), -1
        for _ in range(2):
            assert peer.transition("activate") and peer.state() == "active"
            camera.shoot(FRAME)
            rows = camera.shoot(FRAME)
            assert len(rows) >= 64
            highest = max(highest, int(rows["id"].max()))
            await_status(peer, told, OK, " on cpu")
            assert peer.transition("deactivate") and peer.state() == "inactive"
            await_status(peer, told, WARN, "is inactive")
            peer.until(lambda: (publishers(), listeners()) == (1, 0), "no more images")
        assert peer.transition("cleanup") and peer.state() == "unconfigured"
        peer.until(lambda: (publishers(), listeners()) == (0, 0), "that topics are freed")
        assert not peer.transition("activate"), "not from here"
        assert peer.transition("configure") and peer.transition("activate")
        camera.shoot(FRAME)
        # Ids go on: before, the first point of each start had the id 0.
        assert camera.shoot(FRAME)["id"].min() > highest
        assert peer.transition("shutdown") and peer.state() == "finalized"
        await_status(peer, told, WARN, "is finalized: it was shut down. End the process")
        peer.until(lambda: (publishers(), listeners()) == (0, 0), "that topics are freed")
        assert node.alive
        assert node.stop(signal.SIGINT) == 0
        assert "Traceback" not in node.log


def test_a_start_that_fails_is_mended_without_a_new_one(peer, tmp_path):
    nowhere = tmp_path / "no_bundle"
    with tracker_node(tmp_path, bundle=nowhere, points=-5, backend="abacus") as node:
        peer.until(lambda: "Not started" in node.log, "what to do")
        assert peer.state() == "unconfigured"
        # Each mistake with what is allowed.
        assert "points is -5; it must be an integer from 0 to 4096" in node.log
        assert "backend is 'abacus'; it must be one of auto, tensorrt" in node.log
        told = peer.collect(DiagnosticArray, "/diagnostics")
        await_status(peer, told, ERROR, "is unconfigured. Cannot configure: backend is 'abacus'")
        assert "ros2 param set /tracker" in node.log and "ros2 lifecycle set /tracker" in node.log
        assert not peer.transition("configure")
        assert peer.set(points=16, backend="tensorrt") == {}
        assert not peer.transition("configure")
        assert f"{nowhere}: bundle.json cannot be read" in node.log
        await_status(peer, told, ERROR, f"{nowhere}: bundle.json cannot be read")
        assert peer.set(bundle="") == {}
        assert not peer.transition("configure")
        assert "Cannot configure: backend tensorrt:" in node.log
        assert peer.set(backend="cpu") == {}
        assert peer.transition("configure") and peer.transition("activate")
        assert peer.state() == "active"
        await_status(peer, told, OK, " on cpu")
        assert "Traceback" not in node.log
        camera = Camera(peer)
        camera.shoot(FRAME)
        assert len(camera.shoot(FRAME)) == 16
        assert node.stop(signal.SIGTERM) == 0


def test_parameters_while_it_runs(peer, tmp_path):
    with tracker_node(tmp_path, max_age=0.0, pionts=7) as node:
        peer.until(lambda: peer.state() == "active", "that it starts by itself")
        assert "no parameter pionts; it is ignored. Did you mean points?" in node.log
        told = peer.collect(DiagnosticArray, "/diagnostics")
        refused = peer.set(bundle="/x", cameras=["left"], reliability="reliable", autostart=False)
        assert list(refused) == ["bundle", "cameras", "reliability", "autostart"]
        assert all("deactivate and clean up first" in refused[name] for name in list(refused)[:3])
        assert "at start only" in refused["autostart"]
        for wrong, reason in (
            ({"points": "many"}, "an integer from 0 to 4096"),
            ({"points": 1.5}, "an integer from 0 to 4096"),
            ({"points": 5000}, "4096"),
            ({"points": -1}, "Min: 0"),
            ({"points": 600}, "max_points"),
            ({"max_age": float("nan")}, "Max: 3600"),
            ({"max_age": -1.0}, "Min: 0"),
            ({"max_gap": 0.0}, "0.01"),
            ({"population": "crowd"}, "grid, features, none"),
            ({"population": ""}, "grid, features, none"),
            ({"overlay": "yes"}, "a bool"),
            ({"overlay": None}, "a bool"),
            ({"max_age": True}, "a double from 0 to 3600"),
            ({"min_confidence": 0.2}, "0.5"),
            ({"error_latency": 0.01}, "warn_latency"),
        ):
            (name,) = wrong
            assert reason in peer.set(**wrong)[name], wrong
        good = {"points": 12, "max_gap": 5, "population": "features", "stale_after": 0.2}
        assert peer.set(**good) == {}
        described = peer.describe([parameter.name for parameter in PARAMETERS])
        assert [one.description for one in described] == [one.description for one in PARAMETERS]
        peer.until(lambda: len(told) >= 1, "diagnostics")
        model, camera = told[-1].status
        assert model.name == "tracker: model" and camera.name == "tracker: camera"
        values = {value.key: value.value for value in model.values}
        assert values["backend"] in {"cpu-int8", "cpu"} and "no engine" in values["not tensorrt"]
        assert float(values["memory (MB)"]) > 50 and values["state"] == "active"
        # Configured anew, it takes what it refused.
        assert peer.transition("deactivate") and peer.transition("cleanup")
        assert peer.set(cameras=["left"], reliability="reliable") == {}
        assert peer.transition("configure") and peer.transition("activate")
        left = Camera(peer, "left/", "/tracker/left/tracks")
        peer.listen(0.5)
        # A camera of best effort does not reach a reliable listener; a reliable one does.
        peer.node.destroy_publisher(left.publisher)
        left.publisher = peer.publisher(Image, "/left/image")
        left.shoot(FRAME)
        assert len(left.shoot(FRAME)) == 12


def test_memory_is_given_back(peer, tmp_path):
    with tracker_node(tmp_path, autostart=False, max_age=0.0) as node:
        resident = lambda: psutil.Process(node.pid).memory_info().rss / 1e6  # noqa: E731
        camera, loaded = Camera(peer), []
        for _ in range(9):
            assert peer.transition("configure") and peer.transition("activate")
            camera.shoot(FRAME)
            camera.shoot(FRAME)
            loaded.append(resident())
            assert peer.transition("deactivate") and peer.transition("cleanup")
    # What is free goes back to the system late or never, but the next model takes it. One that
    # stays would add what it takes to every cycle, its weights at least.
    weights = sum(graph.stat().st_size for graph in bundled_model().glob("*.onnx")) / 1e6
    cycles = 6
    assert np.median(loaded[-3:]) - np.median(loaded[:3]) < cycles * weights / 2, loaded


def test_a_model_that_fails_is_told_of_and_tried_again(peer, settings):
    settings = replace(settings, max_age=0.0)
    tracker = FailingTracker(Tracker.load(backend="cpu"), out_of_memory)
    with ThreadPoolExecutor(1) as worker:
        model, transforms = SharedModel(tracker, worker, worker), FrameTransforms(peer.node)
        tracked = CameraPipeline(peer.node, "", model, transforms, settings)
        tracked.activate()
        camera = Camera(peer, tracks="/peer/tracks")
        camera.shoot(FRAME)
        # The next two fail; then it starts over.
        assert len(camera.shoot(FRAME)) == 0
        assert len(camera.shoot(FRAME)) == 64
        report = tracked.build_reports()["camera"]
        assert report.level == ERROR and "RuntimeError: out of memory" in report.message
        assert report.values["dropped, failed"] == "2"
        tracked.close()


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "vditrack_ros.main", *arguments],
        check=False,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_without_ros(tmp_path):
    (tmp_path / "rclpy.py").write_text("raise ImportError('librcl.so is not there')")
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    ended = run(PYTHONPATH=path)
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert "librcl.so is not there" in line
    assert "setup.bash" in line and install_command("ros") in line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--ros-args", "-p", "points"], "points"),
        (["--ros-args", "--no-such"], "--no-such"),
        (["camera0"], "camera0"),
    ],
)
def test_arguments_that_make_no_sense(arguments, told):
    ended = run(*arguments)
    assert ended.returncode == 2
    assert told in ended.stderr and "Traceback" not in ended.stderr


def test_the_path_of_the_profile_for_large_images():
    ended = run("--fastdds-profile")
    assert ended.returncode == 0
    assert "<segment_size>" in Path(ended.stdout.strip()).read_text()


def test_help():
    ended = run("--help")
    assert ended.returncode == 0
    assert all(parameter.name in ended.stdout for parameter in PARAMETERS)
