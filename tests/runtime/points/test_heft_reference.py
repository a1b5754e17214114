"""Reference mode against the paper's formulation, rendered plainly, through several chunks."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import msgspec
import numpy as np
import pytest
import torch
from skimage.data import astronaut, camera, chelsea, coffee

import reference_formulation
from doubles.living_frames import LivingArrays
from doubles.manifest import MATCHING
from doubles.passthrough import write_passthrough
from heft_settings import HEFT_MATCHING
from moving_features import translated_maps, wave_field
from reference_formulation import PublicFormulation, track_clip
from vditrack import Tracker
from vditrack.coordinates import Grid
from vditrack.features.clip_frames import ArrayFrames, TimedFrame
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap
from vditrack.features.windows import clip_features
from vditrack.io.video import write_video
from vditrack.points import heft_reference
from vditrack.points.heft_differences import list_differences
from vditrack.points.heft_reference import split_into_chunks, track_reference
from vditrack.points.tracks import Tracks

GRID = Grid(8, 12, 8)
# As HeFT's radii to a cell; a template update that shows; a temperature that is to be ignored.
SETTINGS = msgspec.structs.replace(
    MATCHING,
    temperature=0.05,
    argmax_radius=9.0,
    search_radius=21.0,
    visibility_threshold=9.0,
    template_update=0.1,
)


def formulation(parts, grid, queries, settings=SETTINGS) -> tuple[np.ndarray, np.ndarray]:
    plain = msgspec.structs.replace(settings, temperature=1.0)
    return track_clip(parts, grid.stride, plain, queries)


def assert_equal(tracks: Tracks, trail, visible, scale=1.0, of=slice(None)) -> None:
    distance = np.linalg.norm(tracks.points * scale - trail, axis=2)
    assert distance[of].max() <= 0.1
    np.testing.assert_array_equal(tracks.visible[of], visible[of])
    np.testing.assert_array_equal(tracks.confidence >= 0.5, tracks.visible)


def lost_and_found(visible: np.ndarray) -> np.ndarray:
    """Whether a point is hidden between two frames in which it is seen, [N]."""
    before = np.logical_or.accumulate(visible, axis=1)
    after = np.logical_or.accumulate(visible[:, ::-1], axis=1)[:, ::-1]
    return (before & ~visible & after).any(axis=1)


def as_clip(frames: np.ndarray) -> ArrayFrames:
    return ArrayFrames(frames, np.arange(len(frames)) / 30)


def cut(descriptors: np.ndarray, length: int) -> list[np.ndarray]:
    """Chunks of a length, the last of which may be shorter."""
    firsts = range(0, len(descriptors), length)
    return [descriptors[first : first + length] for first in firsts]


def asked(times: list[int], counts: list[int], low, high, seed: int) -> np.ndarray:
    """Queries [N, 3], so many in each frame, at random places between two corners."""
    places = np.random.default_rng(seed).uniform(low, high, (sum(counts), 2))
    return np.column_stack([np.repeat(times, counts), places]).astype(np.float32)


class GivenFeatures:
    """Descriptors of a moving field, a little different in every window, in place of a model's."""

    def __init__(self, seed: int, frames: int, window: int) -> None:
        rng = np.random.default_rng(seed)
        self.frames, self.window, self.seed = frames, window, seed
        self.offsets = np.cumsum(rng.normal(0, 2.5, (frames, 2)), axis=0)
        self.offsets -= np.linspace(0, 1, frames)[:, None] * self.offsets[-1]
        field = wave_field(channels=32, seed=seed, shortest=32)
        self.maps = translated_maps(field, self.offsets, GRID.rows, GRID.columns, GRID.stride)
        self.maps += rng.normal(0, 0.2, self.maps.shape).astype(np.float32)
        # Something else passes before the left half, and before a corner at the first chunk's end.
        for hidden in (self.maps[2:6, :, :6], self.maps[window - 2 : window + 1, :4, 6:]):
            hidden[:] = rng.normal(0, 3, hidden.shape)

    def described(self, begin: int) -> np.ndarray:
        """Descriptors of the window from a frame on."""
        rng = np.random.default_rng([self.seed, begin])
        maps = self.maps[begin : begin + self.window]
        maps = np.float32(maps + rng.normal(0, 0.1, maps.shape))
        # No point is like the outermost cells: beyond their centres a map is constant, and its
        # best pixel a tie.
        maps = np.pad(maps, ((0, 0), (0, 0), (0, 0), (0, 1)))
        for edge in (maps[:, 0], maps[:, -1], maps[:, :, 0], maps[:, :, -1]):
            edge[:] = np.eye(33)[32] * 10
        return maps

    def parts(self) -> list[np.ndarray]:
        """Descriptors chunk by chunk; the last chunk's window ends with the clip."""
        parts = []
        for first in range(0, self.frames, self.window):
            begin = min(first, self.frames - self.window)
            parts.append(self.described(begin)[first - begin :])
        return parts

    def clip_features(self, _extractor, frames: Iterator[np.ndarray]):
        numbers = [int(frame[0, 0, 0]) for frame in frames]
        begin = numbers[0]
        assert numbers == [*range(begin, begin + self.window)]
        return (FeatureMap(GRID, descriptors) for descriptors in self.described(begin))


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "frames", "window"), [(0, 52, 25), (1, 30, 9), (2, 30, 9)])
def test_random_features(tmp_path, monkeypatch, seed, frames, window):
    given = GivenFeatures(seed, frames, window)
    monkeypatch.setattr(heft_reference, "clip_features", given.clip_features)
    tracker = Tracker(write_passthrough(tmp_path / "bundle", frames=window), settings=SETTINGS)
    # From the first frame, the last of the first chunk, a later one, and the last.
    times = [0, window - 1, window + 5, frames - 1]
    queries = asked(times, [10, 2, 3, 1], 16, (GRID.width - 16, GRID.height - 16), seed)
    numbers = np.arange(frames, dtype=np.uint8)[:, None, None, None]
    clip = np.broadcast_to(numbers, (frames, GRID.height, GRID.width, 3))
    tracks = tracker.track(clip, queries, mode="reference")

    trail, visible = formulation(given.parts(), GRID, queries)
    assert_equal(tracks, trail, visible)
    assert lost_and_found(visible).sum() >= 2
    # The field's motion is known; a point is found again where the field has carried it.
    start = queries[:, 0].astype(int)
    truth = queries[:, None, 1:] + given.offsets - given.offsets[start][:, None]
    error = np.linalg.norm(tracks.points - truth, axis=2)
    # One asked for in the frame that two chunks share may be on what passes before the field.
    judged = visible & (start != window - 1)[:, None]
    assert np.median(error[judged]) < GRID.stride / 2
    assert (error[judged] < GRID.stride).mean() > 0.85


