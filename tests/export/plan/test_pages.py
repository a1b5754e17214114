"""Figures and commands of the pages, beside what `vditrack plan` prints for the same options."""

import re
import shlex
from functools import cache, partial
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from vditrack_export.card import load_card
from vditrack_export.card_changes import change_card, replace_encoder
from vditrack_export.pipeline.precision import choose_precision
from vditrack_export.plan.cli import plan
from vditrack_export.plan.devices import all_devices, read_devices
from vditrack_export.plan.runs import Question, plan_bundle

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_candidates")]

DOCS = Path(__file__).parents[3] / "docs"
NAME = "wan2.1-t2v-1.3b"
ELSEWHERE = {"--weights", "--prompt", "-o", "--device"}
"""Options that do not choose what is exported."""


@pytest.fixture
def no_candidates(monkeypatch):
    """No other sizes are planned, whose figures no page has."""
    monkeypatch.setattr("vditrack_export.plan.report.candidate_plans", lambda *_: [])
    monkeypatch.setattr("vditrack_export.plan.tables._print_candidates", lambda *_: None)


def commands(page: str, verb: str) -> list[dict[str, str]]:
    """Options of the commands with a card's name, of which all take a value."""
    text = (DOCS / page).read_text().replace("\\\n", " ")
    found = re.findall(rf"^ *vditrack {verb} {re.escape(NAME)} (.*)$", text, re.MULTILINE)
    parts = [shlex.split(options) for options in found]
    return [dict(zip(words[::2], words[1::2], strict=True)) for words in parts]


def chosen(options: dict[str, str]) -> tuple[str, ...]:
    return tuple(word for pair in options.items() if pair[0] not in ELSEWHERE for word in pair)


@cache
def printed(*options: str) -> str:
    """What plan prints, each line with single spaces."""
    app = typer.Typer()
    app.command()(plan)
    result = CliRunner().invoke(app, [NAME, *options], env={"COLUMNS": "300"})
    assert result.exception is None, result.output
    return "\n".join(" ".join(line.split()) for line in result.stdout.splitlines())


def rows(page: str, first: str) -> list[list[str]]:
    """Cells of the table whose header's first cell is given."""
    lines = (DOCS / page).read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.strip().startswith(f"| {first} |"))
    found = []
    for line in lines[start + 2 :]:
        if not line.strip().startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    assert found
    return found


@pytest.mark.parametrize("page", ["jetson.md", "rtx.md"])
def test_the_rates_of_the_pages_export(page):
    options = chosen(commands(page, "export")[0])
    assert "--described" in options and "--precision" in options
    assert {chosen(plan) for plan in commands(page, "plan")} <= {options}
    for device, milliseconds, rate, memory in rows(page, "`--device`"):
        text = printed("--device", device.strip("`"), *options)
        assert f"Stream: {milliseconds} ms a frame, {rate} frames a second" in text
        needed, _, whole = memory.partition(" of ")
        assert re.search(rf"It fits: {needed} GB of (the device's )?{whole}\b", text)


def test_the_first_page_plans_what_it_exports():
    fast, heft = (chosen(options) for options in commands("backbones.md", "export")[:2])
    assert [chosen(options) for options in commands("backbones.md", "plan")] == [fast]
    assert fast == chosen(commands("jetson.md", "export")[0])
    assert heft == ()


def test_the_tables_of_the_plan():
    options = commands("speed.md", "plan")[0]
    text = printed("--device", options["--device"], *chosen(options))
    shown = rows("speed.md", "engine") + rows("speed.md", "--encoder, --attention")
    assert len(shown) == 3 + 4
    for cells in shown:
        assert " ".join(cells) in text.splitlines()


def bundle(name: str, device: str, frames: int, *size: int, encoder: str | None = None):
    """Plan of a stream at four frames a latent; the newest alone is described."""
    card = change_card(
        load_card(name),
        frames=frames,
        temporal_stride=4,
        described=4,
        size=f"{size[0]}x{size[1]}",
    )
    asked = Question(all_devices()[device], choose_precision("bf16"), 0.5, 64, 30.0)
    card = replace_encoder(card, encoder)
    return plan_bundle(card, card.input, asked)


def test_a_causal_backbone_at_a_cameras_rate():
    """The goals for an AGX Orin, and what the page says of other devices and windows."""
    causal = partial(bundle, "wan2.1-causal-1.3b", encoder="taehv")
    found = {}
    for cells in rows("speed.md", "`--device`"):
        device, before, _, after, memory, largest = (cell.strip("`") for cell in cells)
        assert before == f"{bundle(NAME, device, 25, 832, 480).stream_rate:.3g}"
        plan = causal(device, 21, 832, 480)
        assert (after, memory) == (f"{plan.stream_rate:.3g}", f"{plan.memory.needed / 1e9:.3g} GB")
        assert plan.fits
        found[device] = largest
    assert found["orin-agx"] == "672 x 384"
    assert causal("orin-agx", 21, 672, 384).stream_rate > 30
    assert load_card("wan2.1-causal-1.3b").input.frames == 21
    page = " ".join((DOCS / "speed.md").read_text().split())
    rates = [causal("orin-agx", frames, 832, 480).stream_rate for frames in (25, 21, 13, 5)]
    assert rates[1] > 18
    seven, six, four, two = (f"{rate:.3g}" for rate in rates)
    assert (
        f"832 x 480 gives {six}, with 7 latents (`--frames 25`) {seven}, and with a shorter window "
        f"{four} (4) or {two} (2)." in page
    )


def test_what_truncation_saves():
    for (_, tokens, whole, kept, ratio, transformers), stride in zip(
        rows("speed.md", "latents"), ("1", "4"), strict=True
    ):
        text = printed("--device", "orin-agx", "--temporal-stride", stride)
        own, cut = transformers.split(" / ")
        assert f"{tokens.replace(',', '')} tokens" in text
        assert re.search(rf"takes {whole} TFLOP .* transformer {own}[,)]", text)
        assert f"{ratio} times the " in text
        figures = re.search(r"times the ([\d.]+) of what is exported", text)
        assert round(float(figures[1])) == int(kept)
        assert round(float(re.search(r"^transformer ([\d.]+)", text, re.MULTILINE)[1])) == int(cut)


def test_the_example_of_a_device(tmp_path):
    text = (DOCS / "speed.md").read_text()
    example = re.search(r"```toml\n(\[my-board\].*?)```", text, re.DOTALL)
    path = tmp_path / "devices.toml"
    path.write_text(example[1])
    assert read_devices(path)["my-board"].memory == 8
    path.write_text(re.sub(r"(?m)^# (link|host_bandwidth|engine)", r"\1", example[1]))
    assert read_devices(path)["my-board"].link == all_devices()["rtx-4090"].link
