"""The cost of each new latent of a stream: as the runtime computes it, and estimates of less.

The estimates are of forms that export does not make. A transformer with cached keys and values
computes the newest latent alone, which attends to the keys and values that the window's others had
when they were new. That is not what a bidirectional model computes: there, older latents attend to
the newest, too. A tiny encoder, TAEHV (https://github.com/madebyollin/taehv), stands in for the
checkpoint's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from vditrack_export.card import Card
from vditrack_export.plan.costs import Cost, PrecisionName
from vditrack_export.plan.lowering import lower
from vditrack_export.plan.networks import record_feature_path
from vditrack_export.plan.recorder import Recording, Value
from vditrack_export.plan.runs import Plan, Question, plan_engine
from vditrack_export.plan.settings import Setting, latent_size

_ITEM = {"fp16": 2, "bf16": 2, "fp32": 4}
_TINY_WIDTH = 64
"""Channels of every layer of TAEHV's encoder."""
_TINY_STRIDES = (2, 2, 1)
"""Frames that each of its levels joins; each halves the picture."""
_TINY_BLOCKS = 3
"""Memory blocks of a level: three convolutions each; the first also sees the frame before."""
_TINY_ENCODERS = ("wan_autoencoder", "cogvideox_autoencoder", "hunyuan_video_autoencoder")
"""Encoders of cards whose latents a TAEHV gives, one for four frames."""


@dataclass(frozen=True)
class LatentCost:
    """What a stream computes for each new latent, in one form."""

    form: str
    estimate: bool
    """Whether export does not make this form."""
    runs: int
    """Runs of both networks for the latent."""
    encoder_operations: int
    transformer_operations: int
    cache_bytes: int
    """What encoder and transformer keep from run to run."""
    seconds: float
    """Time for the latent, without tracking."""
    rate: float
    """Frames a second: as many frames as share a latent, in that time."""


@dataclass(frozen=True)
class _Form:
    name: str
    operations: int
    seconds: float
    cache_bytes: int


def latent_costs(card: Card, plan: Plan, question: Question) -> tuple[LatentCost, ...]:
    """Return the cost of a new latent as it is, then estimates of other forms.

    Today every frame runs both networks, and the encoder's caches pass through the host's memory.
    The estimates run each network once for a latent, and keep caches on the device.
    """
    setting, stride = plan.setting, plan.setting.temporal_stride
    encoder, transformer = plan.engines["encoder"], plan.engines["transformer"]
    copies = encoder.copy_seconds + transformer.copy_seconds
    seconds = stride * (encoder.seconds + transformer.seconds + copies)
    made = LatentCost(
        form="as exported",
        estimate=False,
        runs=stride,
        encoder_operations=stride * encoder.operations,
        transformer_operations=stride * transformer.operations,
        cache_bytes=plan.cache_bytes,
        seconds=seconds,
        rate=stride / seconds,
    )
    encoders = [_Form("VAE", encoder.operations, encoder.seconds, plan.cache_bytes)]
    encoders += _tiny_encoders(card, setting, question)
    transformers = [_Form("window", transformer.operations, transformer.seconds, 0)]
    transformers += _cached_transformers(card, setting, question)
    return made, *(_estimate(stride, a, b) for a in encoders for b in transformers)


def _estimate(stride: int, encoder: _Form, transformer: _Form) -> LatentCost:
    seconds = encoder.seconds + transformer.seconds
    return LatentCost(
        form=f"{encoder.name}, {transformer.name}",
        estimate=True,
        runs=1,
        encoder_operations=encoder.operations,
        transformer_operations=transformer.operations,
        cache_bytes=encoder.cache_bytes + transformer.cache_bytes,
        seconds=seconds,
        rate=stride / seconds,
    )


