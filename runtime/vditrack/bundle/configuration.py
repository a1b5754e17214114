"""The part of a bundle's manifest that decides what tracks and masks come out of its features.

Every number that changes a result is a field here, so that the same bundle gives the same result
with every release. A default is what export writes where a card leaves a field out; the manifest on
disk has every field. "Chosen" means chosen on rendered clips (synthetic:1). Fields are in pixels at
a width of 256 where they say so: the real limit is `vditrack.coordinates.pixel_unit` times larger.
Integers have upper limits far above all useful values, so that no bundle makes the runtime take
memory or time without bound.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from vditrack.bundle.path_choice import PathChoice
from vditrack.bundle.redetection import CertainMatches, GapFilling, Recovery
from vditrack.bundle.value_types import (
    Cosine,
    Few,
    Levels,
    NonNegative,
    Positive,
    PositiveReal,
    Share,
    Side,
)


class OpticalFlow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Pyramidal Lucas-Kanade from frame to frame, as OpenCV's ``calcOpticalFlowPyrLK`` takes it."""

    window: Few = 15
    """Side of the window around a point, in pixels of the frame. Chosen."""
    levels: Levels = 4
    """Halvings of the frame above its own size. Chosen."""
    iterations: Positive = 20
    """Gauss-Newton steps on each level, at most. Chosen."""
    epsilon: PositiveReal = 0.03
    """Step, in pixels, below which a level ends. Chosen."""
    min_texture: NonNegative = 1e-4
    """Least eigenvalue of the gradients in the window; flatter surfaces are not followed. OpenCV's
    default."""
    check_backward: bool = True
    """Whether flow is also followed back to the frame before; if not, its error counts as 0."""


class PatchAlignment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the patch around a query is aligned in later frames (`vditrack.points.patch_alignment`).

    Gauss-Newton steps on an affine warp, inverse compositional (Baker and Matthews, Lucas-Kanade 20
    years on, IJCV 2004). Lengths are in pixels of the patch's own frame, except where fields say
    so.
    """

    radius: Few = 5
    """The patch has 2 radius + 1 pixels a side. Chosen."""
    rounds: Positive = 5
    """Gauss-Newton steps in each frame. Chosen."""
    max_shift: PositiveReal = 3.0
    """Pixels of the patch by which alignment may correct optical flow, at most. Chosen."""
    min_correlation: float = 0.7
    """Least correlation of an aligned patch that corrects optical flow; none does if it is above 1.
    Chosen."""
    weight_sigma: PositiveReal = 0.7
    """Standard deviation of the weights around the patch's centre, in radii. Chosen."""
    shift_damping: NonNegative = 1e-4
    """Added to the Hessian's diagonal for the shift. Chosen."""
    shape_damping: NonNegative = 1e-1
    """The same for the affine shape, which changes only where there is texture enough. Chosen."""
    noise: PositiveReal = 1e-3
    """Grey levels that are added to a patch's standard deviation, so that a flat one has a
    scale."""
    max_decorrelation: PositiveReal = 0.005
    """What resampling takes from the correlation of a patch with itself, for the expected error of
    an alignment. Chosen."""
    grey_noise: NonNegative = 0.3
    """Noise, in grey levels, of the mean of a patch, for the same. Chosen."""
    max_error: PositiveReal = 0.8
    """Expected error of an alignment, in pixels at a width of 256, up to which a patch locates its
    point. The finest patch that does is chosen; a point that has none counts as textureless.
    Chosen."""
    max_textureless_error: PositiveReal = 4.0
    """The same, up to which a patch can confirm that a textureless point moves with the camera. A
    point without such a patch is never visible. Chosen."""
    max_surprise: PositiveReal = 3.0
    """Expected errors that an alignment may be away from where the camera's motion leads a
    textureless point; beyond that the point is lost. Chosen."""
    max_radius: PositiveReal = 40.0
    """Largest radius of a patch, in pixels at a width of 256. Chosen."""
    finest_pixel: PositiveReal = 0.25
    """Least width of a pixel of a patch, in pixels at a width of 256; never less than a pixel of
    the frame. Chosen."""
    min_scale: PositiveReal = 0.4
    """Least singular value of a believable affine shape. Chosen."""
    max_scale: PositiveReal = 2.5
    """Largest singular value of a believable affine shape. Chosen."""