def test_mean_colours_of_photographs(tmp_path, monkeypatch):
    """Three photographs as red, green and blue: a colour says more of the place than in one."""
    layers = [astronaut()[:400, :500, 0], camera()[:400, :500], coffee()[:400, :500, 1]]
    sized = [cv2.resize(layer, (125, 100), interpolation=cv2.INTER_AREA) for layer in layers]
    pictures = np.stack([cv2.equalizeHist(layer) for layer in sized], axis=-1)
    corners = [(14 + int(6 * np.cos(t / 2)), 14 + int(8 * np.sin(t / 3))) for t in range(12)]
    clip = np.stack([pictures[y : y + 64, x : x + 96] for y, x in corners])
    clip[1:4, :, :32] = 255 - clip[1:4, :, :32]
    tracker = Tracker(write_passthrough(tmp_path / "bundle", frames=5), settings=SETTINGS)
    queries = asked([0, 4, 6], [16, 4, 4], 16, (80, 48), seed=0)
    tracks = tracker.track(clip, queries, mode="reference")

    parts = cut(clip.reshape(12, 8, 8, 12, 8, 3).mean(axis=(2, 4), dtype=np.float32), 5)
    trail, visible = formulation(parts, GRID, queries)
    # Three channels leave some pixels equally good to the last bits of a float: the best is then
    # the one or the other, by the order of a sum.
    monkeypatch.setattr(reference_formulation, "PublicFormulation", Rounded)
    decided = np.ones(len(queries), bool)
    for _ in range(3):
        again, seen = formulation(parts, GRID, queries)
        decided &= np.linalg.norm(again - trail, axis=2).max(axis=1) < 0.1
        decided &= (seen == visible).all(axis=1)
    assert decided.mean() >= 0.6
    assert_equal(tracks, trail, visible, of=decided)
    assert lost_and_found(visible[decided]).sum() >= 2


