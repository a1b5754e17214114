"""LeRobot data sets that LeRobot itself writes: as recordings, and with tracks as new features."""

import json
import math
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from doubles.lerobot_data_sets import (
    CAMERAS,
    FPS,
    import_lerobot,
    load_data_set,
    move,
    write_data_set,
)
from doubles.video_files import add_video
from vditrack.annotation.lerobot_copy import plan_copy
from vditrack.annotation.lerobot_features import name_features
from vditrack.annotation.settings import Settings, read_settings
from vditrack.annotation.sources import Source, list_sources, select_episodes
from vditrack.annotation.specification import Specification
from vditrack.annotation.units import identify
from vditrack.errors import InputError
from vditrack.io.frame_source import open_source

LENGTHS = (5, 4, 6)
NAMES, PARTS = ("front", "wrist"), ("", ".visible", ".confidence")
POSITIONS = [f"observation.tracks.{name}" for name in NAMES]
FRONT = CAMERAS[0]
GRID = np.array([[(x + 0.5) / 3 * 128, (y + 0.5) / 3 * 96] for y in range(3) for x in range(3)])
"""Points on the first frame."""


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


POINTS = ("--grid", 3, "--workers", 1, "--backend", "cpu")


@pytest.fixture(scope="module")
def annotated(data_set, tmp_path_factory, spawn_vditrack) -> Path:
    """The results of annotating the data set, with the copy beside them."""
    output = tmp_path_factory.mktemp("annotated") / "out"
    to = ("-o", output, "--lerobot", output.with_name("copy"))
    done = spawn_vditrack("annotate", data_set, *to, *POINTS)
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


def test_lerobot_loads_the_copy_with_tracks_as_features(annotated, data_set):
    before, after = load_data_set(data_set), load_data_set(annotated.with_name("copy"))
    new = {f"observation.tracks.{name}{part}" for name in NAMES for part in PARTS}
    assert set(after.features) == set(before.features) | new
    assert len(after) == len(before) == sum(LENGTHS)
    row = 0
    for episode, length in enumerate(LENGTHS):
        for k in range(length):
            old, item = before[row], after[row]
            assert all(
                torch.equal(torch.as_tensor(old[k]), torch.as_tensor(item[k]))
                for k in old
                if k != "task"
            )
            for camera, name in enumerate(NAMES):
                points, visible, confidence = (
                    item[f"observation.tracks.{name}{part}"] for part in PARTS
                )
                assert (points.dtype, visible.dtype) == (torch.float32, torch.bool)
                assert (points.shape, visible.shape, confidence.shape) == ((9, 2), (9,), (9,))
                first = GRID
                away = points.numpy() - first - move(camera, episode, np.array([k]))
                assert np.linalg.norm(away, axis=1)[visible].max() < 1
                assert (confidence[visible] >= 0.5).all()
            row += 1
    loader = torch.utils.data.DataLoader(after, batch_size=4, shuffle=True)
    assert next(iter(loader))["observation.tracks.front"].shape == (4, 9, 2)
    future = load_data_set(
        annotated.with_name("copy"), delta_timestamps={"observation.tracks.front": [0, 0.1, 0.2]}
    )
    assert torch.equal(
        future[1]["observation.tracks.front"][1], after[2]["observation.tracks.front"]
    )
    assert torch.equal(
        future[4]["observation.tracks.front_is_pad"], torch.tensor([False, True, True])
    )


