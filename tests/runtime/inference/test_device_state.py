"""State on the GPU: what engines pass from run to run, and what crosses to the host."""

import gc
import sys
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import tensorrt_rtx

from doubles.cuda import CudaDouble, library_double, write_engine
from doubles.passthrough import write_passthrough
from doubles.step_graph import CHUNK, SIDE, SLOTS, run_steps, write_step_graph
from vditrack.errors import BackendError
from vditrack.features.latent_encoder import LatentEncoder
from vditrack.inference.cuda import Gpu
from vditrack.inference.onnxruntime import open_session
from vditrack.inference.tensorrt import EngineSession


@pytest.fixture
def cuda(monkeypatch):
    """Double: this machine has no GPU."""
    double = CudaDouble()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", double)
    return double


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def target(request, monkeypatch, cuda):
    """Each library, with doubles of its engines."""
    engines = []
    library = library_double(cuda, engines=engines)
    library.engines = engines
    monkeypatch.setitem(sys.modules, request.param.replace("-", "_"), library)
    return request.param


@pytest.fixture
def step(target, tmp_path):
    path = write_engine(tmp_path / "step.engine", write_step_graph(tmp_path / "step.onnx"))
    return EngineSession(path, target)


INPUTS = {"latents": np.ones((CHUNK, SIDE), np.float32), "places": np.zeros(SLOTS, np.int32)}


def test_the_state_stays_on_the_gpu(step, cuda):
    state = step.new_state()
    assert state.nbytes == 4 * SIDE * (SLOTS + 1)
    run_steps(step, state, 4)
    before, cuda.moved = cuda.moved, dict.fromkeys(cuda.moved, 0)
    run_steps(step, state, 2, 4)
    size = INPUTS["latents"].nbytes
    assert cuda.moved == {"up": 2 * (size + 4 * SLOTS), "down": 2 * size, "within": 2 * size}
    assert before["within"] == 4 * size


def test_steps_are_as_on_the_host(step):
    found, expected = run_steps(step, step.new_state(), 9)
    np.testing.assert_array_equal(found, expected)


def test_a_stream_alternates_between_two_recorded_graphs(step, cuda):
    run_steps(step, step.new_state(), 8)
    assert cuda.calls == ["execute"] * 2 + ["launch"] * 6
    assert len(cuda.graphs) == 2


def test_what_cannot_be_recorded_is_executed(step, cuda):
    cuda.records = False
    found, expected = run_steps(step, step.new_state(), 6)
    np.testing.assert_array_equal(found, expected)
    assert cuda.calls == ["execute"] * 6


def test_streams_have_a_state_each(step):
    states = [step.new_state() for _ in range(3)]
    for first in range(0, 12, 2):
        for state in states:
            found, expected = run_steps(step, state, 2, first)
            np.testing.assert_array_equal(found, expected)


def test_a_copy_continues_independently(step):
    state = step.new_state()
    run_steps(step, state, 3)
    other = state.copy()
    run_steps(step, state, 2, 3)
    for continued, first in ((other, 3), (state, 5)):
        found, expected = run_steps(step, continued, 4, first)
        np.testing.assert_array_equal(found, expected)


def test_memory_of_streams_is_reused(step, cuda):
    for _ in range(3):
        run_steps(step, step.new_state(), 3)
    before = set(cuda.device)
    for _ in range(10):
        run_steps(step, step.new_state(), 3)
    assert set(cuda.device) == before


def test_a_state_of_another_graph_or_backend_is_refused(step, target, tmp_path):
    bundle = write_passthrough(tmp_path / "bundle", frames=5, cached=True, temporal_stride=4)
    other = EngineSession(write_engine(tmp_path / "other.engine", bundle.encoder), target)
    with pytest.raises(BackendError, match="the state is of another graph"):
        step.run(INPUTS, other.new_state())
    with pytest.raises(BackendError, match="ArrayState is not a state of this backend"):
        step.run(INPUTS, open_session(bundle.encoder).new_state())
    with pytest.raises(BackendError, match="it needs a state"):
        step.run(INPUTS)
    for slot in (-1, SLOTS - 1):
        with pytest.raises(BackendError, match=f"ring 'cache.0' has no slot {slot}"):
            step.run(INPUTS, step.new_state(), slot)


