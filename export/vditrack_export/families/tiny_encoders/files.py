"""Files of tiny encoders: what their names say, and the weights of TAEHV in them."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from vditrack.errors import InputError
from vditrack_export.checkpoints.model_file import open_tensors
from vditrack_export.checkpoints.stored_tensors import StoredTensors
from vditrack_export.checkpoints.weights import check_finite
from vditrack_export.families.tiny_encoders.shapes import Taehv

SUFFIXES = (".safetensors", ".pth", ".pt")
"""Ends of the names of files that are read."""
_PUBLISHED = {
    "taehv": "HunyuanVideo",
    "taehv1_5": "HunyuanVideo 1.5",
    "taew2_1": "Wan 2.1",
    "taew2_2": "the 5B model of Wan 2.2",
    "taecvx": "CogVideoX",
    "taeos1_3": "Open-Sora 1.3",
    "taeltx": "LTX-2",
    "taeh3": "MiniMax H3",
    "taem1": "Mochi 1",
    "taesd": "Stable Diffusion 1 and 2",
    "taesdv": "Stable Video Diffusion, with frames that see each other",
    "taesdxl": "Stable Diffusion XL",
    "taesd3": "Stable Diffusion 3",
    "taef1": "FLUX.1",
    "taef2": "FLUX.2",
}
"""What published tiny encoders are for, by the beginning of their files' names.

Several have the same shapes, so nothing in a file tells them apart. From the table of models in
TAEHV's README, and from https://github.com/madebyollin/taesd.
"""
_OTHER_SCALE = "lighttae"
"""Beginning of the names of LightX2V's models: their latents still need means and deviations."""
_ENCODER = "encoder."
_LONGEST_LIST = 3


def recognise(path: Path) -> str | None:
    """Return the published name that a file's or a folder's name begins with, if it is known."""
    name = path.stem if path.suffix in SUFFIXES else path.name
    plain = name.lower().replace(".", "_").replace("-", "_")
    known = [published for published in _PUBLISHED if plain.startswith(published)]
    return max(known, key=len, default=None)


def check_name(path: Path, wanted: str | None) -> None:
    """Check that a file is not named as weights for other latents.

    Args:
        path: The file or folder.
        wanted: Published name of the weights for the card's latents; None if there are none.

    Raises:
        InputError: It is; the message says what it is.

    """
    remedy = "No published weights have them." if wanted is None else f"Give {wanted}."
    if path.name.lower().startswith(_OTHER_SCALE):
        raise InputError(
            f"{path} is a model of LightX2V by its name, whose latents are not in the "
            f"transformer's scale. {remedy}"
        )
    found = recognise(path)
    if found is not None and found != wanted:
        raise InputError(
            f"{path} is {found} by its name, for {_PUBLISHED[found]}. Its latents are not the "
            f"card's. {remedy}"
        )


def require_file(path: Path) -> None:
    """Check that there is a file of tensors of a known form.

    Raises:
        InputError: There is none.

    """
    if not path.is_file() or path.suffix not in SUFFIXES:
        raise InputError(
            f"--encoder-weights {path} is not a file that ends in {', '.join(SUFFIXES)}. "
            "Give the file of the tiny encoder's weights."
        )


def read_taehv(path: Path, network: nn.Module, shape: Taehv) -> None:
    """Fill the layers of TAEHV's encoder with the weights of a file, in FP32.

    Args:
        path: The file. Its decoder is not read.
        network: The layers, changed in place.
        shape: Their shapes.

    Raises:
        InputError: The file is damaged, is no TAEHV, or has other shapes.

    """
    stored = open_taehv(path, network, shape)
    weights = {name: stored.read(name).float() for name in network.state_dict()}
    for name, weight in weights.items():
        check_finite(path, name, weight)
    network.load_state_dict(weights)


def open_taehv(path: Path, network: nn.Module, shape: Taehv) -> StoredTensors:
    """Open a file of TAEHV's weights after a look at the names and shapes in it.

    Raises:
        InputError: The file is damaged, is no TAEHV, or has other shapes.

    """
    require_file(path)
    check_name(path, shape.published)
    stored = open_tensors(path)
    found = {
        name: tensor.shape for name, tensor in stored.tensors.items() if name.startswith(_ENCODER)
    }
    own = _read_shape(found, shape.published)
    if own is None:
        raise InputError(
            f"{path} has no encoder of TAEHV: it has {_list_names(stored)}. Give a file of "
            "https://github.com/madebyollin/taehv."
        )
    if own != shape:
        raise InputError(
            f"{path} is a TAEHV of {own.describe()}; the card needs {shape.describe()}. Give the "
            "weights for the card's model."
        )
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    wrong = sorted(name for name in found.keys() | wanted if found.get(name) != wanted.get(name))
    if wrong:
        raise InputError(
            f"{path} is not a TAEHV of the known form: {wrong[0]} is missing, is one too many or "
            f"has another shape ({len(wrong)} in all). Give a file of "
            "https://github.com/madebyollin/taehv."
        )
    return stored


def _read_shape(tensors: dict[str, tuple[int, ...]], published: str | None) -> Taehv | None:
    """Return the shapes of the encoder in a file; None if it has none of TAEHV's."""
    first, last = tensors.get("encoder.0.weight"), tensors.get("encoder.17.weight")
    pools = [tensors.get(f"encoder.{index}.conv.weight") for index in (2, 7, 12)]
    if first is None or last is None or None in pools:
        return None
    shapes = [first, last, *(pool for pool in pools if pool is not None)]
    if any(len(shape) != 4 for shape in shapes):
        return None
    patch = round((first[1] / 3) ** 0.5)
    joined = [pool[1] // pool[0] for pool in shapes[2:]]
    return Taehv(
        latent_channels=last[0],
        patch=patch,
        pooled=(joined[0], joined[1], joined[2]),
        published=published,
    )


def _list_names(stored: StoredTensors) -> str:
    names = sorted(stored.tensors)
    more = f" and {len(names) - _LONGEST_LIST} more" if len(names) > _LONGEST_LIST else ""
    return (", ".join(names[:_LONGEST_LIST]) or "no tensors") + more