def test_statistics_of_the_copy_are_those_that_lerobot_computes(annotated):
    after = load_data_set(annotated.with_name("copy"))
    episodes = pq.read_table(annotated.with_name("copy") / "meta/episodes").to_pylist()
    features = {name: one for name, one in after.features.items() if "tracks" in name}
    # LeRobot would subtract the mean of bools from bools.
    visible = {name for name in features if name.endswith(".visible")}
    assert not visible & set(after.meta.stats)
    assert not any(f"stats/{name}/mean" in episodes[0] for name in visible)
    features = {name: one for name, one in features.items() if name not in visible}
    rows = after.hf_dataset.with_format("numpy")
    stats = import_lerobot("datasets.compute_stats")
    expected = []
    for row in episodes:
        part = rows[row["dataset_from_index"] : row["dataset_to_index"]]
        data = {name: np.stack([np.stack(one) for one in part[name]]) for name in features}
        expected.append(stats.compute_episode_stats(data, features))
        for name, values in expected[-1].items():
            for statistic, value in values.items():
                found = np.array(row[f"stats/{name}/{statistic}"])
                # LeRobot's quantiles are of a histogram.
                near = 0.01 if statistic[0] != "q" else 3 if name in POSITIONS else 0.6
                assert found.shape == value.shape
                assert np.abs(found - value.astype(float)).max() <= near, (name, statistic)
    total = stats.aggregate_stats(expected)
    for name, values in total.items():
        for statistic in ("min", "max", "mean", "std", "count"):
            found = after.meta.stats[name][statistic]
            assert np.allclose(found, values[statistic].astype(float), atol=1e-3)
    # Statistics are valid for LeRobot, so that data sets can be joined.
    stats.aggregate_stats([after.meta.stats, after.meta.stats])


def list_content(root: Path) -> dict[Path, bytes]:
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def plan_again(root: Path, copy: Path, output: Path) -> None:
    """Plan the copy of a job that is done."""
    plan_copy(list_sources([str(root)]), copy, output, read_settings(output), fill_missing=False)