class Rounded(PublicFormulation):
    """The formulation with other rounding errors: some units in the last place of a cosine."""

    noise = np.random.default_rng(0)

    def cosines(self, frame, templates):
        exact = super().cosines(frame, templates)
        return exact + 4e-7 * torch.from_numpy(self.noise.normal(size=exact.shape)).float()


@pytest.mark.slow
def test_photographs_in_the_bundled_model(tiny_bundle):
    """Short chunks, since the plain formulation takes long; a board passes before the picture."""
    settings = msgspec.structs.replace(tiny_bundle.manifest.matching, reference_chunk=5)
    tracker = Tracker(tiny_bundle, settings=settings)
    out = tracker.bundle.manifest.output
    grid = Grid(out.rows, out.columns, out.stride)
    views = [(100 - 4 * t, 100 + 3 * t) for t in range(10)]
    clip = np.stack([astronaut()[y : y + 240, x : x + 320] for y, x in views])
    for t in range(1, 4):
        clip[t, :, 40 : 40 + 60 * t] = chelsea()[:240, 40 : 40 + 60 * t]
    queries = asked([0, 4, 6], [6, 1, 1], 40, (280, 200), seed=0)
    tracks = tracker.track(clip, queries, mode="reference")

    scale = grid.model_from_frame(clip.shape[1:3])
    extractor = FeatureExtractor(tracker.bundle)
    parts = cut(np.stack([each.descriptors for each in clip_features(extractor, clip)]), 5)
    in_model = queries * np.float32([1, *scale])
    trail, visible = formulation(parts, grid, in_model, tracker.settings)
    assert_equal(tracks, trail, visible, scale)
    assert lost_and_found(visible).sum() >= 2


@pytest.mark.parametrize(("window", "described"), [(1, 1), (4, 1), (4, 4), (25, 25)])
@pytest.mark.parametrize("count", [1, 2, 4, 5, 7, 24, 25, 26, 49, 50])
def test_later_chunks_are_stretched_by_a_frame(tmp_path, window, described, count):
    """Frame t of the clip has the descriptor t, so maps say where in time they were read."""
    bundle = write_passthrough(tmp_path, frames=window, described=described)
    levels = np.arange(count, dtype=np.uint8)[:, None, None, None]
    clip = np.broadcast_to(levels, (count, 64, 96, 3))
    length = 4 if (window, described) == (4, 4) else 25
    begin = 0
    for first, maps in split_into_chunks(FeatureExtractor(bundle), as_clip(clip), 25):
        own = min(length, count - begin)
        read = [float(each.descriptors.mean()) for each in maps]
        if begin == 0:
            assert (first, read) == (0, [*range(own)])
        else:
            assert first == begin - 1
            inner = (np.arange(own + 1) + 0.5) * own / (own + 1) - 0.5
            np.testing.assert_allclose(read, begin + np.clip(inner, 0, own - 1), atol=1e-4)
        begin += own
    assert begin == count


def test_a_chunk_is_described_in_one_window(tmp_path, monkeypatch):
    """Also the last, which is shorter than a window: with frames before it, not copies of one."""
    windows = []

    def recorded(extractor, frames):
        kept = list(frames)
        windows.append([int(frame[0, 0, 0]) for frame in kept])
        return clip_features(extractor, kept)

    monkeypatch.setattr(heft_reference, "clip_features", recorded)
    extractor = FeatureExtractor(write_passthrough(tmp_path, frames=4))
    clip = np.broadcast_to(np.arange(10, dtype=np.uint8)[:, None, None, None], (10, 64, 96, 3))
    assert [
        (first, len(maps)) for first, maps in split_into_chunks(extractor, as_clip(clip), 25)
    ] == [
        (0, 4),
        (3, 5),
        (7, 3),
    ]
    assert windows == [[0, 1, 2, 3], [4, 5, 6, 7], [6, 7, 8, 9]]


