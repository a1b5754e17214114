"""What a user names as the source of a model's weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vditrack.errors import InputError
from vditrack_export.checkpoints.experts import ExpertName


@dataclass(frozen=True)
class Lora:
    """A low-rank adapter, and how much of it is added."""

    file: Path
    scale: float = 1.0


@dataclass(frozen=True)
class Weights:
    """The source of a model's weights; random weights if neither of the first two is given."""

    folder: Path | None
    """The checkpoint: its folder, or one file with all models."""
    transformer: Path | None = None
    """The transformer or UNet in a file or folder of its own."""
    vae: Path | None = None
    """The autoencoder in a file or folder of its own."""
    text_encoder: Path | None = None
    """Folder with ``tokenizer`` and ``text_encoder``, if it is not the checkpoint's."""
    prompt: Path | None = None
    """The file that stores the embedding of the empty prompt."""
    loras: tuple[Lora, ...] = ()
    """Adapters that are fused into the transformer."""
    variant: str | None = None
    """The variant of weight files that is preferred, such as ``fp16``."""
    expert: ExpertName | None = None
    """The transformer of a checkpoint with two; None to choose by the card's timestep."""
    tiny_encoder: Path | None = None
    """File or folder of the tiny encoder that stands in for the checkpoint's own."""

    @property
    def random(self) -> bool:
        """Whether the weights are random."""
        return self.folder is None and self.transformer is None

    def describe(self) -> str:
        """Return the paths, for a report."""
        loras = (f"{lora.file} x {lora.scale:g}" for lora in self.loras)
        files = self.folder, self.transformer, self.vae, self.tiny_encoder
        return ", ".join(map(str, filter(None, (*files, *loras))))


def require_lora_files(loras: Sequence[Lora]) -> None:
    """Check that the files of adapters are there; they are not read.

    Raises:
        InputError: A file is missing.

    """
    for lora in loras:
        if not lora.file.is_file():
            raise InputError(f"there is no LoRA at {lora.file}. Give its file with --lora.")


def parse_lora(text: str) -> Lora:
    """Return the adapter of an option ``FILE`` or ``FILE@SCALE``.

    Raises:
        InputError: The scale is not a number.

    """
    file, at, scale = text.rpartition("@")
    if not at or Path(text).exists():
        return Lora(Path(text))
    try:
        number = float(scale)
    except ValueError as error:
        raise InputError(
            f"--lora {text}: {scale} is not a number. Give FILE or FILE@SCALE, such as "
            "adapter.safetensors@0.8."
        ) from error
    # Written so that NaN is refused too.
    if not abs(number) < float("inf"):
        raise InputError(f"--lora {text}: the scale has to be finite.")
    return Lora(Path(file), number)
