"""What a bundle's folder of engines holds, and what of it would load on this machine."""

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
class ListedBuild:
    """One folder of engines."""

    folder: str
    """Its name."""
    identity: Identity | None
    """None where it is damaged."""
    reasons: list[str]
    """Why it would not load here; none if it would."""


def list_builds(bundle: Bundle) -> list[ListedBuild]:
    """Read every build of a bundle, and compare it with the bundle and this machine."""
    return [_listed(folder, bundle) for folder in engine_folders(bundle)]


def _listed(folder: Path, bundle: Bundle) -> ListedBuild:
    try:
        identity = load_identity(folder)
    except EngineError as error:
        return ListedBuild(folder.name, None, [str(error)])
    return ListedBuild(folder.name, identity, mismatches(identity, bundle, read_machine()))


def build_table(build: ListedBuild, manifest: Manifest) -> Table:
    """Show a build: what it is, in which types it computes, and whether it would load here.

    Args:
        build: to show.
        manifest: of its bundle.

    """
    table = Table("", "", title=f"engines/{build.folder}", show_header=False, title_justify="left")
    for name, value in _rows(build.identity, manifest) if build.identity else []:
        table.add_row(name, value)
    for reason in build.reasons:
        table.add_row("does not load", reason)
    if not build.reasons:
        table.add_row("would load", "here")
    return table


def _rows(identity: Identity, manifest: Manifest) -> list[tuple[str, str]]:
    sizes = [(name, f"{record.size / 1e6:.1f} MB") for name, record in identity.engines.items()]
    products = [
        (f"products of {graph}", ", ".join(f"{100 * shares[t]:.2f}% {t}" for t in sorted(shares)))
        for graph, shares in identity.precision.items()
    ]
    return [
        ("built by", f"{TITLES[identity.target]} {identity.version}"),
        ("for", ", ".join(identity.architectures)),
        ("flags", ", ".join(identity.flags) or "none"),
        ("built", f"{identity.built_at} on {identity.host}, in {identity.build_seconds:.1f} s"),
        ("tracks", _verdict(identity, manifest)),
        *sizes,
        *products,
    ]


def _verdict(identity: Identity, manifest: Manifest) -> str:
    verified = identity.verified
    if verified is None and manifest.source.random_weights:
        return "unverified: with random weights there is nothing to compare"
    if verified is None and ACCEPTANCE not in manifest.files:
        return f"unverified: the bundle has no {ACCEPTANCE} to compare with"
    if verified is None:
        return "unverified: not yet compared with the bundle's"
    return (
        f"{verified.median_move:.3f} px from the bundle's, limit {verified.limit:g} "
        f"({verified.where}, {verified.when})"
    )
