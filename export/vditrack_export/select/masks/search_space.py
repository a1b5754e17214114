"""The search space for masks: settings of either part, and the weight that fuses them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from vditrack_export.card import Card, Masks
from vditrack_export.families.base_shapes import Feature
from vditrack_export.families.read_spec import Denoising
from vditrack_export.pipeline.backbone import read_denoising
from vditrack_export.select.new_card import replace_reading

PartName = Literal["motion", "appearance"]
PARTS: tuple[PartName, ...] = ("motion", "appearance")


@dataclass(frozen=True)
class Setting:
    """A block and a noise level from which one part's features are read."""

    part: PartName
    denoising: Denoising
    block: int


@dataclass(frozen=True)
class Trial:
    """The features with which labels are propagated: both parts fused, or one part alone."""

    motion: Setting | None
    appearance: Setting | None
    weight: float
    """The weight of motion, λ in TED: 1 for motion alone, 0 for appearance alone."""

    @property
    def alone(self) -> Setting | None:
        """The setting of the only part, or None if there are both."""
        return None if self.motion and self.appearance else self.motion or self.appearance


@dataclass(frozen=True)
class MaskSpace:
    """All noise levels x blocks of both parts, and the weights."""

    levels: Mapping[PartName, tuple[Denoising, ...]]
    """The denoising steps of each part, rising; the parts of a card may have different steps."""
    blocks: tuple[int, ...]
    weights: tuple[float, ...]
    """The weights of motion, between 0 and 1."""

    def settings(self, part: PartName) -> list[Setting]:
        """Return all settings of one part, level by level."""
        return [Setting(part, level, block) for level in self.levels[part] for block in self.blocks]

    def trials_alone(self) -> list[Trial]:
        """Return a trial of each setting without the other part."""
        motion = [Trial(setting, None, 1.0) for setting in self.settings("motion")]
        return motion + [Trial(None, setting, 0.0) for setting in self.settings("appearance")]


def make_part_card(card: Card, masks: Masks, part: PartName) -> Card:
    """Return a card that reads one part alone, for the model of that part."""
    read = masks.own_motion if part == "motion" else masks.appearance
    return msgspec.structs.replace(
        card, name=f"{card.name}, {part}", input=read.input, feature=read.feature, masks=None
    )


def make_own_trial(masks: Masks) -> Trial:
    """Return the card's own choice."""
    weight = masks.propagation.motion_weight
    return Trial(
        motion=_make_own_setting(masks.own_motion.feature, "motion") if weight > 0 else None,
        appearance=_make_own_setting(masks.appearance.feature, "appearance")
        if weight < 1
        else None,
        weight=weight,
    )


def replace_masks(masks: Masks, motion: Setting, appearance: Setting, weight: float) -> Masks:
    """Return a card's masks section with a choice in place of its own."""
    chosen = {"motion": motion, "appearance": appearance}
    parts = {
        part: msgspec.structs.replace(
            own, feature=replace_reading(own.feature, chosen[part].block, chosen[part].denoising)
        )
        for part, own in (("motion", masks.own_motion), ("appearance", masks.appearance))
    }
    propagation = msgspec.structs.replace(masks.propagation, motion_weight=weight)
    return msgspec.structs.replace(masks, **parts, propagation=propagation)


def _make_own_setting(feature: Feature, part: PartName) -> Setting:
    return Setting(part, read_denoising(feature), feature.block)
