"""Files of points and tracks."""

import csv

import numpy as np
import pytest

from doubles.tracks import TIMES, TRACKS
from vditrack import InputError
from vditrack.io.clip import Gap
from vditrack.io.track_files import read_npz, read_queries, save_csv, save_npz


def test_npz(tmp_path):
    save_npz(tmp_path / "t.npz", TRACKS, TIMES, [Gap(0.5, 0.8, 2)])
    with np.load(tmp_path / "t.npz", allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["gaps"], [[0.5, 0.8, 2]])
        for name in ("queries", "points", "visible", "confidence", "forward_backward_error"):
            np.testing.assert_array_equal(saved[name], getattr(TRACKS, name))
        np.testing.assert_array_equal(saved["times"], TIMES)


def test_csv(tmp_path):
    save_csv(tmp_path / "t.csv", TRACKS, TIMES)
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert len(rows) == 4
    assert rows[1] == {
        "id": "0",
        "frame": "1",
        "time": "0.040000",
        "x": "1.750",
        "y": "2.250",
        "visible": "0",
        "confidence": "0.2500",
        "forward_backward_error": "inf",
    }


def test_files_have_the_objects_of_points(tmp_path):
    masks = np.zeros((2, 5, 4), np.uint8)
    masks[0, 2, 1], masks[1, 2, 1], masks[0, 4, 3], masks[1, 4, 3] = 9, 8, 7, 255
    tracks = TRACKS.on_objects(masks)
    save_npz(tmp_path / "t.npz", tracks, TIMES)
    with np.load(tmp_path / "t.npz", allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["object_id"], tracks.object_id)
        assert saved["gaps"].shape == (0, 3)
    save_csv(tmp_path / "t.csv", tracks, TIMES)
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert [row["object_id"] for row in rows] == ["9", "0", "7", "255"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("t,x,y\n2,3.5,4\n0,1,2\n", [[2, 3.5, 4], [0, 1, 2]]),
        ("x,y\n3.5,4\n", [[0, 3.5, 4]]),
        ("\ufeffT, X ,y\r\n1,2,3\r\n\r\n", [[1, 2, 3]]),
    ],
)
def test_queries_from_csv(tmp_path, text, expected):
    path = tmp_path / "points.csv"
    path.write_text(text, encoding="utf-8")
    np.testing.assert_array_equal(read_queries(path), np.float32(expected))


@pytest.mark.parametrize("columns", [2, 3])
def test_queries_from_npy(tmp_path, columns):
    rows = np.arange(12.0).reshape(-1, columns)
    np.save(tmp_path / "points.npy", rows)
    read = read_queries(tmp_path / "points.npy")
    np.testing.assert_array_equal(read[:, 3 - columns :], rows)
    assert read.shape[1] == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.csv", b"", "line 1"),
        ("p.csv", b"a,b\n1,2\n", "line 1: the header"),
        ("p.csv", b"t,x,y\n0,1,2\n0,one,2\n", "line 3: could not convert.*one"),
        ("p.csv", b"t,x,y\n0,1\n", "line 2: 2 values, the header has 3"),
        ("p.csv", b"x,y\n", r"\[0, 2\] numbers"),
        ("p.csv", b"\xff\xfe\x00", "not a CSV"),
        ("p.npy", b"not numpy", "not a NumPy array"),
        ("p.npy", b"", "not a NumPy array"),
    ],
)
def test_bad_queries_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}.*{message}"):
        read_queries(tmp_path / name)


def test_pickles_are_not_opened(tmp_path):
    np.save(tmp_path / "p.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(InputError, match="not a NumPy array"):
        read_queries(tmp_path / "p.npy")
    with pytest.raises(InputError, match="not a file"):
        read_queries(tmp_path / "absent.csv")


def test_tracks_do_not_name_the_user_that_made_them(tmp_path, monkeypatch):
    """Whoever gets the file finds the video below a home folder of their own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home" / "somebody"))
    video = tmp_path / "home" / "somebody" / "videos" / "clip.mp4"
    save_npz(tmp_path / "t.npz", TRACKS, TIMES, video=video)
    with np.load(tmp_path / "t.npz") as arrays:
        assert str(arrays["video"]) == "~/videos/clip.mp4"
    assert read_npz(tmp_path / "t.npz").video == video
    save_npz(tmp_path / "t.npz", TRACKS, TIMES, video=tmp_path / "clip.mp4")
    assert read_npz(tmp_path / "t.npz").video == tmp_path / "clip.mp4"
