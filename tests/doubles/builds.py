"""Options of real builds by TensorRT-RTX, which needs no GPU for them."""

from rich.progress import Progress

from vditrack.engine_builder.options import BuildOptions

FOR_TWO = BuildOptions(target="tensorrt-rtx", architectures=("sm86", "sm89"))
QUIET = Progress(disable=True)