def test_an_episode_is_shown_with_its_frames(annotated, data_set, tmp_path, run_vditrack):
    pytest.importorskip("rerun.chunk", reason="rerun-sdk needs Python 3.11")
    rows = pq.read_table(annotated / "recordings.parquet").to_pylist()
    (row,) = (row for row in rows if (row["episode"], row["topic"]) == (1, FRONT))
    (file,) = (annotated / "tracks").glob(f"*{row['id']}*.parquet")
    where = ("--video", data_set, "--topic", FRONT)
    for options in ((), (*where, "--episode", "1")):
        done = run_vditrack("view", file, *options, "-o", "a.rrd", "--json", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["frames"] == LENGTHS[1]
    refused = run_vditrack("view", file, *where, "--episode", "2", "-o", "a.rrd", cwd=tmp_path)
    assert refused.returncode == 2
    assert "is not the video of the results" in refused.stderr
    refused = run_vditrack("view", file, *where, "-o", "a.rrd", cwd=tmp_path)
    assert "give --episode" in refused.stderr


def test_the_copy_is_written_once_and_the_data_set_stays(annotated, data_set, run_vditrack):
    copy, before = annotated.with_name("copy"), list_content(data_set)
    written = (copy / "meta/vditrack.json").stat().st_ino
    command = ("annotate", data_set, "-o", annotated, *POINTS, "--lerobot")
    done = run_vditrack(*command, copy)
    assert (done.returncode, (copy / "meta/vditrack.json").stat().st_ino) == (0, written), (
        done.stderr
    )
    assert run_vditrack(*command, annotated.with_name("copy2")).returncode == 0
    assert list_content(annotated.with_name("copy2")) == list_content(copy)
    assert list_content(data_set) == before
    assert (copy / VIDEO).samefile(data_set / VIDEO)
    for name in ("data/chunk-000/file-000.parquet", VIDEO, "meta/info.json", "meta/stats.json"):
        for content in (None, b"PAR1"):
            kept = (copy / name).rename(copy.with_name("kept"))
            if content is not None:
                (copy / name).write_bytes(content)
            with pytest.raises(InputError, match=rf"{name} is missing or damaged\. .* --lerobot"):
                plan_again(data_set, copy, annotated)
            kept.rename(copy / name)
    plan_again(data_set, copy, annotated)
    (copy / "meta/vditrack.json").write_text("{}")
    done = run_vditrack(*command, copy)
    # Before the work, whose summary is not there.
    assert (done.returncode, done.stdout) == (2, "")
    assert "is a copy with other tracks" in done.stderr


def test_episodes_without_tracks_are_missing_points_only_on_request(
    annotated, copy, tmp_path, run_vditrack
):
    # The other episodes are done: they are the same in the copy.
    change_episodes(copy, **{FROM: [0.0, 60.0, 0.9]})
    change_json(copy / "meta/stats.json", action={"mean": [math.nan], "max": [math.inf]})
    change_json(copy / "meta/info.json", note=-math.inf)
    command = ("annotate", copy, "-o", annotated, *POINTS, "--retries", 0)
    command = (*command, "--lerobot", tmp_path / "new")
    done = run_vditrack(*command)
    assert done.returncode == 3
    assert "is not written, because recordings failed" in done.stderr
    assert not (tmp_path / "new").exists()
    assert run_vditrack(*command, "--fill-missing").returncode == 3
    rows = pq.read_table(tmp_path / "new/data/chunk-000/file-000.parquet").to_pylist()
    for row in rows:
        missing = row["episode_index"] == 1
        assert np.isnan(row["observation.tracks.front"]).all() == missing
        assert any(row["observation.tracks.front.visible"]) != missing
        assert not np.isnan(row["observation.tracks.wrist"]).any()
    assert json.loads((tmp_path / "new/meta/info.json").read_text())["note"] == -math.inf
    statistics = json.loads((tmp_path / "new/meta/stats.json").read_text())
    assert np.isnan(statistics["action"]["mean"][0])
    assert statistics["action"]["max"] == [math.inf]
    front = statistics["observation.tracks.front"]
    kept = [row["observation.tracks.front"] for row in rows if row["episode_index"] != 1]
    assert np.allclose(front["mean"], np.mean(kept, axis=(0, 1)))
    assert np.allclose(front["std"], np.std(kept, axis=(0, 1)))
    assert np.allclose(front["min"], np.min(kept, axis=(0, 1)))
    assert front["count"] == [len(rows)] == [sum(LENGTHS)]


def plan(root: Path, destination: Path, output: Path, specification=None, episodes=None) -> None:
    """Plan a copy, which makes nothing."""
    before = list_content(root.parent)
    sources = select_episodes(list_sources([str(root)]), episodes, None)
    settings = Settings("0" * 64, "cpu", specification or Specification(grid=2))
    try:
        plan_copy(sources, destination, output, settings, fill_missing=False)
    finally:
        assert list_content(root.parent) == before


PLANS = {
    "episodes left out": ({"episodes": {0, 2}}, "1 episodes are left out"),
    "number of points": ({"specification": Specification(features=9)}, "add --pad-to"),
    "moving points": ({"specification": Specification(grid=2, min_spread=0.1)}, "add --pad-to"),
    "inside": ({"destination": "copy/meta/new"}, r"not apart\. .* with --lerobot\.$"),
    "behind a link": ({"destination": "linked/new"}, r"not apart\. .* with --lerobot\.$"),
    "the results": ({"destination": "out"}, r"and -o .* not apart\. .* with --lerobot\.$"),
    "in the results": ({"destination": "out/new"}, r"and -o .* not apart\. .* with --lerobot\.$"),
    "results in it": ({"output": "new/out"}, r"and -o .* not apart\. .* with --lerobot\.$"),
    "results inside": ({"output": "copy/out"}, r"is in the data set .* with -o\.$"),
    "results behind a link": ({"output": "linked/out"}, r"is in the data set .* with -o\.$"),
    "other files": ({"destination": "full"}, r"other files \(own\.txt\).* with --lerobot\.$"),
    "a file": ({"destination": "full/own.txt"}, r"is a file\. Choose another --lerobot\.$"),
    "another copy": ({"destination": "other"}, r"other tracks.* choose another --lerobot\.$"),
}


@pytest.mark.parametrize("case", PLANS)
def test_a_copy_that_could_not_be_written_is_refused_before_the_work(copy, tmp_path, case):
    given, message = PLANS[case]
    (tmp_path / "other/meta").mkdir(parents=True)
    (tmp_path / "other/meta/vditrack.json").write_text("{}")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/own.txt").write_text("own")
    (tmp_path / "linked").mkdir()
    (copy / "link").symlink_to("../linked")
    folders = {"destination": "new", "output": "out"} | given
    given = {k: tmp_path / v if isinstance(v, str) else v for k, v in folders.items()}
    with pytest.raises(InputError, match=message):
        plan(copy, **given)


UNREADABLE = {
    "statistics": ("meta/stats.json", b'{"action": {"mean": [1,}}', "stats.json cannot be read"),
    "values": ("meta/stats.json", b'{"action": 3}', "stats.json cannot be read"),
    "half characters": ("meta/stats.json", b'{"\\ud800": {}}', "stats.json cannot be read"),
    "table": ("data/chunk-000/file-000.parquet", b"PAR1", "file-000.parquet does not fit"),
    "link": ("README.md", None, "README.md cannot be read"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_data_set_that_could_not_be_copied_is_refused_before_the_work(copy, tmp_path, case):
    name, content, message = UNREADABLE[case]
    (copy / name).unlink(missing_ok=True)
    if content is None:
        (copy / name).symlink_to("nothing")
    else:
        (copy / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        plan(copy, tmp_path / "new", tmp_path / "out")


def test_rows_of_an_episode_that_is_not_described_are_refused_before_the_work(copy, tmp_path):
    (path,) = (copy / "meta/episodes").glob("*/*.parquet")
    pq.write_table(pq.read_table(path).slice(0, 2), path)
    with pytest.raises(InputError, match="rows of episode 2"):
        plan(copy, tmp_path / "new", tmp_path / "out")


def test_features_are_named_after_cameras_and_not_like_pictures():
    cameras = ["observation.images.front", "observation.image", "observation.images.wrist_image2"]
    assert list(name_features(cameras, ["observation.state"]).values()) == [
        "observation.tracks.front",
        "observation.tracks.img",
        "observation.tracks.wrist_img2",
    ]
    with pytest.raises(InputError, match=r"has a feature observation.tracks.front"):
        name_features(cameras, ["observation.tracks.front.visible"])


def change_episodes(root: Path, **columns) -> None:
    """Replace columns of meta/episodes; dots and slashes are written as double underscores."""
    (path,) = (root / "meta/episodes").glob("*/*.parquet")
    table = pq.read_table(path)
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values))
    pq.write_table(table, path)


def change_info(root: Path, **fields) -> None:
    change_json(root / "meta/info.json", **fields)


def change_json(path: Path, **fields) -> None:
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
    old = tmp_path / "old"
    (old / "meta").mkdir(parents=True)
    (old / "meta/info.json").write_text('{"codebase_version": "v2.1"}')
    listed = list_sources([str(old)])
    assert listed == [Source(old)]
    with pytest.raises(InputError, match=r"version v2\.1"):
        select_episodes(listed, {0}, None)
    with pytest.raises(InputError, match=r"version v2\.1"):
        plan(old, tmp_path / "new", tmp_path / "out")
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"path,topic,episode\n{data_set},{FRONT},1\n{data_set},,2\n")
    assert list_sources([str(manifest)]) == [every[2], *every[4:]]


def test_a_camera_with_pictures_in_tables_is_one_recording_that_is_refused(copy, tmp_path):
    info = json.loads((copy / "meta/info.json").read_text())
    info["features"][FRONT]["dtype"] = "image"
    change_info(copy, **info)
    listed = list_sources([str(copy)])
    others = [Source(copy, CAMERAS[1], episode=n) for n in range(3)]
    assert listed == [Source(copy, FRONT), *others]
    assert select_episodes(listed, {1}, None) == [Source(copy, FRONT), others[1]]
    assert select_episodes(listed, None, [CAMERAS[1]]) == others
    for source in (listed[0], Source(copy, FRONT, episode=1)):
        with pytest.raises(InputError, match="pictures in tables are not read"):
            identify(source, lambda *_: None)
    with pytest.raises(InputError, match="pictures in tables are not read"):
        plan(copy, tmp_path / "new", tmp_path / "out")


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
