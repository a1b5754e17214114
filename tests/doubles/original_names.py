"""State dicts of diffusers' models by the names that their original repositories give them.

Each function undoes what diffusers does when it converts an original file.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def _rename(weights: Weights, *pairs: tuple[str, str]) -> Weights:
    renamed = {}
    for name, tensor in weights.items():
        new = name
        for today, original in pairs:
            new = new.replace(today, original)
        renamed[new] = tensor
    assert len(renamed) == len(weights)
    return renamed


def wan_transformer(weights: Weights) -> Weights:
    last = {"scale_shift_table": "head.modulation"}
    return _rename(
        {last.get(name, name): tensor for name, tensor in weights.items()},
        ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
        ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
        ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
        ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
        ("condition_embedder.time_proj", "time_projection.1"),
        ("proj_out", "head.head"),
        ("attn2", "cross_attn"),
        ("attn1", "self_attn"),
        (".to_out.0.", ".o."),
        (".to_q.", ".q."),
        (".to_k.", ".k."),
        (".to_v.", ".v."),
        ("ffn.net.0.proj", "ffn.0"),
        ("ffn.net.2", "ffn.2"),
        ("norm2", "norm3"),
        ("scale_shift_table", "modulation"),
    )


def skyreels_transformer(weights: Weights) -> Weights:
    """That of SkyReels-V2, whose embedding of the frame rate diffusers does not convert."""
    return _rename(
        wan_transformer(weights),
        ("fps_projection.net.0.proj", "fps_projection.0"),
        ("fps_projection.net.2", "fps_projection.2"),
    )


def cosmos_transformer(weights: Weights) -> Weights:
    renamed = _rename(
        weights,
        ("transformer_blocks", "blocks"),
        ("time_embed.t_embedder", "t_embedder.1"),
        ("time_embed.norm", "t_embedding_norm"),
        ("norm_out.linear_1", "final_layer.adaln_modulation.1"),
        ("norm_out.linear_2", "final_layer.adaln_modulation.2"),
        ("norm1.linear_", "adaln_modulation_self_attn."),
        ("norm2.linear_", "adaln_modulation_cross_attn."),
        ("norm3.linear_", "adaln_modulation_mlp."),
        ("attn1", "self_attn"),
        ("attn2", "cross_attn"),
        ("to_out.0", "output_proj"),
        ("to_q", "q_proj"),
        ("to_k", "k_proj"),
        ("to_v", "v_proj"),
        ("norm_q", "q_norm"),
        ("norm_k", "k_norm"),
        ("ff.net.0.proj", "mlp.layer1"),
        ("ff.net.2", "mlp.layer2"),
        ("patch_embed.proj", "x_embedder.proj.1"),
    )
    renamed = {
        f"net.{name.replace('proj_out', 'final_layer.linear')}": tensor
        for name, tensor in renamed.items()
    }
    return renamed | {"net.accum_iteration": torch.zeros(1)}


def ltx_transformer(weights: Weights) -> Weights:
    return _rename(
        weights,
        ("norm_q", "q_norm"),
        ("norm_k", "k_norm"),
        ("time_embed", "adaln_single"),
        ("proj_in", "patchify_proj"),
    )


def ltx_autoencoder(weights: Weights) -> Weights:
    """That of LTX-Video 0.9.0, which diffusers names apart from the later ones."""
    statistics = {
        "latents_mean": "per_channel_statistics.mean-of-means",
        "latents_std": "per_channel_statistics.std-of-means",
    }
    renamed = _rename(
        {statistics.get(name, name): tensor for name, tensor in weights.items()},
        ("conv_shortcut.conv", "conv_shortcut"),
        ("resnets", "res_blocks"),
        ("norm3", "norm3.norm"),
        ("encoder.mid_block", "encoder.down_blocks.9"),
        ("encoder.down_blocks.3", "encoder.down_blocks.8"),
        ("encoder.down_blocks.2.downsamplers.0", "encoder.down_blocks.7"),
        ("encoder.down_blocks.2", "encoder.down_blocks.6"),
        ("encoder.down_blocks.1.conv_out", "encoder.down_blocks.5"),
        ("encoder.down_blocks.1.downsamplers.0", "encoder.down_blocks.4"),
        ("encoder.down_blocks.1", "encoder.down_blocks.3"),
        ("encoder.down_blocks.0.conv_out", "encoder.down_blocks.2"),
        ("encoder.down_blocks.0.downsamplers.0", "encoder.down_blocks.1"),
        ("decoder.up_blocks.3.upsamplers.0", "decoder.up_blocks.8"),
        ("decoder.up_blocks.3.conv_in", "decoder.up_blocks.7"),
        ("decoder.up_blocks.3", "decoder.up_blocks.9"),
        ("decoder.up_blocks.2.upsamplers.0", "decoder.up_blocks.5"),
        ("decoder.up_blocks.2.conv_in", "decoder.up_blocks.4"),
        ("decoder.up_blocks.2", "decoder.up_blocks.6"),
        ("decoder.up_blocks.1.upsamplers.0", "decoder.up_blocks.2"),
        ("decoder.up_blocks.1", "decoder.up_blocks.3"),
        ("decoder.up_blocks.0", "decoder.up_blocks.1"),
        ("decoder.mid_block", "decoder.up_blocks.0"),
    )
    others = {"per_channel_statistics.channel": torch.zeros(1)}
    return {f"vae.{name}": tensor for name, tensor in (renamed | others).items()}


def hunyuan_transformer(weights: Weights) -> Weights:
    """A transformer without single blocks, whose width diffusers' conversion takes for granted."""
    weights = dict(weights)
    scale, shift = {}, {}
    for kind in ("weight", "bias"):
        name = f"norm_out.linear.{kind}"
        scale[kind], shift[kind] = weights.pop(name).chunk(2)
        joined = torch.cat((shift[kind], scale[kind]))
        weights[f"final_layer.adaLN_modulation.1.{kind}"] = joined
    refiner = {name: tensor for name, tensor in weights.items() if name.startswith("context_")}
    rest = {name: tensor for name, tensor in weights.items() if name not in refiner}
    refiner = _rename(
        refiner,
        ("ff.net.0.proj", "mlp.fc1"),
        ("ff.net.2", "mlp.fc2"),
        ("attn.to_out.0", "self_attn_proj"),
        ("norm_out.linear", "adaLN_modulation.1"),
        ("token_refiner.refiner_blocks", "individual_token_refiner.blocks"),
        ("time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"),
        ("time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"),
        ("time_text_embed.text_embedder", "c_embedder"),
        ("proj_in", "input_embedder"),
        ("context_embedder", "txt_in"),
    )
    rest = _rename(
        rest,
        ("time_text_embed.timestep_embedder.linear_1", "time_in.mlp.0"),
        ("time_text_embed.timestep_embedder.linear_2", "time_in.mlp.2"),
        ("time_text_embed.guidance_embedder.linear_1", "guidance_in.mlp.0"),
        ("time_text_embed.guidance_embedder.linear_2", "guidance_in.mlp.2"),
        ("time_text_embed.text_embedder.linear_1", "vector_in.in_layer"),
        ("time_text_embed.text_embedder.linear_2", "vector_in.out_layer"),
        ("x_embedder", "img_in"),
        ("transformer_blocks", "double_blocks"),
        ("attn.norm_q", "img_attn_q_norm"),
        ("attn.norm_k", "img_attn_k_norm"),
        ("attn.to_out.0", "img_attn_proj"),
        ("attn.norm_added_q", "txt_attn_q_norm"),
        ("attn.norm_added_k", "txt_attn_k_norm"),
        ("attn.to_add_out", "txt_attn_proj"),
        ("norm1_context.linear", "txt_mod.linear"),
        ("norm1.linear", "img_mod.linear"),
        ("ff_context.net.0.proj", "txt_mlp.fc1"),
        ("ff_context.net.2", "txt_mlp.fc2"),
        ("ff.net.0.proj", "img_mlp.fc1"),
        ("ff.net.2", "img_mlp.fc2"),
        ("proj_out", "final_layer.linear"),
    )
    joined = _join(refiner, "attn.to_{}", "qkv", "self_attn_qkv")
    joined |= _join(rest, "attn.to_{}", "qkv", "img_attn_qkv")
    return _join(joined, "attn.add_{}_proj", "qkv", "txt_attn_qkv")


