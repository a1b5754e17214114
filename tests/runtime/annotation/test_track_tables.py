"""Tracks in Parquet, as SQL, data frames and training read them."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from vditrack.annotation.annotate import Annotation, draw_thumbnail, measure_tracks
from vditrack.annotation.settings import Settings
from vditrack.annotation.sources import Source
from vditrack.annotation.specification import Specification
from vditrack.annotation.track_tables import make_record, read_record, read_tracks, write_tracks
from vditrack.annotation.units import Identity, list_units
from vditrack.errors import InputError
from vditrack.features.clip_frames import ArrayFrames
from vditrack.io.clip import Gap
from vditrack.points.tracks import Tracks

COUNT, LENGTH = 3, 5


def make_tracks(count, length) -> Tracks:
    random = np.random.default_rng(0)
    shape = (count, length)
    return Tracks(
        queries=random.random((count, 3), np.float32),
        points=60 * random.random((*shape, 2), np.float32),
        visible=random.random(shape) < 0.5,
        confidence=random.random(shape, np.float32),
        forward_backward_error=random.random(shape, np.float32),
    )


@pytest.fixture
def annotation():
    def make(specification, count=COUNT, length=LENGTH):
        settings = Settings("b" * 64, "cpu", specification)
        (unit,) = list_units(
            Source(Path("data/clip.mp4"), start=1.0), Identity("c" * 64, "s", (None,)), settings
        )
        tracks = make_tracks(count, length)
        tracks.forward_backward_error[0, 1] = np.inf
        frames = np.zeros((length, 60, 80, 3), np.uint8)
        made = Annotation(
            unit=unit,
            tracks=tracks,
            times=1 + np.arange(length) / 10,
            stamps=10**18 + np.arange(length),
            size=(60, 80),
            gaps=(Gap(1.1, 1.3, 1),),
            remarks=("a frame is missing.",),
            measures=measure_tracks(tracks, 4),
            thumbnail=draw_thumbnail(ArrayFrames(frames, np.arange(length) / 10), tracks),
        )
        return made, make_record(made, settings, "cpu-int8")

    return make


def test_a_column_reshaped_to_frames_and_points_is_the_array(tmp_path, annotation):
    made, record = annotation(Specification(grid=2))
    write_tracks(tmp_path / "t.parquet", made, record)
    table = pq.read_table(tmp_path / "t.parquet")
    column = {name: table[name].to_numpy().reshape(LENGTH, COUNT).T for name in table.column_names}
    tracks = made.tracks
    assert_array_equal(np.stack([column["x"], column["y"]], axis=-1), tracks.points)
    assert_array_equal(column["visible"], tracks.visible)
    assert_array_equal(column["confidence"], tracks.confidence)
    assert_array_equal(column["frame"], np.tile(np.arange(LENGTH), (COUNT, 1)))
    assert_array_equal(column["point"], np.tile(np.arange(COUNT)[:, None], LENGTH))
    assert_array_equal(column["time"][0], made.times)
    assert_array_equal(column["stamp"][0], made.stamps)
    # An error that is not known is null.
    assert table["forward_backward_error"].null_count == 1
    assert np.isnan(column["forward_backward_error"][0, 1])


def test_a_file_says_what_it_is_of(tmp_path, annotation):
    made, record = annotation(Specification(grid=2, seed=3))
    write_tracks(tmp_path / "t.parquet", made, record)
    assert read_record(tmp_path / "t.parquet") == record
    assert (record.source, record.source_sha256, record.start) == ("data/clip.mp4", "c" * 64, 1.0)
    assert (record.bundle_sha256, record.backend, record.id) == ("b" * 64, "cpu-int8", made.unit.id)
    assert (record.frames, record.width, record.height, record.seconds) == (LENGTH, 80, 60, 0.4)
    assert record.gaps == ((1.1, 1.3, 1),)
    assert record.specification.seed == 3
    assert {"vditrack", "numpy", "pyarrow"} <= set(record.versions)
    (tmp_path / "other.parquet").write_bytes(b"PAR1")
    for name in ("other.parquet", "absent.parquet"):
        with pytest.raises(InputError, match="is not a file of tracks"):
            read_record(tmp_path / name)


def test_positions_are_shares_of_the_picture_and_missing_points_are_empty(tmp_path, annotation):
    made, record = annotation(Specification(grid=2, coordinates="normalized", pad_to=COUNT + 1))
    write_tracks(tmp_path / "t.parquet", made, record)
    table = pq.read_table(tmp_path / "t.parquet")
    x, y, visible = (
        table[name].to_numpy().reshape(LENGTH, COUNT + 1).T for name in ("x", "y", "visible")
    )
    assert_allclose(np.stack([x, y], axis=-1)[:COUNT], made.tracks.points / [80, 60], rtol=1e-6)
    assert np.isnan(x[COUNT]).all()
    assert not visible[COUNT].any()
    assert table["y"].null_count == LENGTH
    assert record.measures.points == COUNT
    saved, _ = read_tracks(tmp_path / "t.parquet")
    for name, values in vars(made.tracks).items():
        if values is not None:
            assert_allclose(getattr(saved.tracks, name), values, rtol=1e-5, err_msg=name)
    assert_array_equal(saved.times, made.times)
    assert saved.video == Path("data/clip.mp4")


def test_row_groups_hold_stretches_of_time(tmp_path, annotation):
    made, record = annotation(Specification(grid=2), count=2000, length=100)
    write_tracks(tmp_path / "t.parquet", made, record)
    file = pq.ParquetFile(tmp_path / "t.parquet")
    frames = [
        set(file.read_row_group(group, ["frame"])["frame"].to_pylist())
        for group in range(file.num_row_groups)
    ]
    assert frames == [set(range(65)), set(range(65, 100))]
