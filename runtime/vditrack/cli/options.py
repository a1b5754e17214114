"""Options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

from vditrack.inference.selection import BackendName

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


BundleFolder = Annotated[
    Path | None, typer.Option(help="Folder of a bundle; the bundled model by default.")
]


BackendOption = Annotated[
    BackendName, typer.Option("--backend", help="What runs the model; auto alone falls back.")
]
