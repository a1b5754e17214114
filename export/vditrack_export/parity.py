"""Proof that the exported graphs compute what the unmodified model computes."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vditrack.backends.onnxruntime import OnnxRuntimeSession
from vditrack.errors import VditrackError

MAX_RELATIVE_ERROR = 1e-5


def attention_keys(
    model: WanTransformer3DModel, block: int, noised: Tensor, timestep: float, prompt: Tensor
) -> Tensor:
    """Run the whole model and return the keys that one block's self-attention multiplies.

    Args:
        model: any diffusers Wan transformer; it is not changed.
        block: block whose keys are wanted, from 0.
        noised: latents with noise, float32 [1, C, T, h, w].
        timestep: the denoising step's.
        prompt: float32 [tokens, text_dim].

    Returns:
        Keys, float32 [T * rows * columns, heads, head_dim].

    """
    catcher = _KeyCatcher()
    attention = model.blocks[block].attn1
    with ExitStack() as hooks, ExitStack() as listening, torch.no_grad():

        def listen(*_: object) -> None:
            listening.enter_context(catcher)

        def stop(*_: object) -> None:
            listening.close()

        hooks.callback(attention.register_forward_pre_hook(listen).remove)
        hooks.callback(attention.register_forward_hook(stop).remove)
        model(noised, torch.tensor([timestep]), prompt[None])
    return catcher.keys[0].transpose(0, 1)


class _KeyCatcher(TorchFunctionMode):
    """Keeps the keys [1, heads, tokens, head_dim] handed to scaled_dot_product_attention."""

    keys: Tensor

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            self.keys = kwargs["key"]
        return function(*args, **kwargs)


def chosen(keys: Tensor, heads: Sequence[int], channels: Sequence[int]) -> Tensor:
    """Of keys [tokens, heads, head_dim], what a bundle keeps: [tokens, D], head by head."""
    return keys[:, list(heads)][:, :, list(channels)].flatten(1)


def run_graph(path: Path, example: Tensor) -> NDArray[Any]:
    """Run a graph of one input and one output in ONNX Runtime."""
    session = OnnxRuntimeSession(path)
    (name,) = session.inputs
    (output,) = session.run({name: example.numpy()}).values()
    return output


def relative_error(graph: Path, output: NDArray[Any], reference: Tensor) -> float:
    """Largest difference over the reference's largest magnitude.

    Raises:
        VditrackError: it is above 1e-5, or not a number.

    """
    expected = reference.detach().numpy().reshape(output.shape)
    error = float(np.abs(output - expected).max() / np.abs(expected).max())
    # Written so that NaN fails.
    if not error <= MAX_RELATIVE_ERROR:
        raise VditrackError(
            f"{graph.name} differs from the model it was exported from by {error:.1e}, more than "
            f"{MAX_RELATIVE_ERROR:.0e}. Nothing was written; try the versions of torch, onnx and "
            "onnxruntime that this vditrack was tested with."
        )
    return error
