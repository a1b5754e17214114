"""Combination of separately exported bundles into one for points and masks."""

import shutil
from pathlib import Path

import msgspec

from vditrack.atomic_files import check_disk_space, staged_folder
from vditrack.bundle.configuration import Propagation
from vditrack.bundle.folder import APPEARANCE, CONTENTS, MOTION, Bundle, seal_bundle
from vditrack.errors import InputError

_PARTS = (MOTION, APPEARANCE)


def combine_bundles(
    points: Bundle, motion: Bundle, appearance: Bundle, settings: Propagation, destination: Path
) -> Bundle:
    """Copy a bundle for points, with bundles of motion and appearance features inside.

    They may be of different checkpoints, as in TED (arXiv 2512.02339). Engines, and parts that a
    bundle already has, are not copied.

    Args:
        points: the bundle that tracks points.
        motion: a bundle with any window.
        appearance: a bundle that reads single frames.
        settings: how their features are fused, and labels propagated with them.
        destination: folder of the new bundle; an older bundle there is replaced at the end.

    Raises:
        InputError: The appearance bundle does not read single frames.
        VditrackError: There are other files at the destination, or it has no room for the bundle.
            It is left as it was.

    """
    frames = appearance.manifest.input.frames
    if frames != 1:
        raise InputError(
            f"{appearance.root} reads windows of {frames} frames; appearance needs single frames. "
            "Export it with `frames = 1` under [input] in its card."
        )
    wanted = sum(
        record.size
        for bundle in (points, motion, appearance)
        for name, record in bundle.manifest.files.items()
        if Path(name).parts[0] not in _PARTS
    )
    check_disk_space(destination, wanted, "the bundle", "Make room, or choose another -o.")
    with staged_folder(destination, replaceable=CONTENTS) as folder:
        _copy(motion, folder / MOTION, None)
        _copy(appearance, folder / APPEARANCE, None)
        sealed = _copy(points, folder, settings)
    return sealed.moved_to(destination)


def _copy(bundle: Bundle, folder: Path, settings: Propagation | None) -> Bundle:
    """Copy a bundle's own files, and seal them with the other files in the folder."""
    folder.mkdir(exist_ok=True)
    for name in bundle.manifest.files:
        if Path(name).parts[0] not in _PARTS:
            shutil.copyfile(bundle.root / name, folder / name)
    return seal_bundle(folder, msgspec.structs.replace(bundle.manifest, propagation=settings))
