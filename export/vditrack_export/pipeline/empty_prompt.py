"""The empty prompt: what a checkpoint's text encoder gives for it."""

import gc
import hashlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vditrack.atomic_files import staged_file
from vditrack.errors import InputError
from vditrack_export.card import (
    T5,
    Card,
    Clip,
    CogVideoXTransformer,
    HunyuanVideoTransformer,
    Llama,
    LtxTransformer,
    UNet,
)
from vditrack_export.families.hunyuan.transformer import HunyuanPrompt

_TENSOR, _DIGEST = "prompt", "sha256"


def empty_prompt(card: Card, checkpoint: Path, kept: Path | None) -> Tensor:
    """Return the embedding of the empty prompt, float32 [tokens, text_dim], with its padding.

    HunyuanVideo has two text encoders, and a row more: see `HunyuanPrompt`.

    A card without a text encoder has a single all-zero token, or none where no prompt is known.
    Else it is read from the file
    ``kept``; where there is none yet, the checkpoint's text encoder is loaded, run, freed again,
    and the result is kept there, if a file was named.

    Raises:
        InputError: the file is not such an embedding, or the text encoder is missing or not read.

    """
    shape = _shape(card)
    if card.text_encoder is None:
        return torch.zeros(shape)
    if kept is not None and kept.exists():
        return _read(kept, shape)
    embedding = _computed(card, checkpoint)
    if kept is not None:
        with staged_file(kept) as path:
            save_file({_TENSOR: embedding}, path, {_DIGEST: _digest(embedding)})
    return embedding


def random_prompt(card: Card, seed: int = 0) -> Tensor:
    """Return numbers in the place of that embedding, as many of them different: for random weights.

    Where padding is masked, that is one token, and zeros after it.
    """
    shape = _shape(card)
    embedding = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if not isinstance(card.transformer, (CogVideoXTransformer, UNet)):
        embedding[shape[0] - card.transformer.text_tokens + 1 :] = 0
    return embedding


def _shape(card: Card) -> tuple[int, int]:
    """Rows and columns of a prompt: the pooled one of HunyuanVideo has a row of its own."""
    pooled = isinstance(card.transformer, HunyuanVideoTransformer)
    return card.transformer.text_tokens + pooled, card.transformer.text_dim


def _read(path: Path, shape: tuple[int, int]) -> Tensor:
    try:
        with safe_open(path, framework="pt") as file:
            digest = (file.metadata() or {}).get(_DIGEST)
            embedding: Tensor = file.get_tensor(_TENSOR)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is not a prompt that vditrack kept: {error}.") from error
    if digest != _digest(embedding):
        raise InputError(f"{path} was altered: its digest is another. Delete it to compute it.")
    if tuple(embedding.shape) != shape:
        raise InputError(
            f"{path} is a prompt of {list(embedding.shape)}, the card wants {list(shape)}. "
            "Give that of this checkpoint."
        )
    return embedding


def _digest(embedding: Tensor) -> str:
    return hashlib.sha256(embedding.contiguous().numpy().tobytes()).hexdigest()


def _computed(card: Card, checkpoint: Path) -> Tensor:
    """Tokenise, encode, and set the padding to what the family's pipeline sets it to."""
    if isinstance(card.text_encoder, Llama):
        return _computed_twice(card, checkpoint)
    kinds: dict[type, str] = {T5: "T5EncoderModel", Clip: "CLIPTextModel"}
    kind = kinds.get(type(card.text_encoder), "UMT5EncoderModel")
    tokenizer, encoder = _loaded(checkpoint, "", kind)
    length = card.transformer.text_tokens
    tokens = tokenizer([""], padding="max_length", max_length=length, return_tensors="pt")
    # Pipelines of CogVideoX and of UNets let padding tokens be; those of Wan and Cosmos mask them,
    # and zero them. LTX's masks them after the text encoder alone: here they are zeros, which its
    # path leaves out.
    zeroed = not isinstance(card.transformer, (CogVideoXTransformer, UNet))
    masked = zeroed and not isinstance(card.transformer, LtxTransformer)
    mask = tokens.attention_mask if masked else None
    with torch.no_grad():
        embedding: Tensor = encoder(tokens.input_ids, mask).last_hidden_state[0].float()
    del encoder
    gc.collect()
    return embedding * tokens.attention_mask[0][:, None] if zeroed else embedding


def _computed_twice(card: Card, checkpoint: Path) -> Tensor:
    """As HunyuanVideo's pipeline: by Llama, in a template that is cut off again, and by CLIP."""
    tokenizer, llama = _loaded(checkpoint, "", "LlamaModel")
    # Pipelines need transformers, which is there now.
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import (  # noqa: PLC0415
        DEFAULT_PROMPT_TEMPLATE,
    )

    template, start = DEFAULT_PROMPT_TEMPLATE["template"], DEFAULT_PROMPT_TEMPLATE["crop_start"]
    with torch.no_grad():
        # No token sees those after it, so padding may come when all is done.
        words = tokenizer([template.format("")], return_tensors="pt")
        states = llama(words.input_ids, output_hidden_states=True).hidden_states
        tokens = states[-3][0, start:].float()
        del llama, states
        gc.collect()
        tokenizer, clip = _loaded(checkpoint, "_2", "CLIPTextModel")
        pooled = clip(tokenizer([""], return_tensors="pt").input_ids).pooler_output[0].float()
    padded = F.pad(tokens, (0, 0, 0, card.transformer.text_tokens - len(tokens)))
    return HunyuanPrompt(padded, pooled).packed()


def _loaded(checkpoint: Path, number: str, kind: str) -> tuple[Any, Any]:
    """Load a tokenizer, and its text encoder as a class of transformers, from their folders."""
    # Only a prompt that was not kept needs transformers.
    try:
        import transformers  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise InputError(
            f"the prompt needs {error.name}, which is not installed. Run `pip install "
            "transformers sentencepiece`, or give a prompt that was kept with --prompt."
        ) from error
    folders = checkpoint / f"tokenizer{number}", checkpoint / f"text_encoder{number}"
    for folder in folders:
        if not folder.is_dir():
            raise InputError(
                f"checkpoint {checkpoint} lacks {folder.name}, which gives the empty prompt. Copy "
                "it too, or give a prompt that was kept with --prompt."
            )
    options = {"local_files_only": True}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folders[0], **options)
        encoder = getattr(transformers, kind).from_pretrained(
            folders[1], dtype=torch.bfloat16, **options
        )
    # Tokenizers and models of another library fail in ways of their own.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(f"text encoder of {checkpoint} does not load: {reason}") from error
    return tokenizer, encoder