def _join(weights: Weights, parts: str, letters: str, whole: str) -> Weights:
    """Join tensors whose names differ in a letter."""
    joined = dict(weights)
    first = parts.format(letters[0])
    for name in weights:
        if first in name:
            names = [name.replace(first, parts.format(letter)) for letter in letters]
            joined[name.replace(first, whole)] = torch.cat([joined.pop(part) for part in names])
    return joined


def wan_autoencoder(weights: Weights) -> Weights:
    """That of Wan 2.1, with its four levels of two residual blocks."""
    renamed = {}
    for name, tensor in weights.items():
        renamed[_wan_autoencoder_name(name)] = tensor
    assert len(renamed) == len(weights)
    return renamed


def _wan_autoencoder_name(name: str) -> str:
    for side in ("encoder", "decoder"):
        for today, original in (
            ("mid_block.resnets.0", "middle.0"),
            ("mid_block.attentions.0", "middle.1"),
            ("mid_block.resnets.1", "middle.2"),
            ("norm_out", "head.0"),
            ("conv_out", "head.2"),
            ("conv_in", "conv1"),
            ("down_blocks", "downsamples"),
        ):
            name = name.replace(f"{side}.{today}", f"{side}.{original}")
    if name.startswith("decoder.up_blocks."):
        _, _, level, part, index, *rest = name.split(".")
        place = 4 * int(level) + (int(index) if part == "resnets" else 3)
        name = ".".join(("decoder.upsamples", str(place), *rest))
    if name.startswith(("quant_conv", "post_quant_conv")):
        return name.replace("post_quant_conv", "conv2").replace("quant_conv", "conv1")
    if ".downsamples." in name or ".upsamples." in name or ".middle." in name:
        for today, original in (
            ("norm1.", "residual.0."),
            ("conv1.", "residual.2."),
            ("norm2.", "residual.3."),
            ("conv2.", "residual.6."),
            ("conv_shortcut.", "shortcut."),
        ):
            name = name.replace(f".{today}", f".{original}")
    return name


