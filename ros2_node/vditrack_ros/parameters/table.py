"""The node's parameters: names, types, limits and descriptions. Needs no ROS."""

from typing import get_args

from vditrack.inference.selection import BackendName
from vditrack_ros.parameters.definition import Parameter

PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        "autostart",
        True,
        "Whether the node configures and activates itself at start. Read at start only.",
    ),
    Parameter(
        "bond",
        False,
        "Whether to send heartbeats to a lifecycle manager while the node is active, as Nav2's "
        "nodes do; needs the package bond.",
    ),
    Parameter("bundle", "", "Folder of the model's bundle; empty for the bundled model."),
    Parameter(
        "require_signature",
        "",
        "File of the public key (Ed25519; PEM or OpenSSH) that the bundle and its engines have to "
        "be signed with; empty to accept unsigned ones.",
    ),
    Parameter(
        "allow_host_code",
        False,
        "Whether to load engines that bring code for the CPU (those built with "
        "--version-compatible). It runs with the node's rights.",
    ),
    Parameter(
        "backend",
        "auto",
        "Backend that runs the model; auto selects the fastest one that works on this machine.",
        choices=get_args(BackendName),
    ),
    Parameter(
        "device",
        -1,
        "Number of the GPU that runs the model, from 0, as CUDA counts; backend auto then takes no "
        "CPU. -1 is the first GPU, or the CPU if none works.",
        (-1, 255),
    ),
    Parameter(
        "threads",
        0,
        "Threads that run the model on the CPU. 0 leaves one core to the camera and to the rest of "
        "the node: it chooses one thread less than there are cores, and at least one.",
        (0, 256),
    ),
    Parameter(
        "mode",
        "points",
        "What is tracked: points, masks of objects, or both. Masks need a bundle that propagates "
        "masks.",
        choices=("points", "masks", "both"),
    ),
    Parameter(
        "cameras",
        [""],
        "Names of the cameras. A name is the prefix of the camera's topics; an empty name adds no "
        "prefix. All cameras share one loaded model.",
    ),
    Parameter(
        "image_transport",
        "raw",
        "Transport of the images: raw subscribes to image (sensor_msgs/Image), compressed to "
        "image/compressed (sensor_msgs/CompressedImage).",
        choices=("raw", "compressed"),
    ),
    Parameter(
        "reliability",
        "auto",
        "Reliability of the subscriptions to a camera. auto is reliable while all publishers of "
        "the topic are, and best_effort otherwise. reliable receives nothing from publishers of "
        "best effort; best_effort may lose large images.",
        choices=("auto", "best_effort", "reliable"),
    ),
    Parameter(
        "population",
        "grid",
        "How points are added to keep `points` of them alive: grid spaces them evenly, features "
        "places them on corners, none adds requested points only.",
        choices=("grid", "features", "none"),
        live=True,
    ),
    Parameter(
        "region",
        [0.0, 0.0, 1.0, 1.0],
        "Part of the image in which points of the population are put: x, y, width and height, in "
        "pixels, or in shares of the image if none is above 1. Points may leave it afterwards. "
        "~/population_mask excludes more.",
        live=True,
    ),
    Parameter(
        "points",
        64,
        "Number of points to keep alive, in addition to requested points.",
        (0, 4096),
        live=True,
    ),
    Parameter(
        "max_points",
        512,
        "Maximum number of points alive, including requested points; more are refused.",
        (1, 4096),
        live=True,
    ),
    Parameter(
        "lost_after",
        1.0,
        "Seconds for which a point may stay invisible before it is removed. A point outside the "
        "image is removed at once, a requested point never.",
        (0.0, 3600.0),
        live=True,
    ),
    Parameter(
        "refill_interval",
        0.2,
        "Minimum number of seconds between two searches for new points.",
        (0.0, 3600.0),
        live=True,
    ),
    Parameter(
        "corner_quality",
        0.01,
        "With population features: minimum quality of a corner, as a share of the best corner's.",
        (0.0001, 1.0),
        live=True,
    ),
    Parameter(
        "min_confidence",
        0.5,
        "Minimum confidence of a point in ~/features. ~/tracks has all points and their "
        "confidence.",
        (0.5, 1.0),
        live=True,
    ),
    Parameter(
        "features_layout",
        "vins_mono",
        "Channels of ~/features: vins_mono has id, u, v, vx, vy; vins_fusion has id, camera id, u, "
        "v, vx, vy, gx, gy, gz.",
        choices=("vins_mono", "vins_fusion"),
        live=True,
    ),
    Parameter(
        "features_rate",
        10.0,
        "Maximum number of ~/features messages per second, by the stamps of the images; 0 for one "
        "for each image.",
        (0.0, 1000.0),
        live=True,
    ),
    Parameter(
        "features_outlier_distance",
        1.0,
        "Maximum distance in pixels of a point in ~/features from its epipolar line since the "
        "message before; a point farther away is omitted. 0 for no limit.",
        (0.0, 100.0),
        live=True,
    ),
    Parameter(
        "features_max_jump",
        2.0,
        "Maximum distance in pixels by which a point in ~/features may depart in one image from "
        "its motion before; beyond, it gets another id. 0 for no limit.",
        (0.0, 100.0),
        live=True,
    ),
    Parameter(
        "max_rate",
        0.0,
        "Maximum number of images per second that are processed, by their stamps; the others are "
        "left out. 0 processes all. /diagnostics counts them apart from lost and dropped images.",
        (0.0, 1000.0),
        live=True,
    ),
    Parameter(
        "masks_rate",
        0.0,
        "Number of images per second that get masks, by optical flow: the newest masks that the "
        "model gave are carried into the newest image. 0 publishes the model's masks alone, with "
        "their own images.",
        (0.0, 1000.0),
        live=True,
    ),
    Parameter(
        "max_age",
        0.5,
        "Maximum age of an image in seconds, by the node's clock; an older image is dropped. 0 "
        "accepts any age.",
        (0.0, 3600.0),
        live=True,
    ),
    Parameter(
        "max_gap",
        2.0,
        "Maximum number of seconds between the stamps of two images. After a longer pause tracking "
        "starts over: the points are searched for, and objects are discarded.",
        (0.01, 3600.0),
        live=True,
    ),
    Parameter(
        "max_lateness",
        0.1,
        "Seconds by which the stamp of an image may be before that of its predecessor; such an "
        "image is dropped. One that is earlier still is dropped as stray; if the next image agrees "
        "with it, the clock was set, and tracking starts over.",
        (0.0, 10.0),
        live=True,
    ),
    Parameter(
        "depth",
        "auto",
        "Whether images must have depth. required: a point without depth has no position. auto: "
        "the same, once depth was received or while its topic has a publisher; before, positions "
        "are on the plane z = 1. none: always on that plane, and depth is not subscribed to.",
        choices=("auto", "required", "none"),
    ),
    Parameter(
        "depth_transport",
        "raw",
        "Transport of the depth images: raw subscribes to depth (sensor_msgs/Image), "
        "compressedDepth to depth/compressedDepth and compressed to depth/compressed "
        "(sensor_msgs/CompressedImage).",
        choices=("raw", "compressed", "compressedDepth"),
    ),
    Parameter(
        "depth_tolerance",
        0.05,
        "Maximum difference between the stamps of an image and its depth image, in seconds; the "
        "nearest depth image is used.",
        (0.0, 10.0),
        live=True,
    ),
    Parameter(
        "depth_wait",
        0.05,
        "Maximum number of seconds that ~/tracks and ~/markers of an image wait for its depth "
        "image. They wait only if, by the stamps of those before, a nearer one is expected.",
        (0.0, 1.0),
        live=True,
    ),
    Parameter(
        "target_frame",
        "",
        "Frame of x, y, z in ~/tracks and ~/markers, such as base_link, at the stamp of the image; "
        "empty for the camera's optical frame. It needs tf2, and depth: a point without has no "
        "position in another frame.",
    ),
    Parameter(
        "transform_wait",
        0.05,
        "Maximum number of seconds that ~/tracks and ~/markers of an image wait for the transform "
        "to target_frame. They wait only if the newest one is less than 0.5 s older.",
        (0.0, 1.0),
        live=True,
    ),
    Parameter(
        "overlay",
        True,
        "Whether ~/overlay is drawn while it has subscribers.",
        live=True,
    ),
    Parameter(
        "warn_latency",
        0.1,
        "Latency in seconds above which /diagnostics warns. It is measured from an image's stamp "
        "to its result, as the 95th percentile.",
        (0.0, 3600.0),
        live=True,
    ),
    Parameter(
        "error_latency",
        0.5,
        "Latency in seconds above which /diagnostics reports an error; measured in the same way.",
        (0.0, 3600.0),
        live=True,
    ),
    Parameter(
        "warn_dropped",
        0.1,
        "Share of dropped and lost images above which /diagnostics warns.",
        (0.0, 1.0),
        live=True,
    ),
    Parameter(
        "stale_after",
        1.0,
        "Seconds without an image after which /diagnostics reports an error.",
        (0.1, 3600.0),
        live=True,
    ),
)
