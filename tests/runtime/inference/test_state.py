"""The state of graphs: what a run passes to the next, in arrays."""

import numpy as np
import onnxruntime
import pytest

from doubles.passthrough import write_passthrough
from doubles.step_graph import CHUNK, SIDE, SLOTS, run_steps, write_step_graph
from vditrack.errors import BackendError
from vditrack.features.latent_encoder import LatentEncoder
from vditrack.inference.array_graphs import encode_concatenation_graph, encode_scatter_graph
from vditrack.inference.io_binding import BoundSession
from vditrack.inference.onnxruntime import CPU, OnnxRuntimeSession, open_session
from vditrack.inference.session import TensorSpec, find_state


@pytest.fixture(params=[OnnxRuntimeSession, BoundSession])
def session(request, tmp_path):
    """Sessions in arrays, and by IO binding: on the CPU, since this machine has no GPU."""
    return request.param(write_step_graph(tmp_path / "step.onnx"), CPU)


def test_runs_update_the_state_and_return_the_rest(session):
    state = session.new_state()
    assert state.nbytes == 4 * SIDE * (SLOTS + 1)
    found, expected = run_steps(session, state, 9)
    np.testing.assert_array_equal(found, expected)
    inputs = {"latents": np.ones((CHUNK, SIDE), np.float32), "places": np.zeros(SLOTS, np.int32)}
    assert set(session.run(inputs, state)) == {"descriptors"}


def test_a_ring_is_written_in_place(session):
    state = session.new_state()
    values = state.arrays if isinstance(session, OnnxRuntimeSession) else state.values
    ring = values["cache.0"]
    run_steps(session, state, 3)
    assert values["cache.0"] is ring
    assert np.any(np.asarray(ring if isinstance(ring, np.ndarray) else ring.numpy()))


def test_a_copy_continues_independently(session):
    state = session.new_state()
    run_steps(session, state, 3)
    other = state.copy()
    assert other.nbytes == state.nbytes
    run_steps(session, state, 2, 3)
    for continued, first in ((other, 3), (state, 5)):
        found, expected = run_steps(session, continued, 4, first)
        np.testing.assert_array_equal(found, expected)


def test_a_bound_run_that_cannot_update_its_state_is_refused(tmp_path):
    session = BoundSession(write_step_graph(tmp_path / "step.onnx"), CPU)
    inputs = {"latents": np.ones((CHUNK, SIDE), np.float32), "places": np.zeros(SLOTS, np.int32)}
    with pytest.raises(BackendError, match="it needs a state"):
        session.run(inputs)
    for slot in (-1, SLOTS - 1):
        with pytest.raises(BackendError, match=f"ring 'cache.0' has no slot {slot}"):
            session.run(inputs, session.new_state(), slot)
    with pytest.raises(BackendError, match=r"step\.onnx loads but fails to run"):
        session.run({}, session.new_state())


def test_bound_graphs_of_a_bundle_give_what_arrays_give(tmp_path):
    bundle = write_passthrough(tmp_path / "bundle", frames=9, cached=True, temporal_stride=4)
    clip = list(np.random.default_rng(0).integers(0, 255, (17, 64, 96, 3), np.uint8))
    found = []
    for opened in (open_session, lambda graph: BoundSession(graph, CPU)):
        encoder, features = LatentEncoder(bundle, opened), opened(bundle.features)
        latents = list(encoder.encode_clip(clip))
        windows = [latents[first : first + 3] for first in range(3)]
        found.append([features.run({"latents": window})["descriptors"] for window in windows])
    np.testing.assert_array_equal(*found)


def test_bound_numbers_that_are_not_finite_are_refused(tmp_path):
    bundle = write_passthrough(tmp_path / "bundle", context=float("nan"))
    session = BoundSession(bundle.features, CPU)
    with pytest.raises(BackendError, match=r"features\.onnx gives wrong results"):
        session.run({"latents": np.zeros(session.inputs["latents"].shape, np.float32)})


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float16, np.float32])
def test_graphs_of_one_node_join_and_write_slots(dtype):
    parts = [np.full((1, 2, side, 3), side).astype(dtype) for side in (1, 2)]
    graphs = (encode_concatenation_graph(dtype, 2), encode_scatter_graph(dtype))
    join, scatter = (onnxruntime.InferenceSession(graph) for graph in graphs)
    (joined,) = join.run(None, {"0": parts[0], "1": parts[1]})
    np.testing.assert_array_equal(joined, np.concatenate(parts, axis=2))
    given = {"data": np.zeros((4, 3), dtype), "updates": np.ones((2, 3), dtype)}
    (written,) = scatter.run(None, {**given, "indices": np.array([[1], [2]])})
    np.testing.assert_array_equal(written[:, 0], np.array([0, 1, 1, 0], dtype))


def test_a_graph_may_give_state_that_it_does_not_take():
    spec = TensorSpec((2, 3), np.dtype(np.float16))
    state = find_state({}, {"latents": spec, "next_cache.0": spec})
    assert state.specs == {"cache.0": spec}


@pytest.mark.parametrize(
    ("output", "shape", "dtype"),
    [
        ("next_cache", (4, 2), np.float32),
        ("next_cache", (4, 3), np.float16),
        ("slot_cache", (5, 3), np.float32),
        ("slot_cache", (1, 2), np.float32),
        ("slot_cache", (1, 3), np.float16),
        ("slot_other", (1, 3), np.float32),
    ],
)
def test_an_output_that_does_not_fit_its_state_is_refused(output, shape, dtype):
    inputs = {"cache": TensorSpec((4, 3), np.dtype(np.float32))}
    with pytest.raises(BackendError, match=rf"output '{output}'.* Export the bundle again"):
        find_state(inputs, {output: TensorSpec(shape, np.dtype(dtype))})


def test_a_state_of_another_backend_is_refused(session):
    with pytest.raises(BackendError, match="dict is not a state of this backend"):
        session.run({}, {})
