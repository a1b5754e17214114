"""Streams of bundles that keep keys and values, against one pass of diffusers over the clip."""

import sys
from functools import cache

import cv2
import msgspec
import numpy as np
import onnx
import pytest
import torch

from doubles.cuda import CudaDouble, library_double, write_engine
from doubles.manifest import SOURCE, make_manifest
from doubles.passthrough import write_passthrough
from doubles.slow_model import SlowModel, await_description
from doubles.small_cards import make_small_card
from vditrack import Tracker
from vditrack.bundle.folder import load_bundle, seal_bundle
from vditrack.bundle.manifest import Output
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.windows import SlidingWindow, causal_features, clip_features
from vditrack.inference.cuda import Gpu
from vditrack.inference.io_binding import BoundSession
from vditrack.inference.onnxruntime import CPU
from vditrack.inference.tensorrt import EngineSession
from vditrack.stage_timing import record_stages
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.pipeline.backbone import load_backbone
from vditrack_export.pipeline.onnx_export import export_graph

STRIDE, LATENTS = 4, 24
FRAMES = 1 + (LATENTS - 1) * STRIDE
CHUNK, WINDOW = 2, 6


@pytest.fixture(scope="module")
def backbone():
    card = make_small_card(
        "wan2.1-causal-1.3b",
        frames=1 + (WINDOW - 1) * STRIDE,
        temporal_stride=STRIDE,
        attention="causal",
        chunk=CHUNK,
    )
    return load_backbone(card, Weights(None))


@pytest.fixture(scope="module")
def bundle(backbone, tmp_path_factory):
    """The transformer's graph, behind an encoder of mean colours."""
    size, grid, folder = backbone.card.input, backbone.grid, tmp_path_factory.mktemp("bundle")
    shape = {"frames": size.frames, "described": size.described_frames, "rows": 8, "columns": 12}
    colours = write_passthrough(folder, cached=True, temporal_stride=STRIDE, **shape)
    for name in ("encoder.onnx", "encoder_start.onnx"):
        _widen_latents(folder / name, backbone.latent_shape(size)[0])
    graph = backbone.feature_graph(size)
    export_graph(graph.module, graph.examples, folder / "features.onnx", outputs=graph.outputs)
    feature, channels = backbone.card.feature, backbone.channels
    source = msgspec.structs.replace(SOURCE, heads=feature.heads, channels=channels)
    count = len(feature.heads) * len(channels)
    output = Output(rows=grid.rows, columns=grid.columns, stride=grid.stride, channels=count)
    return seal_bundle(folder, make_manifest(size, colours.manifest.encoder, output, source))


def _widen_latents(path, channels: int) -> None:
    """Repeat the three colours of an encoder's latents for more channels, and scale them down.

    Attention would change tokens of large latents by less than a test sees.
    """
    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = ["colours" if name == "latents" else name for name in node.output]
        node.input[:] = ["colours" if name == "latents" else name for name in node.input]
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.arange(channels) % 3, "repeated")
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1 / 128), "scale"))
    model.graph.node.append(
        onnx.helper.make_node("Gather", ["colours", "repeated"], ["large"], axis=1)
    )
    model.graph.node.append(onnx.helper.make_node("Mul", ["large", "scale"], ["latents"]))
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = channels
    onnx.save(model, path)


@pytest.fixture(scope="module")
def clip():
    """Frames of large areas, whose mean colours differ from latent to latent."""
    areas = np.random.default_rng(5).integers(0, 256, (FRAMES, 8, 12, 3), np.uint8)
    return areas.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture(scope="module")
def truth(backbone, bundle, clip):
    """Descriptors of all latents, of one pass of the unmodified model: [T, rows, columns, D]."""
    latents = list(FeatureExtractor(bundle).encoder.encode_clip(clip))
    size, denoiser = backbone.card.input, backbone.card.family.denoiser
    given = backbone.denoising, torch.from_numpy(np.concatenate(latents, axis=2)), backbone.prompt
    model, shape = backbone.checkpoint.transformer, backbone.latent_shape(size)
    with torch.no_grad():
        read = denoiser.read_clip(model, shape, backbone.cut(size), *given)
    return read.reshape(LATENTS, backbone.grid.rows, backbone.grid.columns, -1).numpy()


def assert_close(found, truth):
    assert np.abs(np.stack(found) - truth).max() <= 1e-4 * np.abs(truth).max()


def test_a_stream_is_one_pass_over_the_clip(bundle, clip, truth):
    """After the window has rolled many times, and from copies, which do not meet."""
    window, found, spent = SlidingWindow(FeatureExtractor(bundle)), [], []
    with record_stages(lambda name, _: spent.append(name)):
        for t, frame in enumerate(clip):
            if t in (30, 51):
                other, window = window, window.copy()
                for noise in clip[: 3 * CHUNK * STRIDE]:
                    other.push(noise)
            missing = window.missing
            maps = window.push(frame)
            assert len(maps) == (CHUNK if missing == 1 else 0)
            found += [one.descriptors for one in maps]
    assert_close(found, truth)
    assert spent.count("transformer") == LATENTS // CHUNK + 2 * 3