TRANSFORMERS: dict[str, Callable[[Weights], Weights]] = {
    "wan": wan_transformer,
    "wan_causal": wan_transformer,
    "skyreels_v2": skyreels_transformer,
    "cosmos": cosmos_transformer,
    "ltx": ltx_transformer,
    "hunyuan_video": hunyuan_transformer,
}
"""By the family's name in a card."""


def stable_diffusion(unet: Weights, vae: Weights, layers: int, levels: int) -> Weights:
    """Both models of Stable Diffusion in one file.

    Args:
        unet: The UNet.
        vae: The autoencoder.
        layers: Residual blocks of a level of the UNet's encoder.
        levels: Levels of each model.

    """
    named = {_stable_diffusion_unet_name(name, layers): tensor for name, tensor in unet.items()}
    assert len(named) == len(unet)
    both = {f"model.diffusion_model.{name}": tensor for name, tensor in named.items()}
    for name, tensor in vae.items():
        original = _stable_diffusion_vae_name(name, levels)
        matrix = ".attn_1." in original and tensor.ndim == 2
        both[f"first_stage_model.{original}"] = tensor[:, :, None, None] if matrix else tensor
    return both | {"cond_stage_model.model.positional_embedding": torch.zeros(1)}


def _stable_diffusion_unet_name(name: str, layers: int) -> str:
    outer = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    module, _, kind = name.rpartition(".")
    if module in outer:
        return f"{outer[module]}.{kind}"
    side, *rest = name.split(".")
    if side == "mid_block":
        part, index, *rest = rest
        place = f"middle_block.{1 if part == 'attentions' else 2 * int(index)}"
    else:
        level, part, index, *rest = rest
        first = (layers + 1) * int(level)
        if part == "downsamplers":
            place, rest = f"input_blocks.{first + layers + 1}.0.op", rest[1:]
        elif part == "upsamplers":
            place = f"output_blocks.{first + layers}.{1 if level == '0' else 2}"
        else:
            blocks = f"input_blocks.{first + int(index) + 1}"
            if side == "up_blocks":
                blocks = f"output_blocks.{first + int(index)}"
            place = f"{blocks}.{int(part == 'attentions')}"
    inner = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "time_emb_proj": "emb_layers.1",
        "conv_shortcut": "skip_connection",
    }
    if part == "resnets":
        rest = [inner[rest[0]], *rest[1:]]
    return ".".join((place, *rest))


def _stable_diffusion_vae_name(name: str, levels: int) -> str:
    for level in range(levels):
        name = name.replace(f"up_blocks.{level}.resnets", f"up.{levels - 1 - level}.block")
        name = name.replace(f"up_blocks.{level}.upsamplers.0", f"up.{levels - 1 - level}.upsample")
    for today, original in (
        ("mid_block.resnets.0", "mid.block_1"),
        ("mid_block.resnets.1", "mid.block_2"),
        ("mid_block.attentions.0", "mid.attn_1"),
        ("group_norm", "norm"),
        ("to_q", "q"),
        ("to_k", "k"),
        ("to_v", "v"),
        ("to_out.0", "proj_out"),
        ("downsamplers.0", "downsample"),
        (".resnets.", ".block."),
        ("down_blocks", "down"),
        ("conv_shortcut", "nin_shortcut"),
        ("conv_norm_out", "norm_out"),
    ):
        name = name.replace(today, original)
    return name
