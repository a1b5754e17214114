"""Feature maps against direct interpolation, and windows against the frames they must cover."""

import gc
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from doubles.passthrough import write_passthrough
from vditrack import BundleError
from vditrack.coordinates import Grid, cells_from_pixels, pixels_from_cells
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap
from vditrack.features.windows import SlidingWindow, causal_features, clip_features
from vditrack.stage_timing import record_stages


def upsampled(descriptors: np.ndarray, stride: int) -> np.ndarray:
    """Return descriptors at every pixel centre, interpolated one by one: the plain way."""
    maps = torch.from_numpy(descriptors).permute(2, 0, 1)[None]
    full = torch.nn.functional.interpolate(
        maps, scale_factor=stride, mode="bilinear", align_corners=False
    )
    return full[0].permute(1, 2, 0).numpy()


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 6), st.sampled_from([1, 4, 5, 8]))
@settings(max_examples=40)
def test_norms_of_interpolated_descriptors(seed, rows, columns, stride):
    descriptors = np.random.default_rng(seed).normal(size=(rows, columns, 3)).astype(np.float32)
    features = FeatureMap(Grid(rows, columns, stride), descriptors)
    expected = 1 / np.linalg.norm(upsampled(descriptors, stride), axis=2)
    np.testing.assert_allclose(features.pixel_inverse_norms, expected, rtol=2e-3)


def test_half_cells_lie_between_cells():
    descriptors = np.random.default_rng(0).normal(size=(2, 2, 5)).astype(np.float32)
    half = FeatureMap(Grid(2, 2, 8), descriptors).half_cell_inverse_norms
    assert half.shape == (3, 3)
    middle = descriptors.reshape(-1, 5).mean(axis=0)
    np.testing.assert_allclose(half[1, 1], 1 / np.linalg.norm(middle), rtol=1e-5)
    np.testing.assert_allclose(half[0, 2], 1 / np.linalg.norm(descriptors[0, 1]), rtol=1e-5)


def test_sample_reads_what_upsampling_holds():
    """Away from the border, a sample is the weighted mean of the 3 x 3 upsampled pixels."""
    descriptors = np.random.default_rng(1).normal(size=(4, 6, 7)).astype(np.float32)
    features = FeatureMap(Grid(4, 6, 8), descriptors)
    full = upsampled(descriptors, 8)
    y, x = (axis.ravel() for axis in np.mgrid[6:26, 6:42])
    expected = np.zeros((len(x), 7))
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            expected += np.exp(-3 * np.hypot(dx, dy)) * full[y + dy, x + dx]
    expected /= np.exp(-3 * np.hypot(*np.mgrid[-1:2, -1:2])).sum()
    centres = np.stack([x + 0.5, y + 0.5], axis=1).astype(np.float32)
    np.testing.assert_allclose(features.sample(centres, 3.0), expected, atol=1e-5)


def test_cell_centres_follow_the_convention():
    assert cells_from_pixels(np.array([4.0, 12.0]), 8).tolist() == [0.0, 1.0]
    assert pixels_from_cells(np.array([0.0, 1.0]), 8).tolist() == [4.0, 12.0]


def numbered_frames(count: int) -> np.ndarray:
    """Frames whose grey level is their index plus one."""
    return np.stack([np.full((64, 96, 3), i + 1, np.uint8) for i in range(count)])


@pytest.mark.parametrize(
    ("window", "encoder_frames", "described"),
    [(1, 1, 1), (2, 1, 1), (2, 2, 2), (4, 1, 4), (4, 2, 3), (4, 4, 1), (4, 4, 4)],
)
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 11])
def test_every_frame_has_its_own_features(tmp_path, window, encoder_frames, described, count):
    bundle = write_passthrough(
        tmp_path, frames=window, encoder_frames=encoder_frames, described=described
    )
    extractor = FeatureExtractor(bundle)
    frames = numbered_frames(count)
    for source in (clip_features, causal_features):
        levels = [float(features.descriptors.mean()) for features in source(extractor, frames)]
        assert levels == [float(i + 1) for i in range(count)]


