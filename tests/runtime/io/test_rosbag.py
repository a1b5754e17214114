"""Real bags, written by rosbags in both storages, through the command line."""

import json
import subprocess
import sys
from pathlib import Path

import apsw
import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from vditrack.errors import InputError
from vditrack.io import video
from vditrack.io.rosbag.recordings import read_recording
from vditrack.io.rosbag.track_bags import write_tracks
from vditrack.io.video import read_video
from vditrack.points.tracks import Tracks

SECOND = 10**9
BEGAN = 1_700_000_000 * SECOND + 123
"""Nanoseconds; more than a float of 64 bits tells apart."""
DELAY = 7_000_000
"""Nanoseconds from a picture's stamp to its arrival."""
STORE = get_typestore(Stores.ROS2_HUMBLE)
IMAGE, JPEG, INFO, TEXT = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/CameraInfo",
    "std_msgs/msg/String",
)


def new(kind, **fields):
    return STORE.types[kind](**fields)


def header(stamp, frame_id="camera_optical"):
    sec, nanosec = divmod(stamp, SECOND)
    time = new("builtin_interfaces/msg/Time", sec=sec, nanosec=nanosec)
    return new("std_msgs/msg/Header", stamp=time, frame_id=frame_id)


def clip(count=6, height=96, width=128) -> list[np.ndarray]:
    """Blocks of colour that move by (2, 0) pixels a frame."""
    blocks = np.random.default_rng(0).integers(0, 255, (height // 8, width // 8, 3), np.uint8)
    picture = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
    return [np.roll(picture, 2 * t, axis=1) for t in range(count)]


def stamps(count=6) -> list[int]:
    return [BEGAN + t * SECOND // 10 for t in range(count)]


def bgr8(picture, stamp, padding=5):
    height, width = picture.shape[:2]
    rows = np.pad(picture[..., ::-1].reshape(height, -1), ((0, 0), (0, padding)))
    return new(
        IMAGE,
        header=header(stamp),
        height=height,
        width=width,
        encoding="bgr8",
        is_bigendian=0,
        step=3 * width + padding,
        data=rows.ravel(),
    )


def png(picture, stamp):
    data = cv2.imencode(".png", picture[..., ::-1])[1].ravel()
    return new(JPEG, header=header(stamp), format="rgb8; png compressed bgr8", data=data)


def images(topic="/cam/image_raw", kind=IMAGE, make=bgr8, count=6):
    messages = map(make, clip(count), stamps(count))
    return topic, kind, [(s + DELAY, m) for s, m in zip(stamps(count), messages, strict=True)]


def camera_info(topic="/cam/camera_info", size=(96, 128), focal=100.0, model="plumb_bob", d=()):
    height, width = size
    region = {"x_offset": 0, "y_offset": 0, "height": 0, "width": 0, "do_rectify": False}
    message = new(
        INFO,
        header=header(BEGAN),
        height=height,
        width=width,
        distortion_model=model,
        d=np.array(d, float),
        k=np.array([focal, 0, 63.5, 0, focal, 47.5, 0, 0, 1], float),
        r=np.eye(3).ravel(),
        p=np.eye(3, 4).ravel(),
        binning_x=0,
        binning_y=0,
        roi=new("sensor_msgs/msg/RegionOfInterest", **region),
    )
    return topic, INFO, [(BEGAN, message)]


def text(topic="/chatter"):
    return topic, TEXT, [(BEGAN, new(TEXT, data="hello"))]


def write_bag(path: Path, *topics, storage=StoragePlugin.MCAP, mode=CompressionMode.NONE) -> Path:
    writer = Writer(path, version=9, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer as bag:
        for topic, kind, messages in topics:
            connection = bag.add_connection(topic, kind, typestore=STORE)
            for arrival, message in messages:
                bag.write(connection, arrival, STORE.serialize_cdr(message, kind))
    return path


def storage_file(bag: Path) -> Path:
    return next(path for path in bag.iterdir() if path.suffix in (".mcap", ".db3"))


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
    return message.header.stamp.sec * SECOND + message.header.stamp.nanosec


@pytest.mark.slow
@pytest.mark.parametrize("storage", StoragePlugin)
def test_a_bag_is_tracked_into_a_bag(tmp_path, storage, run_vditrack):
    bag = write_bag(tmp_path / "drive", images(), camera_info(), text(), storage=storage)
    # One storage as a folder, the other by its file.
    given = bag if storage == StoragePlugin.MCAP else storage_file(bag)
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
            assert (arrival, same) == (stamps()[t] + DELAY,) * 2
            assert stamp_of(cloud) == stamp_of(picture) == stamps()[t]
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
            assert picture.format == "jpeg"
            shown = brightness(cv2.imdecode(picture.data, cv2.IMREAD_COLOR)[..., ::-1])
            assert np.abs(shown - brightness(drawn[t])).mean() < 3
            x, y = points[0].astype(int)
            around = np.s_[y - 4 : y + 5, x - 4 : x + 5]
            assert np.abs(shown - brightness(clip()[t]))[around].mean() > 20
    assert len(clouds) == len(overlays) == 6


def test_ros_itself_reads_and_writes_the_same(tmp_path):
    """Serialised by ROS's own libraries, beside rosbags."""
    serialization = pytest.importorskip("rclpy.serialization")
    sensor, standard, interfaces = (
        pytest.importorskip(f"{package}.msg")
        for package in ("sensor_msgs", "std_msgs", "builtin_interfaces")
    )

    with Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3) as bag:
        connection = bag.add_connection("/image", IMAGE, typestore=STORE)
        for picture, stamp in zip(clip(), stamps(), strict=True):
            image = sensor.Image(height=96, width=128, encoding="rgb8", step=384)
            time = interfaces.Time(sec=stamp // SECOND, nanosec=stamp % SECOND)
            image.header = standard.Header(stamp=time)
            image.data.frombytes(picture.tobytes())
            bag.write(connection, stamp, serialization.serialize_message(image))
    recording = read_recording(tmp_path / "bag")
    np.testing.assert_array_equal(recording.frames, np.stack(clip()))
    np.testing.assert_array_equal(recording.stamps, stamps())

    points = np.random.default_rng(0).uniform(0, 90, (3, 6, 2)).astype(np.float32)
    seen, one = np.ones((3, 6), bool), np.ones((3, 6), np.float32)
    tracks = Tracks(np.zeros((3, 3), np.float32), points, seen, one, one)
    write_tracks(tmp_path / "tracks.mcap", recording, tracks, clip())
    kinds = {
        "/tracker/tracks": sensor.PointCloud2,
        "/tracker/overlay/compressed": sensor.CompressedImage,
    }
    with AnyReader([tmp_path / "tracks.mcap"]) as reader:
        for t, (connection, _, data) in enumerate(reader.messages()):
            message = serialization.deserialize_message(data, kinds[connection.topic])
            assert stamp_of(message) == stamps()[t // 2]
            if connection.topic == "/tracker/tracks":
                np.testing.assert_array_equal(point_rows(message)["u"], points[:, t // 2, 0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag", "tracks.mcap"]


def test_the_only_image_topic_is_taken(tmp_path, run_vditrack):
    compressed = images("/cam/image_raw/compressed", JPEG, png)
    write_bag(tmp_path / "drive", compressed, text(), camera_info("/other/camera_info"))
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


@pytest.mark.parametrize("storage", StoragePlugin)
@pytest.mark.parametrize(("kind", "make"), [(IMAGE, bgr8), (JPEG, png)])
def test_frames_are_exact(tmp_path, storage, kind, make):
    bag = write_bag(tmp_path / "bag", images(kind=kind, make=make), storage=storage)
    for path in (bag, storage_file(bag)):
        recording = read_recording(path)
        np.testing.assert_array_equal(recording.frames, np.stack(clip()))
        np.testing.assert_allclose(recording.times, np.arange(6) / 10, atol=1e-9)
        np.testing.assert_array_equal(recording.stamps, stamps())
        np.testing.assert_array_equal(recording.arrivals, np.array(stamps()) + DELAY)
        assert recording.frame_ids == ("camera_optical",) * 6


@pytest.mark.parametrize(
    ("storage", "mode"),
    [
        (StoragePlugin.SQLITE3, CompressionMode.FILE),
        (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
        (StoragePlugin.MCAP, CompressionMode.MESSAGE),
        (StoragePlugin.MCAP, CompressionMode.STORAGE),
    ],
)
def test_compressed_bags(tmp_path, storage, mode):
    bag = write_bag(tmp_path / "bag", images(), storage=storage, mode=mode)
    np.testing.assert_array_equal(read_recording(bag).frames, np.stack(clip()))


@pytest.mark.parametrize(
    "distribution",
    [Stores.ROS2_HUMBLE, Stores.ROS2_IRON, Stores.ROS2_JAZZY, Stores.ROS2_KILTED],
)
def test_definitions_are_the_same_in_each_distribution(distribution):
    store = get_typestore(distribution)
    for kind in (IMAGE, JPEG, INFO, "sensor_msgs/msg/PointCloud2"):
        assert store.hash_rihs01(kind) == STORE.hash_rihs01(kind)


def test_a_bag_without_definitions(tmp_path):
    """As Humble's sqlite3 storage writes it: its tables have no place for definitions."""
    bag = write_bag(tmp_path / "bag", images(), storage=StoragePlugin.SQLITE3)
    database = apsw.Connection(str(storage_file(bag)))
    database.execute("DROP TABLE message_definitions; DROP TABLE schema;")
    database.execute("ALTER TABLE topics DROP COLUMN type_description_hash;")
    database.close()
    np.testing.assert_array_equal(read_recording(bag).frames, np.stack(clip()))


def test_the_definition_in_the_bag_counts(tmp_path):
    """A distribution may have added a field: then the bag alone knows where the others are."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    del store.fielddefs[IMAGE], store.types[IMAGE]
    text_of_it = (
        "std_msgs/Header header\nuint64 exposure\nuint32 height\nuint32 width\nstring encoding\n"
        "uint8 is_bigendian\nuint32 step\nuint8[] data\n"
    )
    store.register(get_types_from_msg(text_of_it, IMAGE))
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        connection = bag.add_connection("/image", IMAGE, typestore=store)
        for stamp, plain in images()[2]:
            image = store.types[IMAGE](exposure=5, **vars(plain))
            bag.write(connection, stamp, store.serialize_cdr(image, IMAGE))
    np.testing.assert_array_equal(read_recording(tmp_path / "bag").frames, np.stack(clip()))


def test_a_bag_in_several_files(tmp_path):
    whole = images()
    parts = [(*whole[:2], whole[2][:4]), (*whole[:2], whole[2][4:])]
    folders = [write_bag(tmp_path / f"p{n}", part) for n, part in enumerate(parts)]
    split = tmp_path / "split"
    split.mkdir()
    for folder in folders:
        storage_file(folder).rename(split / f"{folder.name}.mcap")
    metadata = (folders[0] / "metadata.yaml").read_text()
    metadata = metadata.replace("- p0.mcap", "- p0.mcap\n  - p1.mcap", 1)
    (split / "metadata.yaml").write_text(metadata.replace("message_count: 4", "message_count: 6"))
    np.testing.assert_array_equal(read_recording(split).frames, np.stack(clip()))


def test_a_stretch(tmp_path):
    bag = write_bag(tmp_path / "bag", images())
    stretch = read_recording(bag, start=0.2, end=0.4)
    np.testing.assert_allclose(stretch.times, [0.2, 0.3], atol=1e-9)
    np.testing.assert_array_equal(stretch.frames, np.stack(clip()[2:4]))
    with pytest.raises(InputError, match="no image of /cam/image_raw between 5 s"):
        read_recording(bag, start=5)
    with pytest.raises(InputError, match="not a time range"):
        read_recording(bag, start=1, end=0.5)


def restamped(change: dict[int, int]):
    topic, kind, messages = images()
    for t, stamp in change.items():
        arrival, message = messages[t]
        message.header = header(stamp)
        messages[t] = (arrival, message)
    return topic, kind, messages


def test_a_zero_stamp_is_the_time_of_arrival(tmp_path):
    bag = write_bag(tmp_path / "bag", restamped(dict.fromkeys(range(6), 0)))
    recording = read_recording(bag)
    np.testing.assert_array_equal(recording.stamps, np.array(stamps()) + DELAY)
    np.testing.assert_allclose(recording.times, np.arange(6) / 10, atol=1e-9)


def test_repeated_and_late_frames_are_left_out(tmp_path):
    bag = write_bag(tmp_path / "bag", restamped({2: stamps()[1], 4: stamps()[0]}), camera_info())
    recording = read_recording(bag)
    np.testing.assert_array_equal(recording.frames, np.stack(clip())[[0, 1, 3, 5]])
    assert recording.remarks == (
        "2 frames of /cam/image_raw with a repeated or late stamp were skipped.",
    )


def test_a_clock_that_jumps_back_is_refused(tmp_path):
    bag = write_bag(tmp_path / "bag", restamped({4: BEGAN - 3 * SECOND}))
    with pytest.raises(InputError, match=r"jump back by 3\.3 s after 0\.30 s. Give an --end"):
        read_recording(bag)
    assert len(read_recording(bag, end=0.25).frames) == 3


@pytest.mark.parametrize(
    ("info", "remark"),
    [
        (camera_info(size=(480, 640)), "describes images of 640 x 480, not 128 x 96"),
        (camera_info(focal=0), "is of a camera that is not calibrated"),
        (camera_info(model="fov", d=[0.9]), "'fov' with 1 coefficients; supported are"),
        (text("/cam/camera_info"), "has no calibration at /cam/camera_info"),
        (("/cam/camera_info", INFO, []), "/cam/camera_info is empty"),
    ],
)
def test_why_there_is_no_camera(tmp_path, info, remark):
    recording = read_recording(write_bag(tmp_path / "bag", images(), info))
    assert recording.camera is None
    (told,) = recording.remarks
    assert told.startswith("x, y and z are NaN")
    assert remark in told


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("storage", StoragePlugin)
def test_a_bag_cut_short(tmp_path, storage, share):
    bag = write_bag(tmp_path / "bag", images(count=20), storage=storage)
    cut(storage_file(bag), share)
    for path in (bag, storage_file(bag)):
        with pytest.raises(InputError, match=r"bag.*(cannot be read|truncated)") as refused:
            read_recording(path)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("storage", StoragePlugin)
def test_bytes_that_changed_are_no_traceback(tmp_path, storage):
    """Pixels may have changed unseen; all else is refused as a mistake of the user's."""
    bag = write_bag(tmp_path / "bag", images(count=3), storage=storage)
    content = storage_file(bag).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(content)
        # The beginning and the end hold the structure, the middle pixels.
        near = [int(rng.integers(0, 3000)), len(content) - 1 - int(rng.integers(0, 3000))]
        for place in near:
            damaged[place] ^= int(rng.integers(1, 255))
        storage_file(bag).write_bytes(damaged)
        try:
            assert read_recording(storage_file(bag)).frames.shape[1:] == (96, 128, 3)
        except InputError as refused:
            assert str(refused)


def test_a_damaged_image_is_told_with_its_time(tmp_path):
    topic, kind, messages = images()
    messages[3][1].data = messages[3][1].data[:-2000]
    bag = write_bag(tmp_path / "bag", (topic, kind, messages))
    with pytest.raises(InputError, match=r"bag, /cam/image_raw at 0\.30 s.*bgr8.*truncated"):
        read_recording(bag)
    assert len(read_recording(bag, end=0.3).frames) == 3


def test_a_change_of_size_is_refused(tmp_path):
    topic, kind, messages = images()
    messages[4] = (messages[4][0], bgr8(clip(1, 48, 64)[0], stamps()[4]))
    bag = write_bag(tmp_path / "bag", (topic, kind, messages))
    with pytest.raises(InputError, match=r"changes size at frame 4, from \(128, 96\) to \(64, 48"):
        read_recording(bag)


def test_what_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    bag = write_bag(tmp_path / "bag", images())
    monkeypatch.setattr(video, "_available_bytes", lambda: 96 * 128 * 3 * 6.0)
    with pytest.raises(InputError, match=r"does not fit into memory: 6 frames.*--start and --end"):
        read_recording(bag)
    assert len(read_recording(bag, end=0.25).frames) == 3


@pytest.fixture
def folder(tmp_path) -> Path:
    two = write_bag(tmp_path / "two", images(), images("/left/image"), text())
    write_bag(tmp_path / "none", text(), camera_info())
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mcap").write_text("no bag\n" * 50)
    (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0\n")
    (tmp_path / "cut.mcap").write_bytes(storage_file(two).read_bytes()[:5000])
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    missing = write_bag(tmp_path / "missing", images())
    storage_file(missing).unlink()
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
        (["empty"], "empty is not a rosbag2: it has no metadata.yaml"),
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
    bag = write_bag(tmp_path / "bag", images())
    code = (
        "import sys; sys.modules['rosbags'] = None; from vditrack.cli.app import main; "
        f"sys.argv = ['vditrack', 'track', {str(bag)!r}, '--grid', '2']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Run `pip install vditrack[bags]`" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bag"]


def test_the_command_line_imports_no_rosbags():
    code = "import sys, vditrack.cli.app; print(*sys.modules)"
    listed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = listed.stdout.split()
    assert "vditrack.io.rosbag.recordings" in loaded
    assert not [name for name in loaded if name.split(".")[0] in ("rosbags", "apsw", "ruamel")]
