"""Teachers: any bundle, or the weights of ALIKE-L."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vditrack.acceptance import verify_tracks
from vditrack.arrays import FrameClip
from vditrack.bundle.folder import MANIFEST, Bundle, load_bundle
from vditrack.errors import InputError
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.windows import clip_features
from vditrack.inference.selection import open_backend
from vditrack_export.tiny.teacher import AlikeTeacher, Teacher

WEIGHTS_SUFFIX = ".safetensors"


class BundleTeacher(Teacher):
    """A bundle of any family, run by the runtime on the fastest backend of this machine."""

    def __init__(self, bundle: Bundle) -> None:
        """Load the graphs.

        Raises:
            BackendError: No inference engine is installed, or it refuses a graph.

        """
        manifest = bundle.manifest
        self.bundle = bundle
        self.name = manifest.name
        # The manifest has the digests of all files.
        self.sha256 = hashlib.sha256((bundle.root / MANIFEST).read_bytes()).hexdigest()
        self.channels = manifest.output.channels
        self.reads_between = manifest.input.frames > 1
        self.temporal_stride = manifest.input.temporal_stride
        backend = open_backend(bundle, "auto", verify_tracks)
        self._extractor = FeatureExtractor(bundle, backend.open_graph)

    def describe(self, frames: FrameClip) -> Tensor:
        """See `Teacher.describe`; frames of any size are resized to the bundle's input."""
        maps = clip_features(self._extractor, frames)
        return torch.from_numpy(np.stack([features.descriptors for features in maps]))


def open_teacher(path: Path) -> Teacher:
    """Return the teacher that a path names.

    Args:
        path: the folder of a bundle, or the file of ALIKE-L's weights (.safetensors).

    Raises:
        InputError: It is neither, or the bundle's weights are random.
        BundleError: The bundle is damaged.
        BackendError: No inference engine is installed, or it refuses a graph.

    """
    if path.suffix == WEIGHTS_SUFFIX and path.is_file():
        return AlikeTeacher(path)
    if not path.is_dir():
        raise InputError(
            f"there is no teacher at {path}. Give the folder of a bundle, or the weights of "
            f"ALIKE-L ({WEIGHTS_SUFFIX})."
        )
    bundle = load_bundle(path)
    if bundle.manifest.source.random_weights:
        raise InputError(f"{path} has random weights, which teach nothing. Give another teacher.")
    return BundleTeacher(bundle)
