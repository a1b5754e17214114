"""A bundle whose INT8 graphs are other graphs, and CPUs that can or cannot run them."""

import shutil

import msgspec

from vditrack.bundle.folder import INT8_GRAPHS, Bundle, seal_bundle
from vditrack.bundle.manifest import PrecisionCheck
from vditrack.inference import int8

CHECK = PrecisionCheck(
    clips=4,
    frames=16,
    height=64,
    width=96,
    median_move=0.1,
    average_jaccard_fp32=60.0,
    average_jaccard=60.0,
    accepted=False,
)


def add_int8_graphs(bundle: Bundle, source: Bundle | None = None) -> Bundle:
    """Add graphs of a bundle, by default its own, as INT8 graphs."""
    for graph, name in INT8_GRAPHS.items():
        shutil.copyfile((source or bundle).root / graph, bundle.root / name)
    return seal_bundle(bundle.root, msgspec.structs.replace(bundle.manifest, int8=CHECK))


def set_instructions(monkeypatch, instructions: str | None) -> None:
    """Let this CPU have these INT8 instructions, or none."""
    monkeypatch.setattr(int8, "find_int8_instructions", lambda: instructions)
