"""Measure the ROS 2 node with a simulated camera: rate, latency, processor time and memory.

    python benchmarks/ros_node.py            # the table "Measured speed" of the documentation
    python benchmarks/ros_node.py --size 1280x720 --rate 30      # one row
    python benchmarks/ros_node.py --size 640x480 --rate 30 --seconds 1800   # does memory grow?
    python benchmarks/ros_node.py --size 640x480 --rate 30 --masks   # masks of four objects
    python benchmarks/ros_node.py --size 640x480 --rate 30 --masks --masks-rate 10   # by flow

Publisher, node and subscriber are separate processes on this machine. The baseline of each row is
the same subscriber on the images, without the node: the rate and latency of the middleware.
"""

import os
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

FOLDER = Path(__file__).resolve().parent
PROFILE = FOLDER.parent / "ros2_node" / "vditrack_ros" / "transport" / "fastdds.xml"
# The middleware reads these when rclpy is imported.
os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(PROFILE))

import cv2  # noqa: E402
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
SIZES = ("640x480", "1280x720", "1920x1080")
RATES = (30.0, 60.0)
WARM_UP = 5.0
"""Seconds that are not measured: discovery, and the node's estimate of the model's speed."""
BASELINE = 10.0
"""Seconds for which the images alone are received."""
MAX_GROWTH = 0.05
"""Share by which memory may grow after the first minute."""

HEADER = (
    "| size | camera | images alone | results | encoded by the model | latency p50, p99 | of "
    "images alone | processor time of the node | memory |\n|---|---|---|---|---|---|---|---|---|"
)


@dataclass(frozen=True)
class Row:
    """A simulated camera, and what is tracked in its images."""

    width: int
    height: int
    rate: float
    points: int
    masks: bool
    """Whether masks of four objects are propagated, in the place of points."""
    masks_rate: float
    """The node's parameter `masks_rate`, in Hz."""


def publish(row: Row) -> None:
    """Publish a rendered clip forwards and backwards until interrupted."""
    frames = render_clip(seed=0, height=row.height, width=row.width, frames=60).frames
    images = [array("B", frame.tobytes()) for frame in frames]
    del frames
    loop = [*images, *images[-2:0:-1]]
    rclpy.init()
    node = rclpy.create_node("camera")
    publisher = node.create_publisher(Image, "image", LATEST)
    message = Image(height=row.height, width=row.width, encoding="rgb8", step=3 * row.width)
    message.header.frame_id = "camera"
    count = 0

    def tick() -> None:
        nonlocal count
        # Like a driver's, the image is copied once, to the middleware.
        message.data = loop[count % len(loop)]
        message.header.stamp = node.get_clock().now().to_msg()
        publisher.publish(message)
        count += 1

    node.create_timer(1 / row.rate, tick)
    with suppress(ExternalShutdownException):
        rclpy.spin(node)


def mark_objects(row: Row) -> Image:
    """Return a mask of four ellipses, for the newest image."""
    mask = np.zeros((row.height, row.width), np.uint8)
    axes = row.width // 7, row.height // 6
    for index, (x, y) in enumerate([(1, 1), (3, 1), (1, 3), (3, 3)], start=1):
        centre = x * row.width // 4, y * row.height // 4
        cv2.ellipse(mask, centre, axes, 0, 0, 360, index, cv2.FILLED)
    size = {"height": row.height, "width": row.width, "step": row.width}
    return Image(encoding="mono8", data=array("B", mask.tobytes()), **size)


@dataclass
class Reception:
    """Times and latencies of the messages received on one topic, in seconds."""

    arrivals: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def rate(self) -> float:
        """Return the messages per second."""
        return (len(self.arrivals) - 1) / (self.arrivals[-1] - self.arrivals[0])

    def percentiles(self) -> str:
        """Return the median and the 99th percentile of the latency in milliseconds."""
        p50, p99 = 1000 * np.percentile(self.latencies, (50, 99))
        return f"{p50:.1f}, {p99:.1f} ms"


