"""What every transformer family has to fulfil. Families are found in the registry.

The truth is what the unmodified model of diffusers computes, caught by hooks of these tests' own.
"""

from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from doubles.small_families import (
    FRAMES,
    READINGS,
    STEP,
    Reading,
    SmallFamily,
    relative_difference,
)
from vditrack.bundle.folder import bundled_model
from vditrack.errors import VditrackError
from vditrack.inference.onnxruntime import OnnxRuntimeSession
from vditrack_export.card import load_card
from vditrack_export.families.read_spec import Cut
from vditrack_export.families.whole_model import Reading as BlocksReading
from vditrack_export.pipeline.onnx_export import export_graph
from vditrack_export.pipeline.parity import MAX_RELATIVE_ERROR, relative_error

NAMES = [path.stem for path in sorted(bundled_model().parent.glob("*.toml"))]
CARDS = {name: load_card(name) for name in NAMES}


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_descriptors_are_those_of_the_whole_model(variant: SmallFamily, reading: Reading) -> None:
    """Every block, head, choice of channels and number of described frames."""
    shape = variant.shape
    every, some = tuple(range(shape.head_dim)), variant.some_channels
    heads = [(head,) for head in range(shape.heads)]
    for prompt, block in product(variant.prompts, range(shape.layers)):
        cuts = [
            *((chosen, every, FRAMES) for chosen in heads),
            ((2, 0), some, FRAMES),
            (tuple(range(shape.heads)), every, FRAMES),
            ((0, 2), some, 1),
            ((0, 2), some, 2),
        ]
        for chosen, channels, described in cuts:
            cut = Cut(block, chosen, channels, described, *reading)
            found = variant.descriptors(cut, prompt)
            assert found.shape == (described, *variant.grid[1:], len(chosen) * len(channels))
            error = relative_difference(found, variant.expected(cut, prompt))
            assert error <= MAX_RELATIVE_ERROR, (prompt, cut)


@pytest.mark.parametrize("reading", [("keys", False), ("queries", False), ("hidden", True)])
def test_without_rotation_any_channels_may_be_read(family: SmallFamily, reading: Reading) -> None:
    """Also the halves of rotary pairs."""
    cut = Cut(2, (1,), (1, 2, 8), FRAMES, *reading)
    prompt = family.prompts[-1]
    error = relative_difference(family.descriptors(cut, prompt), family.expected(cut, prompt))
    assert error <= MAX_RELATIVE_ERROR


def test_rotation_changes_what_is_read(family: SmallFamily) -> None:
    """Otherwise the two would be one reading, and their tests one test."""
    inside = family.inside(family.prompts[0])
    for tensor in ("keys", "queries"):
        assert not torch.equal(inside[tensor, True][0], inside[tensor, False][0])


