"""Equal tokens of a prompt are merged, and attention to them stays what it was."""

import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from diffusers import WanPipeline
from hypothesis import given
from hypothesis import strategies as st
from transformers import UMT5Config, UMT5EncoderModel

from vditrack_export.families.layers import Attend
from vditrack_export.families.prompt_tokens import merge_tokens

WIDTH = 6


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_each_row_once_and_how_often(drawn):
    different = rows(6)
    tokens, log_counts = merge_tokens(different[drawn])
    # A counter keeps the order in which it first saw its keys.
    counts = Counter(drawn)
    assert torch.equal(tokens, different[list(counts)])
    assert log_counts.dtype == torch.float32
    assert log_counts.tolist() == pytest.approx([math.log(n) for n in counts.values()])


def test_without_equal_rows_nothing_changes():
    tokens, log_counts = merge_tokens(rows(20))
    assert torch.equal(tokens, rows(20))
    assert torch.equal(log_counts, torch.zeros(20))


def test_rows_that_differ_in_one_bit_stay_apart():
    context = torch.zeros(3, WIDTH)
    context[1, 4] = 1e-45
    context[2, 0] = -0.0
    tokens, log_counts = merge_tokens(context)
    assert torch.equal(tokens, context)
    assert not log_counts.any()


@pytest.mark.parametrize("counts", [[1, 511], [3, 1, 500, 8], [1, 1, 1], [7]])
@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0])
def test_softmax_over_all_rows(counts, spread):
    """In double precision, against the softmax written out over every row."""
    heads, channels = 2, 4
    generator = torch.Generator().manual_seed(1)

    def drawn(*shape):
        return spread * torch.randn(*shape, heads, channels, generator=generator).double()

    query, key, value = drawn(1, 5), drawn(1, len(counts)), drawn(1, len(counts))
    number = torch.tensor(counts)
    merged = Attend()(query, key, value, number.double().log())
    every_key, every_value = (x.repeat_interleave(number, dim=1) for x in (key, value))
    logits = torch.einsum("bnhc,bmhc->bhnm", query, every_key) / channels**0.5
    expected = torch.einsum("bhnm,bmhc->bnhc", logits.softmax(-1), every_value).flatten(-2)
    assert (merged - expected).abs().max() <= 1e-13 * every_value.abs().max()
    if max(counts) == 1:
        assert torch.allclose(Attend()(query, key, value, None), expected)


def test_single_precision():
    """Better than adding 511 equal exponentials, which loses about 1e-6."""
    generator = torch.Generator().manual_seed(2)
    query = torch.randn(1, 500, 2, 16, generator=generator)
    key, value = torch.randn(2, 1, 2, 2, 16, generator=generator)
    counts = torch.tensor([1, 511])
    merged = Attend()(query, key, value, counts.float().log())
    every = (x.double().repeat_interleave(counts, dim=1) for x in (key, value))
    expected = Attend()(query.double(), *every, None)
    assert (merged - expected).abs().max() <= 5e-7 * expected.abs().max()


@pytest.mark.parametrize(("real", "merged"), [(1, 2), (4, 5)])
def test_the_prompts_of_wans_pipeline(real, merged):
    """Its own code pads: the end of the text and what is before it, then zeros up to 512."""
    torch.manual_seed(0)
    encoder = UMT5EncoderModel(
        UMT5Config(num_layers=1, d_model=16, num_heads=2, d_kv=8, d_ff=16, vocab_size=50)
    ).eval()

    def tokenizer(_prompts, max_length, **_options):
        ids, mask = torch.zeros(2, 1, max_length, dtype=torch.long)
        ids[0, :real], mask[0, :real] = torch.arange(real, 0, -1), 1
        return SimpleNamespace(input_ids=ids, attention_mask=mask)

    pipeline = SimpleNamespace(_execution_device="cpu", text_encoder=encoder, tokenizer=tokenizer)
    with torch.no_grad():
        (context,) = WanPipeline._get_t5_prompt_embeds(pipeline, "", max_sequence_length=512)
    assert context.shape == (512, 16)
    tokens, log_counts = merge_tokens(context)
    assert tokens.shape == (merged, 16)
    assert torch.equal(tokens[:real], context[:real])
    assert not tokens[-1].any()
    assert log_counts.exp().tolist() == pytest.approx([1] * real + [512 - real])
