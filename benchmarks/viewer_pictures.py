"""Make docs/rerun.jpg and docs/mcap.jpg: what the viewers show of a run on the demo's clip.

    python benchmarks/viewer_pictures.py [--folder DIR]

docs/rerun.jpg is a screenshot of the Rerun viewer. It needs a display, or Xvfb and a software
renderer (`apt install xvfb mesa-vulkan-drivers`); where in time the viewer is when it takes the
screenshot varies. docs/mcap.jpg is drawn from the messages of tracks.mcap, as rosbags reads them:
Foxglove has no build that runs here.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from vditrack.cli.demo import DEMO_CUTS, _find_demo_clip
from vditrack.io.mask_png import write_mask
from vditrack.io.rerun_recording import choose_id_colours
from vditrack.io.rosbag.track_bags import OVERLAY_TOPIC, TRACKS_TOPIC
from vditrack.io.video import read_video
from vditrack.ros_messages.track_cloud import TRACK_FIELDS

DOCS = Path(__file__).parents[1] / "docs"
SHOT = DEMO_CUTS[3]
"""First frame of the shot: a man walks past a parked bicycle."""
LENGTH = 40
"""Number of frames."""
MAN = (slice(0, 225), slice(55, 235))
"""Rows and columns around the man in the first frame."""
DARK = 75
"""Grey level below which a pixel around the man is taken for his."""
WINDOW = 1000, 640
"""Width and height of the viewer's window, in pixels of the picture."""
SECOND = 10**9
FOCAL = 600.0
"""Focal length of the camera in the bag, in pixels; a guess, so that there are positions."""


