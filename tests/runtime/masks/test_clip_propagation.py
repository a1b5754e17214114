"""Masks that are propagated block by block, from sources, and from checkpoints."""

import msgspec
import numpy as np
import pytest

from doubles.living_frames import LivingArrays
from doubles.passthrough import write_passthrough
from doubles.propagating import DISPLACEMENT, PROPAGATION, write_propagating
from doubles.video_files import moving_texture
from vditrack import InputError, Tracker
from vditrack.features.clip_frames import ArrayFrames, TimedFrame
from vditrack.masks import clip_propagation

FRAMES = moving_texture(15)
TIMES = np.arange(15) / 25
HEIGHT, WIDTH = FRAMES.shape[1:3]


def box(index: int, x: int, y: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + 30, x : x + 30] = index
    return mask


MASKS = {0: box(3, 10, 10) + box(5, 60, 20), 6: box(9, 30, 40), 9: box(3, 20, 20)}


@pytest.fixture(scope="module", params=["displacement", "windows", "state"])
def tracker(request, tmp_path_factory):
    """Motion from displacements; from overlapping windows; from an encoder with a state."""
    folder = tmp_path_factory.mktemp("parts")
    kind = {"frames": 4, "encoder_frames": 2, "described": 3}
    if request.param == "state":
        kind = {"frames": 9, "cached": True, "temporal_stride": 4}
    motion = write_passthrough(folder / "motion", **kind)
    single = write_passthrough(folder / "appearance", frames=1, rows=10, columns=14)
    displacement = DISPLACEMENT if request.param == "displacement" else None
    # Of the frames with masks of an object only the last one is kept.
    kept = {"context": 3, "references": 1, "displacement": displacement}
    settings = msgspec.structs.replace(PROPAGATION, **kept)
    parts = {"motion": motion.root, "appearance": single.root}
    return Tracker(write_propagating(folder / "whole", settings, **parts))


def test_blocks_are_parts_of_the_masks(tracker, monkeypatch):
    masks = tracker.propagate(FRAMES, MASKS)
    assert set(np.unique(masks)) == {0, 3, 5, 9}
    monkeypatch.setattr(clip_propagation, "_BLOCK", 4)
    done = []
    propagation = tracker.propagate_video(
        ArrayFrames(FRAMES, TIMES), MASKS, progress=lambda *steps: done.append(steps)
    )
    blocks, checkpoints = [], []
    for block in propagation:
        blocks.append(block)
        checkpoints.append({name: value.copy() for name, value in propagation.checkpoint().items()})
    assert done == [(frame + 1, 15) for frame in range(15)]
    assert [block.frames for block in blocks] == [
        slice(0, 4), slice(4, 8), slice(8, 12), slice(12, 15),
    ]  # fmt: skip
    np.testing.assert_array_equal(np.concatenate([block.masks for block in blocks]), masks)
    np.testing.assert_array_equal(np.concatenate([block.times for block in blocks]), TIMES)
    for place, checkpoint in enumerate(checkpoints):
        rest = tracker.propagate_video(ArrayFrames(FRAMES, TIMES), MASKS, checkpoint=checkpoint)
        for after, block in zip(rest, blocks[place + 1 :], strict=True):
            assert after.first_frame == block.first_frame
            np.testing.assert_array_equal(after.masks, block.masks)


def test_a_long_clip_is_not_held(tracker):
    living, count = LivingArrays(), 80

    class Counted(ArrayFrames):
        def __len__(self):
            return count

        def read(self, first_frame=0):
            for t in range(first_frame, count):
                yield TimedFrame(living.add(FRAMES[t % 15]), t / 25)

    sizes = []
    propagation = tracker.propagate_video(Counted(FRAMES, np.arange(count) / 25), MASKS)
    for _ in propagation:
        sizes.append(sum(array.nbytes for array in propagation.checkpoint().values()))
    # Windows keep resized frames.
    assert living.most <= 4
    assert sizes[1] >= sizes[-1]


def test_a_source_is_checked(tracker):
    source = ArrayFrames(FRAMES, TIMES)
    with pytest.raises(InputError, match="frames are 0 to 14"):
        tracker.propagate_video(source, {15: box(1, 0, 0)})
    with pytest.raises(InputError, match="the mask of frame 0 is 64 x"):
        tracker.propagate_video(source, box(1, 0, 0)[:, :64])
