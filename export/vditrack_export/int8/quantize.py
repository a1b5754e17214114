"""A copy of a bundle with INT8 graphs for CPUs beside its own."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from vditrack.acceptance import CLIPS, MAX_MOVE
from vditrack.atomic_files import check_disk_space, staged_folder
from vditrack.bundle.folder import (
    CONTENTS,
    ENCODER,
    FEATURES,
    INT8_GRAPHS,
    Bundle,
    seal_bundle,
)
from vditrack.bundle.manifest import PrecisionCheck
from vditrack.errors import InputError, VditrackError
from vditrack.inference.cpu import find_int8_instructions
from vditrack.inference.onnxruntime import open_session
from vditrack.inference.session import Session
from vditrack_export.int8.calibration import record_inputs
from vditrack_export.int8.graphs import write_int8_encoder, write_int8_transformer
from vditrack_export.pipeline.acceptance import MAX_LOSS, compare_tracks, track_clips

_LARGEST_GRAPH = 1_000_000_000
"""Bytes; the quantiser needs the whole graph in one message of at most 2 GiB."""

ReportStage = Callable[[str], None]
"""Called with the name of each stage as it starts."""


def quantize_bundle(bundle: Bundle, destination: Path, report_stage: ReportStage) -> Bundle:
    """Copy a bundle, and the bundles within it, with INT8 graphs for CPUs.

    The effect on tracks of the acceptance clips is measured and has to be within the limits of
    `vditrack_export.pipeline.acceptance`. Engines are not copied, nor is a signature.

    Args:
        bundle: a bundle in FP32, whose encoder has no caches.
        destination: folder of the new bundle; an older bundle there, which may be the same one, is
            replaced at the end.
        report_stage: see `ReportStage`.

    Raises:
        InputError: The bundle cannot be quantised.
        VditrackError: This CPU has no INT8 dot products, tracks change too much, or the destination
            is something else than a bundle or has no room for it. Nothing is left behind then.

    """
    _check(bundle)
    if find_int8_instructions() is None:
        raise VditrackError(
            "this CPU is not known to have INT8 dot products (VNNI, or Arm's dot product), which "
            "are needed to measure what INT8 does to tracks. Quantise the bundle on one that has."
        )
    size = sum(record.size for record in bundle.manifest.files.values())
    check_disk_space(destination, 2 * size, "the bundle", "Make room, or choose another -o.")
    with staged_folder(destination, replaceable=CONTENTS) as folder:
        sealed = _quantize_into(bundle, folder, report_stage)
    return sealed.moved_to(destination)


def _check(bundle: Bundle) -> None:
    manifest, root = bundle.manifest, bundle.root
    precisions = {manifest.precision.encoder, manifest.precision.features}
    graphs = [manifest.files[graph].size for graph in INT8_GRAPHS]
    external = [f"{graph}.data" for graph in INT8_GRAPHS if f"{graph}.data" in manifest.files]
    claims = [
        (precisions == {"fp32"}, "its graphs are not in FP32. Export it with --precision fp32"),
        (
            manifest.encoder.caches == 0 and manifest.input.attention == "window",
            "its graphs pass caches from run to run, which INT8 graphs do not. Such a model needs "
            "a GPU",
        ),
        (
            max(graphs) <= _LARGEST_GRAPH and not external,
            "its graphs are too large for the quantiser. Such a model needs a GPU",
        ),
        (
            not manifest.source.random_weights,
            "its weights are random, so that it tracks nothing that could be compared",
        ),
    ]
    for holds, complaint in claims:
        if not holds:
            raise InputError(f"{root} cannot be quantised: {complaint}.")
    for part in bundle.parts.values():
        _check(part)


def _quantize_into(bundle: Bundle, folder: Path, report_stage: ReportStage) -> Bundle:
    """Write the copy of a bundle to an empty folder, and seal it."""
    for name in bundle.manifest.files:
        if "/" not in name and name not in INT8_GRAPHS.values():
            shutil.copyfile(bundle.root / name, folder / name)
    for name, part in bundle.parts.items():
        report_stage(f"{name}:")
        (folder / name).mkdir()
        _quantize_into(part, folder / name, report_stage)
    report_stage("recording the inputs of the graphs on rendered clips")
    given = record_inputs(bundle)
    report_stage("quantising the graphs")
    encoder, features = folder / INT8_GRAPHS[ENCODER], folder / INT8_GRAPHS[FEATURES]
    write_int8_encoder(bundle.encoder, encoder, given[ENCODER])
    write_int8_transformer(bundle.features, features)
    check = _compare(bundle, folder, report_stage)
    return seal_bundle(folder, msgspec.structs.replace(bundle.manifest, int8=check))


def _compare(bundle: Bundle, folder: Path, report_stage: ReportStage) -> PrecisionCheck:
    """Compare the tracks of the acceptance clips in FP32 and in INT8."""
    report_stage("tracking the acceptance clips in FP32 and in INT8")

    def open_int8(graph: Path) -> Session:
        return open_session(folder / INT8_GRAPHS[graph.name])

    track = partial(track_clips, bundle.manifest, bundle.root, count=CLIPS)
    check = compare_tracks(track(open_graph=open_session), track(open_graph=open_int8), accept=True)
    if check.accepted:
        raise VditrackError(
            f"INT8 moves the median point by {check.median_move:.2f} pixels (at most {MAX_MOVE}) "
            f"and the Average Jaccard from {check.average_jaccard_fp32:.1f} to "
            f"{check.average_jaccard:.1f} (at most {MAX_LOSS} less). Nothing was written: this "
            "model needs FP32 on a CPU."
        )
    return check
