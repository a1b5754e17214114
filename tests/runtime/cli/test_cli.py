"""The command as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from vditrack.cli.demo import DEMO_COLUMNS, DEMO_ROWS
from vditrack.io.video import read_video, write_video


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a clip in it, 128 x 96, 6 frames."""
    blocks = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    picture = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
    frames = [np.roll(picture, 2 * t, axis=1) for t in range(6)]
    write_video(tmp_path / "clip.mp4", frames, np.arange(6) / 10)
    return tmp_path


def test_track_writes_tracks_and_an_overlay(folder, spawn_vditrack):
    done = spawn_vditrack(
        "track", "clip.mp4", "--at", "0,64,48", "--at", "3,20.5,30", "--json", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["frames"], result["points"], result["width"], result["height"]) == (
        6,
        2,
        128,
        96,
    )
    with np.load(folder / "clip_tracks" / "tracks.npz") as tracks:
        assert tracks["points"].shape == (2, 6, 2)
        np.testing.assert_allclose(tracks["points"][1, 3], [20.5, 30])
        np.testing.assert_allclose(tracks["times"], np.arange(6) / 10, atol=1e-4)
    overlay = read_video(folder / "clip_tracks" / "overlay.mp4")
    assert overlay.frames.shape == (6, 96, 128, 3)


def test_grid_and_points_file_and_a_stretch(folder, run_vditrack):
    assert run_vditrack("track", "clip.mp4", "--grid", "3", "-o", "out", cwd=folder).returncode == 0
    again = run_vditrack(
        "track", "clip.mp4", "--grid", "2", "-o", "out", "--start", "0.2", "--json", cwd=folder
    )
    assert json.loads(again.stdout)["points"] == 4
    assert json.loads(again.stdout)["frames"] == 4
    (folder / "points.csv").write_text("x,y\n64,48\n")
    result = run_vditrack("track", "clip.mp4", "--points", "points.csv", cwd=folder)
    assert "tracked 1 points through 6 frames of 128 x 96" in result.stdout
    assert "clip_tracks/overlay.mp4" in result.stdout