def test_frames_are_resized_to_the_model(tmp_path):
    extractor = FeatureExtractor(write_passthrough(tmp_path, rows=8, columns=12))
    frame = np.zeros((480, 640, 3), np.uint8)
    frame[:240] = 200
    (features,) = clip_features(extractor, [frame])
    assert features.descriptors.shape == (8, 12, 3)
    np.testing.assert_array_equal(features.descriptors[:4], 200)
    np.testing.assert_array_equal(features.descriptors[4:], 0)


# Caches, and latents that share frames, against the same written out for grey frames. An encoder
# with caches adds half of the latent before and a quarter of the one before that; CONTEXT times a
# window's first latent is added to its descriptors, so that these tell where the window begins.

CONTEXT = 3.0


def greys(count: int) -> list[int]:
    return np.random.default_rng(count).integers(0, 256, count).tolist()


def as_frames(levels: list[int]) -> np.ndarray:
    return np.stack([np.full((64, 96, 3), level, np.uint8) for level in levels])


def read(features) -> list[float]:
    """Level of every map, which is the same in all its cells and channels; NaN for no map."""
    maps = [np.full((1, 1, 1), np.nan) if one is None else one.descriptors for one in features]
    assert not any(np.ptp(one) > 0 for one in maps)
    return [float(one[0, 0, 0]) for one in maps]


def latents_of(levels: list[int], stride: int, cached: bool) -> np.ndarray:
    """Latents of frames that begin a clip; the last frame fills its group."""
    filled = [*levels, *[levels[-1]] * (-(len(levels) - 1) % stride)]
    groups = [[filled[0]], *(filled[i : i + stride] for i in range(1, len(filled), stride))]
    latents = [0.0, 0.0]
    for group in groups:
        lent = latents[-1] / 2 + latents[-2] / 4 if cached else 0
        latents.append(sum(group) / len(group) + lent)
    return np.array(latents[2:])


def spread(latents: np.ndarray, stride: int, count: int) -> np.ndarray:
    """Values of ``count`` frames, of which frame t lies at latent t / stride."""
    return np.interp(np.arange(count) / stride, np.arange(len(latents)), latents)


def in_chunks(levels: list[int], window: int, stride: int, cached: bool) -> np.ndarray:
    """Windows that begin anew, overlap by a frame, and end with the clip."""
    count = len(levels)
    values = np.full(count, np.nan)
    for start in range(0, count, max(1, window - 1)):
        first = max(0, min(start, count - window))
        within = [levels[min(first + i, count - 1)] for i in range(window)]
        latents = latents_of(within, stride, cached)
        described = spread(latents + CONTEXT * latents[0], stride, window)
        for i in range(min(window, count - first)):
            if np.isnan(values[first + i]):
                values[first + i] = described[i]
    return values


