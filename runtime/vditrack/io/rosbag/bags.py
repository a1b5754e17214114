"""Opening rosbag2 recordings with the rosbags library, which reads both storage formats."""

from __future__ import annotations

import errno
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vditrack.errors import InputError, install_command

if TYPE_CHECKING:
    from rosbags.interfaces import TopicInfo
    from rosbags.rosbag2 import Reader
    from rosbags.typesys.store import Typestore

_SUFFIXES = frozenset({".mcap", ".db3"})
_COMPRESSED, _ROS1 = ".zstd", ".bag"
_ZSTD = b"\x28\xb5\x2f\xfd"
"""First bytes of what zstd has compressed; a message in CDR begins with a zero."""


def is_bag(path: Path) -> bool:
    """Return whether a path names a bag: a folder, or a file of rosbag2 or rosbag1."""
    return path.is_dir() or path.suffix == _ROS1 or is_bag_file(path)


def is_bag_file(path: Path) -> bool:
    """Return whether a path has the name of a file of a rosbag2, compressed or not."""
    plain = path.with_suffix("") if path.suffix == _COMPRESSED else path
    return plain.suffix in _SUFFIXES


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
            store, zstd = _typestore(info), _import_zstd()
            for connection, arrival, raw in self._reader.messages(info.connections):
                # Only metadata.yaml, which a file alone lacks, says that messages are compressed.
                data = zstd.decompress(raw) if raw[:4] == _ZSTD else raw
                yield arrival, store.deserialize_cdr(data, connection.msgtype)


@contextmanager
def open_bag(path: Path) -> Iterator[Bag]:
    """Open a rosbag2 for reading.

    Args:
        path: the bag's folder, or one of its `.mcap` or `.db3` files, which may be compressed
            (`.mcap.zstd`, `.db3.zstd`).

    Raises:
        InputError: rosbags is not installed, there is no bag, it is damaged, or there is no room to
            decompress its files.

    """
    rosbags = import_rosbags()
    if path.suffix == _ROS1 and path.is_file():
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
    with ExitStack() as stack:
        with _report_damage(path):
            file = stack.enter_context(_decompressed(path)) if path.is_file() else path
            reader: Reader = rosbags.rosbag2.Reader(file)
            reader.open()
        stack.callback(reader.close)
        yield Bag(path, reader)


@contextmanager
def _decompressed(path: Path) -> Iterator[Path]:
    """Yield a file of a bag, or a copy that is decompressed."""
    if path.suffix != _COMPRESSED:
        yield path
        return
    with TemporaryDirectory(prefix="vditrack-") as folder:
        plain = Path(folder, path.stem)
        with _import_zstd().open(path) as source, plain.open("wb") as copy:
            shutil.copyfileobj(source, copy)
        yield plain


def _import_zstd() -> Any:  # noqa: ANN401
    """Import the zstd of Python 3.14, or the package that rosbags needs where it is missing."""
    return import_module(f"{'compression' if sys.version_info >= (3, 14) else 'backports'}.zstd")


@contextmanager
def _report_damage(path: Path) -> Iterator[None]:
    """Convert errors that are raised inside to a one-line `InputError`."""
    try:
        yield
    # rosbags and its decoders raise exceptions of any type on a damaged file.
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise InputError(
                f"the files of {path} are compressed, and {gettempdir()} has no room for them. Set "
                "TMPDIR to a folder on another disk."
            ) from error
        reason = f"{error}".rstrip(".") or type(error).__name__
        part = _find_damaged_part(path)
        reason = reason if part is None else f"{part.name}: {reason}"
        remedy = "copy it again, or try `mcap recover` or `ros2 bag reindex`"
        raise InputError(
            f"{path} cannot be read as a rosbag2: {reason}. If it is damaged, {remedy}."
        ) from error


def _find_damaged_part(path: Path) -> Path | None:
    """Return the first file of a bag in several files that cannot be opened."""
    files = sorted(filter(is_bag_file, path.iterdir())) if path.is_dir() else []
    for file in files if len(files) > 1 else ():
        try:
            with open_bag(file):
                pass
        except InputError:
            return file
    return None


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