class ProcessUse:
    """Processor time and memory of a process, sampled about once a second."""

    def __init__(self, process: int) -> None:
        """Sample the process with this id."""
        self._folder = Path("/proc") / str(process)
        self.times: list[float] = []
        self.processor: list[float] = []
        """Seconds of processor time since its start."""
        self.memory: list[float] = []
        """Resident memory in MB."""

    def sample(self, now: float) -> None:
        """Add a sample if the last one is a second old."""
        if self.times and now - self.times[-1] < 1:
            return
        # The name in parentheses may contain spaces. User and system time follow 11 fields later.
        state = (self._folder / "stat").read_text().rpartition(")")[2].split()
        ticks, pages = int(state[11]) + int(state[12]), int(state[21])
        self.times.append(now)
        self.processor.append(ticks / os.sysconf("SC_CLK_TCK"))
        self.memory.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)

    def cores(self) -> float:
        """Return the cores that were busy, on average."""
        return (self.processor[-1] - self.processor[0]) / (self.times[-1] - self.times[0])

    def memory_by_minute(self) -> list[float]:
        """Return the median of the memory in each whole minute, in MB."""
        minutes = ((np.array(self.times) - self.times[0]) // 60).astype(int)
        last = max(int(minutes[-1]), 1)
        memory = np.array(self.memory)
        return [float(np.median(memory[minutes == minute])) for minute in range(last)]


class Subscriber:
    """Subscribes to the images, or to the node's results and diagnostics."""

    def __init__(self) -> None:
        rclpy.init()
        self._node = rclpy.create_node("subscriber")
        self.diagnostics: dict[str, str] = {}
        self._request: Callable[[], None] = lambda: None

    def close(self) -> None:
        """End all communication."""
        self._node.destroy_node()
        rclpy.shutdown()

    def images(self, seconds: float) -> Reception:
        """Receive the images."""
        return self._listen(Image, "image", seconds, None)

    def results(self, row: Row, seconds: float, use: ProcessUse) -> Reception:
        """Receive tracks or masks, and diagnostics; sample the node's process meanwhile."""
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        if not row.masks:
            return self._listen(PointCloud2, "/tracker/tracks", seconds, use)
        requests = self._node.create_publisher(Image, "/tracker/mask", 10)
        self._request = partial(requests.publish, mark_objects(row))
        return self._listen(Image, "/tracker/masks", seconds, use)

    def _listen(self, kind: type, topic: str, seconds: float, use: ProcessUse | None) -> Reception:
        received, began = Reception(), 0.0

        def receive(message: Image | PointCloud2) -> None:
            nonlocal began
            now = time.monotonic()
            if not began and use is not None:
                self._request()
            began = began or now
            if now - began < WARM_UP:
                return
            delay = self._node.get_clock().now() - Time.from_msg(message.header.stamp)
            received.arrivals.append(now)
            received.latencies.append(delay.nanoseconds / 1e9)
            if use is not None:
                use.sample(now)

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
            self.diagnostics.update({pair.key: pair.value for pair in status.values})


def _start(*command: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen([sys.executable, *command], stdout=file, stderr=file)


def measure(row: Row, seconds: float, *, details: bool) -> str:
    """Run the three processes and return the row of the table; print details if asked."""
    size = f"{row.width}x{row.height}"
    given = ["--size", size, "--rate", str(row.rate), "--points", str(row.points)]
    options = ["--ros-args", "-p", f"points:={row.points}"]
    options += ["-p", f"max_points:={max(row.points, 512)}"]
    options += ["-p", "mode:=masks", "-p", f"masks_rate:={row.masks_rate}"] if row.masks else []
    subscriber, processes = Subscriber(), []
    with tempfile.TemporaryDirectory() as folder:
        try:
            camera = _start(__file__, "--camera", *given, log=Path(folder) / "camera.log")
            processes.append(camera)
            images = subscriber.images(min(seconds, BASELINE))
            node = _start("-m", "vditrack_ros.main", *options, log=Path(folder) / "node.log")
            processes.append(node)
            use = ProcessUse(node.pid)
            results = subscriber.results(row, seconds, use)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(30)
            subscriber.close()
    if details:
        _print_details(subscriber.diagnostics)
    if seconds > 120:
        _print_memory(use)
    encoded = subscriber.diagnostics.get("rate described by the model (Hz)", "unknown")
    cells = [
        f"{row.width} x {row.height}",
        f"{row.rate:.0f} Hz",
        f"{images.rate():.1f} Hz",
        f"{results.rate():.1f} Hz",
        f"{encoded} Hz",
        results.percentiles(),
        images.percentiles(),
        f"{use.cores():.2f} cores, {1000 * use.cores() / results.rate():.1f} ms per image",
        f"{use.memory[-1]:.0f} MB",
    ]
    return f"| {' | '.join(cells)} |"


def _print_details(values: dict[str, str]) -> None:
    """Print what the node measured itself."""
    names = ["points alive", "points visible", "overhead of decoding (ms)", "tracking (ms)"]
    names += ["overhead of publishing (ms)", "latency p50 (ms)", "latency p99 (ms)"]
    names += sorted(name for name in values if name.startswith("dropped"))
    for name in names:
        print(f"{name:32} {values.get(name, 'unknown')}")


def _print_memory(use: ProcessUse) -> None:
    """Print the node's memory in each minute, and whether it grew after the first."""
    memory = use.memory_by_minute()
    print(f"memory in each minute, MB: {', '.join(f'{value:.0f}' for value in memory)}")
    growth = max(memory) / memory[0] - 1
    verdict = "within" if growth <= MAX_GROWTH else "NOT within"
    print(f"largest after the first minute: {growth:+.1%}, {verdict} {MAX_GROWTH:.0%}")


def main(
    seconds: Annotated[float, typer.Option(help="Duration of each row, in seconds.")] = 60.0,
    size: Annotated[list[str] | None, typer.Option(help="WIDTHxHEIGHT of the images.")] = None,
    rate: Annotated[list[float] | None, typer.Option(help="Rate of the camera, in Hz.")] = None,
    points: Annotated[int, typer.Option(help="Number of points.")] = 64,
    masks: Annotated[
        bool, typer.Option("--masks", help="Propagate masks of four objects instead.")
    ] = False,
    masks_rate: Annotated[float, typer.Option(help="Rate of masks by optical flow, in Hz.")] = 0.0,
    camera: Annotated[bool, typer.Option("--camera", help="Publish images only.")] = False,
) -> None:
    """Measure the ROS 2 node with a simulated camera. Options may be repeated."""
    rows = []
    for frequency in rate or RATES:
        for name in size or SIZES:
            width, height = map(int, name.split("x"))
            rows.append(Row(width, height, frequency, points, masks, masks_rate))
    if camera:
        publish(rows[0])
        return
    # Other work on the cores makes every figure worse.
    tracked = "masks of 4 objects" if masks else f"{points} points"
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f}; {tracked}\n", flush=True)
    lines = [measure(row, seconds, details=len(rows) == 1) for row in rows]
    print("\n".join([HEADER, *lines]))


if __name__ == "__main__":
    typer.run(main)
