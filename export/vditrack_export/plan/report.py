"""The content of a plan; `tables` prints it."""

from dataclasses import dataclass

from vditrack_export.card import Card
from vditrack_export.plan.candidates import candidate_runs, holds
from vditrack_export.plan.pipeline import reference_costs
from vditrack_export.plan.runs import Mode, Part, Question, Run, add_parts, part_of, plan_run
from vditrack_export.plan.settings import Setting, card_setting, check_setting

_FRAMES = 25  # HeFT's chunk


@dataclass(frozen=True)
class Comparison:
    """The exported part of a model on one window, beside the whole pipeline."""

    setting: Setting
    tokens: int
    """Cells of descriptors in a window, which are a transformer's tokens."""
    kept: Run
    """The exported part; every frame is described, or as the card says."""
    stream: Run
    """The exported part with a window for every new latent."""
    pipeline: dict[str, Part]
    """One denoising step of the whole pipeline, by part."""
    ratio: float
    """Operations of the whole pipeline over those of ``kept``, matching included."""
    transformer_ratio: float
    """Operations of the pipeline's transformer over those of the exported part of it."""
    decomposed_memory_bytes: int
    """Memory of ``kept`` if attention stores tokens x tokens a head."""

    @property
    def pipeline_total(self) -> Part:
        """All parts of the pipeline together."""
        return add_parts(self.pipeline.values())


@dataclass(frozen=True)
class Report:
    """A plan."""

    card: str
    """Name of the card."""
    question: Question
    comparisons: tuple[Comparison, ...]
    candidates: tuple[Run, ...]
    """Runs of other sizes; those that hold the rate first."""

    @property
    def holding(self) -> tuple[Run, ...]:
        """Candidates that fit the device and hold the rate."""
        return tuple(run for run in self.candidates if holds(run, self.question.rate))


def make_report(card: Card, question: Question) -> Report:
    """Plan a card on a device.

    Raises:
        InputError: The device does not compute in that precision, the efficiency is not a share, or
            the card's picture does not divide into cells.

    """
    own = card_setting(card)
    check_setting(card, own)
    settings = [own]
    strides = card.encoder.temporal_strides
    if len(strides) > 1:
        settings += [Setting(own.height, own.width, _FRAMES, stride) for stride in strides]
    return Report(
        card=card.name,
        question=question,
        comparisons=tuple(compare(card, setting, question) for setting in dict.fromkeys(settings)),
        candidates=tuple(candidate_runs(card, question)),
    )


def compare(card: Card, setting: Setting, question: Question) -> Comparison:
    """Compare what is exported with the whole pipeline on one window."""
    mode: Mode = "card" if setting == card_setting(card) else "windows"
    kept = plan_run(card, setting, mode, question)
    costs = reference_costs(card, setting, question.device.fusion)
    pipeline = {name: part_of(name, cost, question) for name, cost in costs.items()}
    cells = (setting.height // card.cell) * (setting.width // card.cell)
    return Comparison(
        setting=setting,
        tokens=setting.latent_frames * cells,
        kept=kept,
        stream=plan_run(card, setting, "stream", question),
        pipeline=pipeline,
        ratio=add_parts(pipeline.values()).operations / kept.total.operations,
        transformer_ratio=(
            pipeline["transformer"].operations / kept.parts["transformer"].operations
        ),
        decomposed_memory_bytes=plan_run(card, setting, mode, question, fusion="none").memory_bytes,
    )
