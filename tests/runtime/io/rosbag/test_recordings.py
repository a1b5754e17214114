"""Recordings read from real bags, written by rosbags in both storage formats."""

import errno
import re
import shutil
from pathlib import Path

import apsw
import cv2
import mcap.reader
import mcap.writer
import numpy as np
import pytest
from mcap.writer import CompressionType
from rosbags.rosbag2 import CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from doubles.bags import (
    BEGAN,
    DELAY,
    IMAGE,
    INFO,
    JPEG,
    SECOND,
    STORE,
    bgr8,
    camera_info,
    clip,
    header,
    images,
    jpeg,
    new,
    png,
    stamps,
    storage_file,
    text,
    write_bag,
)
from vditrack.errors import InputError
from vditrack.io.rosbag.recordings import read_recording


def test_depth_of_compressed_depth_is_no_image_topic(tmp_path):
    """Its messages are sensor_msgs/CompressedImage too."""
    depth = images("/cam/depth/compressedDepth", JPEG, png)
    color = images("/cam/color/compressed", JPEG, png)
    recording = read_recording(
        write_bag(tmp_path / "bag", depth, color, camera_info("/cam/camera_info"))
    )
    np.testing.assert_array_equal(recording.frames, np.stack(clip()))
    assert recording.camera is not None


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


