"""Checkpoints by the names of their original repositories, in whatever files they come."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from torch import Tensor

from doubles.cards import save_card
from doubles.original_names import TRANSFORMERS, ltx_autoencoder, stable_diffusion
from doubles.pipelines import card_text, save_pipeline
from doubles.small_families import SmallFamily, perturb
from doubles.wan_checkpoint import WanCheckpoint
from vditrack.errors import InputError
from vditrack_export.card import load_card
from vditrack_export.checkpoints.model_file import examine_file
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.pipeline.checkpoint import Checkpoint, load_checkpoint
from vditrack_export.pipeline.empty_prompt import empty_prompt

Tensors = dict[str, Tensor]


def save(tensors: Tensors, path: Path) -> Path:
    """Write a safetensors file, in which no tensors may share memory."""
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)
    return path


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def assert_same(found: Checkpoint, expected: Checkpoint) -> None:
    for part in ("encoder", "transformer"):
        weights = getattr(expected, part).state_dict()
        others = getattr(found, part).state_dict()
        assert weights.keys() == others.keys()
        for name, tensor in weights.items():
            assert torch.equal(others[name], tensor), name


def refusal(wan: WanCheckpoint, weights: Weights) -> str:
    with pytest.raises(InputError) as caught:
        load_checkpoint(wan.card, weights)
    return str(caught.value)


@pytest.mark.parametrize("family", TRANSFORMERS)
def test_transformers_by_their_original_names(family: str, tmp_path: Path) -> None:
    without = "without-frame-rate" if family == "skyreels_v2" else None
    denoiser = SmallFamily(family, without).denoiser
    # diffusers' conversion of HunyuanVideo's single blocks takes their width for granted.
    config = denoiser.config() | ({"num_single_layers": 0} if family == "hunyuan_video" else {})
    torch.manual_seed(0)
    weights = perturb(denoiser.model_class(**config)).state_dict()
    file = save(TRANSFORMERS[family](weights), tmp_path / "original.safetensors")
    stored = examine_file(file, denoiser.model_class, config, None).stored()
    assert stored.weights.shapes().keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(stored.weights.read(name), tensor), name


def test_what_diffusers_does_not_convert_is_named(tmp_path: Path) -> None:
    family = SmallFamily("skyreels_v2")
    weights = TRANSFORMERS["skyreels_v2"](family.model().state_dict())
    file = save(weights, tmp_path / "original.safetensors")
    with pytest.raises(InputError, match=r"fps_projection.*is missing, fps_projection\.0"):
        examine_file(file, type(family.model()), family.denoiser.config(), None).stored()


def test_one_file_with_the_transformer_and_the_autoencoder_of_ltx(tmp_path: Path) -> None:
    denoiser = SmallFamily("ltx").denoiser
    config = {
        "block_out_channels": [8, 8, 8, 8],
        "decoder_block_out_channels": [8, 8, 8, 8],
        "layers_per_block": [1, 1, 1, 1, 1],
        "decoder_layers_per_block": [1, 1, 1, 1, 1],
    }
    torch.manual_seed(0)
    transformer = perturb(denoiser.model_class(**denoiser.config()))
    autoencoder = perturb(AutoencoderKLLTXVideo(**config))
    autoencoder.latents_mean.normal_()
    tensors = prefixed("model.diffusion_model.", TRANSFORMERS["ltx"](transformer.state_dict()))
    file = save(tensors | ltx_autoencoder(autoencoder.state_dict()), tmp_path / "ltx.safetensors")
    for model, entries in ((transformer, denoiser.config()), (autoencoder, config)):
        weights = examine_file(file, type(model), entries, None).stored().weights
        for name, tensor in model.state_dict().items():
            assert torch.equal(weights.read(name), tensor), name


def _save_original(wan: WanCheckpoint, folder: Path) -> Weights:
    """Write what the repository of Wan 2.1 has."""
    save(wan.original, folder / "diffusion_pytorch_model.safetensors")
    torch.save(wan.original_autoencoder, folder / "Wan2.1_VAE.pth")
    torch.save({"token_embedding.weight": torch.zeros(2, 3)}, folder / "models_t5_enc-bf16.pth")
    (folder / "config.json").write_text(json.dumps({"_class_name": "WanModel", "dim": 64}))
    return Weights(folder)


def _save_original_in_parts(wan: WanCheckpoint, folder: Path) -> Weights:
    weights = _save_original(wan, folder)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    places = {}
    for index in (1, 2):
        part = dict(list(wan.original.items())[index - 1 :: 2])
        name = f"diffusion_pytorch_model-0000{index}-of-00002.safetensors"
        save(part, folder / name)
        places |= dict.fromkeys(part, name)
    index_file = folder / "diffusion_pytorch_model.safetensors.index.json"
    index_file.write_text(json.dumps({"weight_map": places}))
    return weights


def _save_for_comfyui(wan: WanCheckpoint, folder: Path) -> Weights:
    transformer = prefixed("model.diffusion_model.", wan.original)
    return Weights(
        None,
        save(transformer, folder / "wan2.1_t2v.safetensors"),
        save(wan.original_autoencoder, folder / "wan_2.1_vae.safetensors"),
    )


def _save_one_file(wan: WanCheckpoint, folder: Path) -> Weights:
    tensors = prefixed("model.diffusion_model.", wan.original)
    tensors |= prefixed("vae.", wan.original_autoencoder) | {"text_encoders.x": torch.zeros(1)}
    return Weights(save(tensors, folder / "all.safetensors"))


def _save_training_state(wan: WanCheckpoint, folder: Path) -> Weights:
    averaged = prefixed("model._fsdp_wrapped_module.", wan.original)
    others = {name: tensor + 1 for name, tensor in prefixed("model.", wan.original).items()}
    state = {"generator": others, "generator_ema": averaged, "step": 3}
    torch.save(state, folder / "self_forcing_dmd.pt")
    return Weights(wan.folder, folder / "self_forcing_dmd.pt")


def _save_names_of_diffusers(wan: WanCheckpoint, folder: Path) -> Weights:
    file = save(prefixed("diffusion_model.", wan.transformer), folder / "model.safetensors")
    return Weights(None, file, wan.folder / "vae")


def _save_old_pickle(wan: WanCheckpoint, folder: Path) -> Weights:
    state = {"state_dict": wan.original}
    torch.save(state, folder / "model.ckpt", _use_new_zipfile_serialization=False)
    return Weights(wan.folder, folder / "model.ckpt")


@pytest.mark.parametrize(
    "form",
    [
        _save_original,
        _save_original_in_parts,
        _save_for_comfyui,
        _save_one_file,
        _save_training_state,
        _save_names_of_diffusers,
        _save_old_pickle,
    ],
)
def test_forms_of_a_checkpoint(
    wan: WanCheckpoint, tmp_path: Path, form: Callable[[WanCheckpoint, Path], Weights]
) -> None:
    expected = load_checkpoint(wan.card, Weights(wan.folder))
    found = load_checkpoint(wan.card, form(wan, tmp_path))
    assert_same(found, expected)
    # Blocks after the card's are left in the file.
    assert len(found.transformer.blocks) == 2
    assert found.sha256 != expected.sha256
    assert (found.quantisation, found.notes) == ((), ())


def test_the_configuration_of_the_folder_goes_with_a_file(
    wan: WanCheckpoint, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(wan.folder, tmp_path / "folder"))
    config = folder / "vae" / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps(content | {"latents_mean": [0.25] * 16}))
    file = save(wan.original_autoencoder, tmp_path / "vae.safetensors")
    found = load_checkpoint(wan.card, Weights(folder, vae=file))
    assert list(found.encoder.config.latents_mean) == [0.25] * 16


def test_a_class_without_a_conversion_needs_a_configuration(tmp_path: Path) -> None:
    family = SmallFamily("cogvideox")
    config = family.denoiser.config() | family.extra
    model = family.model()
    tensors = prefixed("model.diffusion_model.", model.state_dict())
    file = save(tensors, tmp_path / "cogvideox.safetensors")
    with pytest.raises(InputError, match=r"has no configuration.*Put the config.json"):
        examine_file(file, type(model), config, None).stored()
    model.save_config(tmp_path)
    weights = examine_file(file, type(model), config, None).stored().weights
    assert torch.equal(weights.read("proj_out.weight"), model.state_dict()["proj_out.weight"])


def test_statistics_of_other_latents_need_a_configuration(tmp_path: Path) -> None:
    config = {"base_dim": 4, "z_dim": 48}
    with torch.device("meta"):
        model = AutoencoderKLWan(**config)
    zeros = {name: torch.zeros(tensor.shape) for name, tensor in model.state_dict().items()}
    file = save(zeros, tmp_path / "vae.safetensors")
    with pytest.raises(InputError, match="means of its 48 channels"):
        examine_file(file, AutoencoderKLWan, config, None).stored()


def test_a_file_of_another_family(wan: WanCheckpoint, tmp_path: Path) -> None:
    family = SmallFamily("cogvideox")
    file = save(wan.original, tmp_path / "wan.safetensors")
    with pytest.raises(InputError) as caught:
        examine_file(file, family.denoiser.model_class, family.denoiser.config(), None).stored()
    assert "has no CogVideoXTransformer3DModel" in str(caught.value)
    assert "diffusers converts no others for this class. It looks like a file of wan-" in str(
        caught.value
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda w: w | {"img_emb.proj.0.bias": torch.zeros(3)}, "is not one of its tensors (1 in"),
        (lambda w: w | {"patch_embedding.bias": torch.zeros(3)}, "has another shape (1 in all)"),
        (lambda w: {n: t for n, t in w.items() if n != "blocks.2.modulation"}, "is missing (1 in"),
        (lambda w: {"something": torch.zeros(1)}, "has no WanTransformer3DModel: the names of its"),
        (lambda w: {}, "has no tensors"),
        (lambda w: w | {"blocks.0.ffn.0.bias": torch.full((64,), torch.nan)}, "64 of 64 numbers"),
    ],
)
def test_a_file_that_is_not_the_card_s(
    wan: WanCheckpoint, tmp_path: Path, change: Callable[[Tensors], Tensors], complaint: str
) -> None:
    file = save(change(wan.original), tmp_path / "odd.safetensors")
    assert complaint in refusal(wan, Weights(wan.folder, file))


class _Code:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return os.remove, (self.file,)


def test_code_in_a_file_does_not_run(wan: WanCheckpoint, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.touch()
    torch.save({"model": _Code(victim)}, tmp_path / "model.pt")
    assert "could run code" in refusal(wan, Weights(wan.folder, tmp_path / "model.pt"))
    assert victim.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth"])
def test_a_file_that_was_cut_short(wan: WanCheckpoint, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name.endswith(".pth"):
        torch.save(wan.original, file)
    else:
        save(wan.original, file)
    content = file.read_bytes()
    for size in (0, 5, len(content) // 2):
        file.write_bytes(content[:size])
        assert f"{file} " in refusal(wan, Weights(wan.folder, file))


def test_what_is_missing_or_ambiguous(wan: WanCheckpoint, tmp_path: Path) -> None:
    file = save(wan.original, tmp_path / "a.safetensors")
    assert "the vae is missing. Give it with --vae" in refusal(wan, Weights(None, file))
    assert "lacks the AutoencoderKLWan" in refusal(wan, Weights(tmp_path))
    alone = refusal(wan, Weights(file))
    assert f"{file} has no AutoencoderKLWan, only the transformer. Give the vae with --vae" in alone
    assert "looks like" not in alone
    assert "there is no file or folder" in refusal(wan, Weights(wan.folder, tmp_path / "none"))
    save(wan.original, tmp_path / "b.safetensors")
    several = refusal(wan, Weights(tmp_path))
    assert "a.safetensors, b.safetensors. Choose one with --transformer" in several
    (tmp_path / "c.onnx").touch()
    assert "is not a file of weights" in refusal(wan, Weights(wan.folder, tmp_path / "c.onnx"))


def test_an_index_does_not_lead_out_of_its_folder(wan: WanCheckpoint, tmp_path: Path) -> None:
    save(wan.original, tmp_path / "outside.safetensors")
    inside = tmp_path / "inside"
    inside.mkdir()
    index = inside / "model.safetensors.index.json"
    for place in ("../outside.safetensors", str(tmp_path / "outside.safetensors")):
        index.write_text(json.dumps({"weight_map": dict.fromkeys(wan.original, place)}))
        assert "is not an index of weights" in refusal(wan, Weights(wan.folder, index))


def test_a_text_encoder_in_another_folder(tmp_path: Path) -> None:
    folder = save_pipeline(tmp_path / "pipeline", "wan")
    card = load_card(str(save_card(tmp_path, card_text("wan"))))
    file = tmp_path / "transformer.safetensors"
    expected = empty_prompt(card, Weights(folder))
    assert torch.equal(empty_prompt(card, Weights(None, file, text_encoder=folder)), expected)
    with pytest.raises(InputError, match="--text-encoder, or a stored prompt with --prompt"):
        empty_prompt(card, Weights(None, file))
    with pytest.raises(InputError, match="there is no text encoder"):
        empty_prompt(card, Weights(file))


def test_one_file_with_the_unet_and_the_autoencoder_of_stable_diffusion(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shared: dict[str, Any] = {"block_out_channels": [32, 64], "layers_per_block": 1}
    unet_config = shared | {
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": 16,
        "attention_head_dim": [4, 8],
        "use_linear_projection": True,
    }
    vae_config = shared | {
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    }
    unet = perturb(UNet2DConditionModel(**unet_config))
    vae = perturb(AutoencoderKL(**vae_config))
    tensors = stable_diffusion(unet.state_dict(), vae.state_dict(), layers=1, levels=2)
    file = save(tensors, tmp_path / "v2-1_768-ema-pruned.safetensors")
    # diffusers' own file of the autoencoder still has older names of its attention.
    older = {name.replace("to_q", "query"): tensor for name, tensor in vae.state_dict().items()}
    alone = save(older, tmp_path / "vae.safetensors")
    models = ((file, unet, unet_config), (file, vae, vae_config), (alone, vae, vae_config))
    for path, model, config in models:
        weights = examine_file(path, type(model), config, None).stored().weights
        for name, tensor in model.state_dict().items():
            assert torch.equal(weights.read(name), tensor), name