def test_a_folder_of_images_and_its_gaps(folder, run_vditrack):
    images = folder / "images"
    images.mkdir()
    for t, frame in enumerate(read_video(folder / "clip.mp4").frames):
        if t != 3:
            cv2.imwrite(str(images / f"{t}.png"), frame[..., ::-1])
    done = run_vditrack("track", "images", "--grid", "2", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    (gap,) = result["gaps"]
    assert (gap["start"], gap["end"], gap["frames"]) == (
        pytest.approx(2 / 30),
        pytest.approx(4 / 30),
        1,
    )
    for words in ("30 frames per second are assumed", "1 frame is missing between 0.067 s"):
        assert words in done.stderr
        assert any(words in remark for remark in result["remarks"])
    with np.load(folder / "images_tracks" / "tracks.npz") as tracks:
        np.testing.assert_allclose(tracks["gaps"], [[2 / 30, 4 / 30, 1]])
        np.testing.assert_allclose(tracks["times"], np.array([0, 1, 2, 4, 5]) / 30)
    mask = np.zeros((96, 128), np.uint8)
    mask[30:60, 40:90] = 1
    cv2.imwrite(str(folder / "mask.png"), mask)
    done = run_vditrack("propagate", "images", "--mask", "mask.png", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    saved = json.loads((folder / "images_masks" / "result.json").read_text())
    assert saved["gaps"] == json.loads(done.stdout)["gaps"] == [gap]
    assert saved["frames"] == len(saved["times"]) == 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clip.mp4"], "exactly one of"),
        (["clip.mp4", "--grid", "2", "--at", "0,1,1"], "exactly one of"),
        (["clip.mp4", "--at", "0,1"], "--at 0,1 is not t,x,y"),
        (["clip.mp4", "--at", "0,128,5"], "(128, 5) is not inside the frame of 128 x 96"),
        (["clip.mp4", "--at", "6,5,5"], "frames are 0 to 5"),
        (["clip.mp4", "--at", "0,nan,5"], "not inside"),
        (["absent.mp4", "--grid", "2"], "absent.mp4 is not a file"),
        ([".", "--grid", "2"], ". is a folder without JPEG or PNG images"),
        (["text.mp4", "--grid", "2"], "text.mp4 is no video"),
        (["cut.mp4", "--grid", "2"], "cut.mp4"),
        (["clip.mp4", "--grid", "2", "--bundle", "nowhere"], "no bundle at nowhere"),
        (["clip.mp4", "--points", "absent.csv"], "absent.csv is not a file"),
        (["clip.mp4", "--grid", "2", "-o", "text.mp4"], "is a file"),
        (["clip.mp4", "--grid", "2", "-o", "text.mp4/out"], "text.mp4 is a file"),
        (["overlay.mp4", "--grid", "2", "-o", "."], "overlay.mp4 is an input"),
        (["clip.mp4", "--grid", "2", "-o", "."], "holds overlay.mp4, which would be replaced"),
        (["clip.mp4", "--grid", "2", "--start", "9"], "no video frame"),
        (["clip.mp4", "--grid", "2", "--start", "-1"], "-1 s to its end is not a time range"),
        (["clip.mp4", "--grid", "2", "--end", "inf"], "0 s to inf s is not a time range"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(folder, arguments, message, assert_refused):
    (folder / "text.mp4").write_text("no video\n" * 50)
    (folder / "cut.mp4").write_bytes((folder / "clip.mp4").read_bytes()[:700])
    (folder / "overlay.mp4").write_bytes((folder / "clip.mp4").read_bytes())
    assert_refused("track", *arguments, message=message, cwd=folder)


def test_too_little_memory_is_one_line(folder, monkeypatch, assert_refused):
    monkeypatch.setattr(
        "vditrack.cli.track_run.open_source", lambda *_: np.empty(1 << 60, np.uint8)
    )
    assert_refused("track", "clip.mp4", "--grid", "2", message="Unable to allocate", cwd=folder)


def test_a_mistake_ends_the_process_with_code_2(folder, spawn_vditrack):
    done = spawn_vditrack("track", "absent.mp4", "--grid", "2", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "vditrack: absent.mp4 is not a file."
    assert "Traceback" not in done.stderr


def test_inspect(tmp_path, run_vditrack):
    result = run_vditrack("inspect", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "encoder.onnx" in result.stdout
    # The bundled model is of a checkpoint with one transformer.
    assert "expert" not in result.stdout
    manifest = json.loads(run_vditrack("inspect", "--json", cwd=tmp_path).stdout)
    assert manifest["name"] == "tiny"
    refused = run_vditrack("inspect", tmp_path, cwd=tmp_path)
    assert refused.returncode == 2
    assert "bundle.json cannot be read" in refused.stderr


@pytest.mark.parametrize("way", [".", "link", "new/deep/"])
def test_results_are_written_beside_other_files(way, folder, run_vditrack):
    (folder / "taken").mkdir()
    (folder / "taken" / "thesis.tex").write_text("years of work")
    (folder / "link").symlink_to("taken")
    before = set(folder.rglob("*"))
    arguments = ["track", folder / "clip.mp4", "--grid", "2", "-o", way, "--json"]
    # Again over its own results.
    for _ in range(2):
        done = run_vditrack(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        written = [*result["tracks"], result["overlay"]]
        assert [Path(name).parent for name in written] == [Path(way)] * 3
        new = set(folder.rglob("*")) - before
        expected = {(folder / name).resolve() for name in written}
        assert {path for path in new if path.is_file()} == expected
    assert (folder / "taken" / "thesis.tex").read_text() == "years of work"


def test_an_overlay_that_cannot_be_written_costs_no_tracks(tmp_path, run_vditrack):
    # H.264 takes 16384 pixels a side.
    picture = np.random.default_rng(0).integers(0, 255, (32, 16400, 3), np.uint8)
    with av.open(str(tmp_path / "wide.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16400, 32, "yuv420p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    done = run_vditrack("track", "wide.mkv", "--grid", "2", "--json", "-o", ".", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        "vditrack: overlay.mp4 was not written: 16400 x 32 pixels are too large for the encoder "
        "libx264, which takes 16384 a side."
    ]
    result = json.loads(done.stdout)
    assert (result["overlay"], list(result["not_written"])) == (None, ["overlay.mp4"])
    assert {path.name for path in tmp_path.iterdir()} == {"wide.mkv", "tracks.npz", "tracks.csv"}
    with np.load(tmp_path / "tracks.npz") as tracks:
        assert tracks["points"].shape == (4, 2, 2)


@pytest.mark.slow
def test_help_and_version(tmp_path, spawn_vditrack):
    result = spawn_vditrack("--help", cwd=tmp_path)
    assert result.returncode == 0
    for verb in ("demo", "track", "inspect", "export"):
        assert verb in result.stdout
    assert spawn_vditrack("--version", cwd=tmp_path).stdout.strip().count(".") == 2


@pytest.mark.slow
def test_a_verb_that_does_not_load_harms_no_other(tmp_path):
    package = tmp_path / "site" / "broken-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[vditrack.commands]\nsing = absent_module:sing\n")
    code = "from vditrack.cli.app import main; main()"

    def call(*arguments) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
            capture_output=True,
            text=True,
            check=False,
        )

    assert "sing" in call("--help").stdout
    assert call("--version").returncode == 0
    refused = call("sing", "--loud", "high")
    assert refused.returncode == 2
    assert refused.stderr.startswith("vditrack: the verb sing does not load")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(folder, number):
    frames = np.random.default_rng(0).integers(0, 255, (300, 96, 128, 3), np.uint8)
    write_video(folder / "long.mp4", frames, np.arange(300) / 10)
    before = sorted(folder.rglob("*"))
    command = [str(Path(sys.executable).with_name("vditrack")), "track", "long.mp4", "--grid", "10"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as running:
        until = time.monotonic() + 30
        # Not a listing of the folder: what is listed may be gone before it is entered.
        while not (folder / "long_tracks").exists() and time.monotonic() < until:
            time.sleep(0.02)
        running.send_signal(number)
        _, result = running.communicate(timeout=30)
    assert running.returncode == 128 + number
    assert "Traceback" not in result
    assert sorted(folder.rglob("*")) == before


LONG_CALL = """
import hashlib, threading
from pathlib import Path
from vditrack.atomic_files import staged_folder
from vditrack.cli.stop_signals import exit_on_signals

with exit_on_signals(), staged_folder(Path("bundle"), ()) as folder:
    (folder / "half").touch()
    # When the main thread is in the call below.
    threading.Timer(1, print, ["busy"], {"flush": True}).start()
    # Python handles no signal before it returns.
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**30)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_a_long_computation_leaves_nothing(tmp_path, number):
    command = [sys.executable, "-c", LONG_CALL]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, text=True, **pipes) as running:
        assert running.stdout.readline() == "busy\n"
        assert list(tmp_path.iterdir())
        running.send_signal(number)
        _, result = running.communicate(timeout=60)
    assert running.returncode == 128 + number
    assert result == f"vditrack: stopped by {number.name}.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_demo(tmp_path, spawn_vditrack):
    done = spawn_vditrack("demo", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["frames"], result["width"], result["height"]) == (250, 640, 272)
    assert result["points"] == 6 * DEMO_COLUMNS * DEMO_ROWS
    assert (tmp_path / "demo" / "overlay.mp4").stat().st_size > 100_000