STORAGES = [
    (StoragePlugin.SQLITE3, CompressionMode.NONE),
    (StoragePlugin.SQLITE3, CompressionMode.FILE),
    (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
    (StoragePlugin.MCAP, CompressionMode.NONE),
    (StoragePlugin.MCAP, CompressionMode.FILE),
    (StoragePlugin.MCAP, CompressionMode.MESSAGE),
    (StoragePlugin.MCAP, CompressionMode.STORAGE),
]


@pytest.mark.parametrize(("storage", "mode"), STORAGES)
def test_compressed_bags(tmp_path, storage, mode):
    bag = write_bag(tmp_path / "bag", images(), storage=storage, mode=mode)
    (file,) = (path for path in bag.iterdir() if path.name != "metadata.yaml")
    for path in (bag, file):
        np.testing.assert_array_equal(read_recording(path).frames, np.stack(clip()))


@pytest.mark.parametrize("compression", CompressionType)
def test_chunks_of_mcap(tmp_path, compression):
    """As other recorders than rosbags write them; rosbag2 itself uses zstd or lz4."""
    bag = storage_file(write_bag(tmp_path / "bag", images()))
    with bag.open("rb") as source, (tmp_path / "bag.mcap").open("wb") as copy:
        writer = mcap.writer.Writer(copy, compression=compression, chunk_size=40_000)
        writer.start(profile="ros2")
        channel = None
        for schema, one, message in mcap.reader.make_reader(source).iter_messages():
            if channel is None:
                known = writer.register_schema(schema.name, schema.encoding, schema.data)
                channel = writer.register_channel(one.topic, "cdr", known, one.metadata)
            writer.add_message(channel, message.log_time, message.data, message.publish_time)
        writer.finish()
    frames = read_recording(tmp_path / "bag.mcap").frames
    np.testing.assert_array_equal(frames, np.stack(clip()))


def test_a_full_disk_is_no_damage(tmp_path, monkeypatch):
    bag = write_bag(
        tmp_path / "bag", images(), storage=StoragePlugin.SQLITE3, mode=CompressionMode.FILE
    )

    def fail(source, copy) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(InputError, match=r"bag are compressed, and .* has no room.*TMPDIR"):
        read_recording(bag)


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


def write_split(folder: Path, storage, mode) -> Path:
    """Write a bag in two files."""
    whole, text = images(), ""
    folder.mkdir()
    for n, part in enumerate((slice(4), slice(4, None))):
        bag = write_bag(folder / f"p{n}", (*whole[:2], whole[2][part]), storage=storage, mode=mode)
        text = text or (bag / "metadata.yaml").read_text()
        (file,) = (path for path in bag.iterdir() if path.name != "metadata.yaml")
        text = text.replace("- p0.", f"- {file.name}\n  - p0.", 1) if n else text
        file.rename(folder / file.name)
        shutil.rmtree(bag)
    (folder / "metadata.yaml").write_text(text.replace("message_count: 4", "message_count: 6"))
    return folder


@pytest.mark.parametrize(("storage", "mode"), STORAGES)
def test_a_bag_in_several_files(tmp_path, storage, mode):
    """The parts are put in the order of their stamps; here, the metadata has them reversed."""
    split = write_split(tmp_path / "split", storage, mode)
    recording = read_recording(split)
    np.testing.assert_array_equal(recording.frames, np.stack(clip()))
    first, second = sorted(path for path in split.iterdir() if path.name != "metadata.yaml")
    second.write_bytes(second.read_bytes()[:1000])
    with pytest.raises(InputError, match=rf"split cannot be read .*: {re.escape(second.name)}: "):
        read_recording(split)
    second.unlink()
    with pytest.raises(InputError, match=rf"missing: .*{re.escape(second.name)}"):
        read_recording(split)
    np.testing.assert_array_equal(read_recording(first).frames, np.stack(clip())[:4])


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


def test_a_zero_among_stamps_is_left_out(tmp_path):
    """A simulation's clock at 10 s, while the recorder's is that of today."""
    simulated = {t: 10 * SECOND + t * SECOND // 10 for t in range(6)}
    bag = write_bag(tmp_path / "bag", restamped({**simulated, 0: 0, 4: 0}), camera_info())
    recording = read_recording(bag)
    np.testing.assert_array_equal(recording.frames, np.stack(clip())[[1, 2, 3, 5]])
    np.testing.assert_allclose(recording.times, [0, 0.1, 0.2, 0.4], atol=1e-9)
    assert recording.remarks == ("left out of /cam/image_raw: 2 images with the stamp zero.",)
    # The first one left no gap: nothing is known before it.
    (gap,) = recording.gaps
    assert gap == pytest.approx((0.2, 0.4, 1))


def test_a_simulation_that_starts_at_zero(tmp_path):
    bag = write_bag(
        tmp_path / "bag", restamped({t: t * SECOND // 10 for t in range(6)}), camera_info()
    )
    recording = read_recording(bag)
    np.testing.assert_array_equal(recording.frames, np.stack(clip()))
    np.testing.assert_array_equal(recording.stamps, np.arange(6) * SECOND // 10)
    assert recording.remarks == ()


def test_repeated_frames_are_left_out_and_late_ones_put_in_order(tmp_path):
    order = {2: stamps()[1], 3: stamps()[4], 4: stamps()[3]}
    bag = write_bag(tmp_path / "bag", restamped(order), camera_info())
    recording = read_recording(bag)
    np.testing.assert_array_equal(recording.frames, np.stack(clip())[[0, 1, 4, 3, 5]])
    np.testing.assert_array_equal(recording.stamps, np.array(stamps())[[0, 1, 3, 4, 5]])
    np.testing.assert_array_equal(recording.arrivals, np.array(stamps())[[0, 1, 4, 3, 5]] + DELAY)
    assert recording.remarks == (
        "left out of /cam/image_raw: 1 image with the stamp of another image.",
        "put in the order of their stamps: 1 image of /cam/image_raw.",
    )
    assert recording.gaps == ()
    part = read_recording(bag, start=0.1, end=0.35)
    np.testing.assert_array_equal(part.frames, np.stack(clip())[[1, 4]])


def test_a_stamp_far_off_is_left_out(tmp_path):
    bag = write_bag(tmp_path / "bag", restamped({4: BEGAN - 3 * SECOND}), camera_info())
    recording = read_recording(bag)
    np.testing.assert_array_equal(recording.frames, np.stack(clip())[[0, 1, 2, 3, 5]])
    assert recording.remarks == (
        "left out of /cam/image_raw: 1 image with a stamp far off those of the others.",
    )
    (gap,) = recording.gaps
    assert gap == pytest.approx((0.3, 0.5, 1))


def test_a_clock_that_jumps_back_is_refused(tmp_path):
    back = {t: stamps()[t] - 3 * SECOND for t in (3, 4, 5)}
    bag = write_bag(tmp_path / "bag", restamped(back))
    with pytest.raises(InputError, match=r"jump back by 2\.9 s after 0\.20 s. Give an --end"):
        read_recording(bag)
    assert len(read_recording(bag, end=0.25).frames) == 3


def wide(make, values):
    """Messages of 16-bit pictures [T, H, W]."""
    return "/cam/image_raw", *make(values)


def mono16(values):
    messages = [
        (
            stamp + DELAY,
            new(
                IMAGE,
                header=header(stamp),
                height=picture.shape[0],
                width=picture.shape[1],
                encoding="mono16",
                is_bigendian=1,
                step=2 * picture.shape[1],
                data=np.frombuffer(picture.astype(">u2").tobytes(), np.uint8),
            ),
        )
        for stamp, picture in zip(stamps(), values, strict=True)
    ]
    return IMAGE, messages


def png16(values):
    messages = [
        (
            stamp + DELAY,
            new(
                JPEG,
                header=header(stamp),
                format="mono16; png compressed ",
                data=cv2.imencode(".png", picture)[1].ravel(),
            ),
        )
        for stamp, picture in zip(stamps(), values, strict=True)
    ]
    return JPEG, messages


@pytest.mark.parametrize("make", [mono16, png16])
@pytest.mark.parametrize(("low", "high"), [(0, 1023), (0, 4095), (7000, 8400)])
def test_16_bits_are_scaled_alike_in_all_images(tmp_path, make, low, high):
    """Darker images stay darker: a range of each image would flicker."""
    share = np.stack(clip()).mean(axis=3) / 255
    share[3:] *= 0.5
    values = np.round(low + share * (high - low)).astype(np.uint16)
    recording = read_recording(write_bag(tmp_path / "bag", wide(make, values)))
    found = recording.frames[..., 0].astype(float)
    slope, offset = np.polyfit(values.ravel(), found.ravel(), 1)
    assert np.abs(slope * values + offset - found).max() < 1.5
    assert slope * (high - low) > 0.8 * 255
    remark = recording.remarks[0]
    assert "have 16 bits (mono16" in remark
    begin, end = map(int, re.search(r"from (\d+) to (\d+) are reduced", remark).groups())
    assert begin <= values.min()
    assert end >= values.max()


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
    told = recording.camera_remark
    assert recording.remarks == ()
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


@pytest.mark.parametrize(("kind", "make"), [(IMAGE, bgr8), (JPEG, png), (JPEG, jpeg)])
@pytest.mark.parametrize("damaged", [[0], [3], [5], [2, 3]])
def test_damaged_images_are_left_out(tmp_path, kind, make, damaged):
    topic, kind, messages = images(kind=kind, make=make)
    kept = [t for t in range(6) if t not in damaged]
    intact = read_recording(write_bag(tmp_path / "intact", (topic, kind, messages)))
    for t in damaged:
        messages[t][1].data = messages[t][1].data[:-2000]
    bag = write_bag(tmp_path / "bag", (topic, kind, messages), camera_info())
    recording = read_recording(bag)
    np.testing.assert_array_equal(recording.frames, intact.frames[kept])
    np.testing.assert_allclose(recording.times, np.array(kept) / 10, atol=1e-9)
    (remark,) = recording.remarks
    count = "1 image" if len(damaged) == 1 else "2 images"
    assert f"{count} of 6 that cannot be used, the first at {damaged[0] / 10:.2f} s" in remark
    assert "truncated" in remark
    (gap,) = recording.gaps
    first = 0 if damaged[0] == 0 else damaged[0] - 1
    assert gap == pytest.approx((first / 10, (damaged[-1] + 1) / 10, len(damaged)))


def test_a_bag_of_damaged_images_only(tmp_path):
    topic, kind, messages = images()
    for _, message in messages:
        message.data = message.data[:-2000]
    bag = write_bag(tmp_path / "bag", (topic, kind, messages))
    with pytest.raises(InputError, match=r"bag, /cam/image_raw at 0\.00 s.*bgr8.*truncated"):
        read_recording(bag)


def test_an_unsupported_encoding_is_refused(tmp_path):
    topic, kind, messages = images()
    messages[4][1].encoding = "32FC3"
    bag = write_bag(tmp_path / "bag", (topic, kind, messages))
    with pytest.raises(InputError, match=r"at 0\.40 s.*32FC3.*unsupported encoding"):
        read_recording(bag)


def test_a_change_of_size_is_refused(tmp_path):
    topic, kind, messages = images()
    for t in (4, 5):
        messages[t] = (messages[t][0], bgr8(clip(1, 48, 64)[0], stamps()[t]))
    bag = write_bag(tmp_path / "bag", (topic, kind, messages))
    with pytest.raises(InputError, match=r"changes size at 0\.40 s, from \(128, 96\) to \(64, 48"):
        read_recording(bag)
    assert len(read_recording(bag, end=0.35).frames) == 4


def test_one_image_of_another_size_is_left_out(tmp_path):
    topic, kind, messages = images()
    messages[4] = (messages[4][0], bgr8(clip(1, 48, 64)[0], stamps()[4]))
    recording = read_recording(write_bag(tmp_path / "bag", (topic, kind, messages), camera_info()))
    np.testing.assert_array_equal(recording.frames, np.stack(clip())[[0, 1, 2, 3, 5]])
    (remark,) = recording.remarks
    assert (
        "1 image of 6 that cannot be used, the first at 0.40 s: it has the size (64, 48" in remark
    )


def test_what_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    bag = write_bag(tmp_path / "bag", images())
    monkeypatch.setattr("vditrack.io.clip.available_bytes", lambda: 96 * 128 * 3 * 6.0)
    with pytest.raises(InputError, match=r"does not fit into memory: 6 frames.*--start and --end"):
        read_recording(bag)
    assert len(read_recording(bag, end=0.25).frames) == 3