def test_a_clip_has_the_maps_of_the_stream(bundle, clip, truth):
    extractor, spent = FeatureExtractor(bundle), []
    with record_stages(lambda name, _: spent.append(name)):
        maps = list(clip_features(extractor, clip))
    assert len(maps) == FRAMES
    assert_close([one.descriptors for one in maps[::STRIDE]], truth)
    middle = (maps[4].descriptors + maps[8].descriptors) / 2
    np.testing.assert_allclose(maps[6].descriptors, middle, rtol=1e-4, atol=1e-5)
    assert [spent.count(name) for name in ("encoder", "transformer")] == [LATENTS, LATENTS // CHUNK]
    streamed = list(causal_features(extractor, clip))
    described = [t for t, one in enumerate(streamed) if one is not None]
    assert described == list(range((CHUNK - 1) * STRIDE, FRAMES, CHUNK * STRIDE))
    assert len(list(clip_features(extractor, clip[:7]))) == 7


def test_streams_of_a_tracker_do_not_meet(bundle, clip):
    """Two streams that take turns, one that is reset, and a clip in between."""
    tracker = Tracker(load_bundle(bundle.root))
    points = [[30.0, 30.0], [60.0, 40.0]]
    queries = [[0, *point] for point in points]
    alone = tracker.track(clip[:30], queries, mode="causal")
    first, second = tracker.stream(), tracker.stream()
    for t in range(10):
        second.push(clip[t + 5], float(t))
    second.reset()
    for t, frame in enumerate(clip[:30]):
        for stream in (first, second):
            update = stream.push(frame, float(t))
            if t == 0:
                stream.add(points)
            else:
                np.testing.assert_array_equal(update.points, alone.points[:, t])
        if t == 20:
            tracker.track(clip[:9], queries)


def stream_maps(extractor, clip, copied_at):
    """Yield the descriptors of a stream, which is copied after a frame."""
    window = SlidingWindow(extractor)
    for t, frame in enumerate(clip):
        if t == copied_at:
            other, window = window, window.copy()
            for noise in clip[: 2 * CHUNK * STRIDE]:
                other.push(noise)
        yield [one.descriptors for one in window.push(frame)]


def test_a_stream_on_a_gpu_moves_frames_and_descriptors(bundle, clip, truth, monkeypatch, tmp_path):
    """Caches, latents, keys and values do not cross: with doubles of the GPU and its engines."""
    cuda = CudaDouble()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", library_double(cuda))
    gpu = cache(Gpu)

    def open_engine(graph):
        path = write_engine(tmp_path / f"{graph.stem}.engine", graph)
        return EngineSession(path, "tensorrt", open_gpu=gpu)

    found = []
    for maps in stream_maps(FeatureExtractor(bundle, open_engine), clip, 30):
        found += maps
        if len(found) == CHUNK:
            cuda.moved = dict.fromkeys(cuda.moved, 0)
    assert_close(found, truth)
    # Those of the copied stream too, and the frames of its last latent.
    steps = LATENTS // CHUNK - 1 + 2
    allowed = steps * CHUNK * (STRIDE * clip[0].nbytes + truth[0].nbytes)
    assert 0 < cuda.moved["up"] + cuda.moved["down"] <= 1.1 * allowed


def test_a_stream_by_io_binding_is_one_pass_over_the_clip(bundle, clip, truth):
    extractor = FeatureExtractor(bundle, lambda graph: BoundSession(graph, CPU))
    found = [one for maps in stream_maps(extractor, clip, 30) for one in maps]
    assert_close(found, truth)


def _frames(count: int):
    """A smooth texture that moves by two pixels a frame."""
    noise = np.random.default_rng(7).integers(0, 256, (64, 96 + 2 * count, 3), np.uint8)
    sheet = cv2.normalize(cv2.GaussianBlur(noise, None, 3), None, 0, 255, cv2.NORM_MINMAX)
    return [sheet[:, 2 * t : 2 * t + 96].copy() for t in range(count)]


def test_a_live_stream_equals_the_stream(bundle):
    """Pushes wait up to the first map, and then because a frame comes every ten seconds."""
    tracker, points = Tracker(bundle), np.float32([[30.5, 20.25], [60, 40]])
    stream = tracker.stream()
    with tracker.live() as live:
        for t, frame in enumerate(_frames(15)):
            wanted, got = stream.push(frame, 10.0 * t), live.push(frame, 10.0 * t)
            for name in ("ids", "points", "visible", "confidence", "forward_backward_error", "age"):
                np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))
            assert got.bridged == (t not in (4, 12))
            if t in (0, 6):
                assert (stream.add(points) == live.add(points)).all()


def test_a_slow_model_gets_each_latent_of_a_chunk_when_it_is_complete(bundle, monkeypatch):
    slow = SlowModel(bundle)
    slow.let.release()
    groups, given = [], {}
    with slow.live() as live:
        encode = live._extractor.encoder.encode
        monkeypatch.setattr(
            live._extractor.encoder,
            "encode",
            lambda group, state: (
                groups.append([int(one[0, 0, 0]) for one in group]),
                encode(group, state),
            )[1],
        )
        for t, frame in enumerate(_frames(25)):
            frame[:8, :8] = t
            assert live.push(frame, t / 30).bridged == (t != 4)
            if t == 0:
                live.add(np.float32([[30.5, 20.25]]))
            if t == 17:
                slow.let.release()
            if live._job is not None and (t < 12 or 17 <= t < 22):
                await_description(live)
            given[t] = list(groups)
        assert live.described_rate == pytest.approx(30 / 8)
        slow.let.release(100)
        await_description(live)
    # The transformer is busy with the latents of frames 5 to 12 until frame 17.
    first = [[0], [1, 2, 3, 4], [5, 6, 7, 8]]
    assert given[0] == first[:1] and given[4] == given[7] == first[:2]
    assert given[8] == given[11] == first
    assert given[18] == given[21] == [*first, [9, 10, 11, 12], [15, 16, 17, 18]]
    assert groups == [*given[21], [19, 20, 21, 22]]
