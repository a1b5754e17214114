"""Small random models of every transformer family, and what they compute inside.

The shapes are in ``tests/export/families/small``, one file for each transformer that is registered.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import tomllib
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vditrack_export.families.base_shapes import Feature, Transformer
from vditrack_export.families.read_spec import Cut, Denoising, LatentShape, seeded_noise
from vditrack_export.families.registry import DENOISER_SHAPES, resolve_family
from vditrack_export.families.step_path import StepPath
from vditrack_export.families.tiny.shapes import Convolutions
from vditrack_export.families.transformer_denoiser import TransformerDenoiser

FOLDER = Path(__file__).parent.parent / "export" / "families" / "small"

Reading = tuple[str, bool]
"""What is read of a block, and whether after the rotary embedding."""
READINGS: list[Reading] = [
    ("keys", True),
    ("keys", False),
    ("queries", True),
    ("queries", False),
    ("hidden", True),
]
Prompt = tuple[int, int]
"""Tokens of a prompt that differ, and tokens of padding behind them."""
STEP = Denoising(timestep=100.0, signal=0.9, noise=0.1, seed=3)
FRAMES = 3


def transformer_shapes() -> dict[str, type[Transformer]]:
    """Return the shapes of all transformers that are registered, by their name in a card."""
    return {
        str(shape.__struct_config__.tag): shape
        for shape in DENOISER_SHAPES
        if issubclass(shape, Transformer)
    }


def perturb(model: nn.Module, deviation: float = 0.1) -> Any:
    """Norms and biases start as ones and zeros, and would hide a weight that is left out."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(deviation * torch.randn_like(parameter))
    return model.eval()


