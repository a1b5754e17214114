"""A bundle whose features are the picture averaged over cells: small, exact, and real ONNX."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from doubles.manifest import make_manifest
from vditrack.bundle.folder import Bundle, seal_bundle
from vditrack.bundle.manifest import Encoder, Input, Output

STRIDE = 8


def write_passthrough(
    folder: Path,
    *,
    frames: int = 4,
    encoder_frames: int = 1,
    cached: bool = False,
    temporal_stride: int = 1,
    described: int | None = None,
    context: float = 0.0,
    rows: int = 8,
    columns: int = 12,
) -> Bundle:
    """Write a bundle whose descriptors [described latents, rows, columns, 3] are its latents.

    A latent is the mean RGB of each cell over the latent's frames. With ``cached`` half of the
    latent before and a quarter of the one before that are added, and the encoder takes the frames
    of one latent. ``context`` times the window's first latent is added to every descriptor.
    """
    described = described or frames
    folder.mkdir(parents=True, exist_ok=True)
    inp = Input(
        height=rows * STRIDE,
        width=columns * STRIDE,
        frames=frames,
        temporal_stride=temporal_stride,
        described_frames=described,
    )
    taken = temporal_stride if cached else encoder_frames
    groups = [taken] if cached else _groups(taken, temporal_stride)
    _save(folder / "encoder.onnx", _encoder(groups, rows, columns, takes=cached, leaves=cached))
    if cached and temporal_stride > 1:
        start = _encoder([1], rows, columns, takes=False, leaves=True)
        _save(folder / "encoder_start.onnx", start)
    features = _features(inp.latents, inp.described_latents, context, rows, columns)
    _save(folder / "features.onnx", features)
    manifest = make_manifest(
        inp,
        Encoder(frames=taken, caches=2 if cached else 0),
        Output(rows=rows, columns=columns, stride=STRIDE, channels=3),
    )
    return seal_bundle(folder, manifest)


def _groups(frames: int, temporal_stride: int) -> list[int]:
    """Frames of each latent of a run from a clip's beginning."""
    return [1] + [temporal_stride] * ((frames - 1) // temporal_stride)


def _encoder(
    groups: Sequence[int], rows: int, columns: int, *, takes: bool, leaves: bool
) -> onnx.GraphProto:
    """Write the graph of a run: of these groups of frames, and caches that it takes and leaves."""
    value, frames = helper.make_tensor_value_info, sum(groups)
    latents = [1, 3, len(groups), rows, columns]
    cell = [STRIDE, STRIDE]
    nodes = [
        helper.make_node("Cast", ["frames"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[3, 0, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["cells"], kernel_shape=cell, strides=cell),
        helper.make_node("Reshape", ["cells", "flat"], ["by_frame"]),
        helper.make_node("MatMul", ["averages", "by_frame"], ["by_latent"]),
        helper.make_node("Reshape", ["by_latent", "shape"], ["means"]),
        *_integrated(takes=takes, leaves=leaves),
    ]
    size = [frames, rows * STRIDE, columns * STRIDE, 3]
    inputs = [value("frames", TensorProto.UINT8, size)]
    outputs = [value("latents", TensorProto.FLOAT, latents)]
    for name in ("cache.0", "cache.1"):
        inputs += [value(name, TensorProto.FLOAT, latents)] * takes
        outputs += [value(f"next_{name}", TensorProto.FLOAT, latents)] * leaves
    averages = np.repeat(np.eye(len(groups), dtype=np.float32), groups, axis=1)
    constants = {
        "averages": averages / np.array(groups, np.float32)[:, None],
        "flat": np.array([3, frames, rows * columns]),
        "shape": np.array(latents),
    }
    if takes:
        constants |= {"half": np.float32(0.5), "quarter": np.float32(0.25)}
    return helper.make_graph(nodes, "encoder", inputs, outputs, _initialisers(constants))


def _integrated(*, takes: bool, leaves: bool) -> list[onnx.NodeProto]:
    """From means to latents, and what is left: the newest latent, and the one before it."""
    nodes = [helper.make_node("Identity", ["means"], ["latents"])]
    if takes:
        nodes = [
            helper.make_node("Mul", ["cache.0", "half"], ["newer"]),
            helper.make_node("Mul", ["cache.1", "quarter"], ["older"]),
            helper.make_node("Sum", ["means", "newer", "older"], ["latents"]),
        ]
    if leaves:
        before = helper.make_node("Sub", ["means", "means"], ["next_cache.1"])
        if takes:
            before = helper.make_node("Identity", ["cache.0"], ["next_cache.1"])
        nodes += [helper.make_node("Identity", ["latents"], ["next_cache.0"]), before]
    return nodes


def _features(
    latents: int, described: int, context: float, rows: int, columns: int
) -> onnx.GraphProto:
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Squeeze", ["latents", "zero"], ["clip"]),
        helper.make_node("Transpose", ["clip"], ["all"], perm=[1, 2, 3, 0]),
        helper.make_node("Slice", ["all", "newest", "end", "zero"], ["described"]),
        helper.make_node("Slice", ["all", "zero", "one", "zero"], ["first"]),
        helper.make_node("Mul", ["first", "context"], ["lent"]),
        helper.make_node("Add", ["described", "lent"], ["descriptors"]),
    ]
    constants = {
        "zero": np.array([0]),
        "one": np.array([1]),
        "newest": np.array([-described]),
        "end": np.array([latents]),
        "context": np.float32(context),
    }
    return helper.make_graph(
        nodes,
        "features",
        [value("latents", TensorProto.FLOAT, [1, 3, latents, rows, columns])],
        [value("descriptors", TensorProto.FLOAT, [described, rows, columns, 3])],
        _initialisers(constants),
    )


def _initialisers(constants: dict[str, np.ndarray]) -> list[TensorProto]:
    return [
        onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()
    ]


def _save(path: Path, graph: onnx.GraphProto) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