@pytest.mark.parametrize(("window", "described"), [(4, 4), (4, 1)])
def test_a_long_clip_is_not_held(tmp_path, window, described):
    bundle = write_passthrough(tmp_path, frames=window, described=described)
    tracker, living = Tracker(bundle, settings=SETTINGS), LivingArrays()
    clip = np.random.default_rng(0).integers(0, 256, (42, 64, 96, 3)).astype(np.uint8)

    class Counted(ArrayFrames):
        def read(self, first_frame=0):
            for frame, time in super().read(first_frame):
                yield TimedFrame(living.add(frame), time)

    queries = asked([0, 7], [2, 1], 16, (80, 48), seed=0)
    found = tracker.track_reference(Counted(clip, np.arange(42) / 30), queries)
    assert living.most <= 3
    expected = tracker.track(clip, queries, mode="reference")
    np.testing.assert_array_equal(found.points, expected.points)
    np.testing.assert_array_equal(found.confidence, expected.confidence)


def track_given(monkeypatch, grid: Grid, maps: np.ndarray, queries, settings) -> Tracks:
    """Tracks through descriptors [T, rows, columns, C] in place of a model's."""
    features = [FeatureMap(grid, np.ascontiguousarray(each)) for each in maps]
    monkeypatch.setattr(heft_reference, "clip_features", lambda *_: iter(features))
    extractor = SimpleNamespace(grid=grid, window=1, described=1)
    clip = np.zeros((len(maps), grid.height, grid.width, 3), np.uint8)
    return track_reference(extractor, as_clip(clip), np.float32(queries), settings)


@pytest.mark.parametrize(("chunk", "returns"), [(7, True), (6, False)])
def test_a_point_hidden_at_the_edge_of_a_chunk_is_lost_for_good(monkeypatch, chunk, returns):
    """Frame 5 shows nothing of the field: HeFT has nothing to compare if a chunk ends there."""
    rng = np.random.default_rng(0)
    field = wave_field(channels=32, seed=3, shortest=32)
    maps = translated_maps(field, np.zeros((20, 2)), GRID.rows, GRID.columns, GRID.stride)
    maps[5] = rng.normal(0, 1, maps[5].shape)
    settings = msgspec.structs.replace(SETTINGS, reference_chunk=chunk)
    queries = asked([0], [12], 16, (GRID.width - 16, GRID.height - 16), seed=1)
    tracks = track_given(monkeypatch, GRID, maps, queries, settings)
    hidden = ~tracks.visible[:, 5]
    assert hidden.sum() >= 6
    assert tracks.visible[hidden, 6:].any() == returns
    assert np.isinf(tracks.forward_backward_error[hidden, 6:]).all() == (not returns)
    assert (tracks.confidence[~tracks.visible] < 0.5).all()


PUBLISHED = Path(__file__).parents[4] / "shared/data/heft_tracks_dev.npz"


@pytest.mark.slow
def test_the_tracks_of_the_public_code(monkeypatch):
    """Positions of its own run on given features: two clips of two chunks of 13 maps."""
    path = Path(os.environ.get("VDITRACK_HEFT_TRACKS", PUBLISHED))
    if not path.is_file():
        pytest.skip(f"{path} is absent; VDITRACK_HEFT_TRACKS names the file")
    grid, settings = Grid(16, 28, 16), msgspec.structs.replace(HEFT_MATCHING, reference_chunk=13)
    near, equal = [], []
    with np.load(path) as data:
        for name in sorted({key.split("/")[0] for key in data}):
            maps = data[f"{name}/features"].astype(np.float32).transpose(0, 2, 3, 1)
            x, y, t = data[f"{name}/queries"].T
            queries = np.stack([t, x + 0.5, y + 0.5], axis=1)
            tracks = track_given(monkeypatch, grid, maps, queries, settings)
            error = np.linalg.norm(tracks.points - 0.5 - data[f"{name}/points"], axis=2)
            near.append(error <= 0.1)
            equal.append(tracks.visible == data[f"{name}/visible"])
    for chunk in (slice(0, 13), slice(13, None)):
        assert np.mean([each[:, chunk] for each in near]) >= 0.95
        assert np.mean([each[:, chunk] for each in equal]) >= 0.97


def test_before_its_query_a_point_waits_unseen(tmp_path):
    tracker = Tracker(write_passthrough(tmp_path, frames=4), settings=SETTINGS)
    clip = np.random.default_rng(0).integers(0, 255, (6, 64, 96, 3), np.uint8)
    done = []
    queries = np.float32([[4, 50, 30]])
    tracks = tracker.track(
        clip, queries, mode="reference", progress=lambda now, total: done.append((now, total))
    )
    assert not tracks.visible[0, :4].any()
    assert tracks.visible[0, 4]
    np.testing.assert_allclose(tracks.points[0, :5], np.tile([50, 30], (5, 1)))
    assert np.isinf(tracks.forward_backward_error[0, :4]).all()
    assert tracks.forward_backward_error[0, 4] == 0
    assert done == [(4, 6), (6, 6)]


