"""Tracks in Parquet, as SQL, data frames and training read them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from vditrack.annotation import track_tables
from vditrack.annotation.annotate import draw_thumbnail, measure_tracks
from vditrack.annotation.settings import Settings
from vditrack.annotation.specification import Specification
from vditrack.annotation.track_tables import make_record, read_record, read_tracks, write_tracks
from vditrack.errors import InputError
from vditrack.features.clip_frames import ArrayFrames
from vditrack.io.viewed_frames import view_clip
from vditrack.points.ragged_tracks import RaggedTracks, list_rows

COUNT, LENGTH = 3, 5


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


def test_points_that_live_for_a_part_have_rows_there_alone(tmp_path, annotation):
    made, record = annotation(Specification(features=2, coordinates="normalized"))
    dense = list_rows(made.tracks, 0, LENGTH)
    lives = [range(2), range(1, 3), range(3, LENGTH)]
    rows = np.array([f in lives[n] for n, f in zip(dense.ids, dense.frames, strict=True)])
    columns = {name: values[rows] for name, values in vars(dense).items() if name != "queries"}
    ragged = RaggedTracks(queries=made.tracks.queries, **columns)
    made = replace(made, tracks=ragged, measures=measure_tracks(ragged, made.times, COUNT))
    record = make_record(made, Settings("b" * 64, "cpu", record.specification), "cpu")
    assert record.measures.points == COUNT
    assert record.measures.visible_share == round(ragged.visible.mean(), 4)
    assert (
        record.measures.life == measure_tracks(ragged.fill_rectangle(0, 5), made.times, COUNT).life
    )
    write_tracks(tmp_path / "t.parquet", made, record)
    table = pq.read_table(tmp_path / "t.parquet")
    assert table["frame"].to_pylist() == [0, 1, 1, 2, 3, 4]
    assert table["point"].to_pylist() == [0, 0, 1, 1, 2, 2]
    assert_allclose(table["time"], 1 + np.array([0, 1, 1, 2, 3, 4]) / 10)
    assert_allclose(table["x"], ragged.points[:, 0] / 80)
    saved, _ = read_tracks(tmp_path / "t.parquet")
    for name, values in vars(ragged.fill_rectangle(0, LENGTH)).items():
        if values is not None:
            assert_allclose(getattr(saved.tracks, name), values, rtol=1e-5, err_msg=name)
    assert_array_equal(saved.times, made.times)
    shown = [frame.points.ids.tolist() for frame in view_clip(saved.times, tracks=saved.tracks)]
    assert shown == [[0], [0, 1], [1], [2], [2]]
    frames = ArrayFrames(np.zeros((LENGTH, 60, 80, 3), np.uint8), np.arange(LENGTH) / 10)
    assert draw_thumbnail(frames, ragged) == draw_thumbnail(
        frames, ragged.fill_rectangle(0, LENGTH)
    )


def test_a_file_that_does_not_fit_into_memory_is_not_read(tmp_path, annotation, monkeypatch):
    made, record = annotation(Specification(grid=2))
    write_tracks(tmp_path / "t.parquet", made, record)
    monkeypatch.setattr(track_tables, "available_bytes", lambda: 17 * COUNT * LENGTH - 1)
    with pytest.raises(InputError, match="3 points in 5 frames, which do not fit into memory"):
        read_tracks(tmp_path / "t.parquet")