# --- a bundle ------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path):
    return write_passthrough(tmp_path / "bundle", frames=5, cached=True, temporal_stride=4)


@pytest.fixture
def open_graph(target, tmp_path):
    """Opens the engines of a bundle on one GPU."""
    gpu = cache(Gpu)

    def open_engine(graph):
        path = write_engine(tmp_path / "build" / f"{graph.stem}.engine", graph)
        return EngineSession(path, target, open_gpu=gpu)

    return open_engine


def frames(count):
    return np.random.default_rng(0).integers(0, 255, (count, 64, 96, 3), np.uint8)


def test_a_frame_goes_up_and_descriptors_come_down(bundle, open_graph, cuda):
    """Neither the encoder's caches nor latents cross."""
    encoder, features = LatentEncoder(bundle, open_graph), open_graph(bundle.features)
    clip = frames(21)
    latent, state = encoder.encode(clip[:1], None)
    window = [latent, latent]
    for first in range(1, 21, 4):
        cuda.moved = dict.fromkeys(cuda.moved, 0)
        latent, state = encoder.encode(list(clip[first : first + 4]), state)
        window = [window[-1], latent]
        descriptors = features.run({"latents": window})["descriptors"]
        assert cuda.moved["up"] == 4 * clip[0].nbytes
        assert cuda.moved["down"] == descriptors.nbytes
    assert state.nbytes > 0


def test_engines_of_a_bundle_give_what_its_graphs_give(bundle, open_graph):
    clip, found = list(frames(13)), []
    for opened in (open_graph, open_session):
        encoder, features = LatentEncoder(bundle, opened), opened(bundle.features)
        latents = list(encoder.encode_clip(clip))
        windows = pairwise(latents)
        found.append([features.run({"latents": list(pair)})["descriptors"] for pair in windows])
    np.testing.assert_array_equal(*found)


def test_parts_that_do_not_make_an_input_are_refused(bundle, open_graph):
    encoder, features = LatentEncoder(bundle, open_graph), open_graph(bundle.features)
    latents = [encoder.encode(frames(1), None)[0]] * 3
    with pytest.raises(BackendError, match=r"arrays of .* do not make"):
        features.run({"latents": latents})


def test_engines_share_one_workspace(bundle, open_graph, cuda, monkeypatch):
    sessions = [open_graph(bundle.encoder), open_graph(bundle.features)]
    addresses, get = [], Gpu.workspace

    def workspace(gpu, size):
        addresses.append(get(gpu, size))
        return addresses[-1]

    monkeypatch.setattr(Gpu, "workspace", workspace)
    # The smaller one first.
    sessions[1].run({"latents": np.zeros((1, 3, 2, 8, 12), np.float32)})
    sessions[0].run({"frames": frames(4)}, sessions[0].new_state())
    assert len(addresses) == 2 and len(set(addresses)) == 1


def test_a_gpu_that_is_absent_is_refused(cuda):
    cuda.devices = 2
    Gpu(1)
    assert cuda.current == 1
    with pytest.raises(BackendError, match=r"there is no GPU 2: CUDA finds 2, counted from 0"):
        Gpu(2)


def test_the_runtime_cache_lives_as_long_as_its_context(step, target):
    if target == "tensorrt-rtx":
        (engine,) = sys.modules["tensorrt_rtx"].engines
        config = engine.configs[0]
        assert config.cuda_graph_strategy == tensorrt_rtx.CudaGraphStrategy.DISABLED
        assert any(config.compiled in gc.get_referents(owners) for owners in [step._owners])
