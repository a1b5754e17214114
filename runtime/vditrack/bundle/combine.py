"""One bundle for points and masks out of bundles that were exported apart: ``vditrack combine``."""

import shutil
from pathlib import Path

import msgspec

from vditrack.atomic_files import staged_folder
from vditrack.bundle.configuration import Propagation
from vditrack.bundle.folder import APPEARANCE, CONTENTS, MOTION, Bundle, seal_bundle
from vditrack.errors import InputError

_PARTS = (MOTION, APPEARANCE)


def combine_bundles(
    points: Bundle, motion: Bundle, appearance: Bundle, settings: Propagation, destination: Path
) -> Bundle:
    """Put the bundles of motion and of appearance features into a copy of the one of points.

    They may be of different checkpoints, as TED's (arXiv 2512.02339) are. Built engines and the
    parts that a bundle has already stay behind.

    Args:
        points: tracks points.
        motion: of any window.
        appearance: of single frames.
        settings: how their features are fused, and labels propagated with them.
        destination: folder that the bundle becomes; an older bundle there is replaced at the end.

    Raises:
        InputError: appearance is not of single frames.
        VditrackError: the destination is taken. Nothing is left behind then.

    """
    frames = appearance.manifest.input.frames
    if frames != 1:
        raise InputError(
            f"{appearance.root} reads windows of {frames} frames, and appearance is that of single "
            "frames. Export it with `frames = 1` under [input] in its card."
        )
    with staged_folder(destination, replaceable=CONTENTS) as folder:
        _copy(motion, folder / MOTION, None)
        _copy(appearance, folder / APPEARANCE, None)
        sealed = _copy(points, folder, settings)
    return Bundle(destination, sealed.manifest)


def _copy(bundle: Bundle, folder: Path, settings: Propagation | None) -> Bundle:
    """Copy the files of a bundle itself, and seal them with what else is in the folder."""
    folder.mkdir(exist_ok=True)
    for name in bundle.manifest.files:
        if Path(name).parts[0] not in _PARTS:
            shutil.copyfile(bundle.root / name, folder / name)
    return seal_bundle(folder, msgspec.structs.replace(bundle.manifest, propagation=settings))
