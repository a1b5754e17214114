"""Options of the verb annotate that say what is tracked; each is a field of the specification."""

from typing import Annotated

import typer

RenewOption = Annotated[
    bool | None,
    typer.Option(
        "--renew/--no-renew",
        help="Whether corners that are lost are replaced, or all are of the first frame. "
        "Default: they are replaced.",
    ),
]

LostAfterOption = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Seconds for which a corner may be lost before it ends. Default: 1.",
    ),
]

RefillIntervalOption = Annotated[
    float | None,
    typer.Option(
        min=0, help="Minimum number of seconds between searches for corners. Default: 0.2."
    ),
]

ObjectMaskOption = Annotated[
    str | None,
    typer.Option(
        help="PNG of object numbers, in which points are put: grid, features or random ones on "
        "each object. The path begins at the folder of each recording, and may have {stem}, "
        "the name of the recording, {topic} and {episode}."
    ),
]

BoxesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--box", help="Box x0,y0,x1,y1 in which points are put, as with --mask. Repeatable."
    ),
]

MaskFrameOption = Annotated[
    int | None,
    typer.Option(min=0, help="Number of the frame of the mask or the boxes. Default: 0."),
]

MasksOption = Annotated[
    bool | None,
    typer.Option(
        "--masks/--no-masks",
        help="Also propagate the mask of --mask, and write masks/NAME-ID.parquet. Default: no.",
    ),
]
DepthOption = Annotated[
    bool | None,
    typer.Option(
        "--depth/--no-depth",
        help="Also write positions in metres, where a bag has depth that is aligned to its images. "
        "Default: no.",
    ),
]
DepthTopicOption = Annotated[
    str | None,
    typer.Option(
        help="Topic of the depth. Default: the one in the coordinate frame of the images."
    ),
]
DepthToleranceOption = Annotated[
    float | None,
    typer.Option(min=0, help="Seconds by which an image and its depth may differ. Default: 0.05."),
]
