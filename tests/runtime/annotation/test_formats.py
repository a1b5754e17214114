"""Tracks in HDF5, MCAP and Rerun, read back by other libraries."""

import json
import resource
from dataclasses import replace
from pathlib import Path

import h5py
import msgspec
import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_protobuf.decoder import DecoderFactory
from numpy.testing import assert_allclose, assert_array_equal

from doubles.video_files import moving_texture, write_video_file
from vditrack.annotation.failures import SourceError
from vditrack.annotation.folders import LocalFolder
from vditrack.annotation.formats import hdf5, selection
from vditrack.annotation.formats.content import TrackContent, read_content
from vditrack.annotation.formats.hdf5 import name_view
from vditrack.annotation.formats.selection import check_formats, write_format
from vditrack.annotation.handling import Model, UnitHandler
from vditrack.annotation.settings import FORMATS, Settings
from vditrack.annotation.sources import Source
from vditrack.annotation.specification import Specification
from vditrack.annotation.track_tables import write_tracks
from vditrack.errors import InputError


def ignore(done, total) -> None:
    """Take the progress."""


@pytest.fixture
def content(tmp_path, annotation):
    def make(specification=None, topic=None, stamped=True, **size) -> TrackContent:
        made, record = annotation(specification or Specification(grid=2), **size)
        if not stamped:
            made = replace(made, stamps=None)
        record = msgspec.structs.replace(record, topic=topic)
        write_tracks(tmp_path / "t.parquet", made, record)
        return read_content(tmp_path / "t.parquet", made.unit.source)

    return make


def load_as_atm_does(path: Path) -> dict:
    """All groups and arrays of a file, as BaseDataset.load_h5 of ATM returns them."""

    def load(group):
        return {
            name: load(one) if isinstance(one, h5py.Group) else np.array(one)
            for name, one in group.items()
        }

    with h5py.File(path, "r") as file:
        return load(file)


def test_hdf5_has_the_layout_of_atm(tmp_path, content):
    specification = Specification(grid=2, coordinates="normalized", pad_to=4)
    made = content(specification, topic="/left/image_raw")
    write_format(tmp_path / "t.hdf5", "hdf5", made, ignore)
    demo = load_as_atm_does(tmp_path / "t.hdf5")
    assert list(demo) == ["root"]
    (view,) = demo["root"]
    assert view == "left_image_raw"
    tracks, vis = demo["root"][view]["tracks"], demo["root"][view]["vis"]
    assert (tracks.shape, tracks.dtype) == ((1, 5, 4, 2), np.float32)
    assert (vis.shape, vis.dtype) == ((1, 5, 4), bool)
    # The picture is 80 x 60.
    shares = made.tracks.points.transpose(1, 0, 2) / [80, 60]
    assert_allclose(tracks[0][:, :3], shares, rtol=1e-6)
    assert_array_equal(vis[0][:, :3], made.tracks.visible.T)
    assert np.isnan(tracks[0][:, 3]).all()
    assert not vis[0][:, 3].any()
    with h5py.File(tmp_path / "t.hdf5") as file:
        assert json.loads(file.attrs["vditrack"])["id"] == made.record.id


def test_a_view_has_the_name_of_its_camera():
    names = {"/left/image_raw": "left_image_raw", "observation.images.top": None, None: "video"}
    for topic, name in names.items():
        assert name_view(topic) == (name or topic)
    # A dot is no name in HDF5.
    assert name_view("/./") == "video"


def read_mcap(path: Path) -> list:
    """The messages of a file, with the schema, the topic and the time of each."""
    with path.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        return [
            (schema.name, channel.topic, message.log_time, message.publish_time, decoded)
            for schema, channel, message, decoded in reader.iter_decoded_messages()
        ]


def test_mcap_has_annotations_of_foxglove_at_the_stamps_of_the_images(tmp_path, content):
    made = content(topic="/left/image_raw")
    write_format(tmp_path / "t.mcap", "mcap", made, ignore)
    messages = read_mcap(tmp_path / "t.mcap")
    assert len(messages) == 5
    for t, (schema, topic, log_time, publish_time, message) in enumerate(messages):
        assert (schema, topic) == ("foxglove.ImageAnnotations", "/left/image_raw/tracks")
        (points,) = message.points
        assert log_time == publish_time == points.timestamp.ToNanoseconds() == 10**18 + t
        # POINTS of foxglove.PointsAnnotation.
        assert points.type == 1
        positions = [(one.x, one.y) for one in points.points]
        assert_allclose(positions, made.tracks.points[:, t], rtol=1e-6)
        faint = [colour.a < 1 for colour in points.outline_colors]
        assert_array_equal(faint, ~made.tracks.visible[:, t])
    with (tmp_path / "t.mcap").open("rb") as file:
        (metadata,) = make_reader(file).iter_metadata()
    assert json.loads(metadata.metadata["record"])["id"] == made.record.id


