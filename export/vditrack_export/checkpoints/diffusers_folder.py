"""Models in the format of diffusers' ``save_pretrained``: configuration and weight files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from vditrack.errors import InputError
from vditrack_export.checkpoints.json_files import read_json
from vditrack_export.checkpoints.loading import check_config
from vditrack_export.checkpoints.weights import Config, StoredModel, check_finite

CONFIG = "config.json"
_WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class _Entry:
    file: Path
    shape: tuple[int, ...]


class SafetensorsWeights:
    """Weights in one or more safetensors files.

    Args:
        files: The files.

    Raises:
        InputError: A file is damaged.

    """

    def __init__(self, files: tuple[Path, ...]) -> None:
        """Read the names and shapes of all tensors."""
        self.files = files
        self._entries: dict[str, _Entry] = {}
        for path in files:
            try:
                with safe_open(path, framework="pt") as shard:
                    for name in shard.keys():  # noqa: SIM118 - it is no mapping
                        shape = tuple(shard.get_slice(name).get_shape())
                        self._entries[name] = _Entry(path, shape)
            except (SafetensorError, OSError) as error:
                raise InputError(f"{path} does not load: {_one_line(error)}") from error

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return the shape of each tensor, by its name."""
        return {name: entry.shape for name, entry in self._entries.items()}

    def read(self, name: str) -> Tensor:
        """Read one tensor as float32.

        Raises:
            InputError: The file is damaged, or a number is NaN or infinite.

        """
        path = self._entries[name].file
        try:
            with safe_open(path, framework="pt") as shard:
                weight: Tensor = shard.get_tensor(name).float()
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} does not load: {_one_line(error)}") from error
        check_finite(path, name, weight)
        return weight


def open_folder(
    checkpoint: Path, component: str, model_class: type[nn.Module], expected: Config
) -> StoredModel:
    """Open a model in a folder of a diffusers pipeline.

    Args:
        checkpoint: Folder of the pipeline.
        component: Name of the model's folder in it.
        model_class: Class in diffusers.
        expected: Entries of the configuration that the card determines.

    Raises:
        InputError: A file is missing or damaged, or the configuration differs from the card's.

    """
    folder = checkpoint / component
    config_file, shards = folder / CONFIG, _shards(folder)
    missing = [path for path in (config_file, *shards) if not path.is_file()]
    if missing:
        names = ", ".join(str(path.relative_to(checkpoint)) for path in missing)
        raise InputError(f"checkpoint {checkpoint} lacks {names}. Copy the whole of it.")
    config = read_json(config_file)
    check_config(config_file, config, model_class, expected)
    return StoredModel(folder, config, SafetensorsWeights(shards), (config_file,))


def _shards(folder: Path) -> tuple[Path, ...]:
    """Return the weight files of a model: one, or those that its index names."""
    index = folder / f"{_WEIGHTS}.index.json"
    if not index.is_file():
        return (folder / _WEIGHTS,)
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
        return tuple(folder / name for name in names)
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{index} is not an index of weights. Copy it again.") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
