"""A bundle that propagates masks: the bundled model's graphs, as motion and as appearance."""

import shutil
from pathlib import Path

import msgspec

from vditrack.bundle.configuration import Propagation
from vditrack.bundle.folder import (
    APPEARANCE,
    MOTION,
    Bundle,
    bundled_model,
    load_bundle,
    seal_bundle,
)

PROPAGATION = Propagation(motion_weight=0.4, temperature=0.05, top_k=10, radius=15.0, context=8)


def write_propagating(
    folder: Path,
    settings: Propagation | None = PROPAGATION,
    *,
    motion: Path | None = None,
    appearance: Path | None = None,
) -> Bundle:
    """Write a bundle of the bundled model, with other bundles or itself as its two parts."""
    tiny = bundled_model()
    if settings is not None:
        _copy(motion or tiny, folder / MOTION)
        _copy(appearance or tiny, folder / APPEARANCE)
    return _copy(tiny, folder, settings)


def _copy(bundle: Path, folder: Path, settings: Propagation | None = None) -> Bundle:
    """Copy a bundle's own graphs, and not the parts that it may have."""
    folder.mkdir(parents=True, exist_ok=True)
    for graph in bundle.glob("*.onnx"):
        shutil.copy(graph, folder)
    manifest = load_bundle(bundle).manifest
    return seal_bundle(folder, msgspec.structs.replace(manifest, propagation=settings))
