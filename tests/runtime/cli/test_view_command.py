"""``vditrack view`` and the option ``--rerun`` as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from doubles import bags
from doubles.annotations import make_annotation
from doubles.propagating import write_propagating
from vditrack.annotation.settings import Settings
from vditrack.annotation.specification import Specification
from vditrack.annotation.track_tables import write_tracks
from vditrack.io import frame_source
from vditrack.io.rerun_recording import INVISIBLE, PICTURES, VISIBLE
from vditrack.io.track_files import save_npz
from vditrack.io.video import read_video, write_video
from vditrack.points.tracks import Tracks

chunk = pytest.importorskip("rerun.chunk", reason="rerun-sdk needs Python 3.11")

LENGTH = 6


def read_points(path) -> dict[int, dict[int, tuple[float, float]]]:
    """Positions by frame and id, as Rerun's own reader gives them."""
    found: dict[int, dict[int, tuple[float, float]]] = {}
    for part in chunk.RrdReader(path).stream():
        if part.entity_path.lstrip("/") not in (VISIBLE, INVISIBLE):
            continue
        batch = part.to_record_batch()
        names = ("frame", "id", "Points2D:positions")
        columns = [batch.column(batch.schema.names.index(name)).to_pylist() for name in names]
        for frame, ids, positions in zip(*columns, strict=True):
            found.setdefault(frame, {}).update(zip(ids, map(tuple, positions), strict=True))
    return found


