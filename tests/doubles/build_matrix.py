"""Small random models of every card, built by TensorRT-RTX in each precision: a table of the docs.

``PYTHONPATH=tests python -m doubles.build_matrix`` prints the table.
"""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
import torch

from doubles.builds import QUIET
from doubles.small_cards import CAUSAL_CARD, SMALL_CARDS, make_small_card
from vditrack.bundle.manifest import Precision
from vditrack.engine_builder import engine
from vditrack.engine_builder.architectures import TURING
from vditrack.engine_builder.library import import_library
from vditrack.engine_builder.options import BuildOptions
from vditrack.errors import EngineError
from vditrack_export.card import Card, load_card
from vditrack_export.families.encoder_form import Graph, streaming_form
from vditrack_export.families.unet.shapes import UNet
from vditrack_export.pipeline.backbone import Weights, load_backbone
from vditrack_export.pipeline.onnx_export import write_graph
from vditrack_export.pipeline.precision import choose_precision, lower_precision

MODERN = ("sm86", "sm89", "sm120")
PRECISIONS = ("fp32", "fp16", "bf16")
OPTIONS = BuildOptions(target="tensorrt-rtx")
DOCS = Path(__file__).parents[2] / "docs" / "engines.md"
HEADER = "| card | frames per latent | FP32 | FP16 | BF16 |\n|---|---|---|---|---|\n"

TAEHV_CARD = "wan2.1-t2v-1.3b --encoder taehv"
"""A card with a tiny encoder, in the words of the command line."""
_OPTION = " --encoder "
CARDS = (*SMALL_CARDS, CAUSAL_CARD, TAEHV_CARD)
WAN_AND_COGVIDEOX = (
    "wan2.1-t2v-1.3b",
    "wan2.2-ti2v-5b",
    "skyreels-v2-df-1.3b",
    "cosmos-predict2-2b",
    "cogvideox-2b",
    "cogvideox-5b",
    CAUSAL_CARD,
    TAEHV_CARD,
)
"""About half of the work of the matrix."""
_BUILT_IN_FP32 = ("tiny", "wan2.1-t2v-1.3b", "cogvideox-2b", "stable-diffusion-2.1")
"""Cards with every kind of product: of matrices, and convolutions of pictures and clips.

They are built with their encoders' largest stride, whose graphs have all layers. FP16 rounds
products alone, so the other operations of a card are in FP32 in its FP16 graphs.
"""

_UNET = {"widths": [32, 64], "residual_blocks": 1}
_TWO_LEVELS = {"widths": [32, 32], "residual_blocks": 1}
_SMALLER = {
    "stable-diffusion-2.1": {"transformer": {**_UNET, "attention_heads": [1, 2]}},
    "i2vgen-xl": {"transformer": _UNET},
    "stable-video-diffusion": {"transformer": {**_UNET, "attention_heads": [1, 2]}},
    "adm-imagenet-256": {"transformer": {**_UNET, "attention": [False, True]}},
}
"""UNets with two levels: they have every kind of layer that more levels have."""


_SAME_TRANSFORMER = dict.fromkeys(["wan2.2-ti2v-5b", "skyreels-v2-df-1.3b"], "wan2.1-t2v-1.3b")
"""Cards whose transformer is the same graph as another card's, with other constants and sizes."""


def matrix_card(name: str, stride: int) -> Card:
    """Return the smallest card that has every kind of layer of a shipped card."""
    name, _, tiny_encoder = name.partition(_OPTION)
    # Two batches of CogVideoX's encoder.
    frames = 3 if stride == 1 else 17
    attention = load_card(name).input.attention
    card = make_small_card(name, frames=frames, temporal_stride=stride, attention=attention)
    plain = msgspec.to_builtins(card)
    for section, sides in _SMALLER.get(name, {}).items():
        plain[section] |= sides
        if plain["encoder"]["kind"] == "kl_autoencoder":
            plain["encoder"] |= _TWO_LEVELS
    if "heads" in plain["transformer"]:
        plain["transformer"]["layers"] = 2
        plain["feature"]["block"] = 1
        # Context frames have no queries in the last block.
        plain["input"]["described_frames"] = stride
    plain["tiny_encoder"] = tiny_encoder or None
    return msgspec.convert(plain, Card)


def strides_of(name: str) -> tuple[int, ...]:
    """Return the temporal strides that a card's encoder has; of some cards only their own.

    Causal models have one, and a tiny encoder is built for that of its latents.
    """
    name, tiny, _ = name.partition(_OPTION)
    card = load_card(name)
    if card.input.attention == "causal":
        return (card.input.temporal_stride,)
    return (card.encoder.temporal_stride,) if tiny else card.encoder.temporal_strides


def is_exported(name: str, precision: str) -> bool:
    """Return whether export writes a card in a precision: no UNet in BF16."""
    card = load_card(name.partition(_OPTION)[0])
    return precision != "bf16" or not isinstance(card.transformer, UNet)


