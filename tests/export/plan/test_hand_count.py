"""The plan beside counts by hand, from the architectures of Wan and CogVideoX.

Nothing here is taken from the code that plans or exports: operations, weights, caches and buffers
are closed formulas in the numbers of each model's configuration. Operations are twice the
multiply-adds.
"""

from dataclasses import dataclass
from itertools import pairwise

import msgspec
import pytest

from vditrack_export.card import load_card
from vditrack_export.pipeline.precision import choose_precision
from vditrack_export.plan.devices import all_devices
from vditrack_export.plan.pipeline import graph_costs
from vditrack_export.plan.runs import Question, plan_bundle
from vditrack_export.plan.settings import Setting, window_input

pytestmark = pytest.mark.slow

PROMPT = 2  # Distinct tokens of the empty prompt: its one token, and the padding.
WIDTHS_OF_TYPES = {"fp32": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True)
class Wan:
    """Configurations of the transformer and the autoencoder."""

    layers_read: int
    width: int
    inner: int
    latent: int
    base: int = 96
    patch: int = 1
    height: int = 480
    pixels_wide: int = 832
    strides: tuple[int, ...] = (1, 4)
    descriptor: int = 110  # of 128 channels of a head, those of 85% of its rotary pairs

    @property
    def side(self) -> int:
        """Pixels of a latent's side."""
        return 8 * self.patch

    def transformer(self, latents: int, described: int) -> tuple[int, int]:
        """Operations of the patch embedding, and of all else."""
        cells = (self.height // self.side // 2) * (self.pixels_wide // self.side // 2)
        every, newest, w = latents * cells, described * cells, self.width
        queries = 2 * w * w  # to_q and to_out
        prompted = 2 * w * w + 2 * PROMPT * w  # the same, and both products with the prompt
        network = 2 * w * self.inner
        blocks = 0
        for block in range(self.layers_read):
            asking = newest if block == self.layers_read - 1 else every
            blocks += every * 2 * w * w  # keys and values
            blocks += asking * (queries + prompted + network + 2 * every * w)
        read = newest * w * w  # keys of all heads, since the norm is over all
        return 2 * every * self.latent * 4 * w, 2 * (blocks + read)

    def step(self, older: int, chunk: int) -> tuple[int, int, int]:
        """Operations as those of `transformer`, of a chunk of latents with cached keys of older
        ones; and numbers of keys and values of a latent in all whole blocks.
        """
        cells = (self.height // self.side // 2) * (self.pixels_wide // self.side // 2)
        tokens, w = chunk * cells, self.width
        attended = 2 * (older * cells + tokens) * w
        block = 4 * w * w + 2 * w * w + 2 * PROMPT * w + 2 * w * self.inner + attended
        sums = self.layers_read * tokens * block + tokens * w * w
        return 2 * tokens * self.latent * 4 * w, 2 * sums, self.layers_read * 2 * cells * w

    def transformer_weights(self, latents: int, described: int) -> tuple[int, int]:
        """Numbers in linear layers, and in all else."""
        rows, columns = self.height // self.side, self.pixels_wide // self.side
        cells, w = rows * columns // 4, self.width
        linear = 6 * (w * w + w) + 2 * w * self.inner + self.inner + w
        norms = 3 * w + 3 * 2 * w + 2 * w  # of q, k and the prompt's q; three norms; two gates
        rest = self.layers_read * (norms + 2 * PROMPT * w)
        rest += 2 * w + w + w * self.latent * 4 + w  # last norms, patch embedding
        rest += latents * self.latent * rows * columns  # noise
        rest += 2 * 64 * latents * cells + self.descriptor * described * cells  # rotary tables
        return self.layers_read * linear + w * w + w, rest

    def encoder(self, stride: int, *, first: bool) -> tuple[int, int, int]:
        """Operations of convolutions, those of attention, and numbers in caches."""
        frames = 1 if first else stride
        rows, columns = self.height // self.patch, self.pixels_wide // self.patch
        channels = [self.base * factor for factor in (1, 1, 2, 4, 4)]
        entering = 3 * self.patch**2
        sums, caches = 0, 0

        def causal(fewer: int, more: int) -> None:
            nonlocal sums, caches
            sums += 27 * fewer * more * frames * rows * columns
            caches += 2 * fewer * rows * columns

        causal(entering, channels[0])
        for level, (fewer, more) in enumerate(pairwise(channels)):
            for number in range(2):
                inside = fewer if number == 0 else more
                causal(inside, more)
                causal(more, more)
                if inside != more:
                    sums += inside * more * frames * rows * columns
            if level < 3:
                rows, columns = rows // 2, columns // 2
                sums += 9 * more * more * frames * rows * columns
                if level > 0 and stride > 1:
                    caches += more * rows * columns
                    if not first:
                        frames //= 2
                        sums += 3 * more * more * frames * rows * columns
        last, places = channels[-1], rows * columns
        for _ in range(4):
            causal(last, last)
        sums += 4 * last * last * frames * places  # queries, keys, values and output
        attention = 2 * places * places * last * frames
        causal(last, 2 * self.latent)
        sums += (2 * self.latent) ** 2 * frames * places  # quant_conv
        return 2 * sums, 2 * attention, caches


WANS = {
    "wan2.1-t2v-1.3b": Wan(18, 1536, 8960, 16),
    "wan2.1-t2v-14b": Wan(24, 5120, 13824, 16),
    "wan2.2-ti2v-5b": Wan(
        18, 3072, 14336, 48, base=160, patch=2, height=704, pixels_wide=1280, strides=(4,)
    ),
}
WAN_CASES = [
    (name, stride, described)
    for name, model in WANS.items()
    for stride in model.strides
    for described in (25, stride)
]


def planned(name: str, stride: int, described: int, precision: str):
    card = load_card(name)
    size = window_input(card, Setting(card.input.height, card.input.width, 25, stride))
    size = msgspec.structs.replace(size, described_frames=described)
    chosen = choose_precision(precision)
    setting = Setting(size.height, size.width, 25, stride)
    graphs = graph_costs(card, setting, size.described_latents, chosen, "all")
    return card, size, graphs


@pytest.mark.parametrize(("name", "stride", "described"), WAN_CASES)
def test_wan(name: str, stride: int, described: int) -> None:
    """As ``export --precision bf16`` makes it: encoder in FP16, first layer in FP32."""
    model, (card, size, graphs) = WANS[name], planned(name, stride, described, "bf16")
    cost, latents, newest = graphs.transformer, size.latents, size.described_latents
    embedding, rest = model.transformer(latents, newest)
    assert (cost.fp32, cost.bf16, cost.fp16) == (embedding, rest, 0)
    linear, others = model.transformer_weights(latents, newest)
    assert cost.weight_bytes == pytest.approx(2 * linear + 4 * others, rel=1e-3)
    places = (size.height // model.side) * (size.width // model.side)
    assert cost.input_bytes == 4 * model.latent * latents * places
    assert cost.output_bytes == 4 * model.descriptor * newest * places // 4

    products, attention, caches = model.encoder(stride, first=False)
    step, picture = graphs.encoder, 3 * size.height * size.width
    assert (step.fp16, step.fp32, step.bf16) == (products + attention, 0, 0)
    assert (step.input_bytes, step.replaced_bytes) == (stride * picture, 2 * caches)
    assert step.output_bytes == 4 * model.latent * places
    if stride == 1:
        assert graphs.start is None
        return
    start = graphs.start
    products, attention, same = model.encoder(stride, first=True)
    assert (start.fp16, start.fp32, same) == (products + attention, 0, caches)
    assert start.input_bytes == picture
    assert start.output_bytes == step.output_bytes
    # Two engines of one encoder, each with all weights but, in the first, those in time.
    assert 0.9 * step.weight_bytes < start.weight_bytes < step.weight_bytes
    assert card.encoder.latent_channels == model.latent


@pytest.mark.parametrize(
    ("name", "frames", "chunk"),
    [("wan2.1-causal-1.3b", 25, 1), ("wan2.1-causal-1.3b-chunk3", 33, 3)],
)
def test_a_step_of_causal_wan(name: str, frames: int, chunk: int) -> None:
    """Keys and values of older latents are cached in FP16; 4.23 TFLOP a latent of seven."""
    card, model = load_card(name), WANS["wan2.1-t2v-1.3b"]
    older = 1 + (frames - 1) // 4 - chunk
    precision = choose_precision("bf16")
    cost = graph_costs(card, Setting(480, 832, frames, 4), chunk, precision, "all").transformer
    embedding, rest, kept = model.step(older, chunk)
    assert (cost.fp32, cost.bf16, cost.fp16) == (embedding, rest, 0)
    assert (cost.ring_bytes, cost.slot_bytes) == (2 * older * kept, 2 * chunk * kept)
    assert cost.replaced_bytes == 0
    assert cost.input_bytes == 4 * (chunk * 16 * 60 * 104 + older)
    assert cost.output_bytes == 4 * 110 * chunk * 30 * 52
    if chunk == 1:
        assert (embedding + rest) / 1e12 == pytest.approx(4.23, abs=0.005)


@dataclass(frozen=True)
class CogVideoX:
    """Configuration of the transformer; the autoencoder is the same for both."""

    layers_read: int
    width: int
    heads_read: int

    def transformer(self, latents: int, described: int) -> tuple[int, int]:
        """Operations of the patch embedding, and of all else: 226 text tokens go along."""
        cells = 30 * 45
        video, newest, w = latents * cells, described * cells, self.width
        every, blocks = 226 + video, 0
        for block in range(self.layers_read):
            asking = newest if block == self.layers_read - 1 else every
            blocks += every * 2 * w * w + asking * (2 * w * w + 8 * w * w + 2 * every * w)
        read = newest * w * 64 * self.heads_read
        return 2 * video * 16 * 4 * w, 2 * (blocks + read)


def cogvideox_encoder(stride: int) -> int:
    """Operations of a window of 25 frames: natively in batches of 9, 8 and 8."""
    rows, columns, sums = 480, 720, 0
    batches = [25] if stride == 1 else [9, 8, 8]
    channels = [128, 128, 256, 256, 512]
    sums += 27 * 3 * 128 * 25 * rows * columns
    for level, (fewer, more) in enumerate(pairwise(channels)):
        for number in range(3):
            inside, places = (fewer if number == 0 else more), sum(batches) * rows * columns
            sums += 27 * (inside + more) * more * places
            if inside != more:
                sums += inside * more * places
        if level < 3:
            rows, columns = rows // 2, columns // 2
            if level < 2 and stride > 1:
                batches = [batch % 2 + batch // 2 for batch in batches]
            sums += 9 * more * more * sum(batches) * rows * columns
    places = sum(batches) * rows * columns
    return 2 * (4 * 27 * 512 * 512 + 27 * 512 * 32) * places + 2 * sums


COGVIDEOX = {"cogvideox-2b": CogVideoX(15, 1920, 1), "cogvideox-5b": CogVideoX(17, 3072, 48)}


@pytest.mark.parametrize("described", [25, None])
@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("name", COGVIDEOX)
def test_cogvideox(name: str, stride: int, described: int | None) -> None:
    model = COGVIDEOX[name]
    _, size, graphs = planned(name, stride, described or stride, "bf16")
    cost, latents, newest = graphs.transformer, size.latents, size.described_latents
    embedding, rest = model.transformer(latents, newest)
    assert (cost.fp32, cost.bf16, cost.fp16) == (embedding, rest, 0)
    assert cost.input_bytes == 4 * 16 * latents * 60 * 90
    assert cost.output_bytes == 4 * 64 * model.heads_read * newest * 30 * 45
    w, read = model.width, 64 * model.heads_read
    linear = model.layers_read * (4 * (w * w + w) + 8 * w * w + 5 * w) + read * (w + 1)
    # Noise, text and the patch embedding; norms and gates are a thousandth.
    rest = 16 * latents * 60 * 90 + 226 * w + 65 * w
    assert cost.weight_bytes == pytest.approx(2 * linear + 4 * rest, rel=0.01)
    encoder = graphs.encoder
    assert graphs.start is None
    assert (encoder.fp16, encoder.fp32, encoder.bf16) == (cogvideox_encoder(stride), 0, 0)
    assert encoder.input_bytes == 25 * 3 * 480 * 720
    assert encoder.output_bytes == 4 * 16 * latents * 60 * 90


@pytest.mark.parametrize("device", all_devices())
def test_the_times_and_the_memory_of_all_devices(device: str) -> None:
    """Wan2.1-T2V-1.3B in a stream at 4 frames a latent, newest latent described."""
    name, target = "wan2.1-t2v-1.3b", all_devices()[device]
    model, card = WANS[name], load_card(name)
    size = window_input(card, Setting(480, 832, 25, 4))
    size = msgspec.structs.replace(size, described_frames=4)
    precision = choose_precision(target.default)
    plan = plan_bundle(card, size, Question(target, precision, 0.5, 64, 30.0))

    embedding, blocks = model.transformer(7, 1)
    products, attention, caches = model.encoder(4, first=False)
    first, attention_of_first, _ = model.encoder(4, first=True)
    work = {
        "transformer": {"fp32": embedding, precision.features: blocks},
        "encoder": {precision.encoder: products + attention},
        "encoder_start": {precision.encoder: first + attention_of_first},
    }
    if target.default == "fp32":
        work["transformer"]["fp32"] += embedding
    picture, held = 3 * 480 * 832, WIDTHS_OF_TYPES[precision.encoder] * caches
    latent, descriptors = 4 * 16 * 60 * 104, 4 * 110 * 30 * 52
    # Latents and caches stay on the device.
    crossing = {"transformer": descriptors, "encoder": 4 * picture, "encoder_start": picture}
    staying = {"transformer": 7 * latent, "encoder": latent, "encoder_start": latent}
    rates = {"fp32": target.tflops.fp32, "fp16": target.tflops.fp16, "bf16": target.tflops.bf16}
    on_gpu = target.compute_capability is not None
    stream = 4 * plan.matching_seconds
    for part, operations in work.items():
        engine = plan.engines[part]
        computing = sum(count / (rates[kind] * 1e12) for kind, count in operations.items())
        moving = engine.moved_bytes / (target.bandwidth * 1e9)
        assert engine.seconds == pytest.approx(2 * max(computing, moving))
        if not on_gpu:
            copying = 0.0
        elif target.link is None:
            copying = 4 * crossing[part] / (target.bandwidth * 1e9)
        else:
            copying = 2 * crossing[part] / (target.host_bandwidth * 1e9)
            copying += crossing[part] / (target.link * 1e9)
        assert engine.copy_seconds == pytest.approx(2 * copying)
        stream += engine.seconds + engine.copy_seconds if part != "encoder_start" else 0.0
    assert plan.latent_seconds == pytest.approx(stream)
    assert plan.stream_rate == pytest.approx(4 / stream)

    memory = plan.memory
    buffers = sum(crossing.values()) + sum(staying.values()) if on_gpu else 0
    assert memory.buffers == memory.pinned == buffers
    assert memory.state == 6 * latent + (2 * held if on_gpu else 0)
    active = [engine.activation_bytes for engine in plan.engines.values()]
    assert memory.activations == (max if on_gpu else sum)(active)
    assert memory.device == memory.weights + memory.activations + buffers + memory.state
    assert memory.shared == (target.link is None)
    needed = memory.device + (buffers if memory.shared else 0)
    assert memory.needed == max(needed, memory.weights + memory.loading * memory.shared)
    assert plan.fits == (memory.needed <= 0.8e9 * target.memory)


def test_an_encoder_left_in_fp32_takes_seconds() -> None:
    """51 TFLOP at half of an AGX Orin's 5.3 TFLOPS: 19 s a window, not 2.4."""
    card, target = load_card("wan2.1-t2v-1.3b"), all_devices()["orin-agx"]
    size = window_input(card, Setting(480, 832, 25, 4))
    seconds = {}
    for encoder in ("fp32", "fp16"):
        precision = choose_precision("bf16", encoder)
        plan = plan_bundle(card, size, Question(target, precision, 0.5, 64, 30.0))
        start, step = plan.engines["encoder_start"], plan.engines["encoder"]
        seconds[encoder] = start.seconds + 6 * step.seconds
    assert seconds["fp32"] == pytest.approx(19.3, abs=0.1)
    assert seconds["fp16"] == pytest.approx(2.4, abs=0.1)
