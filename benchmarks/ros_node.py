"""Measure the ROS 2 node with a simulated camera: rates, latency, drops, overhead and memory.

    python benchmarks/ros_node.py                     # a minute at 30 Hz, 640 x 480, 64 points
    python benchmarks/ros_node.py --seconds 600       # does memory stay constant?

Publisher, node and subscriber are separate processes on this machine. The baseline of the latency
is the same subscriber on the images in the same run: the time that the middleware takes.
"""

import os
import subprocess
import sys
import tempfile
import time
from array import array
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

FOLDER = Path(__file__).resolve().parent
PROFILE = FOLDER.parent / "ros2_node" / "config" / "fastdds.xml"
HEIGHT, WIDTH = 480, 640
# The middleware reads these when rclpy is imported.
os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(PROFILE))

import numpy as np  # noqa: E402
import rclpy  # noqa: E402
import typer  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rclpy.executors import ExternalShutdownException  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402
from rclpy.time import Time  # noqa: E402
from sensor_msgs.msg import Image, PointCloud2  # noqa: E402

from vditrack.synthetic.layers.clips import render_clip  # noqa: E402

LATEST = qos_profile_sensor_data
WARM_UP = 5.0
"""Seconds that are not measured: discovery, and the node's estimate of the model's speed."""


def publish(rate: float) -> None:
    """Publish a rendered clip forwards and backwards until interrupted."""
    frames = render_clip(seed=0, height=HEIGHT, width=WIDTH, frames=60).frames
    loop = [array("B", frame.tobytes()) for frame in [*frames, *frames[-2:0:-1]]]
    rclpy.init()
    node = rclpy.create_node("camera")
    publisher = node.create_publisher(Image, "image", LATEST)
    message = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
    message.header.frame_id = "camera"
    count = 0

    def tick() -> None:
        nonlocal count
        message.data = loop[count % len(loop)]
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
        count += 1

    node.create_timer(1 / rate, tick)
    with suppress(ExternalShutdownException):
        rclpy.spin(node)


@dataclass
class Reception:
    """Times and latencies of the messages received on one topic, in seconds."""

    arrivals: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def rate(self) -> float:
        """Return the messages per second."""
        return (len(self.arrivals) - 1) / (self.arrivals[-1] - self.arrivals[0])

    def milliseconds(self, percent: float) -> float:
        """Return a percentile of the latency in milliseconds."""
        return 1000 * float(np.percentile(self.latencies, percent))


class Subscriber:
    """Subscribes to the images, or to the node's tracks and diagnostics."""

    def __init__(self) -> None:
        rclpy.init()
        self._node = rclpy.create_node("subscriber")
        self.diagnostics: dict[str, str] = {}
        self.memory: list[float] = []
        self.visible: list[float] = []

    def images(self, seconds: float) -> Reception:
        """Receive the images."""
        return self._listen(Image, "image", seconds)

    def tracks(self, seconds: float) -> Reception:
        """Receive the tracks and diagnostics."""
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        return self._listen(PointCloud2, "/tracker/tracks", seconds)

    def _listen(self, kind: type, topic: str, seconds: float) -> Reception:
        received, began = Reception(), 0.0

        def receive(message: Image | PointCloud2) -> None:
            nonlocal began
            now = time.monotonic()
            began = began or now
            if now - began < WARM_UP:
                return
            delay = self._node.get_clock().now() - Time.from_msg(message.header.stamp)
            received.arrivals.append(now)
            received.latencies.append(delay.nanoseconds / 1e9)

        subscription = self._node.create_subscription(kind, topic, receive, LATEST)
        deadline = time.monotonic() + 60
        while not began or time.monotonic() - began < WARM_UP + seconds:
            rclpy.spin_once(self._node, timeout_sec=0.1)
            if not began and time.monotonic() > deadline:
                raise SystemExit(f"no message on {topic} within a minute")
        self._node.destroy_subscription(subscription)
        return received

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            values = {pair.key: pair.value for pair in status.values}
            self.diagnostics.update(values)
            if "memory (MB)" in values:
                self.memory.append(float(values["memory (MB)"]))


def _start(*command: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen([sys.executable, *command], stdout=file, stderr=file)


def measure(seconds: float, rate: float, points: int, folder: Path) -> None:
    """Run the three processes and print the results."""
    camera = _start(__file__, "--camera", "--rate", str(rate), log=folder / "camera.log")
    options = ["--ros-args", "-p", f"points:={points}", "-p", f"max_points:={max(points, 1000)}"]
    subscriber, node = Subscriber(), None
    try:
        images = subscriber.images(min(seconds, 20.0))
        node = _start("-m", "vditrack_ros.main", *options, log=folder / "node.log")
        tracks = subscriber.tracks(seconds)
    finally:
        for process in (camera, node):
            if process is not None:
                process.terminate()
                process.wait(30)
    report(subscriber, images, tracks, rate)


def report(subscriber: Subscriber, images: Reception, tracks: Reception, rate: float) -> None:
    """Print the results."""
    values, memory = subscriber.diagnostics, subscriber.memory
    times = np.linspace(0, len(memory) - 1, 6).astype(int)
    print(f"camera                       {rate:.0f} Hz, {WIDTH} x {HEIGHT} rgb8")
    print(f"images at a subscriber       {images.rate():.1f} Hz (without the node)")
    print(
        f"tracks at a subscriber       {tracks.rate():.1f} Hz, {tracks.rate() / images.rate():.2f}x"
    )
    print(f"encoded by the model         {values['rate described by the model (Hz)']} Hz")
    print(f"points alive, visible        {values['points alive']}, {values['points visible']}")
    for percent in (50, 99):
        alone, whole = images.milliseconds(percent), tracks.milliseconds(percent)
        print(
            f"latency p{percent}                  {whole:.1f} ms from stamp to subscriber; "
            f"images alone {alone:.1f} ms, {whole / alone:.1f}x"
        )
    print(f"node: decode and publish     {values['overhead (ms)']} ms per frame (median)")
    print(f"node: tracking               {values['tracking (ms)']} ms per frame (median)")
    for name in sorted(name for name in values if name.startswith("dropped")):
        print(f"{name:28} {values[name]}")
    print(f"memory, from start to end    {', '.join(f'{memory[t]:.0f}' for t in times)} MB")


def main(
    seconds: Annotated[float, typer.Option(help="Duration of the measurement, in seconds.")] = 60.0,
    rate: Annotated[float, typer.Option(help="Rate of the camera, in Hz.")] = 30.0,
    points: Annotated[int, typer.Option(help="Number of points.")] = 64,
    camera: Annotated[bool, typer.Option("--camera", help="Publish images only.")] = False,
) -> None:
    """Measure the ROS 2 node with a simulated camera."""
    if camera:
        publish(rate)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(seconds, rate, points, Path(folder))


if __name__ == "__main__":
    typer.run(main)