class CameraMotion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The camera's motion from frame to frame, and what is expected of points that it alone moves.

    A point that moves with the camera stands still in the scene: it is *static*. Speeds and lengths
    are in pixels at a width of 256, except where fields say so.
    """

    width: Side = 256
    """Width, in pixels, that the picture is reduced to, to the nearest power of two. Chosen."""
    levels: Annotated[int, Meta(gt=0, le=16)] = 3
    """Reductions that are tried: to ``width``, to half of it, and so on. Chosen."""
    places: Few = 8
    """Places a side of the grid that optical flow follows. Chosen."""
    max_flow_error: PositiveReal = 0.5
    """Forward-backward error of flow, in pixels of the reduced picture, of a place that counts.
    Chosen."""
    max_residual: PositiveReal = 1.0
    """Distance, in the same pixels, within which a place agrees with a motion. Chosen."""
    min_agreement: Share = 0.5
    """Share of the places that count that must agree; with fewer the motion is unknown. Chosen."""
    min_cover: Share = 0.2
    """Share of all places that must agree. Chosen."""
    min_spread: NonNegative = 0.2
    """Least standard deviation of the places that agree, as a share of the picture's height and
    width, so that an object on a plain backdrop is not taken for the camera. Chosen."""
    step_error: PositiveReal = 0.03
    """Expected error of a step of the camera. Chosen."""
    static_speed: NonNegative = 0.3
    """Speed a frame, relative to the camera, up to which a point counts as static. Chosen."""
    static_share: NonNegative = 0.2
    """How much faster it may be, as a share of the camera's speed. Chosen."""
    static_departure: PositiveReal = 2.5
    """How far flow may lead a static point from where the camera's motion does. Chosen."""
    static_radius: PositiveReal = 3.0
    """How far from its predicted position a lost static point may return. Chosen."""
    static_radius_growth: NonNegative = 0.15
    """How much farther for each frame that it was lost. Chosen."""