def read_pictures(path) -> list[np.ndarray]:
    """Pictures in the order of their frames."""
    found: dict[int, np.ndarray] = {}
    for part in chunk.RrdReader(path).stream():
        if part.entity_path.lstrip("/") == PICTURES:
            batch = part.to_record_batch().select(["frame", "EncodedImage:blob"]).to_pydict()
            for frame, (data,) in zip(*batch.values(), strict=True):
                found[frame] = cv2.imdecode(np.array(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    return [found[frame] for frame in sorted(found)]


def list_entities(path) -> set[str]:
    return {part.entity_path for part in chunk.RrdReader(path).stream()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a clip of 6 frames, its bag and a mask."""
    folder = tmp_path_factory.mktemp("view")
    write_video(folder / "clip.mp4", bags.clip(LENGTH), np.arange(LENGTH) / 10)
    mask = np.zeros((96, 128), np.uint8)
    mask[20:60, 30:80] = 7
    cv2.imwrite(str(folder / "first.png"), mask)
    bags.write_bag(folder / "bag", bags.images(), bags.camera_info())
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_propagating(tmp_path_factory.mktemp("bundles") / "both").root


@pytest.mark.slow
def test_a_run_of_track_is_shown_as_it_was_written(folder, run_vditrack):
    done = run_vditrack(
        "track", "clip.mp4", "--grid", "3", "-o", "out", "--rerun", "own.rrd", "--json", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recording"] == "own.rrd"
    done = run_vditrack("view", "out", "-o", "view.rrd", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"recording": "view.rrd", "frames": LENGTH}
    assert done.stderr == ""
    with np.load(folder / "out" / "tracks.npz") as tracks:
        points = tracks["points"]
    for name in ("own.rrd", "view.rrd"):
        shown = read_points(folder / name)
        assert sorted(shown) == list(range(LENGTH))
        for t, by_id in shown.items():
            positions = [by_id[number] for number in sorted(by_id)]
            np.testing.assert_array_equal(positions, points[:, t])
        assert "/video" in list_entities(folder / name)


@pytest.mark.slow
def test_results_whose_video_is_gone_are_shown_without_pictures(folder, tmp_path, run_vditrack):
    run_vditrack("track", "clip.mp4", "--grid", "2", "-o", tmp_path / "out", cwd=folder)
    arrays = dict(np.load(tmp_path / "out" / "tracks.npz"))
    del arrays["video"]
    np.savez(tmp_path / "old.npz", **arrays)
    done = run_vditrack("view", "old.npz", "-o", "a.rrd", cwd=tmp_path)
    assert done.returncode == 0
    assert "note: old.npz does not name its video" in done.stderr
    assert "/video" not in list_entities(tmp_path / "a.rrd")
    assert len(read_points(tmp_path / "a.rrd")) == LENGTH
    other = [np.zeros((96, 128, 3), np.uint8)] * 4
    write_video(tmp_path / "other.mp4", other, np.arange(4) / 10)
    done = run_vditrack("view", "old.npz", "--video", "other.mp4", "-o", "b.rrd", cwd=tmp_path)
    assert done.returncode == 2
    assert "other.mp4 is not the video of the results" in done.stderr
    assert not (tmp_path / "b.rrd").exists()


@pytest.mark.slow
def test_masks_are_shown_with_the_names_of_their_objects(folder, bundle, run_vditrack):
    made = ("--object", "first.png", "--bundle", bundle, "-o", "masks_out")
    done = run_vditrack(
        "propagate", "clip.mp4", *made, "--rerun", "masks.rrd", "--json", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recording"] == "masks.rrd"
    for place in ("masks_out", "masks_out/masks", "masks_out/result.json"):
        done = run_vditrack("view", place, "-o", "masks_view.rrd", cwd=folder)
        assert done.returncode == 0, done.stderr
        for name in ("masks.rrd", "masks_view.rrd"):
            found = list(chunk.RrdReader(folder / name).stream())
            masks = [part for part in found if part.entity_path == "/video/objects"]
            assert sum(part.num_rows for part in masks if not part.is_static) == LENGTH
            named = [part.to_record_batch() for part in masks if part.is_static]
            assert "first" in str(named[-1].select(["AnnotationContext:context"]).to_pydict())


@pytest.mark.slow
def test_a_bag_of_tracks_is_shown_with_its_images_or_those_of_the_recording(folder, run_vditrack):
    done = run_vditrack("track", "bag", "--grid", "2", "-o", "bag_out", cwd=folder)
    assert done.returncode == 0, done.stderr
    for options in ([], ["--video", "bag"]):
        done = run_vditrack(
            "view", "bag_out/tracks.mcap", *options, "-o", "bag.rrd", "--json", cwd=folder
        )
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["frames"] == LENGTH
        assert {"/video", "/video/points/visible"} <= list_entities(folder / "bag.rrd")
        with np.load(folder / "bag_out" / "tracks.npz") as tracks:
            for t, by_id in read_points(folder / "bag.rrd").items():
                for number, position in by_id.items():
                    np.testing.assert_array_equal(position, tracks["points"][number, t])


def test_frames_of_a_long_video_are_decoded_as_they_are_written(
    folder, tmp_path, run_vditrack, monkeypatch
):
    """With no memory for frames; the tracks are of a part of the video."""
    monkeypatch.setattr(frame_source, "_KEPT_BYTES", 0)
    part, length = slice(2, LENGTH), LENGTH - 2
    one = np.ones((1, length), np.float32)
    points = np.arange(2 * length, dtype=np.float32).reshape(1, length, 2)
    tracks = Tracks(np.zeros((1, 3), np.float32), points, one > 0, one, one)
    video = read_video(folder / "clip.mp4")
    save_npz(tmp_path / "part.npz", tracks, video.times[part], video=folder / "clip.mp4")
    done = run_vditrack("view", "part.npz", "-o", "part.rrd", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == {"recording": "part.rrd", "frames": length}
    positions = [by_id[0] for _, by_id in sorted(read_points(tmp_path / "part.rrd").items())]
    np.testing.assert_array_equal(positions, points[0])
    frames = video.frames.astype(int)
    nearest = [
        int(np.abs(frames - picture).mean(axis=(1, 2, 3)).argmin())
        for picture in read_pictures(tmp_path / "part.rrd")
    ]
    assert nearest == list(range(LENGTH))[part]


def test_the_recordings_of_a_job_are_shown_together(tmp_path, run_vditrack, monkeypatch):
    tracks = tmp_path / "out/tracks"
    for name in ("a", "b"):
        made, record = make_annotation(Specification(grid=2), path=tmp_path / f"{name}.mp4")
        write_tracks(tracks / f"{name}.parquet", made, record)
    settings = Settings("b" * 64, "cpu", Specification(grid=2))
    (tmp_path / "out/job.json").write_bytes(msgspec.json.encode(settings))
    shown = {}

    def run(command, **_):
        shown.update({path: len(read_points(path)) for path in command if path.endswith(".rrd")})
        return subprocess.CompletedProcess(command, 0, stderr="")

    monkeypatch.setattr("vditrack.cli.view.subprocess.run", run)
    done = run_vditrack("view", "out", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == {"recording": None, "frames": 10}
    assert done.stderr.count("is not there: results are shown without pictures") == 2
    assert {Path(path).name: count for path, count in shown.items()} == {
        "a.parquet.rrd": 5,
        "b.parquet.rrd": 5,
    }
    refused = run_vditrack("view", "out", "-o", "a.rrd", cwd=tmp_path)
    assert refused.returncode == 2
    assert "out has the tracks of 2 recordings, and -o" in refused.stderr
    assert "such as out/tracks/a.parquet" in refused.stderr
    monkeypatch.setattr("vditrack.cli.view._MOST_SHOWN", 1)
    assert "at most 1 are shown together" in run_vditrack("view", "out", cwd=tmp_path).stderr
    (tracks / "b.parquet").unlink()
    assert run_vditrack("view", "out", "-o", "a.rrd", cwd=tmp_path).returncode == 0
    assert len(read_points(tmp_path / "a.rrd")) == 5


def test_mistakes_are_one_line(folder, assert_refused, tmp_path):
    (tmp_path / "clip.mp4").write_bytes((folder / "clip.mp4").read_bytes())
    (tmp_path / "bad.npz").write_bytes(b"none")
    (tmp_path / "bag").symlink_to(folder / "bag")
    for arguments, message in (
        (("view", "nothing", "-o", "a.rrd"), "nothing has no results"),
        (("view", "clip.mp4", "-o", "a.rrd"), "clip.mp4 has no results"),
        (("view", "bag", "-o", "a.rrd"), "bag has no topic of tracks"),
        (("view", "bad.npz", "-o", "a.rrd"), "bad.npz is not a file of tracks"),
        (("view", "clip.mp4", "-o", "a.mp4"), "-o a.mp4 is no name of a recording"),
        (("track", "clip.mp4", "--grid", "2", "--rerun", "a.txt"), "--rerun a.txt is no name"),
        (("track", "clip.mp4", "--grid", "2", "--rerun", "clip.mp4/a.rrd"), "cannot write in"),
    ):
        assert_refused(*arguments, message=message, cwd=tmp_path)


def test_a_viewer_that_fails_is_an_error(folder, tmp_path, run_vditrack, monkeypatch):
    """The viewer itself is not started: it would open a window where there is a display."""
    recording = tmp_path / "a.rrd"
    recording.touch()
    started = []

    def run(command, **_):
        started.append(command)
        return subprocess.CompletedProcess(command, 1, stderr="many lines\nError: no display.\n")

    monkeypatch.setattr("vditrack.cli.view.subprocess.run", run)
    done = run_vditrack("view", recording)
    assert done.returncode == 2
    assert "the Rerun viewer failed: Error: no display. Without a display, write" in done.stderr
    assert started[0][:3] == [sys.executable, "-m", "rerun"]
    assert started[0][-1] == str(recording)
