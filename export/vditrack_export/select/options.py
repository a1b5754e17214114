"""The options of ``vditrack select``, checked and converted."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from vditrack.atomic_files import ResultsFolder, check_file_destination, results_folder
from vditrack.errors import InputError
from vditrack.evaluation.datasets.registry import (
    Dataset,
    ProtocolName,
    count_clips,
    open_dataset,
)
from vditrack.synthetic.annotated_clip import AnnotatedClip
from vditrack_export.card import Card, Masks
from vditrack_export.checkpoints.sources import Weights

_NOISE = (0.05, 0.1, 0.2, 0.4)
_MASK_NOISE = (0.05, 0.3, 0.6, 0.9)
_WEIGHTS = (0.2, 0.4, 0.6, 0.8)
_BANDS = ((0.0, 1.0), (0.15, 1.0), (0.4, 1.0), (0.6, 1.0))


@dataclass(frozen=True)
class SelectOptions:
    """The options that both tasks share."""

    card: str
    """The name or path of the card."""
    data: tuple[str, ...]
    """The data sets, as `open_dataset` takes them."""
    weights: Weights
    """The source of the weights."""
    clips: int | None
    """The largest number of clips of each data set."""
    frames: int
    """The largest number of frames of each clip."""
    output: Path | None
    """The folder for the results."""
    write: Path | None
    """The path of the new card."""
    as_json: bool
    """Whether the result is printed as JSON."""

    def open_datasets(self, protocol: ProtocolName) -> list[Dataset]:
        """Open the data sets for a protocol.

        Raises:
            InputError: see `open_dataset`.

        """
        return [open_dataset(source, protocol) for source in self.data]

    def first_clips(self, dataset: Dataset) -> Iterator[AnnotatedClip]:
        """Return the clips of a data set that are used."""
        return islice(dataset.clips, self.clips)

    def count_clips(self, datasets: Sequence[Dataset]) -> int | None:
        """Return the number of clips that are used, or None if it is not known yet."""
        return count_clips(datasets, self.clips)

    def describe_run(self, card: Card, datasets: Sequence[Dataset]) -> dict[str, str]:
        """Return the facts that a reader needs to repeat the run."""
        return {
            "card": card.name,
            "data": ", ".join(dataset.name for dataset in datasets),
            "weights": "random" if self.weights.random else self.weights.describe(),
            "frames": str(self.frames),
            "vditrack": version("vditrack"),
        }

    @contextmanager
    def open_results(self, names: Collection[str], marker: str) -> Iterator[ResultsFolder | None]:
        """Yield the folder for the results, after a check that it can be written; None without one.

        Args:
            names: the files that are written.
            marker: see `results_folder`.

        """
        if self.output is None:
            yield None
            return
        with results_folder(self.output, names, marker) as folder:
            yield folder


def check_destination(destination: Path) -> None:
    """Check that a new card can be written to a path.

    Raises:
        InputError: the name does not end in .toml, a file of this name exists, or its folder cannot
            be written.

    """
    if destination.suffix != ".toml":
        raise InputError(f"--write {destination} is not a card. Give a name that ends in .toml.")
    shipped = Path(str(resources.files("vditrack.models"))).resolve()
    if destination.exists() and destination.resolve().parent == shipped:
        raise InputError(
            f"{destination} comes with vditrack and is not overwritten. Give another name."
        )
    if destination.exists():
        raise InputError(f"{destination} exists already. Give another name with --write.")
    check_file_destination(destination)


def parse_blocks(text: str | None, layers: int) -> tuple[int, ...]:
    """Return the blocks of a list such as 0,8,16-20, rising; all blocks for None.

    Args:
        text: the option.
        layers: the number of blocks of the transformer.

    Raises:
        InputError: the text is not such a list, or the transformer lacks a block.

    """
    if text is None:
        return tuple(range(layers))
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            found.update(range(int(first), int(last if dash else first) + 1))
        except ValueError as error:
            raise InputError(
                f"--blocks {text} is not a list of blocks, such as 0-4 or 0,8."
            ) from error
    if not found or max(found) >= layers:
        raise InputError(f"--blocks {text}: the transformer has blocks 0 to {layers - 1}.")
    return tuple(sorted(found))


def parse_noise_levels(text: str | None, card: Card) -> tuple[float, ...]:
    """Return the noise levels of a list such as 0.05,0.1; the card's own and four more for None.

    Raises:
        InputError: the text is not such a list, or a level is not between 0 and 1.

    """
    return _parse_shares("--noise", text, (card.feature.noise_level, *_NOISE))


def parse_mask_noise_levels(text: str | None, masks: Masks) -> tuple[float, ...]:
    """Return the noise levels of a list; for None those of both parts and four more, as in TED.

    Raises:
        InputError: see `parse_noise_levels`.

    """
    own = (part.feature.noise_level for part in (masks.own_motion, masks.appearance))
    return _parse_shares("--noise", text, (*own, *_MASK_NOISE))


def parse_motion_weights(text: str | None) -> tuple[float, ...]:
    """Return the weights of motion features of a list such as 0.4,0.6; four weights for None.

    Raises:
        InputError: the text is not such a list, or a weight is not between 0 and 1.

    """
    return _parse_shares("--motion-weight", text, _WEIGHTS)


def _parse_shares(option: str, text: str | None, default: Iterable[float]) -> tuple[float, ...]:
    """Return the different numbers between 0 and 1 of a list, rising."""
    if text is None:
        return tuple(sorted(set(default)))
    try:
        numbers = sorted({float(part) for part in text.split(",")})
    except ValueError as error:
        raise InputError(f"{option} {text} is not a list of numbers, such as 0.1,0.6.") from error
    # Written so that NaN is refused too.
    if not all(0 < number < 1 for number in numbers):
        raise InputError(f"{option} {text}: give numbers between 0 and 1.")
    return tuple(numbers)


def parse_bands(text: str | None, card: Card) -> tuple[tuple[float, float], ...]:
    """Return the frequency ranges of a list such as 0-1,0.4-1; the card's and four more for None.

    Raises:
        InputError: the text is not such a list, or a range is not within 0-1.

    """
    if text is None:
        return (card.feature.frequency_range, *_BANDS)
    found = []
    for part in text.split(","):
        try:
            low, high = (float(end) for end in part.split("-"))
        except ValueError as error:
            raise InputError(
                f"--bands {text} is not a list of bands, such as 0-1,0.4-1."
            ) from error
        if not 0 <= low < high <= 1:
            raise InputError(f"--bands {text}: {part} is not a range within 0-1.")
        found.append((low, high))
    return tuple(found)
