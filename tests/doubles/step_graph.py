"""A graph with state: a ring that it reads by place, and a sum that each run replaces."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

SLOTS, CHUNK, SIDE = 4, 2, 3
"""Slots of the ring, slots that a run writes, and numbers in a slot."""


def write_step_graph(path: Path) -> Path:
    """Write the graph: descriptors = newest + sum of the filled slots + sum.

    Slots with a negative place are empty, whatever they hold.
    """
    value, real = helper.make_tensor_value_info, TensorProto.FLOAT
    nodes = [
        helper.make_node("GreaterOrEqual", ["places", "zero"], ["filled"]),
        helper.make_node("Unsqueeze", ["filled", "last"], ["column"]),
        helper.make_node("Where", ["column", "cache.0", "none"], ["read"]),
        helper.make_node("ReduceSum", ["read", "first"], ["older"], keepdims=1),
        helper.make_node("Sum", ["latents", "older", "sum"], ["descriptors"]),
        helper.make_node("Identity", ["latents"], ["slot_cache.0"]),
        helper.make_node("ReduceSum", ["latents", "first"], ["added"], keepdims=1),
        helper.make_node("Add", ["sum", "added"], ["next_sum"]),
    ]
    constants = {
        "zero": np.array(0, np.int32),
        "none": np.array(0, np.float32),
        "first": np.array([0]),
        "last": np.array([1]),
    }
    graph = helper.make_graph(
        nodes,
        "step",
        [
            value("latents", real, [CHUNK, SIDE]),
            value("places", TensorProto.INT32, [SLOTS]),
            value("cache.0", real, [SLOTS, SIDE]),
            value("sum", real, [1, SIDE]),
        ],
        [
            value("descriptors", real, [CHUNK, SIDE]),
            value("slot_cache.0", real, [CHUNK, SIDE]),
            value("next_sum", real, [1, SIDE]),
        ],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def run_steps(session, state, steps, first=0):
    """Run steps of random latents from a state; return the descriptors and what they should be.

    Args:
        session: of the graph.
        state: its state after ``first`` steps from zeros with the same latents.
        steps: how many to run.
        first: the number of the first step.

    """
    latents = np.random.default_rng(0).integers(0, 9, (first + steps, CHUNK, SIDE))
    latents = latents.astype(np.float32)
    found, expected = [], []
    for step in range(first, first + steps):
        slot = step * CHUNK % SLOTS
        places = (np.arange(SLOTS, dtype=np.int32) - slot) % SLOTS
        places = np.where(np.arange(SLOTS) < step * CHUNK, places, -1).astype(np.int32)
        inputs = {"latents": latents[step], "places": places}
        found.append(session.run(inputs, state, slot)["descriptors"])
        older = latents[max(0, step - SLOTS // CHUNK) : step].sum((0, 1))
        expected.append(latents[step] + older + latents[:step].sum((0, 1)))
    return np.array(found), np.array(expected)
