"""Builds all bundles of a bundle, and keeps what was built when another build fails.

A bundle that propagates masks holds the bundles ``motion`` and ``appearance``, each with engines of
its own.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from rich.progress import Progress

from vditrack.bundle.folder import APPEARANCE, MOTION, Bundle
from vditrack.engine_builder.architectures import UnsupportedArchitectureError
from vditrack.engine_builder.library import import_library
from vditrack.engine_builder.options import BuildOptions, select_architectures
from vditrack.engine_builder.run import TracksDifferError, build_bundle, check_build
from vditrack.errors import EngineError, InputError, VditrackError
from vditrack.inference.engine_identity import Identity
from vditrack.inference.machine import read_machine

Part = Literal["points", "motion", "appearance"]
"""One of the bundles: the bundle itself, which tracks points, or a bundle within it."""


@dataclass(frozen=True)
class Built:
    """A build that was written."""

    part: Part
    folder: Path
    identity: Identity


@dataclass(frozen=True)
class NotBuilt:
    """A build that was not written, and the reason."""

    part: Part
    architectures: tuple[str, ...]
    reason: str
    failed: bool
    """Whether it was attempted; False if it was not asked for."""


def list_parts(bundle: Bundle) -> dict[Part, Bundle]:
    """Return a bundle and the bundles within it that exist, by part."""
    parts: dict[Part, Bundle] = {"points": bundle}
    settings = bundle.manifest.propagation
    if settings is not None:
        if settings.displacement is None:
            parts["motion"] = bundle.motion
        if bundle.appearance is not bundle:
            parts["appearance"] = bundle.appearance
    return parts


def parse_parts(text: str | None) -> tuple[Part, ...]:
    """Parse names of parts, as in ``points,appearance``; None stands for all.

    Raises:
        InputError: A name is not that of a part.

    """
    known = get_args(Part)
    if text is None:
        return known
    names = text.lower().replace(" ", "").split(",")
    for name in names:
        if name not in known:
            raise InputError(f"--parts {text}: there is no part {name!r}, only {', '.join(known)}.")
    return tuple(part for part in known if part in names)


def part_folder(part: Part) -> str:
    """Return the folder of a part's bundle, relative to the whole bundle."""
    return {"points": "", "motion": f"{MOTION}/", "appearance": f"{APPEARANCE}/"}[part]


def build_parts(
    bundle: Bundle, options: BuildOptions, wanted: Collection[Part], bars: Progress
) -> Iterator[Built | NotBuilt]:
    """Build the engines of a bundle and of the bundles within it, one after another.

    An architecture that the library does not build a graph for is left out. If a build for several
    architectures fails, each architecture is built alone, into a folder of its own. Each build is
    written as soon as it is complete, and stays if a later one fails or is interrupted.

    Args:
        bundle: A bundle whose files are checked.
        options: Options of the builds.
        wanted: Parts to build; those that the bundle does not have are left out.
        bars: Progress bars.

    Yields:
        What was built, and what was not.

    Raises:
        InputError: The target does not support an option, or nothing can be written. It is raised
            before the first build.
        EngineError: The library does not load.

    """
    architectures = select_architectures(options, read_machine())
    version = import_library(options.target).__version__
    parts = list_parts(bundle)
    if not parts.keys() & set(wanted):
        raise InputError(f"{bundle.root} has no {' or '.join(wanted)}, only {', '.join(parts)}.")
    for part in parts.keys() & set(wanted):
        check_build(parts[part], options, version, architectures)
    for part, own in parts.items():
        if part in wanted:
            yield from _build_part(part, own, options, architectures, bars)
        else:
            yield NotBuilt(part, architectures, "not asked for", failed=False)


def _build_part(
    part: Part,
    bundle: Bundle,
    options: BuildOptions,
    architectures: tuple[str, ...],
    bars: Progress,
) -> Iterator[Built | NotBuilt]:
    try:
        folder, identity = build_bundle(bundle, options, bars)
        yield Built(part, folder, identity)
        return
    except UnsupportedArchitectureError as error:
        yield NotBuilt(part, (error.architecture,), str(error), failed=True)
        others = tuple(name for name in architectures if name != error.architecture)
        if others:
            rest = replace(options, architectures=others)
            yield from _build_part(part, bundle, rest, others, bars)
        return
    except EngineError as error:
        # Engines that track wrongly do so alone, too.
        if len(architectures) == 1 or isinstance(error, TracksDifferError):
            yield NotBuilt(part, architectures, str(error), failed=True)
            return
    except VditrackError as error:
        yield NotBuilt(part, architectures, str(error), failed=True)
        return
    failures: dict[str, list[str]] = {}
    for architecture in architectures:
        try:
            alone = replace(options, architectures=(architecture,))
            folder, identity = build_bundle(bundle, alone, bars)
            yield Built(part, folder, identity)
        except VditrackError as error:
            failures.setdefault(str(error), []).append(architecture)
    for reason, failed in failures.items():
        yield NotBuilt(part, tuple(failed), reason, failed=True)
