"""Tables of a card that describe the text encoder of its checkpoint's pipeline."""

from typing import Any, ClassVar

import msgspec

from vditrack_export.families.sizes import Positive


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

    def config(self, length: int) -> dict[str, Any] | None:
        """Return the entries of the configuration that the shapes determine.

        Args:
            length: Number of tokens that prompts are padded to.

        Returns:
            Entries of the class's configuration; None if the shapes do not determine it.

        """
        return {
            "num_layers": self.layers,
            "d_model": self.width,
            "num_heads": self.heads,
            "d_kv": self.head_dim,
            "d_ff": self.feed_forward,
            "vocab_size": self.vocabulary,
        }


class Umt5(TextEncoderShape, frozen=True, kw_only=True, tag="umt5"):
    """Shapes of a transformers ``UMT5EncoderModel`` with gated feed-forward networks."""

    model_class: ClassVar[str] = "UMT5EncoderModel"


class T5(TextEncoderShape, frozen=True, kw_only=True, tag="t5"):
    """Shapes of a transformers ``T5EncoderModel``."""

    model_class: ClassVar[str] = "T5EncoderModel"
    gated: bool
    """Whether its feed-forward networks are gated."""

    def config(self, length: int) -> dict[str, Any] | None:
        """Return the entries of the configuration that the shapes determine."""
        activation = "gated-gelu" if self.gated else "relu"
        return {**(super().config(length) or {}), "feed_forward_proj": activation}


class Llama(TextEncoderShape, frozen=True, kw_only=True, tag="llama"):
    """Shapes of a transformers ``LlamaModel``; a ``CLIPTextModel`` beside it pools the prompt."""

    model_class: ClassVar[str] = "LlamaModel"

    def config(self, length: int) -> dict[str, Any] | None:
        """Return None: the card has no number of key and value heads, and no shapes of CLIP."""
        return None


class Clip(TextEncoderShape, frozen=True, kw_only=True, tag="clip"):
    """Shapes of a transformers ``CLIPTextModel``."""

    model_class: ClassVar[str] = "CLIPTextModel"

    def config(self, length: int) -> dict[str, Any] | None:
        """Return the entries of the configuration that the shapes determine."""
        return {
            "num_hidden_layers": self.layers,
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "intermediate_size": self.feed_forward,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": length,
        }


TextEncoder = Umt5 | T5 | Llama | Clip
