"""The verb ``vditrack export``."""

from pathlib import Path
from typing import Annotated

import typer

from vditrack.bundle.folder import Bundle
from vditrack.bundle.manifest import AttentionCheck, Precision, PrecisionCheck
from vditrack.cli.console import PlainConsole, echo, echo_json
from vditrack.cli.inspect import describe_agreement, describe_tiny_encoder, list_errors
from vditrack.errors import VditrackError, install_command
from vditrack_export.card import load_card
from vditrack_export.card_changes import change_card, replace_encoder
from vditrack_export.checkpoints.sources import Weights
from vditrack_export.command_options import (
    AttentionOption,
    BlockOption,
    CardArgument,
    DescribedOption,
    EncoderOption,
    EncoderPrecisionOption,
    EncoderWeightsOption,
    ExpertOption,
    FramesOption,
    HeadsOption,
    LoraOption,
    PrecisionOption,
    PromptOption,
    RandomWeightsOption,
    SizeOption,
    TemporalStrideOption,
    TextEncoderOption,
    TransformerOption,
    VaeOption,
    VariantOption,
    WeightsOption,
    check_tiny_encoder,
    check_weights,
    parse_loras,
)


def export(
    card: CardArgument,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Folder to write the bundle to.", show_default=False),
    ],
    weights: WeightsOption = None,
    transformer: TransformerOption = None,
    vae: VaeOption = None,
    text_encoder: TextEncoderOption = None,
    lora: LoraOption = None,
    variant: VariantOption = None,
    expert: ExpertOption = None,
    encoder: EncoderOption = None,
    encoder_weights: EncoderWeightsOption = None,
    random_weights: RandomWeightsOption = False,
    prompt: PromptOption = None,
    size: SizeOption = None,
    frames: FramesOption = None,
    described: DescribedOption = None,
    temporal_stride: TemporalStrideOption = None,
    attention: AttentionOption = None,
    block: BlockOption = None,
    heads: HeadsOption = None,
    precision: PrecisionOption = "fp32",
    encoder_precision: EncoderPrecisionOption = None,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept",
            help="Accept a precision or cached keys that move tracks beyond the limits, and a tiny "
            "encoder whose latents are not those of the checkpoint's own.",
        ),
    ] = False,
    masks: Annotated[
        bool,
        typer.Option(
            "--masks",
            help="Also export the features that propagate masks.",
        ),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print the bundle's manifest as JSON.")
    ] = False,
) -> None:
    """Export what tracking needs of a checkpoint as a bundle of ONNX graphs."""
    source = Weights(
        weights,
        transformer,
        vae,
        text_encoder,
        prompt,
        parse_loras(lora),
        variant,
        expert,
        encoder_weights,
    )
    check_weights(source, random_weights)
    # A wrong card is reported before torch is imported, which takes seconds.
    changed = change_card(
        load_card(card),
        size=size,
        frames=frames,
        described=described,
        temporal_stride=temporal_stride,
        attention=attention,
        block=block,
        heads=heads,
    )
    changed = replace_encoder(changed, encoder)
    check_tiny_encoder(changed.tiny_encoder, source, random_weights)
    try:
        from vditrack_export.pipeline.export import export_bundle
        from vditrack_export.pipeline.precision import choose_precision
        from vditrack_export.pipeline.verified_graphs import Rounding
    except ModuleNotFoundError as error:
        raise VditrackError(
            f"export needs {error.name}, which is not installed. "
            f"Run `{install_command('export', 'cpu')}`."
        ) from error
    stages = PlainConsole(stderr=True)
    with stages.status("") as status:

        def report_stage(stage: str) -> None:
            stages.print(stage, style="dim")
            status.update(stage)

        rounding = Rounding(choose_precision(precision, encoder_precision), accept)
        bundle = export_bundle(changed, source, output, report_stage, rounding, masks=masks)
    if json:
        echo_json(bundle.manifest)
    else:
        _print_summary(bundle)


def _print_summary(bundle: Bundle) -> None:
    manifest = bundle.manifest
    size = sum(record.size for record in manifest.files.values())
    echo(f"{bundle.root}: {manifest.name}, {size / 1e6:.1f} MB")
    echo(
        f"  block {manifest.source.block}, heads {', '.join(map(str, manifest.source.heads))}, "
        f"{manifest.output.channels} channels on {manifest.output.columns} x "
        f"{manifest.output.rows} cells of {manifest.output.stride} pixels"
    )
    if manifest.source.expert is not None:
        echo(f"  transformer for {manifest.source.expert} noise")
    if manifest.source.tiny_encoder is not None:
        echo(f"  encoder: {describe_tiny_encoder(manifest.source.tiny_encoder)}")
    if manifest.encoder_agreement is not None:
        echo(f"  {describe_agreement(manifest.encoder_agreement)}")
    if manifest.source.random_weights:
        echo("  random weights: for benchmarks and engine builds; it cannot track")
    for comparison, error in list_errors(manifest):
        echo(f"  {comparison}: largest relative error {error}")
    if manifest.attention_check is not None:
        _print_attention_check(manifest.attention_check)
    if manifest.precision_check is not None:
        _print_precision_check(manifest.precision, manifest.precision_check)


def _print_attention_check(check: AttentionCheck) -> None:
    echo(
        f"  cached keys and values, windows of {check.window_frames} frames: on {check.clips} "
        f"clips of {check.width} x {check.height} x {check.frames} the median point moves by "
        f"{check.median_move:.3f} pixels, Average Jaccard {check.average_jaccard_window:.1f} to "
        f"{check.average_jaccard:.1f}"
        f"{', beyond the limits but accepted' * check.accepted}"
    )


def _print_precision_check(precision: Precision, check: PrecisionCheck) -> None:
    echo(
        f"  encoder in {precision.encoder}, transformer in {precision.features}: on {check.clips} "
        f"clips of {check.width} x {check.height} x {check.frames} the median point moves by "
        f"{check.median_move:.3f} pixels, Average Jaccard {check.average_jaccard_fp32:.1f} to "
        f"{check.average_jaccard:.1f}{', beyond the limits but accepted' * check.accepted}"
    )
