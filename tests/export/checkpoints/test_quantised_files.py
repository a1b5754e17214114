"""Weights in FP8 and in GGUF files."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from safetensors.torch import save_file
from torch import Tensor

from doubles.wan_checkpoint import WanCheckpoint
from vditrack.errors import InputError
from vditrack_export.checkpoints.gguf_file import GgufFile
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.pipeline.checkpoint import Checkpoint, load_checkpoint

PREFIX = "model.diffusion_model."
LAYER = f"{PREFIX}blocks.0.self_attn.q"
E4M3 = torch.float8_e4m3fn


def write_fp8(
    wan: WanCheckpoint,
    path: Path,
    scale: str | None = "scale_weight",
    *,
    rows: bool = False,
    kind: torch.dtype = E4M3,
    more: dict[str, Tensor] | None = None,
    metadata: dict[str, str] | None = None,
) -> dict[str, Tensor]:
    """Write a file for ComfyUI with matrices in FP8; return what the numbers in it mean."""
    written: dict[str, Tensor] = {}
    meant: dict[str, Tensor] = {}
    for name, weight in wan.original.items():
        whole = PREFIX + name
        if weight.ndim != 2:
            written[whole] = weight.half()
            meant[name] = weight.half().float()
            continue
        factor = torch.ones(1)
        if scale is not None:
            factor = (weight.abs().amax(1, keepdim=True) if rows else weight.abs().max()) / 400
            written[f"{whole.removesuffix('weight')}{scale}"] = factor
        written[whole] = (weight / factor).to(kind)
        meant[name] = written[whole].float() * factor
    save_file(written | (more or {}), path, metadata)
    return meant


def load(wan: WanCheckpoint, file: Path) -> Checkpoint:
    return load_checkpoint(wan.card, Weights(wan.folder, file))


def assert_means(found: Checkpoint, meant: dict[str, Tensor]) -> None:
    weights = found.transformer.state_dict()
    for today, original in {
        "blocks.1.attn1.to_q.weight": "blocks.1.self_attn.q.weight",
        "blocks.0.ffn.net.2.weight": "blocks.0.ffn.2.weight",
        "patch_embedding.weight": "patch_embedding.weight",
        "blocks.0.attn2.to_k.bias": "blocks.0.cross_attn.k.bias",
    }.items():
        assert torch.equal(weights[today], meant[original]), today


@pytest.mark.parametrize(
    ("scale", "options", "stored"),
    [
        (None, {}, "float8_e4m3fn"),
        ("scale_weight", {"more": {PREFIX + "scaled_fp8": torch.zeros(2).to(E4M3)}}, "e4m3fn, sc"),
        ("scale_weight", {"more": {f"{LAYER}.scale_input": torch.ones(())}}, "e4m3fn, scaled"),
        ("weight_scale", {"rows": True}, "float8_e4m3fn, scaled"),
        ("weight_scale", {"kind": torch.float8_e5m2}, "float8_e5m2, scaled"),
    ],
)
def test_fp8(
    wan: WanCheckpoint, tmp_path: Path, scale: str | None, options: dict[str, Any], stored: str
) -> None:
    meant = write_fp8(wan, tmp_path / "fp8.safetensors", scale, **options)
    found = load(wan, tmp_path / "fp8.safetensors")
    assert_means(found, meant)
    assert stored in found.quantisation[0]
    assert f"stored as {found.quantisation[0]}" in found.notes[0]


def layout(**entries: object) -> Tensor:
    return torch.tensor(list(json.dumps(entries).encode()), dtype=torch.uint8)


def test_a_layout_that_says_what_the_scales_are(wan: WanCheckpoint, tmp_path: Path) -> None:
    more = {f"{LAYER}.comfy_quant": layout(format="float8_e4m3fn")}
    layers = {"layers": {LAYER: {"format": "float8_e4m3fn"}}}
    metadata = {"_quantization_metadata": json.dumps(layers)}
    file = tmp_path / "fp8.safetensors"
    meant = write_fp8(wan, file, "weight_scale", more=more, metadata=metadata)
    assert_means(load(wan, file), meant)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"more": {f"{LAYER}.comfy_quant": layout(format="nvfp4")}}, 'as {"format": "nvfp4"}'),
        ({"more": {f"{LAYER}.comfy_quant": layout(format="float8_e4m3fn", convrot=True)}}, "convr"),
        ({"more": {f"{LAYER}.comfy_quant": torch.ones(3, dtype=torch.uint8)}}, "quantised as"),
        ({"metadata": {"_quantization_metadata": '{"layers": {"x": {"format": "int8"}}}'}}, "int8"),
        ({"more": {f"{LAYER}.weight": torch.ones(64, 64, dtype=torch.int8)}}, "quantised to int8"),
        ({"more": {f"{LAYER}.scale_weight": torch.ones(4, 4)}}, "[4, 4], in blocks"),
        ({"more": {f"{LAYER}x.scale_weight": torch.ones(1)}}, "has no weight that it scales"),
        ({"more": {f"{LAYER}.scale_weight": torch.tensor(torch.nan)}}, "NaN"),
    ],
)
def test_layouts_that_are_not_read(
    wan: WanCheckpoint, tmp_path: Path, options: dict[str, Any], complaint: str
) -> None:
    write_fp8(wan, tmp_path / "odd.safetensors", **options)
    with pytest.raises(InputError) as caught:
        load(wan, tmp_path / "odd.safetensors")
    assert complaint in str(caught.value)


def write_gguf(
    wan: WanCheckpoint, path: Path, kind: GGMLQuantizationType, prefix: str = "", *, flat: bool
) -> dict[str, Tensor]:
    """Write the transformer with matrices of a kind; return what the numbers in it mean."""
    writer = GGUFWriter(path, "wan")
    meant = {}
    for name, weight in wan.original.items():
        numbers, own = weight.numpy(), GGMLQuantizationType.F32
        if weight.ndim == 2 and weight.shape[1] % 32 == 0:
            own = kind
        if flat and weight.ndim == 5:
            writer.add_array(f"comfy.gguf.orig_shape.{prefix}{name}", list(weight.shape))
            numbers = numbers.reshape(len(weight), -1)
        packed = gguf.quantize(np.ascontiguousarray(numbers), own)
        writer.add_tensor(prefix + name, packed, raw_dtype=own)
        meant[name] = torch.from_numpy(np.array(gguf.dequantize(packed, own))).reshape(weight.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


@pytest.mark.parametrize(
    ("kind", "prefix", "flat"),
    [("Q4_0", "", False), ("Q8_0", PREFIX, True), ("BF16", "", True)],
)
def test_gguf(wan: WanCheckpoint, tmp_path: Path, kind: str, prefix: str, flat: bool) -> None:
    file = tmp_path / "wan.gguf"
    meant = write_gguf(wan, file, GGMLQuantizationType[kind], prefix, flat=flat)
    found = load(wan, file)
    assert_means(found, meant)
    assert found.quantisation == (() if kind == "BF16" else (kind,))


def test_a_kind_that_gguf_does_not_dequantise(wan: WanCheckpoint, tmp_path: Path) -> None:
    kind = next(k for k in GGMLQuantizationType if k.name in ("Q1_0", "Q8_K"))
    block, size = gguf.GGML_QUANT_SIZES[kind]
    writer = GGUFWriter(tmp_path / "odd.gguf", "wan")
    packed = np.zeros((2, size), np.uint8)
    writer.add_tensor("odd.weight", packed, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(tmp_path / "odd.gguf")
    assert file.tensors["odd.weight"].shape == (2, block)
    with pytest.raises(InputError, match=rf"odd.weight is quantised as {kind.name}, which"):
        file.read("odd.weight")


def test_damaged_gguf(wan: WanCheckpoint, tmp_path: Path) -> None:
    file = tmp_path / "wan.gguf"
    write_gguf(wan, file, GGMLQuantizationType.Q8_0, flat=True)
    content = file.read_bytes()
    for damaged in (b"", content[:50], content[: len(content) // 2], bytes(100)):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match="does not load" if damaged else "is empty"):
            load(wan, file)


def test_a_gguf_file_of_another_model(wan: WanCheckpoint, tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "llama.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.zeros((2, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match="has no WanTransformer3DModel"):
        load(wan, tmp_path / "llama.gguf")