def test_descriptors_lie_on_the_grid_row_by_row(variant: SmallFamily) -> None:
    """In block 0 nothing mixes cells: a change in one latent changes one descriptor."""
    changed = variant.latents.clone()
    changed[0, :, 2, 5, 7] += 1
    _, rows, columns = variant.shape.patch
    path = variant.path(Cut(0, (1,), variant.some_channels, FRAMES), variant.prompts[0])
    with torch.no_grad():
        moved = (path(changed) - path(variant.latents)).abs().amax(-1)
    assert moved.nonzero().tolist() == [[2, 5 // rows, 7 // columns]]


def test_the_exporters_own_check_reads_the_same(variant: SmallFamily) -> None:
    """Which is what export compares graphs with, and what select scores."""
    prompt, denoiser = variant.prompts[-1], variant.denoiser
    arguments = (STEP, variant.latents, variant.prompt(prompt))
    blocks = tuple(range(variant.shape.layers))
    for tensor, rotated in READINGS:
        found = {}
        reading = BlocksReading(blocks, tensor, rotated)
        denoiser.read_blocks(variant.model(), reading, *arguments, found.__setitem__)
        for block, expected in enumerate(variant.inside(prompt)[tensor, rotated]):
            assert torch.equal(found[block], expected)
        cut = Cut(1, (1, 0), variant.some_channels, 2, tensor, rotated)
        read = denoiser.read_whole(variant.model(), cut, *arguments)
        assert torch.equal(read, variant.expected(cut, prompt).flatten(0, 2))


@pytest.mark.slow
def test_errors_do_not_grow_with_depth(family: SmallFamily) -> None:
    """As deep as the smallest checkpoint of the family that has a card."""
    known = [card.transformer for name, card in CARDS.items() if name != "tiny"]
    layers = min(shape.layers for shape in known if type(shape) is type(family.shape))
    prompt, shape = family.prompts[-1], family.shape
    heads, channels = tuple(range(shape.heads)), tuple(range(shape.head_dim))
    for reading, block in product(READINGS, (*range(0, layers, 5), layers - 1)):
        cut = Cut(block, heads, channels, FRAMES, *reading)
        found = family.descriptors(cut, prompt, layers)
        # The worst head's, each on its own scale.
        difference = (found - family.expected(cut, prompt, layers)).unflatten(-1, (len(heads), -1))
        scale = family.inside(prompt, layers)[reading][block].abs().amax((0, 2))
        assert (difference.abs().amax((0, 1, 2, 4)) / scale).max() <= MAX_RELATIVE_ERROR, cut


@pytest.mark.parametrize("tensor", ["keys", "hidden"])
@pytest.mark.parametrize("described", [1, FRAMES])
def test_nothing_is_computed_that_is_not_read(
    variant: SmallFamily, described: int, tensor: str
) -> None:
    """Multiplications, by the sizes of the matrices."""
    shape, facts, cut = variant.shape, variant.facts, Cut(2, (2, 0), (0, 1), described, tensor)
    prompt = variant.prompts[-1]
    path = variant.path(cut, prompt)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        path(variant.latents)
    width, (_, rows, columns) = shape.width, variant.grid
    cells = rows * columns
    video, newest = FRAMES * cells, described * cells
    differing, padding = prompt
    # Equal tokens of padding are one, unless the model masks them.
    prompted = differing + (padding > 0 and variant.denoiser.prompt_padding == "masked")
    joint = 0 if facts["text"] == "cross" else differing
    total = video + joint
    blocks = 0
    for asking in [total, newest] if tensor == "keys" else [total, total, newest]:
        # Keys and values; attention; queries and output; feed-forward network.
        blocks += 2 * total * width**2 + 2 * total * asking * width + 2 * asking * width**2
        blocks += 2 * asking * width * shape.feed_forward
        if facts["text"] == "cross":
            blocks += 2 * asking * width**2 + 2 * asking * prompted * width
    projected = shape.head_dim * (len(cut.heads) if facts["head_norms"] else shape.heads)
    read = newest * width * projected if tensor == "keys" else 0
    patches = video * width * shape.patch[1] * shape.patch[2] * shape.in_channels
    assert counter.get_total_flops() == 2 * (patches + blocks + read)


# Graphs


Exported = tuple[Path, SmallFamily, Cut, tuple[int, int]]


@pytest.fixture(scope="module", params=["keys", "hidden"])
def exported(
    request: pytest.FixtureRequest,
    family: SmallFamily,
    tmp_path_factory: pytest.TempPathFactory,
) -> Exported:
    """Graphs that end in a projection and in a block, with prompts of one token, several, padding.

    Queries are another projection of the same graph.
    """
    some = family.some_channels
    plain = family.prompts[0] if family.name in ("wan", "ltx") else family.prompts[-2:][0]
    cut, prompt = {
        "keys": (Cut(2, (2, 0), some, 1), plain),
        "hidden": (Cut(1, (0, 2), some, 2, "hidden"), family.prompts[-1]),
    }[request.param]
    file = tmp_path_factory.mktemp(family.name) / "features.onnx"
    write_graph(family, cut, prompt, file)
    return file, family, cut, prompt


def write_graph(family: SmallFamily, cut: Cut, prompt: tuple[int, int], file: Path) -> None:
    path = family.path(cut, prompt)
    export_graph(path, {"latents": family.latents}, file, outputs=["descriptors"])


@pytest.mark.slow
def test_graph_gives_what_the_whole_model_computes(exported: Exported) -> None:
    file, family, cut, prompt = exported
    session = OnnxRuntimeSession(file)
    assert {name: tensor.shape for name, tensor in session.inputs.items()} == {
        "latents": (1, *family.latent_shape)
    }
    expected = family.expected(cut, prompt)
    assert {name: tensor.shape for name, tensor in session.outputs.items()} == {
        "descriptors": tuple(expected.shape)
    }
    (found,) = session.run({"latents": family.latents.numpy()}).values()
    assert relative_error(str(file), found, expected) <= MAX_RELATIVE_ERROR


@pytest.mark.slow
def test_graph_holds_nothing_of_text_timestep_or_later_blocks(exported: Exported) -> None:
    file, family, cut, (differing, padding) = exported
    graph = onnx.load(file).graph
    operators = Counter(node.op_type for node in graph.node)
    assert not operators.keys() & {"ScatterND", "Sin", "Cos", "Sigmoid", "Shape", "If", "Loop"}
    whole = cut.block + (cut.tensor == "hidden")
    cross = family.facts["text"] == "cross"
    counted = cross and padding > 0 and family.denoiser.prompt_padding == "masked"
    alone = differing + counted == 1
    # Attention is one node. To merged tokens, how often each occurs is added to the logits.
    prompted = cross and not counted and not alone
    assert operators["MultiHeadAttention"] == whole * (2 if prompted else 1)
    assert operators["Softmax"] == (whole if counted else 0)
    # In the last block the text goes no further.
    doubled = family.facts.get("text_feed_forward", False)
    assert operators["Gelu"] == (max(2 * whole - 1, 0) if doubled else whole)
    assert len(graph.node) <= 60 + 130 * whole
    names = [weights.name for weights in graph.initializer]
    gone = ("embedder", "time_", f"blocks.{whole}.", *family.facts["folded"])
    assert not [name for name in names if any(part in name for part in gone)]
    # No other side is as long as the padded prompt.
    if padding:
        sides = {side for weights in graph.initializer for side in weights.dims}
        assert differing + padding not in sides
    assert file.stat().st_size <= 1.05 * needed_bytes(family, cut, whole) + 50_000


def needed_bytes(family: SmallFamily, cut: Cut, whole: int) -> int:
    """Of the weights that the graph needs: whole blocks, the heads read, patches and noise."""
    shape, folded = family.shape, family.facts["folded"]
    block = getattr(family.model(), family.denoiser.blocks)[0]
    each = sum(
        weights.numel()
        for name, weights in block.named_parameters()
        if not any(part in name for part in folded)
    )
    heads = len(cut.heads) if family.facts["head_norms"] else shape.heads
    read = 0 if cut.tensor == "hidden" else shape.width * shape.head_dim * heads
    patches = shape.width * shape.patch[1] * shape.patch[2] * shape.in_channels
    tables = shape.head_dim * int(np.prod(family.grid))
    tables *= shape.heads if family.facts.get("rotary_by_head") else 1
    return 4 * (whole * each + read + patches + family.latents.numel() + tables)


@pytest.mark.slow
def test_graph_tells_nothing_of_the_machine(exported: Exported) -> None:
    content = exported[0].read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in content
    assert b".py" not in content


@pytest.mark.slow
def test_same_module_same_file(exported: Exported, tmp_path: Path) -> None:
    file, family, cut, prompt = exported
    # What is written does not depend on the family.
    if cut.tensor == "keys" and family.name == "wan":
        write_graph(family, cut, prompt, tmp_path / "again.onnx")
        assert (tmp_path / "again.onnx").read_bytes() == file.read_bytes()


def test_a_wrong_graph_is_refused() -> None:
    reference = torch.ones(4)
    for output in (np.full(4, 1.001), np.full(4, np.nan)):
        with pytest.raises(VditrackError, match="differs from the model"):
            relative_error("features.onnx", output, reference)


# Cards


@pytest.mark.parametrize("name", NAMES)
def test_cards_resolve_to_the_family_of_their_shapes(name: str) -> None:
    card = CARDS[name]
    denoiser = card.family.denoiser
    assert denoiser.shape == card.transformer
    assert card.family.encoder.shape == card.encoder
    assert card.family is card.family
    channels = denoiser.channels(card.feature)
    assert channels == tuple(sorted(set(channels)))
    # The configuration names parameters of the class.
    with torch.device("meta"):
        denoiser.build_random(1)