def test_a_video_plays_from_the_time_of_its_first_frame(tmp_path, content):
    made = content(stamped=False)
    write_format(tmp_path / "t.mcap", "mcap", made, ignore)
    messages = read_mcap(tmp_path / "t.mcap")
    assert {topic for _, topic, *_ in messages} == {"/tracks"}
    assert [log_time for _, _, log_time, *_ in messages] == [10**9 + t * 10**8 for t in range(5)]


def test_a_recording_without_points_has_files(tmp_path, content):
    made = content(count=0)
    write_format(tmp_path / "t.mcap", "mcap", made, ignore)
    assert read_mcap(tmp_path / "t.mcap") == []
    write_format(tmp_path / "t.hdf5", "hdf5", made, ignore)
    demo = load_as_atm_does(tmp_path / "t.hdf5")
    assert demo["root"]["video"]["tracks"].shape == (1, 5, 0, 2)


@pytest.mark.parametrize("file_format", ["hdf5", "mcap"])
def test_the_same_tracks_give_the_same_bytes(file_format, tmp_path, content, monkeypatch):
    made = content()
    for name, now in (("a", 10**9), ("b", 2 * 10**9)):
        monkeypatch.setattr("time.time", lambda now=now: now)
        write_format(tmp_path / name, file_format, made, ignore)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("file_format", ["hdf5", "mcap"])
def test_a_file_that_does_not_fit_on_the_disk_is_an_error(file_format, tmp_path, content):
    made, path = content(), tmp_path / "out/t"
    write_format(path, file_format, made, ignore)
    size = path.stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # One is reached when data are written, and the other when the file is closed.
    for limit in (size // 2, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
        try:
            with pytest.raises(InputError, match=r"t cannot be written: File too large\. Make"):
                write_format(path, file_format, made, ignore)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [one.name for one in path.parent.iterdir()] == ["t"]
    assert path.stat().st_size == size


def test_rerun_has_the_frames(tmp_path, content):
    chunk = pytest.importorskip("rerun.chunk", reason="rerun-sdk needs Python 3.11")
    made = replace(content(length=3), source=Source(tmp_path / "clip.mp4"))
    with pytest.raises(SourceError, match=r"clip\.mp4") as caught:
        write_format(tmp_path / "t.rrd", "rerun", made, ignore)
    # The recording is at fault, not the folder of the results.
    assert caught.value.kind == "refused"
    write_video_file(tmp_path / "clip.mp4", moving_texture(3))
    steps = []
    write_format(tmp_path / "t.rrd", "rerun", made, lambda done, total: steps.append((done, total)))
    assert steps[-1] == (3, 3)
    counts = {"/video": 0, "/video/points/visible": 0}
    for part in chunk.RrdReader(tmp_path / "t.rrd").stream():
        if part.entity_path in counts and not part.is_static:
            counts[part.entity_path] += part.to_record_batch().num_rows
    assert counts == {"/video": 3, "/video/points/visible": 3}


def test_a_recording_that_cannot_be_read_again_does_not_end_the_job(tmp_path, annotation):
    made, record = annotation(Specification(grid=2))
    write_tracks(tmp_path / f"tracks/{made.unit.name}.parquet", made, record)
    settings = Settings("b" * 64, "cpu", record.specification)
    handle = UnitHandler(Model(None, "cpu", 1), settings, LocalFolder(tmp_path), ("rerun", "hdf5"))
    with pytest.raises(SourceError, match="is not a file"):
        handle(made.unit, ignore)


def test_formats_are_checked_before_the_work(monkeypatch):
    assert check_formats(["rerun", "mcap", "hdf5", "mcap"]) == ("hdf5", "mcap", "rerun")
    assert set(FORMATS) == set(selection._WRITERS)
    with pytest.raises(InputError, match=r"no format zarr\. Choose from hdf5, mcap, rerun"):
        check_formats(["zarr"])

    def fail(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(hdf5, "import_module", fail)
    with pytest.raises(InputError, match=r"h5py.*`pip install .*hdf5"):
        check_formats(["hdf5"])
