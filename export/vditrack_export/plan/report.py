"""Everything that `vditrack plan` tells, worked out; printing it is elsewhere."""

from dataclasses import dataclass

from vditrack_export.card import Card
from vditrack_export.plan.candidates import candidate_runs, holds
from vditrack_export.plan.layers import patch_grid
from vditrack_export.plan.pipeline import (
    Setting,
    card_setting,
    check_setting,
    latent_size,
    reference_costs,
)
from vditrack_export.plan.runs import Mode, Part, Question, Run, part_of, plan_run

_FRAMES = 25  # HeFT's chunk


@dataclass(frozen=True)
class Comparison:
    """What is kept of the model at one setting, beside the pipeline that it is cut out of."""

    setting: Setting
    tokens: int
    kept: Run
    """Every frame described, or as the card says."""
    stream: Run
    pipeline: dict[str, Part]
    """One denoising step of the whole pipeline."""
    ratio: float
    """Operations of the whole pipeline over those that are kept, matching included."""
    transformer_ratio: float
    decomposed_memory_bytes: int
    """Memory of ``kept`` if attention keeps tokens x tokens a head."""


@dataclass(frozen=True)
class Report:
    """A plan."""

    card: str
    question: Question
    comparisons: tuple[Comparison, ...]
    candidates: tuple[Run, ...]
    """Those that hold the rate first."""

    @property
    def holding(self) -> tuple[Run, ...]:
        """Candidates that fit and hold the rate."""
        return tuple(run for run in self.candidates if holds(run, self.question.rate))


def make_report(card: Card, question: Question) -> Report:
    """Plan a card on a device.

    Raises:
        InputError: the device does not compute in that precision, or the card's picture does not
            divide into cells.

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
        comparisons=tuple(
            _comparison(card, setting, question) for setting in dict.fromkeys(settings)
        ),
        candidates=tuple(candidate_runs(card, question)),
    )


def _comparison(card: Card, setting: Setting, question: Question) -> Comparison:
    frames, rows, columns = patch_grid(
        card.transformer.require_transformer(), latent_size(card, setting)
    )
    mode: Mode = "card" if setting == card_setting(card) else "windows"
    kept = plan_run(card, setting, mode, question)
    costs = reference_costs(card, setting, fusion=question.device.fusion)
    pipeline = {name: part_of(name, cost, question) for name, cost in costs.items()}
    return Comparison(
        setting=setting,
        tokens=frames * rows * columns,
        kept=kept,
        stream=plan_run(card, setting, "stream", question),
        pipeline=pipeline,
        ratio=_operations(pipeline) / _operations(kept.parts),
        transformer_ratio=(
            pipeline["transformer"].operations / kept.parts["transformer"].operations
        ),
        decomposed_memory_bytes=plan_run(card, setting, mode, question, fusion="none").memory_bytes,
    )


def _operations(parts: dict[str, Part]) -> int:
    return sum(part.operations for part in parts.values())
