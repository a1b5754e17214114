"""Recordings for the Rerun viewer, read back with Rerun's own reader."""

import io
import resource

import numpy as np
import pytest
from PIL import Image

from vditrack.errors import InputError
from vditrack.io import rerun_recording
from vditrack.io.rerun_recording import choose_id_colours, write_recording
from vditrack.io.viewed_frames import ViewedFrame, ViewedPoints, view_clip
from vditrack.points.tracks import Tracks

chunk = pytest.importorskip("rerun.chunk", reason="rerun-sdk needs Python 3.11")
pyarrow = pytest.importorskip("pyarrow")

TIMES = np.array([0.0, 0.1, 0.25, 0.4])
BEGAN = 1_700_000_000_000_000_123
"""Nanoseconds; more than a float of 64 bits tells apart."""
COUNT, LENGTH, HEIGHT, WIDTH = 3, 4, 48, 64


def make_tracks() -> Tracks:
    """Three points that move by (2, 1) pixels a frame; the second is hidden in frame 2."""
    start = np.array([[10.5, 20.5], [30.5, 8.5], [40.25, 30.75]], np.float32)
    points = start[:, None] + np.arange(LENGTH, dtype=np.float32)[:, None] * [2, 1]
    visible = np.ones((COUNT, LENGTH), bool)
    visible[1, 2] = False
    confidence = np.where(visible, 0.9, 0.2).astype(np.float32)
    queries = np.insert(start, 0, 0, axis=1)
    return Tracks(
        queries, points.astype(np.float32), visible, confidence, np.zeros_like(confidence)
    )


def read(path) -> dict[str, dict]:
    """Columns of each entity by its path, without the static ones, in the order of the frames.

    Times are in nanoseconds.
    """
    found: dict[str, dict] = {}
    for part in chunk.RrdReader(path).stream():
        if not part.is_static:
            columns = found.setdefault(part.entity_path, {})
            batch = part.to_record_batch()
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                if pyarrow.types.is_temporal(column.type):
                    column = column.cast("int64")  # noqa: PLW2901
                columns.setdefault(name, []).extend(column.to_pylist())
    for columns in found.values():
        order = np.argsort(columns["frame"])
        columns |= {name: [values[i] for i in order] for name, values in columns.items()}
    return found


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> dict[str, dict]:
    path = tmp_path_factory.mktemp("rerun") / "clip.rrd"
    frames = np.full((LENGTH, HEIGHT, WIDTH, 3), 90, np.uint8)
    frames[:, :, :20] = (200, 20, 30)
    masks = np.zeros((LENGTH, HEIGHT, WIDTH), np.uint8)
    masks[1:, 5:9, 10:20] = 7
    stamps = BEGAN + (TIMES * 1e9).astype(np.int64)
    write_recording(path, view_clip(TIMES, frames, make_tracks(), masks, stamps), {7: "cup"})
    return read(path)


def test_frames_are_on_three_timelines(recording):
    pictures = recording["/video"]
    assert pictures["frame"] == [0, 1, 2, 3]
    np.testing.assert_allclose(np.array(pictures["time"]) / 1e9, TIMES)
    assert pictures["stamp"] == (BEGAN + (TIMES * 1e9).astype(np.int64)).tolist()


def test_pictures_are_small_and_right(recording):
    blobs = [row[0] for row in recording["/video"]["EncodedImage:blob"]]
    picture = np.array(Image.open(io.BytesIO(bytes(blobs[0]))))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_allclose(picture[24, 5], (200, 20, 30), atol=6)
    assert max(map(len, blobs)) < HEIGHT * WIDTH


