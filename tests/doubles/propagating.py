"""A bundle that propagates masks, with the bundled model's graphs for motion and appearance."""

import shutil
from pathlib import Path

import msgspec

from vditrack.bundle.configuration import Displacement, Propagation
from vditrack.bundle.folder import (
    APPEARANCE,
    MOTION,
    Bundle,
    bundled_model,
    load_bundle,
    seal_bundle,
)

PROPAGATION = Propagation(motion_weight=0.4, temperature=0.05, top_k=10, radius=30.0, context=8)
DISPLACEMENT = Displacement(
    frames=1,
    reach=2.0,
    temperature=0.05,
    gain=1.0,
    deviation=0.5,
    spread=0.5,
    slack=1.5,
    drift=0.2,
    falloff=0.05,
    uncovered=0.02,
)


def write_propagating(
    folder: Path,
    settings: Propagation | None = PROPAGATION,
    *,
    motion: Path | None = None,
    appearance: Path | None = None,
) -> Bundle:
    """Write a bundle with the bundled model's graphs, and other bundles or itself as its parts."""
    tiny = bundled_model()
    if settings is not None:
        _copy(motion or tiny, folder / MOTION)
        _copy(appearance or tiny, folder / APPEARANCE)
    return _copy(tiny, folder, settings)


def write_with_appearance(folder: Path) -> Bundle:
    """Write the bundled model with its features once more, as a bundle of appearance."""
    tiny = load_bundle(bundled_model())
    for destination in (folder, folder / APPEARANCE):
        destination.mkdir(parents=True)
        for name in tiny.manifest.files:
            shutil.copy(tiny.root / name, destination)
    seal_bundle(folder / APPEARANCE, msgspec.structs.replace(tiny.manifest, propagation=None))
    return seal_bundle(folder, tiny.manifest)


def _copy(bundle: Path, folder: Path, settings: Propagation | None = None) -> Bundle:
    """Copy a bundle's own graphs, without its parts."""
    folder.mkdir(parents=True, exist_ok=True)
    for graph in bundle.glob("*.onnx"):
        shutil.copy(graph, folder)
    manifest = load_bundle(bundle).manifest
    return seal_bundle(folder, msgspec.structs.replace(manifest, propagation=settings))