class BuildMatrix:
    """Exports and builds the graphs of small models, each graph once.

    Args:
        folder: Folder for the graphs.
        every: Build FP32 graphs of all cards, not of those alone that have every kind of product.

    """

    def __init__(self, folder: Path, *, every: bool = False) -> None:
        self._folder, self._every = folder, every
        self._built: dict[object, frozenset[str]] = {}

    def row(self, name: str, stride: int) -> str:
        """Return the table's line of a card and a stride, after its graphs are built."""
        cells = (
            ", ".join(arch.removeprefix("sm") for arch in self._cell(name, stride, precision))
            if is_exported(name, precision)
            else "-"
            for precision in PRECISIONS
        )
        return f"| `{name}` | {stride} | {' | '.join(cells)} |"

    def _cell(self, name: str, stride: int, precision: str) -> tuple[str, ...]:
        """Return the architectures that all graphs of a bundle build for."""
        built = name in _BUILT_IN_FP32 and stride == strides_of(name)[-1]
        if precision == "fp32" and not built and not self._every:
            # For Turing no product of matrices builds in FP32.
            return tuple(arch for arch in self._cell(name, stride, "fp16") if arch != TURING)
        claimed = choose_precision(precision, None)
        card = matrix_card(name, stride)
        # They differ in one constant.
        encoder = msgspec.to_builtins(card.encoder) | {"scaling_factor": None}
        plain_name = name.partition(_OPTION)[0]
        keys = [
            ("encoder", repr(encoder), card.tiny_encoder, stride, claimed.encoder),
            # Other strides have other numbers of latents, and are the same graph otherwise.
            ("features", _SAME_TRANSFORMER.get(plain_name, plain_name), claimed.features),
        ]
        missing = [key for key in keys if key not in self._built]
        for key in missing:
            self._built[key] = self._build(card, claimed, key[0])
        both = self._built[keys[0]] & self._built[keys[1]]
        return tuple(arch for arch in (TURING, *MODERN) if arch in both)

    def _build(self, card: Card, claimed: Precision, part: str) -> frozenset[str]:
        torch.manual_seed(0)
        backbone = load_backbone(card, Weights(None))
        graphs: tuple[Graph, ...]
        if part == "features":
            graphs = (backbone.feature_graph(card.input),)
            lower_precision(graphs[0].module, claimed.features)
        else:
            form = backbone.encoder_form(card.input)
            module = form.graphs[-1].module
            lower_precision(module, claimed.encoder)
            # Caches have the precision of the encoder.
            graphs = (streaming_form(module, card.input) if form.takes.caches else form).graphs
        folder = self._folder / f"{len(self._built)}"
        folder.mkdir()
        supported = frozenset((TURING, *MODERN))
        for graph in graphs:
            write_graph(graph, folder)
            supported &= build_graph(folder / graph.file, claimed)
        return supported


def build_graph(graph: Path, claimed: Precision) -> frozenset[str]:
    """Build a graph for all architectures, and return those that it builds for.

    The modern ones must build. For Turing, the prediction and the build must agree.
    """
    trt = import_library("tensorrt-rtx")
    try:
        engine.check_graph(trt, graph, claimed, OPTIONS, (TURING,))
    except EngineError as refused:
        assert "for Turing" in str(refused), refused
        engine.build_engine(trt, graph, claimed, OPTIONS, MODERN, None, QUIET)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "require_architectures", lambda *_: None)
            with pytest.raises(EngineError, match=r"Turing \(SM75\)|target\(s\) sm75"):
                engine.build_engine(trt, graph, claimed, OPTIONS, (TURING,), None, QUIET)
        return frozenset(MODERN)
    every = (TURING, *MODERN)
    engine.build_engine(trt, graph, claimed, OPTIONS, every, None, QUIET)
    return frozenset(every)


def list_rows(names: Iterable[str]) -> list[tuple[str, int]]:
    """Return the cards and strides of the table's lines."""
    return [(name, stride) for name in names for stride in strides_of(name)]


def read_documented_rows() -> dict[tuple[str, int], str]:
    """Return the table's lines in the docs, by card and stride."""
    _, table = DOCS.read_text().split(HEADER)
    lines = table.split("\n\n", maxsplit=1)[0].splitlines()
    cells = {line: [cell.strip() for cell in line.split("|")] for line in lines}
    return {(card.strip("`"), int(stride)): line for line, (_, card, stride, *_) in cells.items()}


def main() -> None:
    """Print the table."""
    with TemporaryDirectory() as folder:
        matrix = BuildMatrix(Path(folder), every=True)
        print(HEADER + "\n".join(matrix.row(*row) for row in list_rows(CARDS)))


if __name__ == "__main__":
    main()
