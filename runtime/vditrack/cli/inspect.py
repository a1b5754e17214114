"""Verb ``inspect``: check a bundle and show its content."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from vditrack.bundle.distillation import Distillation, read_distillation
from vditrack.bundle.folder import Bundle, bundled_model, load_bundle
from vditrack.bundle.manifest import EncoderAgreement, Manifest, Source, TinyEncoder
from vditrack.cli.console import PlainConsole, echo_json
from vditrack.cli.options import (
    BundleArgument,
    DeviceOption,
    HostCodeOption,
    Json,
    SignatureOption,
    check_device,
)
from vditrack.engine_builder.listing import BuildStatus, format_build, list_builds, list_unbuilt
from vditrack.engine_builder.verdicts import verify_builds
from vditrack.errors import EngineError, InputError


def inspect(
    bundle: BundleArgument = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Run each engine on this machine, compare its tracks with the bundle's golden "
            "tracks, and record the result in the bundle.",
        ),
    ] = False,
    device: DeviceOption = None,
    require_signature: SignatureOption = None,
    allow_host_code: HostCodeOption = False,
    as_json: Json = False,
) -> None:
    """Check the files of a bundle and show its content."""
    if device is not None:
        if not verify:
            raise InputError("--device is for --verify, which runs the engines. Give both.")
        check_device(device)
    checked = load_bundle(
        bundle or bundled_model(),
        require_signature=require_signature,
        verify_files=True,
        allow_host_code=allow_host_code,
    )
    failures = verify_builds(checked, device or 0) if verify else []
    builds = list_builds(checked)
    if as_json:
        content = {
            **msgspec.structs.asdict(checked.manifest),
            "distillation": read_distillation(checked.root),
            "engines": builds,
            "not_built": list_unbuilt(checked, builds),
        }
        echo_json(content)
    else:
        _print_bundle(checked, builds)
    if failures:
        raise EngineError(" ".join(failures))


def _print_bundle(checked: Bundle, builds: Sequence[BuildStatus]) -> None:
    manifest = checked.manifest
    console = PlainConsole()
    heading = Text.assemble((manifest.name, "bold"), f"  {checked.root}\n{manifest.notes}\n")
    console.print(heading)
    if checked.key is not None:
        console.print(f"signed with the key of {checked.key.path}\n")
    console.print(_make_table("source", _describe_source(manifest.source).items()))
    for title in (
        "input",
        "encoder",
        "output",
        "matching",
        "precision",
        "precision_check",
        "encoder_agreement",
        "int8",
        "attention_check",
    ):
        if (part := getattr(manifest, title)) is not None:
            console.print(_make_table(title, msgspec.structs.asdict(part).items()))
    if (origin := read_distillation(checked.root)) is not None:
        console.print(_make_table("distillation", _describe_distillation(origin).items()))
    sizes = {name: f"{record.size / 1e6:.2f} MB" for name, record in manifest.files.items()}
    console.print(_make_table("files, all unaltered", sizes.items()))
    console.print(_make_table("largest errors at export", list_errors(manifest)))
    console.print(_make_table("made with", manifest.tools.items()))
    for build in builds:
        console.print(format_build(build, manifest))
    if unbuilt := list_unbuilt(checked, builds):
        console.print(f"no engines: {', '.join(unbuilt)}")


def _describe_source(source: Source) -> dict[str, object]:
    adapters = [f"{each.name} at {each.scale:g}, {each.sha256}" for each in source.adapters]
    fields = msgspec.structs.asdict(source)
    if source.expert is None:
        del fields["expert"]
    fields["tiny_encoder"] = (
        "none: the encoder is the checkpoint's own"
        if source.tiny_encoder is None
        else describe_tiny_encoder(source.tiny_encoder)
    )
    return fields | {
        "quantisation": ", ".join(source.quantisation) or "none",
        "adapters": "\n".join(adapters) or "none",
    }


def _describe_distillation(origin: Distillation) -> dict[str, object]:
    footage = (f"{each.name}, {each.frames} frames, {each.sha256}" for each in origin.footage)
    fields = msgspec.structs.asdict(origin) | msgspec.structs.asdict(origin.agreement)
    return {**fields, "footage": "\n".join(footage), "agreement": "on rendered clips, in percent:"}


def describe_tiny_encoder(encoder: TinyEncoder) -> str:
    """Return a line that says that the encoder is not the checkpoint's own."""
    weights = "random weights" if encoder.name is None else f"{encoder.name}, {encoder.sha256}"
    return f"{encoder.kind} ({weights}), not the checkpoint's own"


def describe_agreement(agreement: EncoderAgreement) -> str:
    """Return a line on how far a tiny encoder is from the checkpoint's own."""
    return (
        f"on {agreement.clips} clips of {agreement.width} x {agreement.height} x "
        f"{agreement.frames} its latents differ from the own encoder's by "
        f"{agreement.relative_error:.3g} of their deviation (correlation "
        f"{agreement.correlation:.3f}), the median point moves by {agreement.median_move:.3f} "
        f"pixels, Average Jaccard {agreement.average_jaccard_own:.1f} to "
        f"{agreement.average_jaccard:.1f}{', beyond the limit but accepted' * agreement.accepted}"
    )


def list_errors(manifest: Manifest) -> list[tuple[str, str]]:
    """Return the comparisons with the original at export, and the error of each, as text.

    Errors are the largest difference, relative to the original's largest magnitude.
    """
    in_fp32 = [
        (f"{name.replace('_', ' ')}, in fp32", f"{error:.1e}")
        for name, error in manifest.parity.items()
    ]
    as_written = [
        (
            f"{each.network} vs original, in {each.precision} at "
            f"{each.height}x{each.width}x{each.frames}",
            f"{each.error:.1e} (limit {each.limit:.0e})",
        )
        for each in manifest.lowered_parity
    ]
    return in_fp32 + as_written


def _make_table(title: str, rows: Iterable[tuple[str, object]]) -> Table:
    table = Table(title=title, show_header=False, title_justify="left")
    table.add_column()
    # Digests are shown whole.
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name.replace("_", " "), str(value))
    return table
