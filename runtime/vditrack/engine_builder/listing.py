"""Lists the engine builds of a bundle, and why a build does not load on this machine."""

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from vditrack.bundle.folder import ACCEPTANCE, Bundle
from vditrack.bundle.manifest import Manifest
from vditrack.errors import EngineError
from vditrack.inference.engine_identity import (
    TITLES,
    Identity,
    engine_folders,
    load_identity,
    mismatches,
)
from vditrack.inference.machine import read_machine


@dataclass(frozen=True)
class BuildStatus:
    """A folder of engines, and whether it would load on this machine."""

    folder: str
    """Name of the folder."""
    identity: Identity | None
    """Identity of the build; None if it cannot be read."""
    reasons: list[str]
    """Reasons why the build does not load on this machine; empty if it loads."""


def list_builds(bundle: Bundle) -> list[BuildStatus]:
    """Return every build of a bundle, compared with the bundle and this machine."""
    return [_check_build(folder, bundle) for folder in engine_folders(bundle)]


def _check_build(folder: Path, bundle: Bundle) -> BuildStatus:
    try:
        identity = load_identity(folder)
    except EngineError as error:
        return BuildStatus(folder.name, None, [str(error)])
    return BuildStatus(folder.name, identity, mismatches(identity, bundle, read_machine()))


def format_build(build: BuildStatus, manifest: Manifest) -> Table:
    """Return a table of a build: its identity, its precision, and whether it loads here.

    Args:
        build: The build.
        manifest: Manifest of its bundle.

    """
    table = Table("", "", title=f"engines/{build.folder}", show_header=False, title_justify="left")
    for name, value in _list_rows(build.identity, manifest) if build.identity else []:
        table.add_row(name, value)
    for reason in build.reasons:
        table.add_row("does not load", reason)
    if not build.reasons:
        table.add_row("loads", "on this machine")
    return table


def _list_rows(identity: Identity, manifest: Manifest) -> list[tuple[str, str]]:
    sizes = [(name, f"{record.size / 1e6:.1f} MB") for name, record in identity.engines.items()]
    products = [
        (f"products of {graph}", ", ".join(f"{100 * shares[t]:.2f}% {t}" for t in sorted(shares)))
        for graph, shares in identity.precision.items()
    ]
    return [
        ("built by", f"{TITLES[identity.target]} {identity.version}"),
        ("built for", ", ".join(identity.architectures)),
        ("flags", ", ".join(identity.flags) or "none"),
        ("built", f"{identity.built_at} on {identity.host} in {identity.build_seconds:.1f} s"),
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
