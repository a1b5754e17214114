"""The bundled model as one whose latents share frames: it sees the last frame of each latent."""

from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from vditrack.bundle.folder import Bundle, bundled_model, load_bundle, seal_bundle
from vditrack.bundle.manifest import Encoder


def write_grouped(folder: Path, stride: int = 4) -> Bundle:
    """Write a bundle whose maps are the bundled model's in every frame ``stride`` after the first.

    Its window has two latents, of which it reads the newer one.
    """
    tiny = load_bundle(bundled_model())
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(_read_newer_latent(onnx.load(tiny.features)), folder / "features.onnx")
    for name, frames in (("encoder", stride), ("encoder_start", 1)):
        _group_frames(onnx.load(tiny.encoder), frames, folder / f"{name}.onnx")
    manifest = tiny.manifest
    size = msgspec.structs.replace(
        manifest.input, frames=1 + stride, temporal_stride=stride, described_frames=stride
    )
    changed = {
        "input": size,
        "encoder": Encoder(frames=stride, caches=1),
        "propagation": None,
        "int8": None,
    }
    return seal_bundle(folder, msgspec.structs.replace(manifest, **changed, files={}))


def _read_newer_latent(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = model.graph
    for node in graph.node:
        node.input[:] = ["newer" if name == "latents" else name for name in node.input]
    graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2
    for name, value in (("first", 1), ("end", 2), ("time", 2)):
        graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    graph.node.insert(0, helper.make_node("Slice", ["latents", "first", "end", "time"], ["newer"]))
    return model


def _group_frames(model: onnx.ModelProto, frames: int, path: Path) -> None:
    """Let the encoder take several frames and see the last; its cache says nothing."""
    graph = model.graph
    for node in graph.node:
        node.input[:] = ["newest" if name == "frames" else name for name in node.input]
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = frames
    for name, value in (("from", frames - 1), ("to", frames), ("axis", 0)):
        graph.initializer.append(numpy_helper.from_array(np.array([value]), name))
    graph.node.insert(0, helper.make_node("Slice", ["frames", "from", "to", "axis"], ["newest"]))
    graph.output.append(helper.make_tensor_value_info("next_cache.0", TensorProto.FLOAT, [1]))
    if frames > 1:
        graph.input.append(helper.make_tensor_value_info("cache.0", TensorProto.FLOAT, [1]))
        graph.node.append(helper.make_node("Identity", ["cache.0"], ["next_cache.0"]))
    else:
        graph.node.append(helper.make_node("Constant", [], ["next_cache.0"], value_floats=[0.0]))
    onnx.save(model, path)
