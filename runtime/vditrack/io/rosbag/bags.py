"""Opening rosbag2 recordings with the rosbags library, which reads both storage formats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vditrack.errors import InputError, install_command

if TYPE_CHECKING:
    from rosbags.interfaces import TopicInfo
    from rosbags.rosbag2 import Reader
    from rosbags.typesys.store import Typestore

_SUFFIXES = frozenset({".mcap", ".db3", ".bag"})


def is_bag(path: Path) -> bool:
    """Return whether a path names a bag: a folder, or a file of rosbag2 or rosbag1."""
    return path.is_dir() or path.suffix in _SUFFIXES


def import_rosbags() -> ModuleType:
    """Import rosbags, an optional dependency of the runtime.

    Raises:
        InputError: rosbags is not installed or cannot be imported.

    """
    try:
        for part in ("interfaces", "rosbag2", "typesys"):
            import_module(f"rosbags.{part}")
        return import_module("rosbags")
    except ImportError as error:
        raise InputError(
            f"rosbags, which reads bags, cannot be imported ({error}). "
            f"Run `{install_command('bags')}`."
        ) from error


class Bag:
    """An open rosbag2."""

    def __init__(self, path: Path, reader: Reader) -> None:
        """Wrap an open reader.

        Args:
            path: of the bag, for error messages.
            reader: an open reader of rosbags.

        """
        self.path = path
        self.topics: dict[str, TopicInfo] = reader.topics
        """Topics by name, with `msgtype` (None if its messages differ in type) and `msgcount`."""
        self.seconds: float = reader.duration / 1e9
        self._reader = reader

    def messages(self, topic: str) -> Iterator[tuple[int, Any]]:
        """Yield (time of arrival in nanoseconds, message) of a topic, in the bag's order.

        Message definitions are read from the bag. A bag without them is read with the definitions
        of ROS 2, which for images and calibrations are the same from Humble to Kilted.

        Args:
            topic: one of `topics`.

        Raises:
            InputError: the bag is damaged.

        """
        info = self.topics[topic]
        with _report_damage(self.path):
            store = _typestore(info)
            for connection, arrival, data in self._reader.messages(info.connections):
                yield arrival, store.deserialize_cdr(data, connection.msgtype)


@contextmanager
def open_bag(path: Path) -> Iterator[Bag]:
    """Open a rosbag2 for reading.

    Args:
        path: the bag's folder, or one of its `.mcap` or `.db3` files.

    Raises:
        InputError: rosbags is not installed, there is no bag, or it is damaged.

    """
    rosbags = import_rosbags()
    if path.suffix == ".bag" and path.is_file():
        raise InputError(
            f"{path} is a ROS 1 bag. Run `rosbags-convert --src {path} --dst {path.stem}` first."
        )
    if not path.exists():
        raise InputError(f"there is no bag at {path}.")
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        raise InputError(
            f"{path} is not a rosbag2: it has no metadata.yaml. Give an .mcap or .db3 file in "
            "it, or run `ros2 bag reindex` on it."
        )
    with _report_damage(path):
        reader: Reader = rosbags.rosbag2.Reader(path)
        reader.open()
    try:
        yield Bag(path, reader)
    finally:
        reader.close()


@contextmanager
def _report_damage(path: Path) -> Iterator[None]:
    """Convert errors that are raised inside to a one-line `InputError`."""
    try:
        yield
    # rosbags and its decoders raise exceptions of any type on a damaged file.
    except Exception as error:
        reason = f"{error}".rstrip(".") or type(error).__name__
        remedy = "copy it again, or try `mcap recover` or `ros2 bag reindex`"
        raise InputError(
            f"{path} cannot be read as a rosbag2: {reason}. If it is damaged, {remedy}."
        ) from error


def _typestore(info: TopicInfo) -> Typestore:
    """Return the message definitions of a topic."""
    rosbags = import_rosbags()
    typesys = rosbags.typesys
    if info.msgdef.format != rosbags.interfaces.MessageDefinitionFormat.MSG:
        standard: Typestore = typesys.get_typestore(typesys.Stores.LATEST)
        return standard
    store: Typestore = typesys.get_typestore(typesys.Stores.EMPTY)
    store.register(typesys.get_types_from_msg(info.msgdef.data, info.msgtype))
    return store
