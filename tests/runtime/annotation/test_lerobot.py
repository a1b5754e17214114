"""LeRobot data sets that LeRobot itself writes: as recordings, and with tracks as new features."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from doubles.lerobot_data_sets import CAMERAS, FPS, load_data_set, move, write_data_set
from doubles.video_files import add_video
from vditrack.annotation.sources import Source, list_sources, select_episodes
from vditrack.annotation.units import identify
from vditrack.errors import InputError
from vditrack.io.frame_source import open_source

LENGTHS = (5, 4, 6)
FRONT = CAMERAS[0]


@pytest.fixture(scope="module")
def data_set(tmp_path_factory) -> Path:
    """Three episodes of two cameras, in one H.264 file of each camera."""
    return write_data_set(tmp_path_factory.mktemp("h264") / "push", LENGTHS)


@pytest.fixture
def copy(data_set, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(data_set, tmp_path / "copy"))


def encode_again(path: Path, codec: str, options: dict[str, str]) -> None:
    """Encode the frames of a video again, with the same times."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(path), "w") as container:
        stream = add_video(container, codec, np.stack(frames), options=options)
        stream.time_base = stream.codec_context.time_base = Fraction(1, FPS)
        for k, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p")
            picture.pts, picture.time_base = k, Fraction(1, FPS)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


CODECS = {
    "as LeRobot writes H.264": None,
    "AV1": ("libsvtav1", {"preset": "12", "g": "2"}),
    "H.264 with B-frames and few key frames": ("libx264", {"g": "9", "bf": "3", "b_strategy": "0"}),
}


@pytest.mark.parametrize("codec", CODECS)
def test_frames_are_those_that_lerobot_returns(copy, codec):
    for camera in CAMERAS:
        if CODECS[codec] is not None:
            encode_again(copy / f"videos/{camera}/chunk-000/file-000.mp4", *CODECS[codec])
    loaded = load_data_set(copy)
    row = 0
    for episode, length in enumerate(LENGTHS):
        sources = [open_source(copy, camera, episode=episode) for camera in CAMERAS]
        assert [len(source) for source in sources] == [length] * 2
        assert np.allclose(sources[0].times, np.arange(length) / FPS)
        for source in sources:
            # Long episodes are decoded again.
            source._kept = None
        clips = [[one.frame for one in source.read()] for source in sources]
        later = [one.frame for one in sources[0].read(3)]
        assert np.array_equal(later, clips[0][3:])
        for k in range(length):
            for camera, clip in zip(CAMERAS, clips, strict=True):
                expected = loaded[row][camera].permute(1, 2, 0).numpy() * 255
                assert np.abs(expected - clip[k]).max() <= 1
            row += 1


@pytest.fixture(scope="module")
def annotated(data_set, tmp_path_factory, spawn_vditrack) -> Path:
    """The results of annotating the data set."""
    output = tmp_path_factory.mktemp("annotated") / "out"
    points = ("--grid", 3, "--workers", 1, "--backend", "cpu")
    done = spawn_vditrack("annotate", data_set, "-o", output, *points)
    assert done.returncode == 0, done.stderr
    return output


def test_tracks_follow_the_known_motion(annotated, data_set):
    rows = pq.read_table(annotated / "recordings.parquet").to_pylist()
    assert [(row["episode"], row["topic"]) for row in rows] == [
        (episode, camera) for episode in range(3) for camera in CAMERAS
    ]
    for row in rows:
        camera, episode = CAMERAS.index(row["topic"]), row["episode"]
        length = LENGTHS[episode]
        table = pq.read_table(annotated / row["file"])
        assert set(table["episode_index"].to_pylist()) == {episode}
        numbers = table["frame_index"].to_numpy().reshape(length, 9)
        assert np.array_equal(numbers[:, 0], np.arange(length))
        points = np.stack([table[axis].to_numpy() for axis in "xy"], axis=1).reshape(length, 9, 2)
        expected = points[0] + move(camera, episode, np.arange(length))[:, None]
        visible = table["visible"].to_numpy().reshape(length, 9)
        assert visible.mean() > 0.9
        assert np.linalg.norm(points - expected, axis=2)[visible].max() < 1


