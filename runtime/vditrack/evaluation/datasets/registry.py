"""Opens the annotated clips of public data sets in their published formats, or renders clips."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vditrack.errors import InputError
from vditrack.evaluation.datasets.badja import is_badja, open_badja
from vditrack.evaluation.datasets.davis import MASKS, TRACKS, is_davis, open_davis, open_folders
from vditrack.evaluation.datasets.tapvid import open_pickle, shard_clips
from vditrack.synthetic.annotated_clip import AnnotatedClip

ProtocolName = Literal["tapvid", "heft", "davis", "badja"]
Opened = tuple[int | None, Iterator[AnnotatedClip]]

_RENDERED = ("synthetic", "deformed", "long", "leaving", "tabletop", "lookalikes", "different")
_MASKS_ONLY = ("lookalikes", "different")
_TRACKS_ONLY = ("deformed", "leaving", "long")

_NEEDED: dict[ProtocolName, tuple[str, ...]] = {
    "tapvid": (TRACKS,),
    "heft": (TRACKS,),
    "davis": (MASKS,),
    "badja": (TRACKS, MASKS),
}


@dataclass(frozen=True)
class Dataset:
    """A named sequence of clips. Each is read when it is requested, to bound memory."""

    name: str
    length: int | None
    """Number of clips; None if it is unknown until all files are read."""
    clips: Iterator[AnnotatedClip]
    """The clips. Raises InputError at a damaged clip."""


def count_clips(datasets: Sequence[Dataset], limit: int | None) -> int | None:
    """Return the number of clips of all data sets, or None if it is not known yet.

    Args:
        datasets: the data sets.
        limit: the largest number of clips that is used of each data set; None for all.

    """
    lengths = [limit if d.length is None else min(d.length, limit or d.length) for d in datasets]
    known = [length for length in lengths if length is not None]
    return sum(known) if len(known) == len(lengths) else None


def default_protocol(source: str) -> ProtocolName:
    """Return the protocol that is used for a data set if none is requested."""
    kind, separator, _ = source.partition(":")
    return "davis" if separator and kind in _MASKS_ONLY else "tapvid"


def open_dataset(source: str, protocol: ProtocolName, side: int | None = None) -> Dataset:
    """Open a data set for a protocol.

    Args:
        source: ``KIND:SEED`` for rendered clips, where the kind is synthetic, deformed, long,
            leaving, tabletop, lookalikes or different; or a path: a TAP-Vid pickle, a folder of
            them, the root of DAVIS-2017 or BADJA, or a folder with one subfolder for each video
            (see `open_folders`).
        protocol: Name of the protocol, which decides whether clips need tracks, masks or both.
        side: Side of the squares that the protocol resizes frames to. Encoded frames of clips with
            tracks are resized one by one then, as they are decoded. None to leave them as they are.

    Raises:
        InputError: ``source`` does not exist, is malformed, or lacks what the protocol needs.

    """
    kind, separator, seed = source.partition(":")
    if separator and kind in _RENDERED:
        if kind in _MASKS_ONLY:
            _require(source, "masks without tracks", protocol, "davis")
        if kind in _TRACKS_ONLY:
            _require(source, "tracks without masks", protocol, "tapvid", "heft")
        return Dataset(source, *_render(kind, seed))
    path = Path(source)
    if not path.exists():
        rendered = ", ".join(f"{name}:SEED" for name in _RENDERED)
        raise InputError(f"{source} does not exist. Give a path, or one of {rendered}.")
    return Dataset(path.resolve().name, *_open_path(path, protocol, side))


def _render(kind: str, seed: str) -> Opened:
    if not (seed.isascii() and seed.isdecimal()):
        raise InputError(f"{seed!r} is not a seed. Give a whole number, such as {kind}:0.")
    if kind == "synthetic":
        from vditrack.synthetic.layers import suite  # noqa: PLC0415

        return suite.COUNT, suite.render_suite(int(seed))
    if kind == "deformed":
        from vditrack.synthetic.layers import deformed  # noqa: PLC0415

        return deformed.COUNT, deformed.render_deformed(int(seed))
    if kind == "long":
        from vditrack.synthetic.layers import long_clips  # noqa: PLC0415

        return long_clips.COUNT, long_clips.render_long(int(seed))
    if kind == "leaving":
        from vditrack.synthetic.layers import leaving  # noqa: PLC0415

        return leaving.COUNT, leaving.render_leaving(int(seed))
    if kind == "tabletop":
        from vditrack.synthetic.tabletop import clips  # noqa: PLC0415

        return clips.COUNT, clips.render_tabletop(int(seed))
    from vditrack.synthetic.layers import lookalikes  # noqa: PLC0415

    different = kind == "different"
    return lookalikes.COUNT, lookalikes.render_lookalikes(int(seed), different=different)


def _open_path(path: Path, protocol: ProtocolName, side: int | None) -> Opened:
    if path.is_file():
        _require(path, "a TAP-Vid file", protocol, "tapvid", "heft")
        return open_pickle(path, side)
    if is_badja(path):
        _require(path, "BADJA", protocol, "badja")
        return open_badja(path)
    if is_davis(path):
        _require(path, "DAVIS", protocol, "davis")
        return open_davis(path)
    shards = sorted(path.glob("*.pkl"))
    if shards:
        _require(path, "a folder of TAP-Vid files", protocol, "tapvid", "heft")
        one = len(shards) == 1
        return open_pickle(shards[0], side) if one else (None, shard_clips(shards, side))
    return open_folders(path, _NEEDED[protocol], side)


def _require(
    source: Path | str, layout: str, protocol: ProtocolName, *fitting: ProtocolName
) -> None:
    if protocol not in fitting:
        raise InputError(
            f"{source} is {layout}, which protocol {protocol} cannot use. "
            f"Use --protocol {' or '.join(fitting)}."
        )
