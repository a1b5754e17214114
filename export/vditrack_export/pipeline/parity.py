"""Proof that the exported graphs compute what the unmodified model computes."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vditrack.errors import VditrackError
from vditrack_export.card import Card, UNet, transformer_of
from vditrack_export.families.read_spec import Cut, Denoising, TensorName
from vditrack_export.families.registry import family_of
from vditrack_export.families.unet.family import layer_end, unet_family

MAX_RELATIVE_ERROR = 1e-5


def read_whole_model(
    card: Card, model: nn.Module, cut: Cut, denoising: Denoising, latents: Tensor, prompt: Tensor
) -> Tensor:
    """Run the unmodified model and catch what a path would read of it.

    Args:
        card: of the model.
        model: its whole transformer, or all of it up to the chosen block; or its whole UNet.
        cut: what is read.
        denoising: the step.
        latents: without noise, float32 [1, C, T, h, w].
        prompt: float32 [tokens, text_dim].

    Returns:
        float32 [described tokens, D].

    """
    if isinstance(card.transformer, UNet):
        return _read_unet(card, card.transformer, model, cut, denoising, latents, prompt)
    caught: list[Tensor] = []
    read_blocks(
        card,
        model,
        Reading((cut.block,), cut.tensor, cut.rotated),
        denoising,
        latents,
        prompt,
        lambda _, every: caught.append(every),
    )
    by_head = caught[-1]
    newest = len(by_head) * cut.described // latents.shape[2]
    return by_head[-newest:][:, list(cut.heads)][:, :, list(cut.channels)].flatten(1)


def _read_unet(
    card: Card,
    shape: UNet,
    model: nn.Module,
    cut: Cut,
    denoising: Denoising,
    latents: Tensor,
    prompt: Tensor,
) -> Tensor:
    """Run the unmodified UNet and catch the hidden states that a layer of its decoder puts out."""
    caught: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        # Frames [T, D, rows, columns].
        caught.append(output if isinstance(output, Tensor) else output[0])

    with torch.no_grad(), ExitStack() as hooks:
        hooks.callback(layer_end(model, cut.block).register_forward_hook(keep).remove)
        unet_family(shape).run(card, model, latents, denoising, prompt)
    return caught[-1][-cut.described :].permute(0, 2, 3, 1).flatten(0, 2)


@dataclass(frozen=True)
class Reading:
    """Which internal tensor is read of some blocks: all heads and channels of it."""

    blocks: tuple[int, ...]
    tensor: TensorName
    rotated: bool
    """Keys and queries after the rotary embedding, or before it."""


def read_blocks(
    card: Card,
    model: nn.Module,
    reading: Reading,
    denoising: Denoising,
    latents: Tensor,
    prompt: Tensor,
    found: Callable[[int, Tensor], None],
) -> None:
    """Run the unmodified model once and hand over what is read of each block as it is done.

    Args:
        card: of the model.
        model: its whole transformer, or all of it up to the last of the blocks.
        reading: what is read.
        denoising: the step.
        latents: without noise, float32 [1, C, T, h, w].
        prompt: float32 [tokens, text_dim].
        found: called with the block and a tensor float32 [tokens, heads, head_dim] of the video's
            tokens, frame by frame and row by row; nothing else keeps it.

    """
    family = family_of(card)
    tokens = math.prod(latents.shape[2:]) // math.prod(transformer_of(card).patch)
    with torch.no_grad(), ExitStack() as hooks:
        for index in reading.blocks:
            block = getattr(model, family.blocks)[index]
            caught = _catch(block, reading, hooks)

            def hand_over(*_: object, index: int = index, caught: list[Tensor] = caught) -> None:
                every = caught.pop()
                # Text tokens may go along, before the video's or after them.
                found(index, every[:tokens] if family.text_last else every[-tokens:])

            hooks.callback(block.register_forward_hook(hand_over).remove)
        family.run(model, denoising.noised(latents), denoising.timestep, prompt)


def _catch(block: nn.Module, reading: Reading, hooks: ExitStack) -> list[Tensor]:
    """Listen for a tensor of a block, [tokens, heads, head_dim] once the model has run."""
    caught: list[Tensor] = []
    # HunyuanVideo's blocks have one attention alone, whose heads come after the tokens.
    alone = not hasattr(block, "attn1")
    attention = block.attn if alone else block.attn1
    assert isinstance(attention, nn.Module)
    heads = int(attention.heads)  # type: ignore[arg-type]
    if reading.tensor == "hidden":

        def keep(_module: nn.Module, _inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
            hidden = output if isinstance(output, Tensor) else output[0]
            caught.append(torch.unflatten(hidden[0], -1, (heads, -1)))

        hooks.callback(block.register_forward_hook(keep).remove)
    elif not reading.rotated:
        norm = attention.norm_k if reading.tensor == "keys" else attention.norm_q
        assert isinstance(norm, nn.Module)

        def keep_normed(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            # [1, N, width], or [1, heads, N, head_dim] where each head is normalised on its own. A
            # copy: CogVideoX's attention writes the rotated numbers over these.
            every = output[0].clone()
            if every.ndim == 2:
                every = torch.unflatten(every, -1, (heads, -1))
            elif not alone:
                every = every.transpose(0, 1)
            caught.append(every)

        hooks.callback(norm.register_forward_hook(keep_normed).remove)
    else:
        catcher = _AttentionCatcher(reading.tensor, caught)
        listening = hooks.enter_context(ExitStack())

        def listen(*_: object) -> None:
            listening.enter_context(catcher)

        def stop(*_: object) -> None:
            listening.close()

        hooks.callback(attention.register_forward_pre_hook(listen).remove)
        hooks.callback(attention.register_forward_hook(stop).remove)
    return caught


class _AttentionCatcher(TorchFunctionMode):
    """Keeps keys or queries [1, heads, tokens, head_dim] handed to scaled_dot_product_attention."""

    def __init__(self, tensor: TensorName, caught: list[Tensor]) -> None:
        super().__init__()
        self._name = "query" if tensor == "queries" else "key"
        self._caught = caught

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            handed = dict(zip(("query", "key"), args, strict=False)) | kwargs
            tensor = handed[self._name]
            assert isinstance(tensor, Tensor)
            self._caught.append(tensor[0].transpose(0, 1))
        return function(*args, **kwargs)


def relative_error(
    what: str, output: NDArray[Any], reference: Tensor, allowed: float = MAX_RELATIVE_ERROR
) -> float:
    """Largest difference over the reference's largest magnitude.

    Raises:
        VditrackError: it is above what is allowed, or not a number.

    """
    expected = reference.detach().numpy().reshape(output.shape)
    error = float(np.abs(output - expected).max() / np.abs(expected).max())
    # Written so that NaN fails.
    if not error <= allowed:
        raise VditrackError(
            f"{what} differs from the model it was exported from by {error:.1e}, more than "
            f"{allowed:.0e}. Nothing was written; try the versions of torch, onnx and "
            "onnxruntime that this vditrack was tested with."
        )
    return error