class SmallFamily:
    """One small model, and the tensors inside it.

    Args:
        family: Name in a card.
        variant: Name of a variant in the family's file; None for its first model.

    """

    def __init__(self, family: str, variant: str | None = None) -> None:
        table = tomllib.loads((FOLDER / f"{family}.toml").read_text())
        variants, self.facts = table.pop("variants", {}), table.pop("conformance")
        changes = variants[variant] if variant else {}
        self.extra = table.pop("config", {}) | changes.pop("config", {})
        self.name = family if variant is None else f"{family}-{variant}"
        self.variants = list(variants)
        for name in changes.pop("unset", ()):
            del table[name]
        self.shape = msgspec.convert(table | changes | {"family": family}, _SHAPES[family])
        self._models: dict[int, Any] = {}
        self._inside: dict[object, dict[Reading, list[Tensor]]] = {}

    @cached_property
    def denoiser(self) -> TransformerDenoiser[Any]:
        encoder = Convolutions(
            latent_channels=self.shape.in_channels, widths=(4,), residuals=(0,), context=()
        )
        denoiser = resolve_family(self.shape, encoder).denoiser
        assert isinstance(denoiser, TransformerDenoiser)
        return denoiser

    def model(self, layers: int | None = None) -> Any:
        """Return the unmodified model of diffusers, with so many blocks."""
        layers = layers or self.shape.layers
        if layers not in self._models:
            torch.manual_seed(0)
            config = self.denoiser.config() | {"num_layers": layers} | self.extra
            self._models[layers] = perturb(self.denoiser.model_class(**config))
        return self._models[layers]

    @property
    def prompts(self) -> list[Prompt]:
        """Prompts of one token, of several, and of several with padding."""
        tokens = self.shape.text_tokens
        return [(tokens, 0)] if self.denoiser.prompt_padding == "kept" else [(1, 0), (5, 0), (2, 9)]

    def prompt(self, prompt: Prompt) -> Tensor:
        differing, padding = prompt
        rows, width = self.denoiser.prompt_shape
        # HunyuanVideo has a row before the tokens.
        first = rows - self.shape.text_tokens
        generator = torch.Generator().manual_seed(2)
        drawn = torch.randn(first + differing, width, generator=generator)
        return F.pad(drawn, (0, 0, 0, padding))

    @property
    def latent_shape(self) -> LatentShape:
        return self.shape.in_channels, FRAMES, 8, 12

    @cached_property
    def latents(self) -> Tensor:
        return torch.randn(1, *self.latent_shape, generator=torch.Generator().manual_seed(1))

    @property
    def grid(self) -> tuple[int, int, int]:
        """Frames, rows and columns of tokens."""
        _, rows, columns = self.shape.patch
        return FRAMES, 8 // rows, 12 // columns

    @cached_property
    def some_channels(self) -> tuple[int, ...]:
        """Whole rotary pairs, not all of a head."""
        feature = Feature(
            block=0,
            heads=(0,),
            tensor="keys",
            frequency_range=(0.3, 1.0),
            timestep=0.0,
            signal_level=1.0,
            noise_level=0.0,
            noise_seed=0,
        )
        return self.denoiser.channels(feature)

    def inside(self, prompt: Prompt, layers: int | None = None) -> dict[Reading, list[Tensor]]:
        """Run the unmodified model; return each reading of each block, [tokens, heads, dim]."""
        key = (prompt, layers)
        if key not in self._inside:
            model = self.model(layers)
            blocks = getattr(model, self.denoiser.blocks)
            self._inside[key] = read_inside(
                blocks,
                lambda: self.denoiser.run(model, self.latents, STEP, self.prompt(prompt)),
                heads=self.shape.heads,
                tokens=self.grid[0] * self.grid[1] * self.grid[2],
                text_first=self.facts["text"] == "first",
            )
        return self._inside[key]

    def expected(self, cut: Cut, prompt: Prompt, layers: int | None = None) -> Tensor:
        """Return what the unmodified model computes of a cut: [described, rows, columns, D]."""
        reading = (cut.tensor, cut.rotated)
        read = self.inside(prompt, layers)[reading][cut.block]
        chosen = read[:, list(cut.heads)][:, :, list(cut.channels)].flatten(1)
        return chosen.reshape(*self.grid, -1)[-cut.described :]

    def inside_clip(self, clip: Tensor, chunk: int, window: int) -> dict[Reading, list[Tensor]]:
        """Run the unmodified model on a clip, with attention limited to chunks in a window."""
        model, prompt = self.model(), self.prompt(self.prompts[-1])
        latents = clip.shape[2]
        noise = seeded_noise((1, clip.shape[1], chunk, *clip.shape[3:]), STEP.seed)
        noised = STEP.signal * clip + STEP.noise * noise.repeat(1, 1, latents // chunk, 1, 1)
        ends = torch.arange(latents) // chunk * chunk + chunk
        places = torch.arange(latents)
        attended = (places < ends[:, None]) & (places >= ends[:, None] - window)
        _, rows, columns = self.shape.patch
        cells = clip.shape[3] // rows * (clip.shape[4] // columns)
        return read_inside(
            getattr(model, self.denoiser.blocks),
            lambda: self.denoiser.run_noised(model, noised, torch.tensor([STEP.timestep]), prompt),
            heads=self.shape.heads,
            tokens=latents * cells,
            text_first=False,
            mask=attended.repeat_interleave(cells, 0).repeat_interleave(cells, 1),
        )

    def step_path(self, cut: Cut, window: int, sides: tuple[int, int]) -> StepPath:
        shape = (self.shape.in_channels, window, *sides)
        prompt = self.prompt(self.prompts[-1])
        return self.denoiser.step_path(self.model(), shape, cut, STEP, prompt).eval()

    def path(self, cut: Cut, prompt: Prompt, layers: int | None = None) -> nn.Module:
        model, text = self.model(layers), self.prompt(prompt)
        return self.denoiser.path(model, self.latent_shape, cut, STEP, text).eval()

    def descriptors(self, cut: Cut, prompt: Prompt, layers: int | None = None) -> Tensor:
        with torch.no_grad():
            found: Tensor = self.path(cut, prompt, layers)(self.latents)
        return found


_SHAPES = transformer_shapes()


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest magnitude."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def read_inside(
    blocks: Sequence[Any],
    run: Callable[[], object],
    *,
    heads: int,
    tokens: int,
    text_first: bool,
    mask: Tensor | None = None,
) -> dict[Reading, list[Tensor]]:
    """Run a model and catch keys, queries and hidden states of its blocks.

    Args:
        blocks: Transformer blocks of the model.
        run: Runs it.
        heads: Heads of each block.
        tokens: Tokens of the video.
        text_first: Whether text tokens that attend together with the video's precede them.
        mask: Which tokens each attends to in self-attention; None for all.

    Returns:
        By reading and block, float32 [tokens, heads, head_dim].

    """
    found: dict[Reading, list[Tensor]] = defaultdict(list)

    def video(every: Tensor) -> Tensor:
        """Of [N, heads, head_dim]."""
        # A copy: CogVideoX writes rotated numbers over those before.
        return (every[-tokens:] if text_first else every[:tokens]).clone()

    def keep_normed(reading: Reading) -> Callable[..., None]:
        def keep(_module: object, _inputs: object, output: Tensor) -> None:
            every = output[0]
            if every.ndim == 2:
                every = every.unflatten(-1, (heads, -1))
            elif every.shape[0] == heads:
                every = every.transpose(0, 1)
            found[reading].append(video(every))

        return keep

    def keep_hidden(_module: object, _inputs: object, output: Any) -> None:
        every = output if isinstance(output, Tensor) else output[0]
        found["hidden", True].append(video(every[0].unflatten(-1, (heads, -1))))

    listener = _Attentions(lambda name, every: found[name, True].append(video(every)), mask)
    with ExitStack() as hooks, torch.no_grad():
        for block in blocks:
            attention = block.attn1 if hasattr(block, "attn1") else block.attn
            for hook in (
                attention.norm_k.register_forward_hook(keep_normed(("keys", False))),
                attention.norm_q.register_forward_hook(keep_normed(("queries", False))),
                attention.register_forward_pre_hook(listener.begin),
                attention.register_forward_hook(listener.end),
                block.register_forward_hook(keep_hidden),
            ):
                hooks.callback(hook.remove)
        hooks.enter_context(listener)
        run()
    return found


class _Attentions(TorchFunctionMode):
    """Hands over queries and keys of self-attention as scaled_dot_product_attention gets them."""

    def __init__(self, found: Callable[[str, Tensor], None], mask: Tensor | None) -> None:
        super().__init__()
        self.found, self.mask, self.listening = found, mask, False

    def begin(self, *_: object) -> None:
        self.listening = True

    def end(self, *_: object) -> None:
        self.listening = False

    def __torch_function__(
        self,
        function: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if self.listening and function is F.scaled_dot_product_attention:
            handed = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
            self.found("queries", handed["query"][0].transpose(0, 1))
            self.found("keys", handed["key"][0].transpose(0, 1))
            if self.mask is not None:
                args, kwargs = (), handed | {"attn_mask": self.mask}
        return function(*args, **kwargs)