class Visibility(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A logistic regression that gives the confidence that a point is visible where it is placed.

    `vditrack calibrate` fits the weights on clips with known tracks.
    """

    bias: float
    correlation: float
    """Weight of the correlation of the point's first patch with the frame."""
    first_similarity: float
    """Weight of the cosine similarity with the point's first descriptor."""
    template_similarity: float
    """Weight of the cosine similarity with the point's template."""
    distance: float
    """Weight of the forward-backward error of optical flow, in pixels at a width of 256."""

    @property
    def of_evidence(self) -> tuple[float, float, float, float]:
        """All weights but the bias, in the order above."""
        return self.correlation, self.first_similarity, self.template_similarity, self.distance


class FlowTracking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How points are tracked by optical flow and query patch (`vditrack.points.flow_tracker`)."""

    optical_flow: OpticalFlow = OpticalFlow()
    patches: PatchAlignment = PatchAlignment()
    recovery: Recovery | None
    """None: a lost point is not searched for, and is never visible again."""
    certain: CertainMatches | None = None
    """None: a match by descriptor alone places no point. Used only with ``recovery``."""
    gaps: GapFilling | None = GapFilling()
    """None: gaps are not filled. Used only offline."""
    paths: PathChoice | None = None
    """None: paths are those of the tracker. Used only offline, with ``recovery``."""
    visibility: Visibility
    camera: CameraMotion = CameraMotion()
    max_flow_error: PositiveReal = 2.0
    """Forward-backward error, in pixels at a width of 256, from which on flow has lost a point.
    Chosen."""
    max_departure: PositiveReal = 5.0
    """How far flow may lead from the predicted position, in pixels at a width of 256. Chosen."""
    max_departure_share: NonNegative = 0.3
    """How much farther, as a share of the predicted step. Chosen."""
    min_correlation: float = 0.3
    """Correlation of its first patch at or below which a point is lost. Chosen."""
    velocity_update: Share = 0.7
    """Weight of the newest step in a point's velocity. Chosen."""
    velocity_decay: Share = 0.95
    """Factor on the velocity in each frame in which the point is lost. Chosen."""
    rival_tolerance: float = 0.08
    """How much less a lost point's descriptor may be like its query's than that of the query's best
    rival in its own frame, for the point to be visible. Chosen."""
    flow_error_cap: PositiveReal = 10.0
    """Forward-backward error, in pixels at a width of 256, above which `Visibility` makes no
    difference. Chosen."""
    remember_query: bool = True
    """Whether a point's first patches and descriptor are those of its query; if not, they are those
    of the frame before."""


class Matching(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How descriptors become tracks (HeFT, arXiv 2512.04619); lengths are in model pixels."""

    temperature: PositiveReal
    """Temperature of the softmax over cosine similarities; 1 in the paper."""
    argmax_radius: Annotated[float, Meta(gt=0, le=500)]
    """Radius of the disc around the best pixel over which the soft-argmax is taken."""
    search_radius: PositiveReal
    """How far from its last position a visible point is searched for."""
    visibility_threshold: PositiveReal
    """Largest forward-backward distance (RMS over frames) of a visible point."""
    similarity_threshold: Cosine
    """Least cosine similarity of a visible point with its template; -1 in the paper."""
    recovery_threshold: Cosine
    """The same for a point that was not seen within the horizon, so cannot be checked backward."""
    template_update: Share
    """Weight of the newest descriptor in a visible point's template."""
    update_after_loss: bool
    """Whether a template is still updated after its point was lost once; true in the paper."""
    horizon: Positive
    """Frames that the backward check goes back, at most."""
    template_falloff: NonNegative = 3.0
    """A descriptor is read as a mean over the 3 x 3 places one pixel apart around a point, weighted
    by exp(-falloff x distance). The paper's (section 3)."""
    reference_chunk: Annotated[int, Meta(ge=2, le=10_000)] = 25
    """Frames of a chunk in the reference mode, where the model's windows describe fewer frames. The
    paper's."""
    flow_tracking: FlowTracking | None = None
    """None: points go where they match, as in the paper. The five settings from
    ``visibility_threshold`` to ``recovery_threshold``, ``update_after_loss`` and ``horizon`` are
    for that case alone."""


class LiveTracking(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a live stream bridges frames that the model has no time for (`streams.realtime`)."""

    optical_flow: OpticalFlow = OpticalFlow(min_texture=1e-6)
    """Carries points between the frames that the model describes. It follows flatter surfaces than
    flow tracking does, or points on asphalt would come and go. Chosen."""
    correction_flow: OpticalFlow = OpticalFlow()
    """Follows points anew, from where the model places them to the newest frame."""
    max_flow_error: PositiveReal = 1.0
    """Largest forward-backward error of flow that is believed, in pixels at a width of 256 (of the
    frame if that is narrower). What users of the method allow."""
    max_correction: PositiveReal = 1.0
    """Pixels at a width of 256 by which the model may move a point without flow being followed anew
    from the model's position. Chosen."""
    lost_confidence: Share = 0.49
    """Factor on the confidence of a point that flow has lost: below one half whatever it was."""
    max_model_share: PositiveReal = 0.8
    """Share of the frame interval that the model may take for every push to wait for it. Chosen."""
    max_push_share: PositiveReal = 0.5
    """Share of the time between two frames that a push may take for that time to count as the
    camera's interval. Chosen."""
    history: Positive = 15
    """Frames over which the model's time and rate and the camera's interval are measured."""
    recent_seconds: NonNegative = 2.0
    """For how long the grey levels of frames are kept, so that points can be added on them."""
    recent_bytes: Annotated[int, Meta(ge=0, le=1 << 36)] = 64 * 1024 * 1024
    """Memory that they take at most. The newest frame is always kept."""
    recent_width: Side = 1440
    """Width, in pixels, up to which they are kept at full size; larger ones are reduced to a half,
    a third and so on. In frames so large, the finest pixel of a patch is not smaller. Chosen."""
    max_carry_steps: Positive = 16
    """Steps of flow, at most, in which a point is carried from an earlier frame to the newest.
    Chosen."""


class BoxOutlines(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the outline of an object is found in a box (`masks.boxes`), at the model's input size."""

    rounds: Positive = 1
    """Rounds of GrabCut. On 8 rendered clips, with boxes that are off by up to 8%, one round gives
    an IoU of 0.87 with the object, five give 0.85, and the box itself 0.69."""
    margin: NonNegative = 0.5
    """Width of the background around a box that its colours are learned from, as a share of the
    box's longer side. Chosen."""
    min_share: Share = 0.25
    """Share of the box that the outline must fill; else the object is the whole box. Chosen."""
    min_side: Positive = 6
    """Shortest side of a box in pixels; a smaller object is its whole box. Chosen."""


class MaskHistory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which frames a stream of masks keeps for masks that come late (`streams.mask_history`)."""

    seconds: PositiveReal = 2.0
    """How long frames are kept at least. Segmentation models on a robot need 0.3 to 1 s. Chosen."""
    megabytes: Annotated[int, Meta(gt=0, le=100_000)] = 256
    """Memory that they may take, in 10^6 bytes; the oldest are dropped. Chosen."""
    max_offset: NonNegative = 0.05
    """Largest difference between the stamp of a mask and that of the frame on which it is placed,
    in seconds, if no frame with its stamp was kept: a little more than the interval of a camera at
    30 Hz, so that one lost image does no harm. Chosen."""


class Streaming(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How live streams treat time."""

    interval_history: Positive = 30
    """Frame intervals whose median is the usual interval. After dropped frames the search radius
    grows by the ratio of the interval to it."""
    live: LiveTracking = LiveTracking()
    mask_history: MaskHistory = MaskHistory()
    box_outlines: BoxOutlines = BoxOutlines()


class Displacement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How motion is read from where appearance moves (`vditrack.features.cell_motion`)."""

    frames: Annotated[int, Meta(gt=0, le=50)]
    """Up to how many frames away, before and after, a cell is searched for."""
    reach: Annotated[float, Meta(gt=0, le=50)]
    """How far it may move in a frame, in cells."""
    temperature: PositiveReal
    """Temperature of the softmax over cosines with the places where it may be."""
    gain: PositiveReal
    """Factor on velocities: descriptors that encode their position, or much of their surroundings,
    draw them towards rest."""
    deviation: Share
    """Share of its deviation from its object's velocity that a cell is expected to keep."""
    spread: PositiveReal
    """Difference of velocities, in cells a frame, at which their agreement is exp(-1/2)."""
    slack: Annotated[float, Meta(ge=1)]
    """How far from where their object has moved to labels are taken, in cells."""
    drift: NonNegative
    """How much farther for each frame since, in cells; never farther than ``radius``."""
    falloff: NonNegative
    """How much less a product counts at that distance, growing with the square of the distance,
    where there are several objects to tell apart."""
    uncovered: NonNegative
    """How much less a product counts with background farther away than that, by up to ``slack``
    again: background that comes into view looks like its surroundings."""


class CellColour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How cells are compared by their colours (`vditrack.features.cell_colour`)."""

    weight: PositiveReal
    """Of the colours beside the descriptors of appearance, whose weight is 1."""
    frequency: PositiveReal
    """Of the waves that describe a colour, in radians per hundred units of L, a or b."""


class Propagation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How object masks are propagated with fused features (TED, arXiv 2512.02339)."""

    motion_weight: Share
    """λ: the fused descriptor is λ x motion beside (1 - λ) x appearance, each of length 1."""
    temperature: PositiveReal
    """Temperature of the softmax over dot products of fused descriptors."""
    top_k: Positive
    """Neighbours, over all context frames together, that a cell takes its label from."""
    radius: PositiveReal
    """Largest distance of a neighbour, in cells of the appearance grid."""
    context: Positive
    """Frames before the newest whose labels are used, beside the frames that were marked."""
    references: Positive = 8
    """Frames that were marked which are kept for each object: the last ones. More of them cost time
    and memory in every frame. Chosen."""
    displacement: Displacement | None = None
    """Reads motion from the appearance features; None if a bundle in ``motion`` has features of its
    own."""
    colour: CellColour | None = None
    """Compares cells by their colours as well as by their appearance; None as in the paper."""
