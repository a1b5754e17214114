"""LoRA adapters as several programs save them, fused into a model."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin
from peft import LoraConfig, set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from doubles.commands import run_command
from doubles.original_names import wan_transformer
from doubles.pipelines import run_export
from doubles.small_families import SmallFamily, transformer_shapes
from doubles.tiny_checkpoint import TINY_CARD, make_tiny_transformer, save_tiny_checkpoint
from doubles.wan_checkpoint import WanCheckpoint
from vditrack.bundle.folder import load_bundle
from vditrack.cli.inspect import inspect
from vditrack.errors import InputError
from vditrack.inference.onnxruntime import OnnxRuntimeSession
from vditrack_export.card import load_card
from vditrack_export.checkpoints.lora import fuse_loras
from vditrack_export.checkpoints.sources import Lora, Weights, parse_lora
from vditrack_export.pipeline.backbone import load_backbone
from vditrack_export.pipeline.checkpoint import load_checkpoint

Factors = dict[str, Tensor]

# Rank 4 and alpha 8: factors count twice.
SETTINGS: dict[str, Any] = {
    "r": 4,
    "lora_alpha": 8,
    "target_modules": [
        *(f"attn{i}.{part}" for i in (1, 2) for part in ("to_q", "to_k", "to_v", "to_out.0")),
        *("ffn.net.0.proj", "ffn.net.2"),
    ],
    "init_lora_weights": False,
}


class TrainedLora:
    """An adapter of peft for the small Wan transformer, and what diffusers makes of it."""

    def __init__(self, wan: WanCheckpoint) -> None:
        torch.manual_seed(5)
        self.model = wan.new_transformer()
        self.model.add_adapter(LoraConfig(**SETTINGS), "lora")
        factors = get_peft_model_state_dict(self.model, adapter_name="lora")
        self.factors = {name: 0.2 * torch.randn_like(factor) for name, factor in factors.items()}
        set_peft_model_state_dict(self.model, self.factors, "lora")

    def renamed(self, name: Callable[[str, str], str]) -> Factors:
        """Return the factors by other names, made of the original layer and the side, A or B."""
        renamed = {}
        for today, factor in self.factors.items():
            layer, _, side = today.rpartition(".lora_")
            (original,) = wan_transformer({f"{layer}.": factor})
            renamed[name(original.removesuffix("."), side[0])] = factor
        return renamed

    def alphas(self, name: str) -> Factors:
        """Return a scale for each layer."""
        layers = {layer for layer in self.renamed(lambda layer, side: f"{layer}/{side}")}
        alpha = torch.tensor(8.0)
        return {name.format(layer.split("/")[0]): alpha.clone() for layer in layers}


@pytest.fixture(scope="module")
def trained(wan: WanCheckpoint) -> TrainedLora:
    return TrainedLora(wan)


def save(factors: Factors, path: Path, metadata: dict[str, str] | None = None) -> Path:
    save_file({name: f.contiguous().clone() for name, f in factors.items()}, path, metadata)
    return path


def _by_model(trained: TrainedLora, folder: Path) -> Path:
    trained.model.save_lora_adapter(folder, adapter_name="lora")
    return folder / "pytorch_lora_weights.safetensors"


def _by_pipeline(trained: TrainedLora, folder: Path) -> Path:
    settings = trained.model.peft_config["lora"].to_dict()
    WanLoraLoaderMixin.save_lora_weights(
        folder,
        transformer_lora_layers=trained.factors,
        transformer_lora_adapter_metadata=settings,
    )
    return folder / "pytorch_lora_weights.safetensors"


def _by_peft(trained: TrainedLora, folder: Path) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps({**SETTINGS, "use_rslora": False}))
    named = {f"base_model.model.{name}": factor for name, factor in trained.factors.items()}
    return save(named, folder / "adapter_model.safetensors")


def _for_comfyui(trained: TrainedLora, folder: Path) -> Path:
    sides = {"A": "down", "B": "up"}
    factors = trained.renamed(lambda layer, s: f"diffusion_model.{layer}.lora_{sides[s]}.weight")
    return save(factors | trained.alphas("diffusion_model.{}.alpha"), folder / "c.safetensors")


def _by_kohya(trained: TrainedLora, folder: Path) -> Path:
    sides = {"A": "down", "B": "up"}
    factors = trained.renamed(
        lambda layer, side: f"lora_unet_{layer.replace('.', '_')}.lora_{sides[side]}.weight"
    )
    alphas = {
        f"lora_unet_{name.removesuffix('.alpha').replace('.', '_')}.alpha": alpha
        for name, alpha in trained.alphas("{}.alpha").items()
    }
    return save(factors | alphas, folder / "k.safetensors")


def _by_original_names(trained: TrainedLora, folder: Path) -> Path:
    factors = trained.renamed(lambda layer, side: f"{layer}.lora_{side}.default.weight")
    # No scale is stored: that of a rank is 1.
    return save({n: f * 2**0.5 for n, f in factors.items()}, folder / "o.safetensors")


@pytest.mark.parametrize("scale", [1.0, -0.5])
@pytest.mark.parametrize(
    "form", [_by_model, _by_pipeline, _by_peft, _for_comfyui, _by_kohya, _by_original_names]
)
def test_forms_of_a_lora(
    wan: WanCheckpoint,
    trained: TrainedLora,
    tmp_path: Path,
    form: Callable[[TrainedLora, Path], Path],
    scale: float,
) -> None:
    file = form(trained, tmp_path)
    found = load_checkpoint(wan.card, Weights(wan.folder, loras=(Lora(file, scale),)))
    for name, weight in found.transformer.state_dict().items():
        change = 0.0
        layer, _, kind = name.rpartition(".")
        if kind == "weight" and f"{layer}.lora_A.weight" in trained.factors:
            down, up = (trained.factors[f"{layer}.lora_{side}.weight"] for side in "AB")
            change = scale * 8 / 4 * (up @ down)
            assert change.abs().max() > 0.05
        assert torch.allclose(weight, wan.transformer[name] + change, atol=1e-5), name
    (adapter,) = found.adapters
    assert (adapter.name, adapter.scale) == (file.name, scale)


def test_adapters_add_up(wan: WanCheckpoint, trained: TrainedLora, tmp_path: Path) -> None:
    file = _by_model(trained, tmp_path)
    twice = load_checkpoint(wan.card, Weights(wan.folder, loras=(Lora(file, 0.5), Lora(file, 0.5))))
    once = load_checkpoint(wan.card, Weights(wan.folder, loras=(Lora(file),)))
    for name, weight in once.transformer.state_dict().items():
        assert torch.allclose(twice.transformer.state_dict()[name], weight, atol=1e-5)


def _drop_layers(trained: TrainedLora, *kept: str) -> Factors:
    return {f"transformer.{n}": f for n, f in trained.factors.items() if n.startswith(kept)}


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda t: {f"other.{n}": f for n, f in t.factors.items()}, "the model lacks other."),
        (lambda t: {f"text_encoder.{n}": f for n, f in t.factors.items()}, "text encoder only"),
        (lambda t: _drop_layers(t, "blocks.2"), "only blocks after the one that is read"),
        (lambda t: {n: torch.cat((f, f), 1) for n, f in t.factors.items()}, "its layer [64, 64]"),
        (lambda t: {"blocks.0.attn1.to_q.lora_A.weight": torch.ones(4, 64)}, "no other factor"),
        (lambda t: {"blocks.7.attn1.to_q.lora_A.weight": torch.ones(4, 64)}, "lacks blocks.7"),
        (lambda t: t.factors | {"blocks.0.attn1.to_q.dora_scale": torch.ones(64)}, "a DoRA"),
        (lambda t: {n: torch.full_like(f, torch.nan) for n, f in t.factors.items()}, "NaN"),
        (lambda t: {}, "it has no tensors"),
    ],
)
def test_a_file_that_is_no_lora_of_the_model(
    wan: WanCheckpoint,
    trained: TrainedLora,
    tmp_path: Path,
    make: Callable[[TrainedLora], Factors],
    complaint: str,
) -> None:
    file = save(make(trained), tmp_path / "odd.safetensors")
    with pytest.raises(InputError) as caught:
        load_checkpoint(wan.card, Weights(wan.folder, loras=(Lora(file),)))
    assert complaint in str(caught.value)
    assert str(file) in str(caught.value)


def test_what_is_not_used_of_a_lora_is_said(
    wan: WanCheckpoint, trained: TrainedLora, tmp_path: Path
) -> None:
    factors = {f"transformer.{name}": factor for name, factor in trained.factors.items()}
    file = save(
        factors | {"text_encoder.x.lora_A.weight": torch.ones(4, 8)}, tmp_path / "l.safetensors"
    )
    found = load_checkpoint(wan.card, Weights(wan.folder, loras=(Lora(file),)))
    assert found.notes == (f"{file}: 1 of its tensors are for the text encoder and are not used",)


def test_peft_without_its_settings(
    wan: WanCheckpoint, trained: TrainedLora, tmp_path: Path
) -> None:
    file = _by_peft(trained, tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(InputError, match=r"adapter_config\.json is missing, which has the scale"):
        load_checkpoint(wan.card, Weights(wan.folder, loras=(Lora(file),)))


@pytest.mark.parametrize("name", transformer_shapes())
def test_every_family_takes_a_lora(name: str, tmp_path: Path) -> None:
    family = SmallFamily(name)
    config = family.denoiser.config() | family.extra
    torch.manual_seed(0)
    model = family.denoiser.model_class(**config).eval()
    before = {key: weight.clone() for key, weight in model.state_dict().items()}
    down, up = torch.randn(2, family.shape.width), torch.randn(family.shape.width, 2)
    layer = f"{family.denoiser.blocks}.0.{family.denoiser.attention}.to_k"
    factors = {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
    file = save({f"transformer.{n}": f for n, f in factors.items()}, tmp_path / "l.safetensors")
    fuse_loras(model, config, family.denoiser.lora_loader, [Lora(file)])
    for key, weight in model.state_dict().items():
        change = up @ down if key == f"{layer}.weight" else 0.0
        assert torch.allclose(weight, before[key] + change, atol=1e-5), key


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("ltx", {"q": "diffusion_model.transformer_blocks.0.attn1.to_q.lora_{}.weight"}),
        ("hunyuan_video", {"qkv": "double_blocks.0.img_attn_qkv.lora_{}.weight"}),
    ],
)
def test_loras_by_original_names(family: str, names: dict[str, str], tmp_path: Path) -> None:
    small = SmallFamily(family)
    config = small.denoiser.config() | small.extra
    model = small.denoiser.model_class(**config).eval()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    (letters,), (name,) = names.keys(), names.values()
    width = small.shape.width
    down, up = torch.randn(2, width), torch.randn(len(letters) * width, 2)
    factors = {name.format("A"): down, name.format("B"): up}
    file = save(factors, tmp_path / "l.safetensors")
    fuse_loras(model, config, small.denoiser.lora_loader, [Lora(file)])
    for letter, part in zip(letters, up.chunk(len(letters)), strict=True):
        layer = f"{small.denoiser.blocks}.0.{small.denoiser.attention}.to_{letter}.weight"
        assert torch.allclose(model.state_dict()[layer], before[layer] + part @ down, atol=1e-5)


def test_a_lora_of_a_unet(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "attention_head_dim": 8,
        "use_linear_projection": True,
    }
    unet = UNet2DConditionModel(**config)
    before = {name: weight.clone() for name, weight in unet.state_dict().items()}
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    down, up = torch.randn(2, 32), torch.randn(32, 2)
    kohya = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    factors = {f"{kohya}.lora_down.weight": down, f"{kohya}.lora_up.weight": up}
    file = save(factors | {f"{kohya}.alpha": torch.tensor(1.0)}, tmp_path / "sd.safetensors")
    fuse_loras(unet, config, "StableDiffusionLoraLoaderMixin", [Lora(file)])
    for name, weight in unet.state_dict().items():
        change = up @ down / 2 if name == f"{layer}.weight" else 0.0
        assert torch.allclose(weight, before[name] + change, atol=1e-5), name


def test_a_model_that_takes_no_lora(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="diffusers loads no LoRA into a Linear"):
        fuse_loras(torch.nn.Linear(1, 1), {}, None, [Lora(tmp_path)])


def test_scales_in_the_option(tmp_path: Path) -> None:
    assert parse_lora("a.safetensors") == Lora(Path("a.safetensors"))
    assert parse_lora("a@b.safetensors@-0.5") == Lora(Path("a@b.safetensors"), -0.5)
    (tmp_path / "a@1").touch()
    assert parse_lora(str(tmp_path / "a@1")) == Lora(tmp_path / "a@1")
    for wrong in ("a.safetensors@x", "a.safetensors@nan", "a.safetensors@inf"):
        with pytest.raises(InputError, match=r"--lora a\.safetensors@"):
            parse_lora(wrong)


@pytest.mark.slow
def test_an_export_is_that_of_the_model_with_the_adapter(tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    tiny_checkpoint = save_tiny_checkpoint(tmp_path / "tiny")
    model = make_tiny_transformer()
    weights = load_file(tiny_checkpoint / "vdit/diffusion_pytorch_model.safetensors")
    model.load_state_dict(weights)
    torch.manual_seed(3)
    model.add_adapter(
        LoraConfig(r=4, lora_alpha=2, target_modules=["to_k"], init_lora_weights=False)
    )
    model.save_lora_adapter(tmp_path)
    card, file = tmp_path / "small.toml", tmp_path / "pytorch_lora_weights.safetensors"
    card.write_text(TINY_CARD)
    transformer = save(wan_transformer(weights), tmp_path / "original.safetensors")
    output = tmp_path / "bundle"
    done = run_export(
        card,
        "--weights",
        tiny_checkpoint,
        "--transformer",
        transformer,
        "--lora",
        f"{file}@1",
        "-o",
        output,
    )
    assert done.exception is None, done.output
    bundle = load_bundle(output)
    (adapter,) = bundle.manifest.source.adapters
    assert adapter.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"{file.name} at 1, " in run_command(inspect, output).stdout
    backbone = load_backbone(load_card(str(card)), Weights(tiny_checkpoint))
    size = backbone.card.input
    latents = torch.randn(1, *backbone.latent_shape(size))
    # The adapter is still a path of its own in this model.
    read = backbone.card.family.denoiser.read_whole(
        model.eval(), backbone.cut(size), backbone.denoising, latents, backbone.prompt
    )
    plain = backbone.card.family.denoiser.read_whole(
        backbone.checkpoint.transformer,
        backbone.cut(size),
        backbone.denoising,
        latents,
        backbone.prompt,
    )
    session = OnnxRuntimeSession(bundle.features)
    found = session.run({"latents": latents.numpy()})["descriptors"].reshape(read.shape)
    largest = float(read.abs().max())
    assert np.abs(found - read.detach().numpy()).max() / largest < 1e-5
    assert float((plain - read).abs().max()) / largest > 0.05
