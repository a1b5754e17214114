"""Masks that are written as they come; an interrupted run over a long recording goes on."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import numpy as np

from vditrack.arrays import Mask
from vditrack.cli.partial_runs import CHECKPOINT_FRAMES, describe_origin
from vditrack.cli.progress import ProgressCallback
from vditrack.io.frame_source import FrameSource
from vditrack.io.mask_store import MaskStore
from vditrack.io.run_store import check_origin, digest_array, find_store, read_checkpoint
from vditrack.tracker import Tracker

_NOTE = "masks of a run that is not complete; vditrack {} --resume continues it"


def propagate_stored(
    verb: str,
    tracker: Tracker,
    source: FrameSource,
    masks: Mapping[int, Mask],
    folder: Path,
    progress: ProgressCallback,
) -> tuple[MaskStore, int]:
    """Propagate masks through a recording into a store, or continue to.

    Args:
        verb: of the command line.
        tracker: the tracker.
        source: the recording.
        masks: uint8 [H, W] by the number of their frame.
        folder: of the store.
        progress: called with (frames done, frames in all).

    Returns:
        The store with all masks, and the number of frames that they were propagated through now.

    Raises:
        InputError: The masks do not fit, the store is of another run or damaged, or it cannot be
            written.

    """
    digest = sha256(repr(sorted((t, digest_array(mask)) for t, mask in masks.items())).encode())
    given = {"set of masks": digest.hexdigest()}
    made_from = describe_origin(verb, tracker, source, tracker.propagation, given)
    store, checkpoint, begin = MaskStore(folder, list_indices(masks), len(source)), None, 0
    continued = find_store(folder)
    if continued:
        check_origin(folder, made_from)
        store.check_arrays()
        checkpoint = read_checkpoint(folder)
        begin = 0 if checkpoint is None else int(checkpoint["place"][1])
        store.check_masks(begin)
    propagation = tracker.propagate_video(source, masks, progress=progress, checkpoint=checkpoint)
    if not continued:
        store.create(made_from, _NOTE.format(verb))
    since = 0
    for block in propagation:
        store.write(block.first_frame, block.masks)
        since += len(block.masks)
        if since >= CHECKPOINT_FRAMES:
            store.save(propagation.checkpoint())
            since = 0
    if len(source) > CHECKPOINT_FRAMES:
        store.save(propagation.checkpoint())
    return store, len(source) - begin


def list_indices(masks: Mapping[int, Mask]) -> list[int]:
    """Return the indices of the objects in masks, ascending."""
    found = [np.unique(mask) for mask in masks.values()]
    return np.setdiff1d(np.concatenate(found), [0]).tolist() if found else []