def change_episodes(root: Path, **columns) -> None:
    """Replace columns of meta/episodes; dots and slashes are written as double underscores."""
    (path,) = (root / "meta/episodes").glob("*/*.parquet")
    table = pq.read_table(path)
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values))
    pq.write_table(table, path)


def change_info(root: Path, **fields) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def remove_rows(root: Path) -> None:
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.filter(pc.field("index") != 2), path)


def shift_timestamps(root: Path) -> None:
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    stamps = pa.array(table["timestamp"].to_numpy() * np.float32(1.1))
    place = table.column_names.index("timestamp")
    pq.write_table(table.set_column(place, "timestamp", stamps), path)


FROM = f"videos/{FRONT}/from_timestamp"
VIDEO = f"videos/{FRONT}/chunk-000/file-000.mp4"
DAMAGE = {
    "after the end": (lambda root: change_episodes(root, **{FROM: [60.0, 0.5, 0.9]}), "no video"),
    "at the end": (lambda root: change_episodes(root, **{FROM: [1.3, 0.5, 0.9]}), "has 2 frames"),
    "between frames": (
        lambda root: change_episodes(root, **{FROM: [0.04, 0.5, 0.9]}),
        "0.0400 s from its timestamp",
    ),
    "not a number": (
        lambda root: change_episodes(root, **{FROM: [float("nan"), 0.5, 0.9]}),
        "is nan",
    ),
    "length": (lambda root: change_episodes(root, length=[7, 4, 6]), "5 rows of episode 0"),
    "rows": (remove_rows, "4 rows of episode 0"),
    "timestamps": (shift_timestamps, "from its timestamp"),
    "version 2": (
        lambda root: change_info(root, codebase_version="v2.1"),
        "version v2.1.*Convert a copy",
    ),
    "version 4": (lambda root: change_info(root, codebase_version="v4.0"), "newer vditrack"),
    "other folder": (
        lambda root: change_info(root, video_path="../{video_key}.mp4"),
        "not a template",
    ),
    "template": (
        lambda root: change_info(root, video_path="{video_key.__class__}.mp4"),
        "not a template",
    ),
    "no video": (lambda root: (root / VIDEO).unlink(), "is not a file"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_an_episode_that_does_not_fit_its_description_is_refused(copy, damage):
    change, message = DAMAGE[damage]
    change(copy)
    with pytest.raises(InputError, match=message):
        open_source(copy, FRONT, episode=0)


def test_an_episode_and_a_camera_are_named(data_set):
    with pytest.raises(InputError, match=r"give --episode\. It has 3, from 0 to 2"):
        open_source(data_set, FRONT)
    with pytest.raises(InputError, match="has no episode 3"):
        open_source(data_set, FRONT, episode=3)
    with pytest.raises(InputError, match="Name one with --camera"):
        open_source(data_set, episode=0)
    with pytest.raises(InputError, match=r"no camera top.*observation.images.front"):
        open_source(data_set, "top", episode=0)


def test_each_camera_of_each_episode_is_a_recording(data_set, tmp_path):
    every = [Source(data_set, camera, episode=n) for n in range(3) for camera in CAMERAS]
    assert list_sources([str(data_set)]) == list_sources([str(data_set.parent)]) == every
    assert select_episodes(every, {0, 2}, [FRONT]) == [every[0], every[4]]
    for episodes, cameras in (({3}, None), (None, ["top"])):
        with pytest.raises(InputError, match="no data set has"):
            select_episodes(every, episodes, cameras)
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"path,topic,episode\n{data_set},{FRONT},1\n{data_set},,2\n")
    assert list_sources([str(manifest)]) == [every[2], *every[4:]]


def test_other_episodes_do_not_change_the_identity_of_an_episode(copy, tmp_path):
    def identify_all(root: Path) -> list[str]:
        return [identify(one, lambda *_: None).sha256 for one in list_sources([str(root)])]

    before = identify_all(copy)
    assert len(set(before)) == len(before) == 6
    longer = write_data_set(tmp_path / "longer", (*LENGTHS, 3))
    assert identify_all(longer)[:6] == before
    # Other timestamps are another recording, though the frames are the same.
    shift_timestamps(copy)
    assert not set(identify_all(copy)) & set(before)