def _cached_transformers(card: Card, setting: Setting, question: Question) -> Iterator[_Form]:
    """Yield the transformer on the newest latent, with the keys and values of the others cached."""
    older = setting.latent_frames - 1
    if card.transformer.as_transformer is None or older == 0:
        return
    _, rows, columns = latent_size(card, setting)
    recording = record_feature_path(card, (1, rows, columns), 1, question.precision.features)
    cost, caches = lower(recording, question.device.fusion), 0
    cells = (setting.height // card.cell) * (setting.width // card.cell)
    for value in _self_attentions(recording):
        query, key, attended = value.reads
        channels = prod(key.shape[:-2]) * (key.shape[-1] + attended.shape[-1])
        read = older * cells * channels * value.dtype.itemsize
        caches += read
        name = question.precision.features
        more = 2 * query.shape[-2] * older * cells * channels
        cost = replace(
            cost,
            **{name: cost.operations_in(name) + more},
            moved_bytes=cost.moved_bytes + read,
        )
    engine = plan_engine(cost, question)
    yield _Form("cached", engine.operations, engine.seconds, caches)


def _self_attentions(recording: Recording) -> Iterator[Value]:
    """Yield every attention whose keys are not those of a constant prompt."""
    for value in recording.values:
        if value.kind == "attention" and value.reads[1].kind != "constant":
            yield value


def _tiny_encoders(card: Card, setting: Setting, question: Question) -> Iterator[_Form]:
    """Yield TAEHV on the frames of a latent, if there is one for the card's latents."""
    shape = card.encoder
    kind = shape.__struct_config__.tag
    if kind not in _TINY_ENCODERS or setting.temporal_stride != prod(_TINY_STRIDES):
        return
    patch = shape.stride // 2 ** len(_TINY_STRIDES)
    height, width = setting.height // patch, setting.width // patch
    cost, caches = tiny_encoder_cost(
        height, width, 3 * patch**2, shape.latent_channels, question.precision.encoder
    )
    engine = plan_engine(cost, question)
    yield _Form("TAEHV", engine.operations, engine.seconds, caches)


def tiny_encoder_cost(
    height: int, width: int, image_channels: int, latent_channels: int, precision: PrecisionName
) -> tuple[Cost, int]:
    """Return the cost of TAEHV's encoder for the frames of a latent, and its caches in bytes.

    Its first convolution is followed by three levels: the frames that a level joins are stacked in
    channels and mixed (1 x 1), a convolution halves the picture, and memory blocks follow, each of
    which keeps a frame of its input. A last convolution gives the latent.

    Args:
        height: Rows of the picture after its patches were folded into channels.
        width: Its columns.
        image_channels: Its channels.
        latent_channels: Channels of a latent.
        precision: Of all convolutions.

    """
    wide, frames, pixels = _TINY_WIDTH, prod(_TINY_STRIDES), height * width
    operations = moved = weights = caches = 0

    def convolve(kernel: int, entering: int, leaving: int, step: int = 1) -> None:
        nonlocal operations, moved, weights
        operations += 2 * kernel * entering * leaving * pixels * frames
        moved += (entering * step + leaving) * pixels * frames
        weights += kernel * entering * leaving

    convolve(9, image_channels, wide)
    for joined in _TINY_STRIDES:
        frames //= joined
        convolve(1, joined * wide, wide)
        pixels //= 4
        convolve(9, wide, wide, step=4)
        for _ in range(_TINY_BLOCKS):
            convolve(9, 2 * wide, wide)
            convolve(9, wide, wide)
            convolve(9, wide, wide)
            caches += wide * pixels
    convolve(9, wide, latent_channels)
    item = _ITEM[precision]
    counts: dict[PrecisionName, int] = {"fp16": 0, "bf16": 0, "fp32": 0, precision: operations}
    cost = Cost(
        **counts,
        weight_bytes=item * weights,
        moved_bytes=item * moved,
        peak_bytes=0,
        input_bytes=0,
        output_bytes=0,
    )
    return cost, item * caches
