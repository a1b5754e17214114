"""Lists the engine builds of a bundle, and why a build does not load on this machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from vditrack.bundle.folder import ACCEPTANCE, Bundle
from vditrack.bundle.manifest import Manifest
from vditrack.engine_builder.parts import Part, list_parts, part_folder
from vditrack.errors import EngineError
from vditrack.inference.engine_identity import (
    TITLES,
    Identity,
    mismatches,
    settled_folders,
)
from vditrack.inference.machine import read_machine
from vditrack.inference.own_verdicts import load_believed_identity


@dataclass(frozen=True)
class BuildStatus:
    """A folder of engines, and whether it would load on this machine."""

    part: Part
    """The bundle that it belongs to: the bundle itself, or one within it."""
    folder: str
    """Name of the folder."""
    identity: Identity | None
    """Identity of the build; None if it cannot be read."""
    reasons: list[str]
    """Reasons why the build does not load on this machine; empty if it loads."""


def list_builds(bundle: Bundle) -> list[BuildStatus]:
    """Return every build of a bundle and of the bundles in it, compared with this machine."""
    return [build for part, own in list_parts(bundle).items() for build in _list_own(part, own)]


def list_unbuilt(bundle: Bundle, builds: Sequence[BuildStatus]) -> list[Part]:
    """Return the parts of a bundle without any build, if another part has one."""
    built = {build.part for build in builds}
    return [part for part in list_parts(bundle) if built and part not in built]


def _list_own(part: Part, bundle: Bundle) -> list[BuildStatus]:
    builds: list[BuildStatus] = []
    for folders in settled_folders(bundle):
        builds = [_check_build(part, folder, bundle) for folder in folders]
    return builds


def _check_build(part: Part, folder: Path, bundle: Bundle) -> BuildStatus:
    try:
        identity = load_believed_identity(folder, bundle)
    except EngineError as error:
        return BuildStatus(part, folder.name, None, [str(error)])
    return BuildStatus(part, folder.name, identity, mismatches(identity, bundle, read_machine()))


def format_build(build: BuildStatus, manifest: Manifest) -> Table:
    """Return a table of a build: its identity, its precision, and whether it loads here.

    Args:
        build: The build.
        manifest: Manifest of its bundle.

    """
    title = f"{part_folder(build.part)}engines/{build.folder}"
    table = Table("", "", title=title, show_header=False, title_justify="left")
    for name, value in _list_rows(build.identity, manifest) if build.identity else []:
        table.add_row(name, value)
    for reason in build.reasons:
        table.add_row("does not load", reason)
    if not build.reasons:
        table.add_row("loads", "on this machine")
    return table


def _list_rows(identity: Identity, manifest: Manifest) -> list[tuple[str, str]]:
    host = "" if identity.host is None else f" on {identity.host}"
    sizes = [(name, f"{record.size / 1e6:.1f} MB") for name, record in identity.engines.items()]
    products = [
        (f"products of {graph}", ", ".join(f"{100 * shares[t]:.2f}% {t}" for t in sorted(shares)))
        for graph, shares in identity.precision.items()
    ]
    return [
        ("built by", f"{TITLES[identity.target]} {identity.version}"),
        ("built for", ", ".join(identity.architectures)),
        ("flags", ", ".join(identity.flags) or "none"),
        ("built", f"{identity.built_at}{host} in {identity.build_seconds:.1f} s"),
        ("tracks", _format_verdict(identity, manifest)),
        *sizes,
        *products,
    ]


def _format_verdict(identity: Identity, manifest: Manifest) -> str:
    verified = identity.verified
    if verified is None and manifest.source.random_weights:
        return "unverified: the weights are random, so there are no tracks to compare"
    if verified is None and ACCEPTANCE not in manifest.files:
        return f"unverified: the bundle has no {ACCEPTANCE} with tracks to compare"
    if verified is None:
        return "unverified: not yet compared with the bundle's tracks"
    return (
        f"{verified.median_move:.3f} px from the bundle's tracks, limit {verified.limit:g} "
        f"({verified.where}, {verified.when})"
    )
