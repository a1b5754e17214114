"""Train the bundled model: one command, seeded, resumable.

    python -m vditrack_export.tiny.train --teacher alike-l.safetensors --photos DIR --out RUN

RUN/weights then holds the averaged weights for `vditrack export tiny --weights`. An interrupted run
continues when the same command is given again, with the same result as one that never stopped.
"""

from pathlib import Path
from typing import Annotated

import typer

from vditrack.atomic_files import check_disk_space
from vditrack.cli.console import echo
from vditrack.cli.progress import add_progress_bar, progress_bars
from vditrack.cli.stop_signals import exit_on_signals
from vditrack.errors import VditrackError
from vditrack_export.tiny.batches import Clips
from vditrack_export.tiny.clip_store import ClipStore, clip_bytes
from vditrack_export.tiny.identity import keep_identity
from vditrack_export.tiny.model import BUNDLED, STRIDE
from vditrack_export.tiny.photos import Photos, load_photos, packaged_folders
from vditrack_export.tiny.rendering import Report, Scenes, render_into
from vditrack_export.tiny.softness import fit_softness
from vditrack_export.tiny.teacher import AlikeTeacher
from vditrack_export.tiny.training import Plan, train_student
from vditrack_export.tiny.validation import CLIPS, read_checks

SIZE = (192, 256)
"""(height, width) of the clips, in pixels: a quarter of what the model reads."""
FITTED_CLIPS = 16
"""Clips by which the teacher's temperature is fitted."""
# Seeds of clips that no training run reaches.
_FITTED, _CHECKED = 1_000_000_000, 2_000_000_000


def train(
    teacher: Annotated[
        Path,
        typer.Option(help="Weights of ALIKE-L (.safetensors).", exists=True, dir_okay=False),
    ],
    photos: Annotated[
        list[Path],
        typer.Option(
            help="Folder of photographs; may be repeated. The photographs of scikit-image and "
            "scikit-learn are always used.",
            exists=True,
            file_okay=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    clips: Annotated[int, typer.Option(help="Number of rendered clips.", min=16)] = 12_000,
    steps: Annotated[int, typer.Option(help="Number of steps of the whole run.", min=1)] = 16_000,
    seed: Annotated[int, typer.Option(help="Seed of weights, clips and noise.", min=0)] = 0,
) -> None:
    """Train the encoder and the transformer; write weights, log.jsonl and curves.png to OUT."""
    pictures = load_photos([*photos, *packaged_folders()])
    echo(f"{len(pictures.training)} photographs, {len(pictures.held_out)} more held out")
    model = AlikeTeacher(teacher)
    keep_identity(
        out,
        {
            "teacher": model.sha256,
            "photographs": pictures.digest,
            "clips": str(clips),
            "seed": str(seed),
        },
    )
    check_disk_space(
        out,
        clips * clip_bytes(*SIZE, STRIDE, model.channels),
        "the rendered clips",
        "Make room, or give another --out or fewer --clips.",
    )
    with progress_bars(quiet=False) as bars:
        stores = _render(
            out / "clips", pictures, model, clips, seed, add_progress_bar(bars, "clips")
        )
        rendered, fitted, checked = stores
        rendered.verify()
        plan = Plan(BUNDLED, model.channels, fit_softness(fitted), steps, seed=seed)
        trained = Clips(rendered, None, SIZE)
        report = add_progress_bar(bars, "steps")
        weights = train_student(plan, trained, read_checks(checked), out, report)
    echo(f"written: {weights}; `vditrack export tiny --weights {weights}` makes a bundle of it")


def _render(
    folder: Path, pictures: Photos, teacher: AlikeTeacher, clips: int, seed: int, report: Report
) -> tuple[ClipStore, ClipStore, ClipStore]:
    """Render the clips for training, for the teacher's temperature, and for validation."""
    parts = (
        ("rendered", clips, Scenes(pictures.training, SIZE, seed)),
        ("fitted", FITTED_CLIPS, Scenes(pictures.training, SIZE, _FITTED + seed)),
        ("checked", CLIPS, Scenes(pictures.held_out, SIZE, _CHECKED + seed)),
    )
    stores = []
    for name, count, scenes in parts:
        store = ClipStore(folder / name, count)
        render_into(store, scenes, teacher, report)
        stores.append(store)
    rendered, fitted, checked = stores
    return rendered, fitted, checked


def main() -> None:
    """Run the command; an error of the user is one line on stderr, with exit code 2."""
    try:
        with exit_on_signals():
            typer.run(train)
    except VditrackError as error:
        echo(f"train: {' '.join(str(error).split())}", err=True)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
