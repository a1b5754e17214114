"""The other side of the node in tests: real processes that talk over the real middleware."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from array import array
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from vditrack_ros.transport.fastdds import PROFILE, PROFILE_VARIABLE

# Read when a process joins, so before rclpy is. Two workers of pytest have the same parent.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
DOMAIN = 1 + (2 * os.getppid() + _WORKER) % 100
os.environ["ROS_DOMAIN_ID"] = str(DOMAIN)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ[PROFILE_VARIABLE] = str(PROFILE)

import rclpy  # noqa: E402
from builtin_interfaces.msg import Time  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from rcl_interfaces.srv import DescribeParameters, SetParameters  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField  # noqa: E402

from vditrack.ros_messages.track_cloud import TRACK_FIELDS  # noqa: E402

PATIENCE = 60
"""Seconds that anything may take on a busy machine."""
AFTER = {
    "configure": "inactive",
    "activate": "active",
    "deactivate": "inactive",
    "cleanup": "unconfigured",
}
"""State of a node after a transition."""
SENSOR = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=20, reliability=ReliabilityPolicy.RELIABLE)
SECOND = 1_000_000_000


class Process:
    """A process of its own, and what it has written."""

    def __init__(self, command, log, **environment):
        self.log_file = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={
                    name: value
                    for name, value in {
                        **os.environ,
                        "ROS_LOG_DIR": str(log.parent),
                        **environment,
                    }.items()
                    if value is not None
                },
            )
        self.pid = self._process.pid

    @property
    def log(self):
        return self.log_file.read_text()

    @property
    def alive(self):
        return self._process.poll() is None

    def stop(self, number=signal.SIGINT):
        """Send a signal and give the exit code."""
        self._process.send_signal(number)
        return self._process.wait(PATIENCE)

    def end(self):
        if self.alive:
            self._process.kill()
            self._process.wait()
            _remove_segments_of_the_dead()


def _remove_segments_of_the_dead():
    """Free the shared memory of killed processes, as `fastdds shm clean` does.

    Fast DDS holds a lock beside each segment while its process lives, and removes the segments
    of one that was killed never: after a few thousand tests they fill the machine's memory.
    """
    for lock in Path("/dev/shm").glob("fastdds_*_el"):
        if "_port" in lock.name:  # small, and shared by processes in their turn
            continue
        try:
            with lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lock.with_name(lock.name.removesuffix("_el")).unlink(missing_ok=True)
                lock.unlink()
        except (BlockingIOError, FileNotFoundError):  # it lives, or another worker was faster
            continue


@contextmanager
def process(log, *command, **environment):
    one = Process([sys.executable, *command], log, **environment)
    try:
        yield one
    finally:
        one.end()


@contextmanager
def tracker_node(folder, *arguments, log="node.log", environment=None, **parameters):
    """The node as its own process; parameters in YAML."""
    given = [part for name, value in parameters.items() for part in ("-p", f"{name}:={value}")]
    command = ("-m", "vditrack_ros.main", "--ros-args", *given, *arguments)
    with process(folder / log, *command, **(environment or {})) as one:
        yield one


@contextmanager
def camera_process(folder, frames, rate, *, reliability="best_effort", count=0, environment=None):
    """A camera of its own process; it plays frames [T, H, W, 3] there and back.

    With a count it waits for a listener of its own reliability, publishes so many and waits until
    it is ended.
    """
    np.save(folder / "frames.npy", frames)
    script = Path(__file__).with_name("ros_camera.py")
    command = (script, folder, rate, reliability, count)
    with process(folder / "camera.log", *map(str, command), **(environment or {})) as one:
        yield one


def published(folder):
    """Frame index by stamp, of all images that the camera has published."""
    lines = (folder / "published.txt").read_text().splitlines()
    return {int(stamp): int(frame) for stamp, frame in (line.split() for line in lines)}


class Peer:
    """The rest of the robot: publishes, listens and asks, in the test's own process."""

    def __init__(self):
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=DOMAIN)
        self.node = rclpy.create_node("peer", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._clients = {}

    def close(self):
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()

    def until(self, condition, what, seconds=PATIENCE, log=None):
        """Spin until the condition holds; a failure shows what the process of a log has written.

        What is awaited is a text, or a function that returns it at the failure.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                awaited = what() if callable(what) else what
                pytest.fail(f"not within {seconds} s: {awaited}\n{log.log if log else ''}")
            self._executor.spin_once(timeout_sec=0.02)

    def listen(self, seconds, until=lambda: False):
        """Listen for a while, or until something happens."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not until():
            self._executor.spin_once(timeout_sec=0.02)

    def collect(self, kind, topic, qos=RELIABLE):
        """A list that grows with the topic's messages."""
        messages = []
        subscription = self.node.create_subscription(kind, topic, messages.append, qos)
        messages_of = _Messages(messages, subscription)
        return messages_of

    def forget(self, collected):
        self.node.destroy_subscription(collected.subscription)

    def publisher(self, kind, topic, qos=RELIABLE):
        return self.node.create_publisher(kind, topic, qos)

    def call(self, kind, name, request):
        return self._ask(kind, name, request)[0]

    def _ask(self, kind, name, request):
        """The answer of a service, and how often it was asked.

        On a busy machine Fast DDS drops an answer whose reader it has not yet matched, for good:
        the server waits 0.1 s for it. A second question is answered.
        """
        client = self._clients.get(name) or self.node.create_client(kind, name)
        self._clients[name] = client
        self.until(client.service_is_ready, f"service {name}")
        futures = [client.call_async(request)]
        asked = time.monotonic()

        def answered():
            if len(futures) == 1 and time.monotonic() > asked + PATIENCE / 3:
                futures.append(client.call_async(request))
            return any(future.done() for future in futures)

        self.until(answered, f"answer of {name}")
        return next(one.result() for one in futures if one.done()), len(futures)

    def transition(self, label, node="/tracker"):
        request = ChangeState.Request()
        request.transition.label = label
        answer, asked = self._ask(ChangeState, f"{node}/change_state", request)
        # The second time it is refused, because the first has taken effect.
        return answer.success or (asked > 1 and self.state(node) == AFTER.get(label))

    def state(self, node="/tracker"):
        answer = self.call(GetState, f"{node}/get_state", GetState.Request())
        return answer.current_state.label

    def set(self, node="/tracker", **values):
        """Set parameters, one by one; the reasons of those refused, by name."""
        request = SetParameters.Request(
            parameters=[
                Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
            ]
        )
        results = self.call(SetParameters, f"{node}/set_parameters", request).results
        return {
            name: result.reason
            for name, result in zip(values, results, strict=True)
            if not result.successful
        }

    def describe(self, names, node="/tracker"):
        request = DescribeParameters.Request(names=names)
        return self.call(DescribeParameters, f"{node}/describe_parameters", request).descriptors


def open_peer():
    """A peer for the life of a fixture."""
    one = Peer()
    yield one
    one.close()


class _Messages:
    """What came on a topic."""

    def __init__(self, messages, subscription):
        self._messages, self.subscription = messages, subscription

    def __len__(self):
        return len(self._messages)

    def __getitem__(self, index):
        return self._messages[index]

    def of(self, stamp):
        """The message of an image's stamp, in nanoseconds."""
        return next((m for m in self._messages if nanoseconds(m.header.stamp) == stamp), None)

    def clear(self):
        self._messages.clear()


def nanoseconds(stamp):
    return stamp.sec * SECOND + stamp.nanosec


def to_time(stamp):
    return Time(sec=stamp // SECOND, nanosec=stamp % SECOND)


def rows_of(cloud):
    """Rows of ~/tracks, laid out as its own fields say."""
    kinds = {2: "u1", 5: "<i4", 7: "<f4"}
    row = np.dtype(
        {
            "names": [field.name for field in cloud.fields],
            "formats": [kinds[field.datatype] for field in cloud.fields],
            "offsets": [field.offset for field in cloud.fields],
            "itemsize": cloud.point_step,
        }
    )
    assert row.names == TRACK_FIELDS.names
    return np.frombuffer(bytes(cloud.data), row, cloud.width)


def image_message(frame, stamp, encoding="rgb8", frame_id="camera"):
    """A sensor_msgs/Image of an array as it is."""
    frame = np.ascontiguousarray(frame)
    data = array("B")
    data.frombytes(frame.tobytes())
    message = Image(height=frame.shape[0], width=frame.shape[1], encoding=encoding, data=data)
    message.step = frame.strides[0]
    message.header.stamp, message.header.frame_id = to_time(stamp), frame_id
    return message


def requested_cloud(points, stamp=0):
    """A request of points [N, 2] (x, y) in pixels of the image with the stamp."""
    rows = np.array(points, np.float32)
    fields = [
        PointField(name=name, offset=4 * n, datatype=PointField.FLOAT32, count=1)
        for n, name in enumerate("uv")
    ]
    cloud = PointCloud2(
        height=1,
        width=len(rows),
        fields=fields,
        point_step=8,
        row_step=rows.nbytes,
        data=rows.tobytes(),
    )
    cloud.header.stamp = to_time(stamp)
    return cloud


def camera_info(size, focal, stamp=0, frame_id="camera"):
    """Of a camera without distortion whose axis goes through the middle of the picture."""
    height, width = size
    # As OpenCV counts, from the first pixel's centre.
    centre_x, centre_y = width / 2 - 0.5, height / 2 - 0.5
    info = CameraInfo(height=height, width=width, distortion_model="plumb_bob")
    info.k = [focal, 0.0, centre_x, 0.0, focal, centre_y, 0.0, 0.0, 1.0]
    info.d = [0.0] * 5
    info.header.stamp, info.header.frame_id = to_time(stamp), frame_id
    return info


class Camera:
    """A camera in the test's own process, in step with the node: each image awaits its points."""

    def __init__(self, peer, prefix="", tracks="/tracker/tracks", kind=Image, topic="image"):
        self._peer = peer
        self.publisher = peer.publisher(kind, f"/{prefix}{topic}", SENSOR)
        self.tracks = peer.collect(PointCloud2, tracks)
        self.stamp = time.time_ns()

    def close(self):
        self._peer.forget(self.tracks)
        self._peer.node.destroy_publisher(self.publisher)

    def shoot(self, frame, *, stamp=None, **options):
        """Publish a frame and wait for its points; their rows.

        One that gets lost, or comes before the topics are connected, is published again; with a
        stamp of its own only if that was not given.
        """
        message = image_message(frame, 0, **options) if isinstance(frame, np.ndarray) else frame
        message.header.frame_id = "camera"
        deadline = time.monotonic() + PATIENCE
        while True:
            self.stamp = max(self.stamp + 1, time.time_ns()) if stamp is None else stamp
            message.header.stamp = to_time(self.stamp)
            self.publisher.publish(message)
            self._peer.listen(2, lambda: self.tracks.of(self.stamp) is not None)
            if (cloud := self.tracks.of(self.stamp)) is not None:
                assert cloud.header == message.header
                return rows_of(cloud)
            assert time.monotonic() < deadline, "no points came"
