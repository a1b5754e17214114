"""The command that exports a bundle as it is planned."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace

from vditrack_export.plan.settings import Setting


@dataclass(frozen=True)
class ExportCommand:
    """Options of ``vditrack export`` that a plan was made with; None where none was given."""

    card: str
    size: str | None
    frames: int | None
    described: int | None
    temporal_stride: int | None
    attention: str | None
    encoder: str | None
    block: int | None
    heads: str | None
    precision: str
    encoder_precision: str | None

    def with_window(self, setting: Setting, described: int, encoder: str | None) -> ExportCommand:
        """Return the command for another window, of which so many frames are described."""
        return replace(
            self,
            size=f"{setting.width}x{setting.height}",
            frames=setting.frames,
            described=described,
            temporal_stride=setting.temporal_stride,
            encoder=encoder,
        )

    def format(self) -> str:
        """Return the command, in which DIR, FILE and BUNDLE stand for the user's paths.

        They are the checkpoint, the weights of the tiny encoder, if there is one, and the bundle.
        """
        options = {
            "--weights": "DIR",
            "--size": self.size,
            "--frames": self.frames,
            "--described": self.described,
            "--temporal-stride": self.temporal_stride,
            "--attention": self.attention,
            "--encoder": self.encoder,
            "--encoder-weights": None if self.encoder is None else "FILE",
            "--block": self.block,
            "--heads": self.heads,
            "--precision": self.precision,
            "--encoder-precision": self.encoder_precision,
            "-o": "BUNDLE",
        }
        given = [
            part
            for name, value in options.items()
            if value is not None
            for part in (name, str(value))
        ]
        return shlex.join(["vditrack", "export", self.card, *given])
