"""What is tried to propagate masks: settings of either part, and how two of them are fused."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from vditrack_export.card import Card, Masks
from vditrack_export.families.base_shapes import Feature
from vditrack_export.families.read_spec import Denoising

PartName = Literal["motion", "appearance"]
PARTS: tuple[PartName, ...] = ("motion", "appearance")


@dataclass(frozen=True)
class Setting:
    """One way to read one part's features."""

    part: PartName
    denoising: Denoising
    block: int


@dataclass(frozen=True)
class Trial:
    """What labels are propagated with: both parts fused, or one of them alone."""

    motion: Setting | None
    appearance: Setting | None
    weight: float
    """λ of TED: 1 for motion alone, 0 for appearance alone."""

    @property
    def alone(self) -> Setting | None:
        """Setting of the only part, if it is one."""
        return None if self.motion and self.appearance else self.motion or self.appearance


@dataclass(frozen=True)
class MaskSpace:
    """All settings of both parts, every noise level x block, and the weights between 0 and 1."""

    levels: Mapping[PartName, tuple[Denoising, ...]]
    """Rising. The parts have steps of their own where their cards have."""
    blocks: tuple[int, ...]
    weights: tuple[float, ...]

    def settings(self, part: PartName) -> list[Setting]:
        """Return all of one part, level after level."""
        return [Setting(part, level, block) for level in self.levels[part] for block in self.blocks]

    def alone(self) -> list[Trial]:
        """Return a trial of each setting without the other part."""
        motion = [Trial(setting, None, 1.0) for setting in self.settings("motion")]
        return motion + [Trial(None, setting, 0.0) for setting in self.settings("appearance")]


def part_card(card: Card, masks: Masks, part: PartName) -> Card:
    """Return the card of a part as if it were all that is read of the checkpoint."""
    read = masks.own_motion if part == "motion" else masks.appearance
    return msgspec.structs.replace(
        card, name=f"{card.name}, {part}", input=read.input, feature=read.feature, masks=None
    )


def own_trial(masks: Masks) -> Trial:
    """Return what a card has."""
    weight = masks.propagation.motion_weight
    return Trial(
        motion=_own(masks.own_motion.feature, "motion") if weight > 0 else None,
        appearance=_own(masks.appearance.feature, "appearance") if weight < 1 else None,
        weight=weight,
    )


def chosen_masks(masks: Masks, motion: Setting, appearance: Setting, weight: float) -> Masks:
    """Return what a card says with a choice in the place of its own."""
    read = {"motion": motion, "appearance": appearance}
    parts = {
        part: msgspec.structs.replace(own, feature=_with(own.feature, read[part]))
        for part, own in (("motion", masks.own_motion), ("appearance", masks.appearance))
    }
    propagation = msgspec.structs.replace(masks.propagation, motion_weight=weight)
    return msgspec.structs.replace(masks, **parts, propagation=propagation)


def _own(feature: Feature, part: PartName) -> Setting:
    step = Denoising(
        feature.timestep, feature.signal_level, feature.noise_level, feature.noise_seed
    )
    return Setting(part, step, feature.block)


def _with(feature: Feature, setting: Setting) -> Feature:
    return msgspec.structs.replace(
        feature,
        block=setting.block,
        selected=True,
        timestep=setting.denoising.timestep,
        signal_level=setting.denoising.signal,
        noise_level=setting.denoising.noise,
    )
