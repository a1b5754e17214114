"""A double of tf2_ros, which no wheel has: a folder for PYTHONPATH.

It has what the node uses, with the names and the behaviour of tf2_ros, for transforms between two
frames that are neighbours. Transforms come as geometry_msgs/TransformStamped on /tf_double, because
no wheel has tf2_msgs either.
"""

from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile

QUALITY = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class TransformException(Exception):
    """As in tf2."""


class LookupException(TransformException):
    """As in tf2."""


class ExtrapolationException(TransformException):
    """As in tf2."""


class Buffer:
    """The transforms so far; translations between two stamps are interpolated."""

    def __init__(self):
        self.found = {}

    def lookup_transform(self, target_frame, source_frame, time):
        known = self.found.get((target_frame, source_frame))
        if not known:
            raise LookupException(f'"{target_frame}" passed to lookupTransform does not exist.')
        stamps = sorted(known)
        at = time.nanoseconds or stamps[-1]
        if not stamps[0] <= at <= stamps[-1]:
            raise ExtrapolationException("Lookup would require extrapolation.")
        later = next(stamp for stamp in stamps if stamp >= at)
        earlier = max((stamp for stamp in stamps if stamp <= at), default=later)
        share = (at - earlier) / max(later - earlier, 1)
        first, second = known[earlier], known[later]
        mixed = TransformStamped(header=second.header)
        for axis in "xyz":
            ends = [getattr(one.transform.translation, axis) for one in (first, second)]
            setattr(mixed.transform.translation, axis, ends[0] + share * (ends[1] - ends[0]))
        mixed.transform.rotation = second.transform.rotation
        return mixed


class TransformListener:
    """Fills a buffer from a topic."""

    def __init__(self, buffer, node):
        self._node = node

        def take(message):
            stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            frames = message.header.frame_id, message.child_frame_id
            buffer.found.setdefault(frames, {})[stamp] = message

        self._subscription = node.create_subscription(TransformStamped, "/tf_double", take, QUALITY)

    def unregister(self):
        self._node.destroy_subscription(self._subscription)
