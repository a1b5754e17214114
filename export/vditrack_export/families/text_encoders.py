"""Tables of a card that describe the text encoder of its checkpoint's pipeline."""

from typing import ClassVar

import msgspec

from vditrack.bundle.configuration import Positive


class TextEncoderShape(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"
):
    """Shapes that all text encoders have."""

    model_class: ClassVar[str]
    """Name of the class in transformers."""

    layers: Positive
    width: Positive
    heads: Positive
    head_dim: Positive
    feed_forward: Positive
    vocabulary: Positive


class Umt5(TextEncoderShape, frozen=True, kw_only=True, tag="umt5"):
    """Shapes of a transformers ``UMT5EncoderModel`` with gated feed-forward networks."""

    model_class: ClassVar[str] = "UMT5EncoderModel"


class T5(TextEncoderShape, frozen=True, kw_only=True, tag="t5"):
    """Shapes of a transformers ``T5EncoderModel``."""

    model_class: ClassVar[str] = "T5EncoderModel"
    gated: bool
    """Whether its feed-forward networks are gated."""


class Llama(TextEncoderShape, frozen=True, kw_only=True, tag="llama"):
    """Shapes of a transformers ``LlamaModel``; a ``CLIPTextModel`` beside it pools the prompt."""

    model_class: ClassVar[str] = "LlamaModel"


class Clip(TextEncoderShape, frozen=True, kw_only=True, tag="clip"):
    """Shapes of a transformers ``CLIPTextModel``."""

    model_class: ClassVar[str] = "CLIPTextModel"


TextEncoder = Umt5 | T5 | Llama | Clip
