"""The content of a plan; `tables` prints it."""

from dataclasses import dataclass

from vditrack_export.card import Card
from vditrack_export.plan.candidates import candidate_plans, holds
from vditrack_export.plan.latents import LatentCost, latent_costs
from vditrack_export.plan.lowering import lower
from vditrack_export.plan.networks import record_feature_path
from vditrack_export.plan.pipeline import encode_window, record_encoders, reference_operations
from vditrack_export.plan.runs import Plan, Question, plan_bundle
from vditrack_export.plan.settings import card_setting, check_setting, latent_size


@dataclass(frozen=True)
class Report:
    """A plan of a card."""

    card: str
    """Name of the card."""
    question: Question
    bundle: Plan
    """The bundle as it would be exported."""
    tokens: int
    """Cells of descriptors in a window, which are a transformer's tokens."""
    unfused_bytes: int
    """All activations of the transformer if nothing is fused: attention stores tokens x tokens a
    head, and buffers are assigned as ONNX Runtime does."""
    pipeline: dict[str, int]
    """Operations of one denoising step of the whole pipeline on the same window, by part."""
    kept: dict[str, int]
    """Operations of what is exported, for the same window, by part."""
    latents: tuple[LatentCost, ...]
    """The cost of a new latent in a stream, as planned and in other forms."""
    candidates: tuple[Plan, ...]
    """Bundles of other sizes; those whose streams hold the rate first."""

    @property
    def holding(self) -> tuple[Plan, ...]:
        """Candidates that fit the device and hold the rate."""
        return tuple(plan for plan in self.candidates if holds(plan, self.question.rate))


def make_report(card: Card, question: Question) -> Report:
    """Plan a card on a device.

    Raises:
        InputError: The device does not compute in a precision of the graphs, or the card's picture
            does not divide into cells.

    """
    for precision in (question.precision.features, question.precision.encoder):
        question.device.require_peak(precision)
    setting, described = card_setting(card), card.input.described_latents
    check_setting(card, setting)
    bundle = plan_bundle(card, card.input, question)
    latents, features = latent_size(card, setting), question.precision.features
    path = record_feature_path(card, latents, described, features)
    steps = 1 if card.input.attention == "window" else latents[0] // described
    pipeline = reference_operations(card, setting)
    return Report(
        card=card.name,
        question=question,
        bundle=bundle,
        tokens=setting.latent_frames * (setting.height // card.cell) * (setting.width // card.cell),
        unfused_bytes=lower(path, "none").peak_bytes,
        pipeline=pipeline,
        kept={
            "encoder": encode_window(record_encoders(card, setting), setting),
            "transformer": steps * path.operations,
        },
        latents=latent_costs(card, bundle, question),
        candidates=tuple(candidate_plans(card, question)),
    )