def test_no_queries(tmp_path):
    tracker = Tracker(write_passthrough(tmp_path, frames=4), settings=SETTINGS)
    tracks = tracker.track(np.zeros((6, 64, 96, 3), np.uint8), np.zeros((0, 3)), mode="reference")
    assert tracks.points.shape == (0, 6, 2)


HEFT_WAN = {
    "source": {
        "checkpoint": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        "block": 18,
        "heads": (1,),
        # Of rotary axes of 44, 42 and 42 channels without the highest 15%, in whole pairs.
        "channels": (*range(6, 44), *range(50, 86), *range(92, 128)),
    },
    "input": {"height": 480, "width": 832, "frames": 25, "described_frames": 25},
    "matching": {
        "argmax_radius": 17.0,
        "search_radius": 42.0,
        "visibility_threshold": 18.0,
        "template_update": 0.05,
    },
}


def differing(folder: Path, change: dict, length=50, queries=((0, 5, 5),)) -> list[str]:
    """Differences from HeFT of its choices for Wan2.1 after a change of some."""
    manifest = write_passthrough(folder).manifest
    parts = {
        part: msgspec.structs.replace(getattr(manifest, part), **{**values, **change.get(part, {})})
        for part, values in HEFT_WAN.items()
    }
    manifest = msgspec.structs.replace(manifest, **parts)
    return list_differences(manifest, manifest.matching, length, np.float32(queries))


def test_nothing_differs_from_heft_where_its_choices_are_made(tmp_path):
    assert differing(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": {"block": 15}}, "block 15, not 18"),
        ({"source": {"heads": (0, 1)}}, "heads [0, 1], not [1]"),
        ({"source": {"channels": (0, 1)}}, "2 channels a head, not 110"),
        ({"source": {"tensor": "queries"}}, "queries, not rotated keys"),
        ({"source": {"rotated": False}}, "unrotated keys, not rotated keys"),
        ({"source": {"random_weights": True}}, "random weights"),
        ({"source": {"checkpoint": "tiny"}}, "of 'tiny', not of HeFT's models"),
        ({"input": {"height": 240, "width": 416}}, "416 x 240, not 832 x 480"),
        ({"input": {"frames": 13, "described_frames": 13}}, "windows of 13 frames, not 25"),
        ({"input": {"described_frames": 1}}, "the newest 1 of a window's 25"),
        ({"input": {"attention": "causal"}}, "attention: causal, to earlier latents"),
        ({"matching": {"search_radius": 40.0}}, "search radius 40, not 42"),
        ({"matching": {"template_update": 0.1}}, "template update 0.1, not 0.05"),
    ],
)
def test_each_difference_from_heft_is_said(tmp_path, change, said):
    (told,) = differing(tmp_path, change)
    assert said in told


def test_what_the_clip_differs_in_is_said(tmp_path):
    told = differing(tmp_path, {}, length=60, queries=[(0, 5, 5), (3, 5, 5), (4, 5, 5)])
    assert told == [
        "the tail is kept: HeFT drops the last 10 of 60 frames",
        "2 of 3 points start after frame 0, where HeFT asks for all",
    ]


def test_the_command_says_what_differs(tmp_path, run_vditrack):
    picture = np.kron(
        np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8),
        np.ones((8, 8, 1), np.uint8),
    )
    write_video(tmp_path / "clip.mp4", [np.roll(picture, t, axis=1) for t in range(6)], range(6))
    command = ["track", "clip.mp4", "--grid", "2", "--reference"]
    told = run_vditrack(*command, cwd=tmp_path)
    as_json = run_vditrack(*command, "--json", cwd=tmp_path)
    assert (told.returncode, as_json.returncode) == (0, 0)
    differs = json.loads(as_json.stdout)["differs_from_heft"]
    assert any("single frames, not windows of 25" in line for line in differs)
    assert any("vditrack tiny" in line for line in differs)
    assert any("drops the last 6 of 6 frames" in line for line in differs)
    for line in differs:
        assert f"differs from HeFT: {line}" in told.stderr
    assert (tmp_path / "clip_tracks" / "overlay.mp4").is_file()