def sliding(levels: list[int], length: int, described: int, stride: int) -> np.ndarray:
    """Windows of ``length`` latents that describe the newest; the encoder goes on."""
    latents = latents_of(levels, stride, cached=True)
    padded = [latents[0]] * (length - described) + list(latents)
    begins = [
        max(0, min(k // described * described, len(padded) - length)) for k in range(len(latents))
    ]
    values = latents + CONTEXT * np.array([padded[begin] for begin in begins])
    return spread(values, stride, len(levels))


def streamed(levels: list[int], length: int, stride: int) -> list[float]:
    """A frame that completes a latent ends a clip of its own; its newest latents are the window."""
    clips = [latents_of(levels[: t + 1], stride, cached=True) for t in range(len(levels))]
    return [
        clip[-1] + CONTEXT * clip[max(0, len(clip) - length)] if t % stride == 0 else np.nan
        for t, clip in enumerate(clips)
    ]


COUNTS = [1, 2, 4, 5, 6, 9, 10, 13, 18]


@pytest.mark.parametrize(
    ("stride", "window"), [(1, 1), (1, 2), (1, 4), (4, 1), (4, 5), (4, 9), (4, 13)]
)
def test_windows_with_caches_begin_anew(tmp_path, stride, window):
    bundle = write_passthrough(
        tmp_path, frames=window, cached=True, temporal_stride=stride, context=CONTEXT
    )
    extractor = FeatureExtractor(bundle)
    for levels in map(greys, COUNTS):
        frames = as_frames(levels)
        expected = in_chunks(levels, window, stride, cached=True)
        np.testing.assert_allclose(read(clip_features(extractor, frames)), expected, rtol=1e-5)
        expected = streamed(levels, extractor.latents, stride)
        np.testing.assert_allclose(read(causal_features(extractor, frames)), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("stride", "window", "described"),
    [(1, 2, 1), (1, 4, 1), (1, 4, 3), (4, 5, 4), (4, 9, 4), (4, 9, 8), (4, 13, 4), (4, 17, 8)],
)
def test_caches_go_on_where_windows_slide(tmp_path, stride, window, described):
    bundle = write_passthrough(
        tmp_path,
        frames=window,
        cached=True,
        temporal_stride=stride,
        described=described,
        context=CONTEXT,
    )
    extractor = FeatureExtractor(bundle)
    length = extractor.latents
    for levels in map(greys, COUNTS):
        frames = as_frames(levels)
        expected = sliding(levels, length, described // stride, stride)
        np.testing.assert_allclose(read(clip_features(extractor, frames)), expected, rtol=1e-5)
        expected = streamed(levels, length, stride)
        np.testing.assert_allclose(read(causal_features(extractor, frames)), expected, rtol=1e-5)


@pytest.mark.parametrize("window", [5, 9])
def test_an_encoder_of_whole_windows_whose_latents_share_frames(tmp_path, window):
    bundle = write_passthrough(
        tmp_path, frames=window, encoder_frames=window, temporal_stride=4, context=CONTEXT
    )
    extractor = FeatureExtractor(bundle)
    for levels in map(greys, COUNTS):
        frames = as_frames(levels)
        expected = in_chunks(levels, window, stride=4, cached=False)
        np.testing.assert_allclose(read(clip_features(extractor, frames)), expected, rtol=1e-5)
        expected = []
        for t in range(len(levels)):
            within = [levels[max(0, t - window + 1 + i)] for i in range(window)]
            latents = latents_of(within, stride=4, cached=False)
            expected.append(latents[-1] + CONTEXT * latents[0] if t % 4 == 0 else np.nan)
        np.testing.assert_allclose(read(causal_features(extractor, frames)), expected, rtol=1e-5)


def test_descriptors_between_latents_lie_between_them(tmp_path):
    """In every cell and channel: the frames are noise, and the clip is one window."""
    extractor = FeatureExtractor(
        write_passthrough(tmp_path, frames=9, cached=True, temporal_stride=4)
    )
    frames = np.random.default_rng(0).integers(0, 256, (9, 64, 96, 3), np.uint8)
    cells = frames.reshape(9, 8, 8, 12, 8, 3).mean(axis=(2, 4))
    first = cells[0]
    second = cells[1:5].mean(axis=0) + first / 2
    third = cells[5:].mean(axis=0) + second / 2 + first / 4
    maps = [features.descriptors for features in clip_features(extractor, frames)]
    ahead = [0, 0.25, 0.5, 0.75]
    expected = [
        *((1 - weight) * first + weight * second for weight in ahead),
        *((1 - weight) * second + weight * third for weight in ahead),
        third,
    ]
    np.testing.assert_allclose(maps, expected, rtol=1e-5)
    assert {one.dtype for one in maps} == {np.dtype(np.float32)}


def test_streams_of_one_extractor_do_not_meet(tmp_path):
    extractor = FeatureExtractor(
        write_passthrough(tmp_path, frames=9, cached=True, temporal_stride=4)
    )
    clips = as_frames(greys(11)), as_frames(greys(11)[::-1])
    apart = [read(causal_features(extractor, clip)) for clip in clips]
    windows = SlidingWindow(extractor), SlidingWindow(extractor)
    found = [[], []]
    for t, frames in enumerate(zip(*clips, strict=True)):
        for number, frame in enumerate(frames):
            maps = windows[number].push(frame)
            found[number].append(read(maps)[-1] if maps else np.nan)
            assert windows[number].missing == 4 - t % 4
    np.testing.assert_array_equal(found, apart)


@pytest.mark.parametrize("shape", [{"cached": True}, {"encoder_frames": 9}])
def test_a_copied_window_goes_on_alone(tmp_path, shape):
    extractor = FeatureExtractor(
        write_passthrough(tmp_path, frames=9, temporal_stride=4, context=CONTEXT, **shape)
    )
    frames, others = as_frames(greys(19)), as_frames(greys(19)[::-1])
    window = SlidingWindow(extractor)
    for frame in frames[:7]:
        window.push(frame)
    copied = window.copy()
    for t in range(7, 19):
        copied.push(others[t])
    found = [window.push(frame) for frame in frames[7:]]
    expected = read(causal_features(extractor, frames))[7:]
    np.testing.assert_array_equal([read(maps)[0] if maps else np.nan for maps in found], expected)


@pytest.mark.parametrize("stride", [1, 4])
def test_a_window_with_caches_does_not_grow(tmp_path, stride):
    extractor = FeatureExtractor(
        write_passthrough(tmp_path, frames=9, cached=True, temporal_stride=stride)
    )
    window = SlidingWindow(extractor)
    frames = as_frames(greys(10))
    sizes = []
    tracemalloc.start()
    # ONNX Runtime allocates less and less at each run, until a few hundred are done.
    for t in range(480):
        window.push(frames[t % 10])
        if t in (399, 479):
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    # One latent kept a push would be 92 kB.
    assert sizes[1] - sizes[0] < 20_000


@pytest.mark.parametrize(
    ("shape", "runs", "windows"),
    [
        ({"frames": 2, "described": 1}, 17, 17),
        ({"frames": 5}, 17, 4),
        ({"frames": 5, "cached": True}, 4 * 5, 4),
        ({"frames": 5, "described": 4, "cached": True}, 17, 5),
        ({"frames": 9, "cached": True, "temporal_stride": 4}, 2 * 3, 2),
        ({"frames": 9, "described": 4, "cached": True, "temporal_stride": 4}, 5, 5),
        ({"frames": 9, "described": 8, "cached": True, "temporal_stride": 4}, 5, 3),
    ],
)
def test_nothing_runs_more_often_than_it_must(tmp_path, shape, runs, windows):
    extractor = FeatureExtractor(write_passthrough(tmp_path, **shape))
    frames = numbered_frames(17)
    latents = 17 if shape.get("temporal_stride", 1) == 1 else 5
    for source, expected in (
        (clip_features, [17, runs, windows]),
        (causal_features, [17, latents, latents]),
    ):
        told = []
        with record_stages(lambda name, _, told=told: told.append(name)):
            list(source(extractor, frames))
        assert [told.count(name) for name in ("resize", "encoder", "transformer")] == expected


def test_a_graph_that_is_not_what_the_manifest_claims_is_named(tmp_path):
    small = write_passthrough(tmp_path / "small", rows=4, columns=4)
    large = write_passthrough(tmp_path / "large")
    (large.root / "features.onnx").write_bytes(small.features.read_bytes())
    with pytest.raises(BundleError, match=r"features\.onnx.*descriptors"):
        FeatureExtractor(large)


@pytest.mark.parametrize(
    ("of", "graph", "other", "complaint"),
    [
        ({"cached": True}, "encoder", {}, r"'cache\.0' is missing"),
        ({}, "encoder", {"cached": True}, r"'cache\.0' is not in the manifest"),
        ({"frames": 5, "encoder_frames": 5}, "encoder", {"encoder_frames": 4}, "'frames' should"),
        (
            {"frames": 5, "encoder_frames": 5, "temporal_stride": 4},
            "encoder",
            {"frames": 5, "encoder_frames": 5},
            r"'latents' should be \[1, channels, 2, rows, columns\].*\[1, 3, 5, 8, 12\]",
        ),
        (
            {"frames": 5, "cached": True, "temporal_stride": 4},
            "encoder_start",
            {},
            r"'next_cache\.0' is missing",
        ),
        (
            {"frames": 9, "cached": True, "temporal_stride": 4},
            "features",
            {"frames": 9},
            r"'descriptors' should be .*\(3, 8, 12, 3\).*\(9, 8, 12, 3\)",
        ),
    ],
)
def test_graphs_of_another_bundle_are_refused(tmp_path, of, graph, other, complaint):
    bundle = write_passthrough(tmp_path / "bundle", **of)
    another = write_passthrough(tmp_path / "another", **other)
    taken = "encoder.onnx" if graph == "encoder_start" else f"{graph}.onnx"
    (bundle.root / f"{graph}.onnx").write_bytes((another.root / taken).read_bytes())
    with pytest.raises(BundleError, match=rf"{graph}\.onnx: tensor {complaint}"):
        FeatureExtractor(bundle)