def main() -> None:
    """Track, write the recording and the bag, and make both pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="Keep the results here. Default: nowhere.")
    given = parser.parse_args()
    with TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        make_pictures(folder)


def make_pictures(folder: Path) -> None:
    """Make both pictures, with the files that they need in a folder."""
    clip = read_video(_find_demo_clip(), SHOT / 25, (SHOT + LENGTH) / 25)
    mask = np.zeros(clip.frames.shape[1:3], np.uint8)
    grey = cv2.GaussianBlur(cv2.cvtColor(clip.frames[0], cv2.COLOR_RGB2GRAY), (9, 9), 0)
    mask[MAN] = grey[MAN] < DARK
    write_mask(folder / "man.png", mask)
    write_bag(folder / "bag", clip.frames)
    run("track", "bag", "--grid", "14", "--object", "man.png", "--rerun", "man.rrd", cwd=folder)
    take_screenshot(folder / "man.rrd", folder / "screenshot.png")
    picture = cv2.imread(str(folder / "screenshot.png"))
    save(DOCS / "rerun.jpg", cv2.resize(picture, WINDOW, interpolation=cv2.INTER_AREA))
    save(DOCS / "mcap.jpg", draw_mcap(folder / "bag_tracks" / "tracks.mcap"))


def run(*arguments: str, cwd: Path) -> None:
    """Run `vditrack ARGUMENTS`."""
    subprocess.run([sys.executable, "-m", "vditrack", *arguments], cwd=cwd, check=True)


def save(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture as JPEG and say how large it is."""
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def write_bag(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write frames and a calibration to a bag, as a camera driver's."""
    shutil.rmtree(path, ignore_errors=True)
    store = get_typestore(Stores.LATEST)
    new = store.types
    height, width = frames.shape[1:3]
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {
            kind: writer.add_connection(
                f"/camera/{topic}", f"sensor_msgs/msg/{kind}", typestore=store
            )
            for topic, kind in (("image_raw", "Image"), ("camera_info", "CameraInfo"))
        }
        for t, frame in enumerate(frames):
            at = 1_800_000_000 * SECOND + t * SECOND // 25
            stamp = new["builtin_interfaces/msg/Time"](sec=at // SECOND, nanosec=at % SECOND)
            header = new["std_msgs/msg/Header"](stamp=stamp, frame_id="camera_optical")
            image = new["sensor_msgs/msg/Image"](
                header, height, width, "rgb8", 0, 3 * width, frame.ravel()
            )
            k = np.array([FOCAL, 0, width / 2, 0, FOCAL, height / 2, 0, 0, 1])
            region = new["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
            info = new["sensor_msgs/msg/CameraInfo"](
                header, height, width, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(),
                np.insert(k.reshape(3, 3), 3, 0, axis=1).ravel(), 0, 0, region,
            )  # fmt: skip
            for message in (image, info):
                kind = type(message).__name__.rpartition("__")[2]
                data = store.serialize_cdr(message, f"sensor_msgs/msg/{kind}")
                writer.write(topics[kind], at, data)


def take_screenshot(recording: Path, picture: Path) -> None:
    """Let the Rerun viewer take a picture of its window, two pixels to one of `WINDOW`."""
    command = [sys.executable, "-m", "rerun", "--port", "auto", "--renderer", "vulkan"]
    command += ["--window-size", "{}x{}".format(*WINDOW), "--screenshot-to", str(picture)]
    if "DISPLAY" not in os.environ:
        # The screen is so large that the pointer in its middle is outside the window.
        command = ["xvfb-run", "-a", "-s", "-screen 0 4000x3000x24", *command]
    subprocess.run([*command, str(recording)], check=True, timeout=120, capture_output=True)


def read_messages(path: Path, topic: str) -> Iterator[Any]:
    """Yield the messages of a topic of an MCAP file."""
    store = get_typestore(Stores.LATEST)
    with Reader(path) as reader:
        connections = [one for one in reader.connections if one.topic == topic]
        for connection, _, data in reader.messages(connections):
            yield store.deserialize_cdr(data, connection.msgtype)


def draw_mcap(path: Path) -> NDArray[np.uint8]:
    """Return a picture BGR: the overlay, the cloud in the optical frame, and the first rows."""
    overlay = list(read_messages(path, OVERLAY_TOPIC))[LENGTH // 2]
    cloud = list(read_messages(path, TRACKS_TOPIC))[LENGTH // 2]
    assert overlay.header.stamp == cloud.header.stamp
    rows = np.frombuffer(cloud.data, TRACK_FIELDS)
    image = cv2.imdecode(np.asarray(overlay.data, np.uint8), cv2.IMREAD_COLOR)
    height, width = image.shape[:2]
    panel = np.full((height, width * 3 // 4, 3), 32, np.uint8)
    scale = FOCAL * 0.72
    colours = choose_id_colours(rows["id"]).tolist()
    for row, colour in zip(rows, colours, strict=True):
        at = (row["x"] * scale + panel.shape[1] / 2, row["y"] * scale + height / 2)
        centre = tuple(int(value) for value in at)
        cv2.circle(panel, centre, 3, colour[::-1], -1 if row["visible"] else 1, cv2.LINE_AA)
    views = np.hstack([image, panel])
    write(views, f"{OVERLAY_TOPIC}", (8, 18))
    write(views, f"{TRACKS_TOPIC}: x, y on the plane z = 1", (width + 8, 18))
    names = ["id", "u", "v", "x", "y", "z", "visible", "confidence", "object_id"]
    table = np.full((150, views.shape[1], 3), 20, np.uint8)
    for column, name in enumerate(names):
        write(table, name, (12 + 120 * column, 20))
        for line, row in enumerate(rows[85:90]):
            value = row[name].item()
            text = f"{value:.3f}" if isinstance(value, float) else str(value)
            write(table, text, (12 + 120 * column, 46 + 24 * line))
    return np.vstack([views, table])


def write(picture: NDArray[np.uint8], text: str, at: tuple[int, int]) -> None:
    """Write text in light grey on a dark ground."""
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.5
    (width, height), _ = cv2.getTextSize(text, font, size, 1)
    left, base = at
    cv2.rectangle(
        picture, (left - 4, base - height - 4), (left + width + 4, base + 5), (20,) * 3, -1
    )
    cv2.putText(picture, text, at, font, size, (220,) * 3, 1, cv2.LINE_AA)


if __name__ == "__main__":
    main()
