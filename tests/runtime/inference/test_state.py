"""The state of graphs: what a run passes to the next, in arrays."""

import numpy as np
import pytest

from doubles.step_graph import CHUNK, SIDE, SLOTS, run_steps, write_step_graph
from vditrack.errors import BackendError
from vditrack.inference.onnxruntime import OnnxRuntimeSession
from vditrack.inference.session import TensorSpec, find_state


@pytest.fixture
def session(tmp_path):
    return OnnxRuntimeSession(write_step_graph(tmp_path / "step.onnx"))


def test_runs_update_the_state_and_return_the_rest(session):
    state = session.new_state()
    assert state.nbytes == 4 * SIDE * (SLOTS + 1)
    found, expected = run_steps(session, state, 9)
    np.testing.assert_array_equal(found, expected)
    inputs = {"latents": np.ones((CHUNK, SIDE), np.float32), "places": np.zeros(SLOTS, np.int32)}
    assert set(session.run(inputs, state)) == {"descriptors"}


def test_a_ring_is_written_in_place(session):
    state = session.new_state()
    ring = state.arrays["cache.0"]
    run_steps(session, state, 3)
    assert state.arrays["cache.0"] is ring


def test_a_copy_continues_independently(session):
    state = session.new_state()
    run_steps(session, state, 3)
    other = state.copy()
    run_steps(session, state, 2, 3)
    for continued, first in ((other, 3), (state, 5)):
        found, expected = run_steps(session, continued, 4, first)
        np.testing.assert_array_equal(found, expected)


def test_a_run_that_keeps_nothing_leaves_the_state_as_it_was(session):
    state = session.new_state()
    run_steps(session, state, 3)
    inputs = {"latents": np.ones((CHUNK, SIDE), np.float32), "places": np.zeros(SLOTS, np.int32)}
    session.run(inputs, state, 2, keep=False)
    found, expected = run_steps(session, state, 4, 3)
    np.testing.assert_array_equal(found, expected)


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
