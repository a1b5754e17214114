"""Bags tracked by the command line, and the bags that it writes."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer

from doubles import bags
from vditrack.errors import install_command
from vditrack.io.rosbag.recordings import read_recording
from vditrack.io.rosbag.track_bags import write_tracks
from vditrack.io.video import read_video
from vditrack.points.tracks import Tracks


def point_rows(cloud) -> list[dict[str, float]]:
    """Rows of a PointCloud2, by what the message says of itself."""
    kinds = {2: "u1", 5: "i4", 7: "f4"}
    order = ">" if cloud.is_bigendian else "<"
    dtype = np.dtype(
        {
            "names": [field.name for field in cloud.fields],
            "formats": [order + kinds[field.datatype] for field in cloud.fields],
            "offsets": [field.offset for field in cloud.fields],
            "itemsize": cloud.point_step,
        }
    )
    assert cloud.height == 1
    assert cloud.row_step == len(cloud.data) == cloud.width * cloud.point_step
    return np.frombuffer(cloud.data.tobytes(), dtype)


def read_back(path: Path) -> dict[str, list]:
    """All messages by topic: (time in the bag, message)."""
    read: dict[str, list] = {}
    with AnyReader([path]) as reader:
        for connection, arrival, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            read.setdefault(connection.topic, []).append((arrival, message))
    return read


def brightness(picture) -> np.ndarray:
    """What lossy formats keep best."""
    return picture @ np.array([0.299, 0.587, 0.114])


def stamp_of(message) -> int:
    return message.header.stamp.sec * bags.SECOND + message.header.stamp.nanosec


@pytest.mark.slow
@pytest.mark.parametrize("storage", StoragePlugin)
def test_a_bag_is_tracked_into_a_bag(tmp_path, storage, run_vditrack):
    bag = bags.write_bag(
        tmp_path / "drive", bags.images(), bags.camera_info(), bags.text(), storage=storage
    )
    # One storage as a folder, the other by its file.
    given = bag if storage == StoragePlugin.MCAP else bags.storage_file(bag)
    left = np.zeros((96, 128), np.uint8)
    left[:, :72] = 200
    cv2.imwrite(str(tmp_path / "left.png"), left)
    asked = ("--topic", "/cam/image_raw", "--at", "0,40,48", "--at", "2,90.5,30", "--json")
    done = run_vditrack("track", given, *asked, "--mask", "left.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["frames"], told["points"], told["width"], told["height"]) == (6, 2, 128, 96)
    assert told["bag"] == "drive_tracks/tracks.mcap"
    assert told["remarks"] == []

    folder = tmp_path / "drive_tracks"
    assert {path.name for path in folder.iterdir()} == {
        *("tracks.npz", "tracks.csv", "overlay.mp4", "tracks.mcap")
    }
    read = read_back(folder / "tracks.mcap")
    clouds, overlays = read["/tracker/tracks"], read["/tracker/overlay/compressed"]
    drawn = read_video(folder / "overlay.mp4").frames
    with np.load(folder / "tracks.npz") as tracks:
        np.testing.assert_allclose(tracks["times"], np.arange(6) / 10)
        # Into the picture by (2, 0) a frame: what is tracked is what the bag holds.
        moved = tracks["points"][:, 5] - tracks["points"][:, 2]
        np.testing.assert_allclose(moved, [[6, 0]] * 2, atol=1)
        assert tracks["object_id"][:, 0].tolist() == [200, 0]
        for t in range(6):
            (arrival, cloud), (same, picture) = clouds[t], overlays[t]
            assert (arrival, same) == (bags.stamps()[t] + bags.DELAY,) * 2
            assert stamp_of(cloud) == stamp_of(picture) == bags.stamps()[t]
            assert cloud.header.frame_id == picture.header.frame_id == "camera_optical"
            rows = point_rows(cloud)
            points = tracks["points"][:, t]
            np.testing.assert_array_equal(rows["id"], [0, 1])
            np.testing.assert_array_equal(np.stack([rows["u"], rows["v"]], axis=1), points)
            for name in ("visible", "object_id", "confidence", "forward_backward_error"):
                np.testing.assert_array_equal(rows[name], tracks[name][:, t], err_msg=name)
            np.testing.assert_array_equal(rows["seconds_since_model"], 0)
            # Focal length 100; the principal point is the picture's middle, (64, 48) from its edge.
            expected = np.column_stack([(points - [64, 48]) / 100, [1, 1]])
            xyz = np.stack([rows["x"], rows["y"], rows["z"]], axis=1)
            np.testing.assert_allclose(xyz, expected, atol=1e-6)
            # On the plane z = 1.
            np.testing.assert_array_equal(rows["scale"], 1)
            assert picture.format == "jpeg"
            shown = brightness(cv2.imdecode(picture.data, cv2.IMREAD_COLOR)[..., ::-1])
            assert np.abs(shown - brightness(drawn[t])).mean() < 3
            x, y = points[0].astype(int)
            around = np.s_[y - 4 : y + 5, x - 4 : x + 5]
            assert np.abs(shown - brightness(bags.clip()[t]))[around].mean() > 20
    assert len(clouds) == len(overlays) == 6


def test_ros_itself_reads_and_writes_the_same(tmp_path):
    """Serialised by ROS's own libraries, beside rosbags."""
    serialization = pytest.importorskip("rclpy.serialization")
    sensor, standard, interfaces = (
        pytest.importorskip(f"{package}.msg")
        for package in ("sensor_msgs", "std_msgs", "builtin_interfaces")
    )

    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3) as bag:
        connection = bag.add_connection("/image", bags.IMAGE, typestore=bags.STORE)
        for picture, stamp in zip(bags.clip(), bags.stamps(), strict=True):
            image = sensor.Image(height=96, width=128, encoding="rgb8", step=384)
            time = interfaces.Time(sec=stamp // bags.SECOND, nanosec=stamp % bags.SECOND)
            image.header = standard.Header(stamp=time)
            image.data.frombytes(picture.tobytes())
            bag.write(connection, stamp, serialization.serialize_message(image))
    recording = read_recording(tmp_path / "bag")
    np.testing.assert_array_equal(recording.frames, np.stack(bags.clip()))
    np.testing.assert_array_equal(recording.stamps, bags.stamps())

    points = np.random.default_rng(0).uniform(0, 90, (3, 6, 2)).astype(np.float32)
    seen, one = np.ones((3, 6), bool), np.ones((3, 6), np.float32)
    tracks = Tracks(np.zeros((3, 3), np.float32), points, seen, one, one)
    write_tracks(tmp_path / "tracks.mcap", recording, tracks, bags.clip())
    kinds = {
        "/tracker/tracks": sensor.PointCloud2,
        "/tracker/overlay/compressed": sensor.CompressedImage,
    }
    with AnyReader([tmp_path / "tracks.mcap"]) as reader:
        for t, (connection, _, data) in enumerate(reader.messages()):
            message = serialization.deserialize_message(data, kinds[connection.topic])
            assert stamp_of(message) == bags.stamps()[t // 2]
            if connection.topic == "/tracker/tracks":
                np.testing.assert_array_equal(point_rows(message)["u"], points[:, t // 2, 0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "tracks.mcap"]


def test_the_only_image_topic_is_taken(tmp_path, run_vditrack):
    compressed = bags.images("/cam/image_raw/compressed", bags.JPEG, bags.png)
    bags.write_bag(
        tmp_path / "drive", compressed, bags.text(), bags.camera_info("/other/camera_info")
    )
    done = run_vditrack("track", "drive", "--grid", "2", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "tracked 4 points through 6 frames of 128 x 96" in done.stdout
    assert "out/tracks.mcap" in done.stdout
    assert (
        "note: x, y and z are NaN: the bag has no calibration at /cam/camera_info." in done.stderr
    )
    for _, cloud in read_back(tmp_path / "out" / "tracks.mcap")["/tracker/tracks"]:
        rows = point_rows(cloud)
        assert np.isnan([rows["x"], rows["y"], rows["z"]]).all()
        assert np.isfinite([rows["u"], rows["v"]]).all()
        assert not cloud.is_dense


@pytest.fixture
def folder(tmp_path) -> Path:
    two = bags.write_bag(tmp_path / "two", bags.images(), bags.images("/left/image"), bags.text())
    bags.write_bag(tmp_path / "none", bags.text(), bags.camera_info())
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mcap").write_text("no bag\n" * 50)
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0\n")
    (tmp_path / "cut.mcap").write_bytes(bags.storage_file(two).read_bytes()[:5000])
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    missing = bags.write_bag(tmp_path / "missing", bags.images())
    bags.storage_file(missing).unlink()
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["two"],
            "give --topic: two has 2 image topics. Its image topics are /cam/image_raw, /left",
        ),
        (["two", "--topic", "/right/image"], "two has no topic /right/image. Its image topics are"),
        (
            ["two", "--topic", "/chatter"],
            "/chatter in two has type std_msgs/msg/String, not an image",
        ),
        (["none"], "none has 0 image topics. It has no image topic"),
        (["empty"], "and not a rosbag2: it has no metadata.yaml"),
        (["missing"], "missing cannot be read as a rosbag2"),
        (["text.mcap"], "text.mcap cannot be read as a rosbag2"),
        (["cut.mcap"], "cut.mcap cannot be read as a rosbag2"),
        (["absent.db3"], "there is no bag at absent.db3"),
        (["old.bag"], "old.bag is a ROS 1 bag. Run `rosbags-convert"),
        (["clip.mp4", "--topic", "/image"], "--topic is for bags; clip.mp4 is none"),
        (["two", "--topic", "/left/image", "--start", "9"], "no image of /left/image between 9 s"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(folder, arguments, message, assert_refused):
    assert_refused("track", *arguments, "--grid", "2", message=message, cwd=folder)


def test_without_rosbags_the_remedy_is_told(tmp_path):
    bag = bags.write_bag(tmp_path / "bag", bags.images())
    code = (
        "import sys; sys.modules['rosbags'] = None; from vditrack.cli.app import main; "
        f"sys.argv = ['vditrack', 'track', {str(bag)!r}, '--grid', '2']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"Run `{install_command('bags')}`" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag"]


def test_the_command_line_imports_no_rosbags():
    code = "import sys, vditrack.cli.app; print(*sys.modules)"
    listed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = listed.stdout.split()
    assert "vditrack.io.rosbag.recordings" in loaded
    assert not [name for name in loaded if name.split(".")[0] in ("rosbags", "apsw", "ruamel")]
