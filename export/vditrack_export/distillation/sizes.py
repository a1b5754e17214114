"""The sizes of students, and the choice of one by a budget."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from vditrack.bundle.manifest import Precision
from vditrack.errors import InputError
from vditrack_export.card import Card, Part
from vditrack_export.pipeline.precision import choose_precision
from vditrack_export.plan.devices import Device, find_device
from vditrack_export.plan.pipeline import graph_costs
from vditrack_export.plan.runs import Question, plan_bundle
from vditrack_export.plan.settings import card_setting
from vditrack_export.tiny.model import STRIDE, Shape

WIDTHS = (8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64)
"""Channels of the encoder at a quarter of the picture's size; the bundled model has 32."""
EFFICIENCY, POINTS = 0.5, 64
"""The share of a device's peak that is reached, and the points tracked, as in `vditrack plan`."""
_FP32 = Precision(encoder="fp32", features="fp32")


@dataclass(frozen=True)
class Budget:
    """What a frame may cost: operations, or a device that keeps up with a camera."""

    operations: float | None = None
    """Twice the multiply-adds of a frame."""
    device: Device | None = None
    rate: float = 0.0
    """Frames a second of the camera."""


def parse_budget(text: str) -> Budget:
    """Return the budget of an option ``DEVICE@HZ`` or ``MFLOP``.

    Raises:
        InputError: It is neither, or there is no such device.

    """
    device, at, number = text.rpartition("@")
    try:
        amount = float(number)
    except ValueError:
        amount = -1.0
    # Written so that NaN fails too.
    if not 0 < amount < float("inf"):
        raise InputError(
            f"--budget {text!r} is no budget. Give a device and a frame rate, such as orin-nx@30 "
            "(`vditrack plan --device list`), or millions of operations a frame, such as 800."
        )
    if at:
        return Budget(device=find_device(device), rate=amount)
    return Budget(operations=1e6 * amount)


def make_shape(width: int) -> Shape:
    """Return the sizes of a student by the channels of its first level."""
    return Shape(
        latents=2 * width,
        widths=(width, 2 * width),
        residuals=(1, 2),
        context=(4 * width, 6 * width),
    )


def make_card(base: Card, shape: Shape) -> Card:
    """Return the card of a student: that of the bundled model with other sizes.

    Masks are propagated by what points are tracked by.
    """
    changes = {
        "transformer": {
            "layers": shape.layers,
            "heads": shape.heads,
            "head_dim": shape.head_dim,
            "feed_forward": shape.feed_forward,
            "in_channels": shape.latents,
            "out_channels": shape.latents,
        },
        "encoder": {
            "widths": shape.widths,
            "residuals": shape.residuals,
            "context": shape.context,
            "latent_channels": shape.latents,
        },
        "feature": {"heads": tuple(range(shape.heads))},
    }
    # Converted from plain data, so that all rules of the card are checked again.
    fields = msgspec.to_builtins(base)
    for table, values in changes.items():
        fields[table] |= values
    fields["masks"] = None
    card: Card = msgspec.convert(fields, type=Card)
    if base.masks is None:
        return card
    part = Part(input=card.input, feature=card.feature)
    masks = msgspec.structs.replace(base.masks, appearance=part)
    return msgspec.structs.replace(card, masks=masks)


def coarsest_cell(shape: Shape) -> int:
    """Return the side of the encoder's coarsest cells, in pixels."""
    return int(STRIDE * 2 ** len(shape.context))


def count_operations(card: Card) -> int:
    """Return the operations of a frame: twice the multiply-adds of encoder and transformer."""
    setting = card_setting(card)
    graphs = graph_costs(card, setting, card.input.described_latents, _FP32, "attention")
    return sum(cost.operations for cost in graphs.costs.values())


def choose_shape(base: Card, budget: Budget) -> Shape:
    """Return the largest student that a budget allows.

    Raises:
        InputError: The budget is too small for the smallest student.

    """
    fitting = [
        shape for shape in map(make_shape, WIDTHS) if _is_within(make_card(base, shape), budget)
    ]
    if not fitting:
        smallest = count_operations(make_card(base, make_shape(WIDTHS[0])))
        raise InputError(
            f"--budget: the smallest student takes {smallest / 1e6:.0f} MFLOP a frame at "
            f"{base.input.width}x{base.input.height}, more than the budget. Give a larger budget, "
            "or a smaller --size."
        )
    return fitting[-1]


def _is_within(card: Card, budget: Budget) -> bool:
    if budget.operations is not None:
        return count_operations(card) <= budget.operations
    assert budget.device is not None
    precision = choose_precision(budget.device.default, None)
    question = Question(budget.device, precision, EFFICIENCY, POINTS, budget.rate)
    plan = plan_bundle(card, card.input, question)
    return plan.fits and plan.stream_rate >= budget.rate
