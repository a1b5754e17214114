"""Clips that are tracked block by block, from sources, and from checkpoints."""

from itertools import islice

import msgspec
import numpy as np
import pytest

from doubles.passthrough import write_passthrough
from doubles.video_files import moving_texture
from vditrack import InputError, Tracker
from vditrack import tracker as tracker_module
from vditrack.bundle.folder import bundled_model, load_bundle
from vditrack.bundle.redetection import GapFilling
from vditrack.features.clip_frames import ArrayFrames
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.restarting import features_from, first_frame_read, keeps_state
from vditrack.features.windows import causal_features, clip_features
from vditrack.points import clip_tracking
from vditrack.points.track_blocks import collect_tracks

FIELDS = ("known", "points", "visible", "confidence", "forward_backward_error")
FRAMES = moving_texture(14)
TIMES = np.arange(14) / 25 + (np.arange(14) > 6)
"""Frames are missing after frame 6."""
QUERIES = np.float32([[0, 40, 30], [3, 80, 50], [9, 60, 60], [9, 20, 70], [0, 100, 20]])

WINDOWS = [
    {"frames": 2, "described": 1},
    {"frames": 4, "encoder_frames": 1, "described": 4},
    {"frames": 4, "encoder_frames": 2, "described": 3},
    {"frames": 9, "encoder_frames": 9, "temporal_stride": 4},
    {"frames": 9, "cached": True, "temporal_stride": 4},
    {"frames": 9, "cached": True, "temporal_stride": 4, "described": 8},
    {"frames": 4, "cached": True, "described": 1},
]


@pytest.mark.parametrize("window", WINDOWS)
def test_maps_from_any_frame_on_are_those_of_the_whole_clip(tmp_path, window):
    extractor = FeatureExtractor(write_passthrough(tmp_path, context=3.0, **window))
    frames = np.random.default_rng(0).integers(0, 256, (23, 64, 96, 3)).astype(np.uint8)
    for causal, read in ((False, clip_features), (True, causal_features)):
        whole = list(read(extractor, frames))
        assert len(whole) == 23
        for first in (0, 1, 3, 7, 8, 9, 13, 20, 22):
            begin = first_frame_read(extractor, first, causal=causal)
            assert begin == 0 if keeps_state(extractor, causal=causal) else begin >= first - 17
            rest = features_from(extractor, iter(frames[begin:]), 23, first, causal=causal)
            for found, expected in zip(rest, whole[first:], strict=True):
                assert (found is None) == (expected is None)
                if found is not None and expected is not None:
                    np.testing.assert_array_equal(found.descriptors, expected.descriptors)


@pytest.fixture(scope="module", params=["flow", "state", "match"])
def tracker(request, tmp_path_factory):
    """By flow from windows; by flow with an encoder's state; by matches from windows."""
    state = {"frames": 9, "cached": True, "temporal_stride": 4, "described": 4}
    window = state if request.param == "state" else {"frames": 4, "described": 3}
    bundle = write_passthrough(tmp_path_factory.mktemp("bundle"), **window)
    settings = load_bundle(bundled_model()).manifest.matching
    if request.param == "match":
        return Tracker(bundle)
    gaps = GapFilling(frames=4, min_confidence=0.5)
    flow = msgspec.structs.replace(settings.flow_tracking, gaps=gaps)
    return Tracker(bundle, settings=msgspec.structs.replace(settings, flow_tracking=flow))


@pytest.mark.parametrize("kept", [0, 1 << 27])
@pytest.mark.parametrize("mode", ["offline", "causal"])
def test_blocks_are_parts_of_the_tracks(tracker, mode, kept, monkeypatch):
    tracks = tracker.track(FRAMES, QUERIES, mode=mode, times=TIMES)
    assert tracks.visible.any()
    monkeypatch.setattr(clip_tracking, "_BLOCK", 4)
    monkeypatch.setattr(tracker_module, "_KEPT_BYTES", kept)
    done = []
    tracking = tracker.track_video(
        ArrayFrames(FRAMES, TIMES), QUERIES, mode=mode, progress=lambda *steps: done.append(steps)
    )
    blocks, checkpoints = [], []
    for block in tracking:
        blocks.append(block)
        checkpoints.append(tracking.checkpoint())
    assert done == [(step + 1, 14 + 10) for step in range(14 + 10)]
    assert [block.first_frame for block in blocks] == [0, 4, 8, 12, 8, 4, 0]
    found = collect_tracks(blocks, QUERIES, 14)
    for name in FIELDS[1:]:
        np.testing.assert_array_equal(getattr(found, name), getattr(tracks, name))
    # From a block in either direction, and between both.
    for place in (1, 3, 4):
        rest = tracker.track_video(
            ArrayFrames(FRAMES, TIMES), QUERIES, mode=mode, checkpoint=checkpoints[place]
        )
        for after, block in zip(rest, blocks[place + 1 :], strict=True):
            for name in FIELDS:
                np.testing.assert_array_equal(getattr(after, name), getattr(block, name))


def test_videos_are_checked(tracker):
    source = ArrayFrames(FRAMES, TIMES)
    with pytest.raises(InputError, match="frames are 0 to 13"):
        tracker.track_video(source, [[14, 5, 5]])
    with pytest.raises(InputError, match="no mode 'reference'"):
        tracker.track_video(source, [[0, 5, 5]], mode="reference")


def test_a_block_is_tracked_when_it_is_asked_for(tracker, monkeypatch):
    read = []

    class Counted(ArrayFrames):
        def read(self, first_frame=0):
            for timed in super().read(first_frame):
                read.append(timed.time)
                yield timed

    monkeypatch.setattr(clip_tracking, "_BLOCK", 4)
    tracking = tracker.track_video(Counted(FRAMES, TIMES), QUERIES[:1])
    list(islice(tracking, 2))
    # Windows look ahead, and so does a latent of several frames.
    assert 8 <= len(read) <= 12
