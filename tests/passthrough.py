"""A bundle whose features are the picture averaged over cells: small, exact, and real ONNX."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from vditrack.bundle import (
    Bundle,
    Input,
    Manifest,
    Matching,
    Output,
    Source,
    seal_bundle,
)

STRIDE = 8

MATCHING = Matching(
    temperature=0.05,
    argmax_radius=8,
    search_radius=32,
    visibility_threshold=8,
    similarity_threshold=0.5,
    recovery_threshold=0.8,
    template_update=0.0,
    update_after_loss=True,
    horizon=4,
    refine_radius=8,
    refine_margin=0.1,
)


def write_passthrough(
    folder: Path,
    *,
    frames: int = 4,
    encoder_frames: int = 1,
    described: int | None = None,
    rows: int = 8,
    columns: int = 12,
) -> Bundle:
    """Write a bundle with descriptors [described, rows, columns, 3] = mean RGB of each cell."""
    described = described or frames
    folder.mkdir(parents=True, exist_ok=True)
    height, width = rows * STRIDE, columns * STRIDE
    _save(folder / "encoder.onnx", _encoder(encoder_frames, height, width))
    _save(folder / "features.onnx", _features(frames, described, rows, columns))
    manifest = Manifest(
        schema_version=1,
        name="passthrough",
        notes="mean colours of cells",
        source=Source(
            card="passthrough",
            checkpoint="none",
            checkpoint_sha256="0" * 64,
            licence="Apache-2.0",
            block=0,
            heads=(0,),
            tensor="keys",
            channels=(0, 1, 2),
            timestep=0.0,
            noise_level=0.0,
            noise_seed=0,
        ),
        input=Input(
            height=height,
            width=width,
            frames=frames,
            encoder_frames=encoder_frames,
            temporal_stride=1,
            described_frames=described,
        ),
        output=Output(rows=rows, columns=columns, stride=STRIDE, channels=3),
        matching=MATCHING,
        files={},
        parity={},
        tools={},
    )
    return seal_bundle(folder, manifest)


def _encoder(frames: int, height: int, width: int) -> onnx.GraphProto:
    latents = [1, 3, frames, height // STRIDE, width // STRIDE]
    nodes = [
        helper.make_node("Cast", ["frames"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node(
            "AveragePool",
            ["planes"],
            ["pooled"],
            kernel_shape=[STRIDE, STRIDE],
            strides=[STRIDE, STRIDE],
        ),
        helper.make_node("Transpose", ["pooled"], ["channels_first"], perm=[1, 0, 2, 3]),
        helper.make_node("Reshape", ["channels_first", "shape"], ["latents"]),
    ]
    return helper.make_graph(
        nodes,
        "encoder",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, [frames, height, width, 3])],
        [helper.make_tensor_value_info("latents", TensorProto.FLOAT, latents)],
        [onnx.numpy_helper.from_array(np.array(latents, np.int64), "shape")],
    )


def _features(frames: int, described: int, rows: int, columns: int) -> onnx.GraphProto:
    nodes = [
        helper.make_node("Squeeze", ["latents", "axis"], ["clip"]),
        helper.make_node("Transpose", ["clip"], ["all"], perm=[1, 2, 3, 0]),
        helper.make_node("Slice", ["all", "first", "end", "axis"], ["descriptors"]),
    ]
    shape = [described, rows, columns, 3]
    return helper.make_graph(
        nodes,
        "features",
        [
            helper.make_tensor_value_info(
                "latents", TensorProto.FLOAT, [1, 3, frames, rows, columns]
            )
        ],
        [helper.make_tensor_value_info("descriptors", TensorProto.FLOAT, shape)],
        [
            onnx.numpy_helper.from_array(np.array([value], np.int64), name)
            for name, value in {"axis": 0, "first": -described, "end": frames}.items()
        ],
    )


def _save(path: Path, graph: onnx.GraphProto) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
