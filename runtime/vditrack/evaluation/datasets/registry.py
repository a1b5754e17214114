"""Where annotated clips come from: public data sets in their published files, or rendered ones."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vditrack.annotated_clip import AnnotatedClip
from vditrack.errors import InputError
from vditrack.evaluation.datasets.badja import is_badja, open_badja
from vditrack.evaluation.datasets.davis import MASKS, TRACKS, is_davis, open_davis, open_folders
from vditrack.evaluation.datasets.tapvid import open_pickle, shard_clips

ProtocolName = Literal["tapvid", "heft", "davis", "badja"]
Opened = tuple[int | None, Iterator[AnnotatedClip]]

_RENDERED = ("synthetic", "tabletop", "lookalikes", "different")
_MASKS_ALONE = ("lookalikes", "different")

_NEEDED: dict[ProtocolName, tuple[str, ...]] = {
    "tapvid": (TRACKS,),
    "heft": (TRACKS,),
    "davis": (MASKS,),
    "badja": (TRACKS, MASKS),
}


@dataclass(frozen=True)
class Dataset:
    """Clips, each read when it is asked for, so that they may be more than fit into memory."""

    name: str
    length: int | None
    """Clips; None where that is not known before all files are read."""
    clips: Iterator[AnnotatedClip]
    """May raise InputError for a clip that is damaged."""


def default_protocol(source: str) -> ProtocolName:
    """Return the protocol that a data set is for where none is asked for."""
    kind, separator, _ = source.partition(":")
    return "davis" if separator and kind in _MASKS_ALONE else "tapvid"


def open_dataset(source: str, protocol: ProtocolName) -> Dataset:
    """Open a data set for a protocol.

    Args:
        source: ``KIND:SEED`` of clips that are rendered, the kind synthetic, tabletop, lookalikes
            or different; or a path: a TAP-Vid pickle, a folder of them, the root of DAVIS-2017 or
            of BADJA, or a folder with a subfolder a video (see `open_folders`).
        protocol: what the clips are for; it decides whether they need tracks, masks or both.

    Raises:
        InputError: nothing of that name, it is malformed, or it lacks what the protocol needs.

    """
    kind, separator, seed = source.partition(":")
    if separator and kind in _RENDERED:
        if kind in _MASKS_ALONE:
            _require(source, "masks without tracks", protocol, "davis")
        return Dataset(source, *_rendered(kind, seed))
    path = Path(source)
    if not path.exists():
        rendered = ", ".join(f"{name}:SEED" for name in _RENDERED)
        raise InputError(f"there is no {source}. Give a path, or one of {rendered}.")
    return Dataset(path.resolve().name, *_opened(path, protocol))


def _rendered(kind: str, seed: str) -> Opened:
    if not (seed.isascii() and seed.isdecimal()):
        raise InputError(f"{seed!r} is no seed. Give a whole number, such as {kind}:0.")
    if kind == "synthetic":
        from vditrack.synthetic.layers import suite  # noqa: PLC0415

        return suite.COUNT, suite.suite_clips(int(seed))
    if kind == "tabletop":
        from vditrack.synthetic.tabletop import clips  # noqa: PLC0415

        return clips.COUNT, clips.tabletop_clips(int(seed))
    from vditrack.synthetic.layers import lookalikes  # noqa: PLC0415

    different = kind == "different"
    return lookalikes.COUNT, lookalikes.lookalike_clips(int(seed), different=different)


def _opened(path: Path, protocol: ProtocolName) -> Opened:
    if path.is_file():
        _require(path, "a TAP-Vid file", protocol, "tapvid", "heft")
        return open_pickle(path)
    if is_badja(path):
        _require(path, "BADJA", protocol, "badja")
        return open_badja(path)
    if is_davis(path):
        _require(path, "DAVIS", protocol, "davis")
        return open_davis(path)
    shards = sorted(path.glob("*.pkl"))
    if shards:
        _require(path, "a folder of TAP-Vid files", protocol, "tapvid", "heft")
        return open_pickle(shards[0]) if len(shards) == 1 else (None, shard_clips(shards))
    return open_folders(path, _NEEDED[protocol])


def _require(
    source: Path | str, layout: str, protocol: ProtocolName, *fitting: ProtocolName
) -> None:
    if protocol not in fitting:
        raise InputError(
            f"{source} is {layout}, which protocol {protocol} cannot use. "
            f"Use --protocol {' or '.join(fitting)}."
        )
