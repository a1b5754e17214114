"""Upgrade of manifests of older schema versions, one version at a time.

A function here takes a decoded manifest of schema version N and makes it one of N + 1. Fields that
a version added get the values that the program had as constants before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Fields = dict[str, Any]
"""The decoded JSON of a manifest, or of a part of it."""


class ManifestError(ValueError):
    """A manifest lacks a field that its own schema version requires."""


def upgrade_manifest(fields: Fields) -> Fields:
    """Return a manifest of a known older schema version as one of the newest.

    Raises:
        ManifestError: A part that is upgraded is missing or not an object.

    """
    while (version := fields["schema_version"]) in _UPGRADES:
        try:
            fields = {**_UPGRADES[version](fields), "schema_version": version + 1}
        except (KeyError, TypeError) as error:
            raise ManifestError(f"its parts are not those of schema version {version}") from error
    return fields


def _from_4(fields: Fields) -> Fields:
    """Add what version 5 did: overlapping windows, and features for masks."""
    return {**fields, "input": {"overlap": 1, **fields["input"]}, "propagation": None}


def _from_5(fields: Fields) -> Fields:
    """Add what version 6 did: motion that is read from appearance."""
    propagation = fields.get("propagation")
    if propagation is not None:
        propagation = {**propagation, "displacement": None}
    return {**fields, "propagation": propagation}


def _from_6(fields: Fields) -> Fields:
    """Add what version 7 did: the constants of point tracking, and plain names."""
    upgraded = {name: value for name, value in fields.items() if name != "gate"}
    upgraded["input"] = {"overlap": 1, **fields["input"]}
    upgraded["matching"] = _matching_from_6(fields["matching"])
    upgraded["streaming"] = _STREAMING_OF_6
    upgraded["propagation"] = fields.get("propagation")
    if upgraded["propagation"] is not None:
        upgraded["propagation"] = {"displacement": None, **upgraded["propagation"]}
    upgraded["precision_check"] = fields["gate"]
    return upgraded


def _matching_from_6(matching: Fields) -> Fields:
    upgraded = {name: value for name, value in matching.items() if name != "holding"}
    upgraded |= {"template_falloff": 3.0, "reference_chunk": 25, "flow_tracking": None}
    holding = matching.get("holding")
    if holding is not None:
        upgraded["flow_tracking"] = {
            **_FLOW_TRACKING_OF_6,
            "recovery": {
                **_RECOVERY_OF_6,
                "min_similarity": holding["recovery_similarity"],
                "min_correlation": holding["recovery_correlation"],
            },
            "visibility": holding["visibility"],
        }
    return upgraded


def _from_7(fields: Fields) -> Fields:
    """Add what version 8 did: the camera's motion, patches that suit the picture, and late masks.

    Graphs in a lower precision were not compared with the original, and none cached keys.

    Version 7 tracked points that had left the picture to look-alikes. There are no values of the
    new fields with which it still would, so bundles of older versions get those of this version.
    It also kept every frame that was marked, and so grew without bound: the same holds there.
    """
    propagation = fields["propagation"]
    if propagation is not None:
        propagation = {**propagation, "references": 8}
    streaming = {**fields["streaming"], **_STREAMING_OF_8}
    streaming["live"] = {**streaming["live"], **_LIVE_OF_8}
    # Earlier versions read checkpoints of one transformer, of 16 or 32 bits, without adapters, and
    # exported the checkpoint's own encoder.
    absent = {"expert": None, "quantisation": (), "adapters": (), "tiny_encoder": None}
    source = {**absent, **fields["source"]}
    fields = {**fields, "source": source, "propagation": propagation, "streaming": streaming}
    fields |= {"lowered_parity": [], "encoder_agreement": None}
    fields["input"] = {**fields["input"], "attention": "window"}
    fields["int8"] = None
    fields["attention_check"] = None
    flow_tracking = fields["matching"]["flow_tracking"]
    if flow_tracking is None:
        return fields
    recovery = flow_tracking["recovery"]
    upgraded = {
        **flow_tracking,
        "patches": {**flow_tracking["patches"], **_PATCHES_OF_8},
        "recovery": None if recovery is None else {**recovery, **_RECOVERY_OF_8},
        "camera": _CAMERA_OF_8,
        "rival_tolerance": 0.08,
    }
    return {**fields, "matching": {**fields["matching"], "flow_tracking": upgraded}}


def _from_8(fields: Fields) -> Fields:
    """Add what version 9 did: colours of cells, certain matches, gaps and paths."""
    propagation = fields["propagation"]
    if propagation is not None:
        fields = {**fields, "propagation": {**propagation, "colour": None}}
    flow_tracking = fields["matching"]["flow_tracking"]
    if flow_tracking is None:
        return fields
    upgraded = {**flow_tracking, "certain": None, "gaps": None, "paths": None}
    return {**fields, "matching": {**fields["matching"], "flow_tracking": upgraded}}


_OPTICAL_FLOW_OF_6 = {
    "window": 15,
    "levels": 4,
    "iterations": 20,
    "epsilon": 0.03,
    "min_texture": 1e-4,
    "check_backward": True,
}
_FLOW_TRACKING_OF_6 = {
    "optical_flow": _OPTICAL_FLOW_OF_6,
    "patches": {
        "radius": 5,
        "rounds": 8,
        "max_shift": 3.0,
        "min_correlation": 0.7,
        "weight_sigma": 0.7,
        "shift_damping": 1e-4,
        "shape_damping": 1e-1,
        "noise": 1e-3,
        "min_scale": 0.4,
        "max_scale": 2.5,
    },
    "max_flow_error": 2.0,
    "max_departure": 5.0,
    "max_departure_share": 0.3,
    "min_correlation": 0.3,
    "velocity_update": 0.7,
    "velocity_decay": 0.95,
    "flow_error_cap": 10.0,
    "remember_query": True,
}
_RECOVERY_OF_6 = {
    "wide_radius": 14,
    "wide_rounds": 6,
    "max_wide_shift": 8.0,
    "max_shift": 10.0,
    "radius": 8.0,
    "radius_growth": 3.0,
    "anywhere_after": 8.0,
}
_STREAMING_OF_6 = {
    "interval_history": 30,
    "live": {
        "optical_flow": {**_OPTICAL_FLOW_OF_6, "min_texture": 1e-6},
        "correction_flow": _OPTICAL_FLOW_OF_6,
        "max_flow_error": 1.0,
        "max_correction": 1.0,
        "lost_confidence": 0.49,
        "max_model_share": 0.8,
        "max_push_share": 0.5,
        "history": 15,
    },
}
_STREAMING_OF_8 = {
    "mask_history": {"seconds": 2.0, "megabytes": 256, "max_offset": 0.05},
    "box_outlines": {"rounds": 1, "margin": 0.5, "min_share": 0.25, "min_side": 6},
}
_PATCHES_OF_8 = {
    "max_decorrelation": 0.005,
    "grey_noise": 0.3,
    "max_error": 0.8,
    "max_textureless_error": 4.0,
    "max_surprise": 3.0,
    "max_radius": 40.0,
    "finest_pixel": 0.25,
}
_RECOVERY_OF_8 = {
    "min_wide_correlation": 0.5,
    "min_near_inside": 0.75,
    "min_wide_inside": 0.5,
    "rival_distance": 8.0,
    "rival_margin": 0.05,
    "min_unplaced_correlation": 0.9,
    "certain_correlation": 0.98,
}
_LIVE_OF_8 = {
    "recent_seconds": 2.0,
    "recent_bytes": 64 * 1024 * 1024,
    "recent_width": 1440,
    "max_carry_steps": 16,
}
_CAMERA_OF_8 = {
    "width": 256,
    "levels": 3,
    "places": 8,
    "max_flow_error": 0.5,
    "max_residual": 1.0,
    "min_agreement": 0.5,
    "min_cover": 0.2,
    "min_spread": 0.2,
    "step_error": 0.03,
    "static_speed": 0.3,
    "static_share": 0.2,
    "static_departure": 2.5,
    "static_radius": 3.0,
    "static_radius_growth": 0.15,
}
_UPGRADES: dict[int, Callable[[Fields], Fields]] = {
    4: _from_4,
    5: _from_5,
    6: _from_6,
    7: _from_7,
    8: _from_8,
}
OLDEST_VERSION = min(_UPGRADES)
"""Oldest schema version that can be read."""
