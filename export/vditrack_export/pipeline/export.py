"""From a card and a checkpoint to a sealed bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from vditrack.atomic_files import check_disk_space, staged_folder
from vditrack.bundle.folder import APPEARANCE, CONTENTS, MOTION, Bundle, seal_bundle
from vditrack.bundle.manifest import Precision
from vditrack.errors import InputError
from vditrack_export.card import Card
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.families.unet.shapes import UNet
from vditrack_export.pipeline.agreement import measure_agreement
from vditrack_export.pipeline.backbone import Backbone, load_backbone
from vditrack_export.pipeline.locate import locate_checkpoint
from vditrack_export.pipeline.manifest import FULL_PRECISION, make_manifest
from vditrack_export.pipeline.onnx_export import count_bytes
from vditrack_export.pipeline.verified_graphs import (
    ReportStage,
    Rounding,
    write_verified_graphs,
)

NONE = Rounding(FULL_PRECISION)
_SHARES_OF_FP32 = {"fp32": 1.0, "bf16": 0.5, "fp16": 0.5}
"""Sizes of weights, of their size in FP32."""


def export_bundle(
    card: Card,
    weights: Weights,
    destination: Path,
    report_stage: ReportStage,
    rounding: Rounding = NONE,
    *,
    masks: bool = False,
) -> Bundle:
    """Export the encoder and the truncated transformer, compare them with the original, and seal.

    Args:
        card: the card of the model.
        weights: the checkpoint that the card names, or random weights.
        destination: the folder of the bundle; an older bundle there is replaced at the end.
        report_stage: see `ReportStage`.
        rounding: the precision. Below FP32, the graphs are compared in FP32, and the effect of the
            precision on tracks is judged: see `vditrack_export.pipeline.verified_graphs`.
        masks: whether the parts that propagate masks are exported too, each as a bundle in a folder
            of its own.

    Raises:
        VditrackError: the card has no section for masks, the checkpoint does not match the card,
            the destination is something else than a bundle or has no room for it, the exported
            graphs do not reproduce the model, the precision is refused, or the latents of a tiny
            encoder are not the checkpoint's. Nothing is left behind then.

    """
    _check_card(card)
    _check_precision(card, rounding.precision)
    parts = _make_part_cards(card) if masks else {}
    timesteps = [part.feature.timestep for part in (card, *parts.values())]
    weights = locate_checkpoint(card, timesteps, weights, report_stage)
    with staged_folder(destination, replaceable=CONTENTS) as folder:
        report_stage("reading the checkpoint")
        backbone = load_backbone(card, weights)
        for note in backbone.checkpoint.notes:
            report_stage(f"note: {note}")
        _require_room(backbone, (card, *parts.values()), rounding.precision, destination)
        agreement = measure_agreement(backbone, report_stage, accept=rounding.accept)
        verified = write_verified_graphs(backbone, folder, rounding, report_stage)
        for name, part in parts.items():
            report_stage(f"{name}:")
            export_bundle(part, weights, folder / name, report_stage, rounding)
        report_stage("sealing the bundle")
        manifest = msgspec.structs.replace(
            make_manifest(backbone, card.input, verified.encoder, verified.parity),
            lowered_parity=verified.lowered_parity,
            precision=rounding.precision,
            precision_check=verified.check,
            encoder_agreement=agreement,
            attention_check=verified.attention_check,
            propagation=card.masks.propagation if masks and card.masks else None,
        )
        sealed = seal_bundle(folder, manifest)
    return sealed.moved_to(destination)


def _require_room(
    backbone: Backbone, cards: Sequence[Card], precision: Precision, destination: Path
) -> None:
    """Check that the disk has room for the graphs of a bundle and of the bundles in it.

    Those of the other cards are estimated by the share of the transformer that they read.
    """
    transformer = count_bytes(backbone.feature_graph(backbone.card.input).module)
    form = backbone.encoder_form(backbone.card.input)
    encoder = sum(count_bytes(graph.module) for graph in form.graphs)
    depth = sum((card.feature.block + 1) / (backbone.card.feature.block + 1) for card in cards)
    check_disk_space(
        destination,
        depth * transformer * _SHARES_OF_FP32[precision.features]
        + len(cards) * encoder * _SHARES_OF_FP32[precision.encoder],
        "the bundle",
        "Make room, or choose another -o or --precision fp16.",
    )


def _make_part_cards(card: Card) -> dict[str, Card]:
    """Return the cards of the bundles that propagate masks, by their folders.

    Appearance that is read as points are is not stored a second time.
    """
    if card.masks is None:
        raise InputError(
            f"card {card.name} has no [masks], which says how masks are propagated. Leave --masks "
            "out, or write that section (docs/masks.md)."
        )
    parts = {MOTION: card.masks.motion, APPEARANCE: card.masks.appearance}
    return {
        name: msgspec.structs.replace(
            card,
            name=f"{card.name}, {name}",
            input=part.input,
            feature=part.feature,
            masks=None,
        )
        for name, part in parts.items()
        if part is not None and (part.input, part.feature) != (card.input, card.feature)
    }


def _check_precision(card: Card, precision: Precision) -> None:
    """Raise an `InputError` if less than the claimed share of products would be in a precision."""
    if precision.features == "bf16" and isinstance(card.transformer, UNet):
        raise InputError(
            f"--precision bf16: the convolutions of card {card.name}, a large part of its UNet, "
            "would stay in FP32, and no engine is built of such a bundle. Give --precision fp16."
        )


def _check_card(card: Card) -> None:
    """Raise an `InputError` if frames do not divide into square cells."""
    size, shape = card.input, card.transformer
    patch_frames, patch_rows, patch_columns = shape.patch
    cell = card.cell
    claims = [
        (
            patch_frames == 1 and patch_rows == patch_columns,
            f"patches of {patch_frames} x {patch_rows} x {patch_columns} are not square cells",
        ),
        (
            size.height % cell == 0 and size.width % cell == 0,
            f"{size.width} x {size.height} pixels do not divide into cells of {cell}",
        ),
    ]
    complaints = [complaint for holds, complaint in claims if not holds]
    if complaints:
        raise InputError(f"card {card.name}: {'; '.join(complaints)}. Correct it there.")
