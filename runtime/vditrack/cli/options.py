"""Options that several verbs share.

Help texts follow one convention: what the option does, its unit, its default. Typer prints the
default itself, except where it is None; then the text ends with "Default: ...".
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from vditrack.arrays import Floats
from vditrack.atomic_files import check_file_destination, named_option
from vditrack.doctor.hardware import has_nvidia_gpu
from vditrack.errors import BackendError, InputError
from vditrack.inference.machine import count_gpus
from vditrack.inference.selection import BackendName, name_backend
from vditrack.io.rerun_recording import SUFFIX, import_rerun

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

BundleOption = Annotated[
    Path | None, typer.Option("--bundle", help="Folder of the bundle. Default: the bundled model.")
]

BundleArgument = Annotated[
    Path | None, typer.Argument(help="Folder of the bundle. Default: the bundled model.")
]

SignatureOption = Annotated[
    Path | None,
    typer.Option(
        "--require-signature",
        help="Public key (Ed25519; PEM or OpenSSH) that the bundle and its engines have to be "
        "signed with. Default: none is required.",
    ),
]

HostCodeOption = Annotated[
    bool,
    typer.Option(
        "--allow-host-code",
        help="Load engines that bring code for the CPU (those built with --version-compatible). It "
        "runs with your rights, so allow it only for bundles from people whom you trust.",
    ),
]

VerifyFilesOption = Annotated[
    bool,
    typer.Option(
        "--verify-files",
        help="Compute the digest of every file of the bundle, also of large files that did not "
        "change since the last time.",
    ),
]

BackendOption = Annotated[
    BackendName,
    typer.Option(
        "--backend", help="Library that runs the model. auto takes the fastest one that works."
    ),
]

DeviceOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Number of the GPU that runs the model, from 0, as CUDA counts; --backend auto then "
        "takes no CPU. Default: the first GPU, or the CPU if none works.",
    ),
]

TopicOption = Annotated[
    str | None,
    typer.Option(
        "--topic",
        "--camera",
        help="Image topic of a bag, or camera of a data set. Optional if there is only one.",
    ),
]

EpisodeOption = Annotated[
    int | None, typer.Option(min=0, help="Episode of a LeRobot data set, by its number.")
]

MaskOption = Annotated[
    list[str] | None,
    typer.Option(
        "--mask",
        help="PNG of object indices (palette or grey) that marks objects in the first frame, or "
        "FRAME:FILE for another frame. Repeatable.",
    ),
]

ObjectOption = Annotated[
    list[str] | None,
    typer.Option(
        "--object",
        help="PNG that marks one object where it is not 0, or a folder of such PNGs; also "
        "FRAME:FILE. Objects are numbered in the order given, in a folder by name. Repeatable.",
    ),
]

StartOption = Annotated[
    float, typer.Option("--start", help="Start of the stretch to read, in seconds.")
]

EndOption = Annotated[
    float | None,
    typer.Option(
        "--end", help="End of the stretch to read, in seconds. Default: the end of the video."
    ),
]


RerunOption = Annotated[
    Path | None,
    typer.Option(
        "--rerun",
        help="Recording (.rrd) to write as well, for the Rerun viewer. Default: none.",
    ),
]


def check_recording_path(path: Path, option: str) -> None:
    """Check that a recording can be written, before the work that it is to show.

    Args:
        path: The file.
        option: The option that it was given with, for the message.

    Raises:
        InputError: Its name does not end in .rrd, it cannot be written, or rerun-sdk is not
            installed.

    """
    if path.suffix != SUFFIX:
        raise InputError(f"{option} {path} is no name of a recording. It must end in {SUFFIX}.")
    import_rerun()
    with named_option(option):
        check_file_destination(path)


def default_output(source: Path, what: str, episode: int | None = None) -> Path:
    """Return the folder that results are written to by default: ``SOURCE_what``.

    Args:
        source: The input; its folder's name is taken if it is a folder, as for ``.``.
        what: What the results are.
        episode: Episode of a data set, which the name then has too.

    """
    name = source.resolve().name if source.is_dir() else source.stem
    if episode is not None:
        name += f"_{episode:06}"
    return Path(f"{name}_{what}")


SIZE_ORDER = "WIDTHxHEIGHT"
"""Order of a size on the command line, as in 1280x720."""


def parse_size(text: str) -> tuple[int, int]:
    """Return the width and height of a text ``WIDTHxHEIGHT``.

    Raises:
        InputError: The text is not such a size.

    """
    try:
        width, height = (int(side) for side in text.lower().split("x"))
    except ValueError as error:
        raise InputError(f"--size {text} is not {SIZE_ORDER}, as in 640x480.") from error
    return width, height


def parse_points(texts: list[str]) -> Floats:
    """Return the queries float32 [N, 3] that the texts ``t,x,y`` give.

    Raises:
        InputError: A text is not such a query.

    """
    queries = []
    for text in texts:
        try:
            t, x, y = (float(part) for part in text.split(","))
        except ValueError as error:
            raise InputError(f"--at {text} is not t,x,y, three numbers as in 0,320,240.") from error
        queries.append((t, x, y))
    return np.array(queries, np.float32)


_MOST_NUMBERS = 1_000_000
"""Most numbers that a range of an option stands for."""


def parse_numbers(option: str, text: str | None) -> list[int] | None:
    """Return the numbers that a text such as ``0,3,5-9`` lists; None for no text.

    Raises:
        InputError: It is no such list.

    """
    if text is None:
        return None
    numbers: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else not last)):
            raise InputError(f"{option} {text}: give numbers and ranges, as in 0,3,5-9.")
        end = min(int(last or first), int(first) + _MOST_NUMBERS)
        numbers |= dict.fromkeys(range(int(first), end + 1))
    return list(numbers)


def parse_boxes(texts: list[str] | None) -> list[list[float]] | None:
    """Return the boxes that the texts ``x0,y0,x1,y1`` give; None without texts.

    Raises:
        InputError: A text is not such a box.

    """
    if texts is None:
        return None
    boxes = []
    for text in texts:
        try:
            x0, y0, x1, y1 = map(float, text.split(","))
        except ValueError as error:
            raise InputError(
                f"--box {text} is not x0,y0,x1,y1, four numbers as in 100,50,300,200."
            ) from error
        boxes.append([x0, y0, x1, y1])
    return boxes


def choose_backend(name: str, device: int | None) -> str:
    """Return what `vditrack.inference.selection.open_backend` takes for --backend and --device.

    Raises:
        BackendError: This machine has no such GPU.

    """
    if device is not None:
        check_device(device)
    return name_backend(name, device)


def check_device(device: int) -> None:
    """Check that this machine has the GPU of --device.

    Raises:
        BackendError: It has none of that number.

    """
    if not has_nvidia_gpu():
        raise BackendError(
            f"--device {device}: this machine has no NVIDIA GPU. Leave the option out to run the "
            "model on the CPU."
        )
    if device >= (count := count_gpus() or device + 1):
        raise BackendError(
            f"--device {device}: CUDA finds {count}, counted from 0. Give another --device; "
            "CUDA_VISIBLE_DEVICES may hide some."
        )
