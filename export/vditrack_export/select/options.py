"""What a user asks to be tried, as the command line has it."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from vditrack.annotated_clip import AnnotatedClip
from vditrack.atomic_files import staged_folder
from vditrack.errors import InputError
from vditrack.evaluation.datasets.registry import Dataset, ProtocolName, open_dataset
from vditrack_export.card import Card, Masks

_NOISE = (0.05, 0.1, 0.2, 0.4)
_MASK_NOISE = (0.05, 0.3, 0.6, 0.9)
_WEIGHTS = (0.2, 0.4, 0.6, 0.8)
_BANDS = ((0.0, 1.0), (0.15, 1.0), (0.4, 1.0), (0.6, 1.0))


@dataclass(frozen=True)
class Asked:
    """What every task is asked for."""

    card: str
    """Name or path."""
    data: tuple[str, ...]
    weights: Path | None
    """Folder of the checkpoint; None for random numbers."""
    prompt: Path | None
    clips: int | None
    """Of each data set at most."""
    frames: int
    """Of each clip at most."""
    output: Path | None
    write: Path | None
    as_json: bool

    def open_datasets(self, protocol: ProtocolName) -> list[Dataset]:
        """Open the data for a protocol.

        Raises:
            InputError: see `open_dataset`.

        """
        return [open_dataset(source, protocol) for source in self.data]

    def first(self, dataset: Dataset) -> Iterator[AnnotatedClip]:
        """Return the first clips of a data set."""
        return islice(dataset.clips, self.clips)

    def count(self, datasets: Sequence[Dataset]) -> int | None:
        """Count the clips that are asked for, where that is known."""
        lengths = [
            self.clips if d.length is None else min(d.length, self.clips or d.length)
            for d in datasets
        ]
        known = [length for length in lengths if length is not None]
        return sum(known) if len(known) == len(lengths) else None

    def facts(self, card: Card, datasets: Sequence[Dataset]) -> dict[str, str]:
        """Return what a reader needs to know to run the same again."""
        return {
            "card": card.name,
            "data": ", ".join(dataset.name for dataset in datasets),
            "weights": "random" if self.weights is None else str(self.weights),
            "frames": str(self.frames),
            "vditrack": version("vditrack"),
        }

    @contextmanager
    def results(self, names: Collection[str]) -> Iterator[Path | None]:
        """Yield a scratch folder that takes the name asked for, if one is."""
        if self.output is None:
            yield None
            return
        with staged_folder(self.output, names) as folder:
            yield folder


def check_destination(destination: Path) -> None:
    """Check that a new card can be written to a path.

    Raises:
        InputError: the name does not end in .toml, or a file of this name exists.

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


def asked_blocks(text: str | None, layers: int) -> tuple[int, ...]:
    """Read blocks, as in 0,8,16-20; all of so many layers where nothing is asked.

    Raises:
        InputError: the text is no such list, or the transformer has not such a block.

    """
    if text is None:
        return tuple(range(layers))
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            found.update(range(int(first), int(last if dash else first) + 1))
        except ValueError as error:
            raise InputError(f"--blocks {text} is no list of blocks, as in 0-4 or 0,8.") from error
    if not found or max(found) >= layers:
        raise InputError(f"--blocks {text}: the transformer has blocks 0 to {layers - 1}.")
    return tuple(sorted(found))


def asked_levels(text: str | None, card: Card) -> tuple[float, ...]:
    """Read noise levels, as in 0.05,0.1; the card's own and some others where nothing is asked.

    Raises:
        InputError: the text is no such list, or a level is not between 0 and 1.

    """
    return _between("--noise", text, (card.feature.noise_level, *_NOISE))


def asked_mask_levels(text: str | None, masks: Masks) -> tuple[float, ...]:
    """Read noise levels; those of both parts and some others, as TED has, where none is asked.

    Raises:
        InputError: see `asked_levels`.

    """
    own = (part.feature.noise_level for part in (masks.own_motion, masks.appearance))
    return _between("--noise", text, (*own, *_MASK_NOISE))


def asked_weights(text: str | None) -> tuple[float, ...]:
    """Read weights of motion features, as in 0.4,0.6; four of them where nothing is asked.

    Raises:
        InputError: the text is no such list, or a weight is not between 0 and 1.

    """
    return _between("--motion-weight", text, _WEIGHTS)


def _between(option: str, text: str | None, default: Iterable[float]) -> tuple[float, ...]:
    """Read numbers between 0 and 1, rising."""
    if text is None:
        return tuple(sorted(set(default)))
    try:
        numbers = sorted({float(part) for part in text.split(",")})
    except ValueError as error:
        raise InputError(f"{option} {text} is no list of numbers, as in 0.1,0.6.") from error
    # Written so that NaN is refused too.
    if not all(0 < number < 1 for number in numbers):
        raise InputError(f"{option} {text}: give numbers between 0 and 1.")
    return tuple(numbers)


def asked_bands(text: str | None, card: Card) -> tuple[tuple[float, float], ...]:
    """Read ranges of frequencies, as in 0-1,0.4-1; the card's own and some where none is asked.

    Raises:
        InputError: the text is no such list, or a range is no part of 0-1.

    """
    if text is None:
        return (card.feature.frequency_range, *_BANDS)
    found = []
    for part in text.split(","):
        try:
            low, high = (float(end) for end in part.split("-"))
        except ValueError as error:
            raise InputError(f"--bands {text} is no list of bands, as in 0-1,0.4-1.") from error
        if not 0 <= low < high <= 1:
            raise InputError(f"--bands {text}: {part} is no part of 0-1.")
        found.append((low, high))
    return tuple(found)