def test_visible_and_invisible_points_are_told_apart(recording):
    tracks = make_tracks()
    for name, chosen in (("visible", tracks.visible), ("invisible", ~tracks.visible)):
        entity = recording[f"/video/points/{name}"]
        for t in range(LENGTH):
            ids = np.flatnonzero(chosen[:, t])
            assert entity["id"][t] == ids.tolist()
            assert entity["Points2D:labels"][t] == [str(n) for n in ids]
            expected = tracks.points[ids, t]
            np.testing.assert_array_equal(
                np.reshape(entity["Points2D:positions"][t], (-1, 2)), expected
            )
            np.testing.assert_allclose(entity["confidence"][t], tracks.confidence[ids, t])
            packed = np.array(entity["Points2D:colors"][t], np.uint32)
            rgb = np.stack([packed >> 24, packed >> 16 & 255, packed >> 8 & 255], axis=1)
            np.testing.assert_array_equal(rgb, choose_id_colours(ids))
    opacity = [
        recording[f"/video/points/{n}"]["Points2D:colors"][2][0] & 255
        for n in ("visible", "invisible")
    ]
    assert opacity[0] == 255 > opacity[1]


def test_trails_leave_out_what_was_not_seen(recording):
    strips = recording["/video/trails"]["LineStrips2D:strips"]
    assert strips[0] == []
    tracks = make_tracks()
    np.testing.assert_array_equal(strips[3][0], tracks.points[0])
    # The point that was hidden in frame 2 has no step to it or from it.
    np.testing.assert_array_equal(strips[3][1], tracks.points[1, :2])
    assert len(strips[3]) == COUNT


def test_masks_are_indices_with_names(recording, tmp_path):
    masks = recording["/video/objects"]
    buffers = [np.frombuffer(bytes(row[0]), np.uint8) for row in masks["SegmentationImage:buffer"]]
    assert [int((mask == 7).sum()) for mask in buffers] == [0, 40, 40, 40]
    path = tmp_path / "named.rrd"
    mask = np.zeros((4, 4), np.uint8)
    mask[0] = 7
    write_recording(path, [ViewedFrame(0, 0.0, mask=mask)], {7: "cup"})
    named = next(
        part
        for part in chunk.RrdReader(path).stream()
        if part.entity_path == "/video/objects" and part.is_static
    )
    assert "cup" in str(named.to_record_batch().select(["AnnotationContext:context"]).to_pydict())


def test_points_do_not_stay_where_a_frame_has_none(tmp_path):
    picture = np.zeros((8, 8, 3), np.uint8)
    one = ViewedPoints(
        np.array([5]), np.ones((1, 2), np.float32), np.array([True]), np.ones(1, np.float32)
    )
    path = tmp_path / "gap.rrd"
    write_recording(path, [ViewedFrame(0, 0.0, picture, one), ViewedFrame(1, 0.1, picture)])
    cleared = {
        part.entity_path: part.to_record_batch().select(["frame"]).to_pydict()["frame"]
        for part in chunk.RrdReader(path).stream()
        if any(name.startswith("Clear:") for name in part.to_record_batch().schema.names)
    }
    assert cleared == {"/video/points": [1], "/video/trails": [1]}


def test_trails_are_bounded():
    trails = rerun_recording._Trails()
    for t in range(100):
        seen = ViewedPoints(
            np.array([1]), np.full((1, 2), t, np.float32), np.array([True]), np.ones(1, np.float32)
        )
        ids, strips = trails.extend(seen)
    assert ids.tolist() == [1]
    assert strips[0][:, 0].tolist() == list(range(75, 100))


def test_without_the_sdk_the_error_says_what_to_install(monkeypatch, tmp_path):
    def fail(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(rerun_recording, "import_module", fail)
    with pytest.raises(InputError, match=r"rerun-sdk.*`pip install .*rerun.*NumPy 2"):
        write_recording(tmp_path / "a.rrd", [])


def test_a_recording_that_does_not_fit_on_the_disk_is_an_error(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (8, 256, 256, 3), np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"a\.rrd cannot be written: .*Make room"):
            write_recording(tmp_path / "a.rrd", view_clip(np.arange(8.0), pictures))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_recording_that_is_turned_off_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("RERUN", "off")
    with pytest.raises(InputError, match="RERUN=off"):
        write_recording(tmp_path / "a.rrd", [ViewedFrame(0, 0.0)])
    assert list(tmp_path.iterdir()) == []
