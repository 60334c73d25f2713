"""What is measured, under which name, and in which direction it is better."""

import math
import re
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..errors import FmriModelsError
from ..names import did_you_mean


@dataclass(frozen=True)
class MetricInfo:
    """How to read a metric.

    Args:
        name: As in report.json.
        label: Short, for tables.
        higher_is_better: Direction.
        description: One sentence.
        chance: What guessing scores; None if it depends on the pictures, as for pixel metrics.
    """

    name: str
    label: str
    higher_is_better: bool
    description: str
    chance: float | None = None


_METRICS = {
    info.name: info
    for info in (
        MetricInfo(
            "pixcorr", "PixCorr", True, "Pearson correlation over all pixels and channels; blurry pictures win."
        ),
        MetricInfo("ssim", "SSIM", True, "Structural similarity, Gaussian window (sigma 1.5), of grey pictures."),
        MetricInfo("ssim_uniform", "SSIM 7x7", True, "Structural similarity, uniform 7x7 window, of grey pictures."),
        MetricInfo("mse", "MSE", False, "Mean squared difference of pixels in [0, 1]."),
        MetricInfo("pairwise_pixcorr", "two-way pixels", True, "Two-way identification by pixel correlation.", 0.5),
        MetricInfo(
            "identification_top1", "top-1 pixels", True, "The shown picture correlates most among the whole test set."
        ),
    )
}
_PATTERNS = (
    (r"two_way_(?P<x>\w+)_same_background", "two-way {x}, same background", True, 0.5,
     "Two-way identification by {x} features against pictures with the same background."),
    (r"two_way_(?P<x>\w+)", "two-way {x}", True, 0.5, "Two-way identification by {x} features."),
    (r"distance_(?P<x>\w+)", "distance {x}", False, None, "Correlation distance of {x} features."),
    (r"retrieval_query_brain_top(?P<x>\d+)", "brain to image top-{x}", True, None,
     "Given a brain response, its picture is among the {x} most similar of the test set (the papers' column Brain)."),
    (r"retrieval_query_image_top(?P<x>\d+)", "image to brain top-{x}", True, None,
     "Given a picture, its brain response is among the {x} most similar of the test set (the papers' column Image)."),
    (r"factor_accuracy_(?P<x>\w+)", "{x} right", True, None,
     "An independent classifier finds the shown {x} in the reconstruction."),
    (r"n_way_(?P<n>\d+)_top(?P<x>\d+)", "{n}-way top-{x}", True, None,
     "The shown picture's class is among the first {x} of {n} classes."),
    (r"fid_(?P<x>\d+)", "FID {x}", False, None, "Frechet distance of {x}-dimensional Inception features."),
    (r"lpips_(?P<x>\w+)", "LPIPS {x}", False, None, "Learned perceptual distance ({x})."),
)  # fmt: skip


# Smallest and largest score of the metrics that are no share of successes.
_RANGES = {
    r"pixcorr|ssim(_uniform)?": (-1.0, 1.0),
    r"mse|(fid|lpips)_\w+": (0.0, math.inf),
    r"distance_\w+": (0.0, 2.0),
}


def metric_range(name: str) -> tuple[float, float]:
    """The smallest and the largest score that is possible: 0 and 1 for shares of successes, and for no others."""
    return next((bounds for pattern, bounds in _RANGES.items() if re.fullmatch(pattern, name)), (0.0, 1.0))


def metric_info(name: str) -> MetricInfo:
    """How to read the metric of that name.

    Raises:
        FmriModelsError: No metric has that name.
    """
    if name in _METRICS:
        return _METRICS[name]
    for pattern, label, higher, chance, description in _PATTERNS:
        if match := re.fullmatch(pattern, name):
            return MetricInfo(
                name, label.format(**match.groupdict()), higher, description.format(**match.groupdict()), chance
            )
    raise FmriModelsError(f"There is no metric {name!r}; see INTERFACES or docs/evaluation.md for the names.")


@dataclass(frozen=True)
class Protocol:
    """A named set of metrics with everything that changes their values.

    Args:
        name: As in `--protocol`.
        description: One or two sentences.
        metrics: Names, in the order of tables.
        resolution: Shorter side to which pictures are resized before pixel metrics; None for their own size.
        trial_average: Whether the repetitions of a stimulus are averaged before the model sees them.
        distractors: Of two-way identification: `"truth"` or `"reconstruction"`.
        pool_size: Of retrieval and identification; None for a subject's whole test set.
        blend: What was mixed into the reconstructions before scoring (published protocols differ here).
    """

    name: str
    description: str
    metrics: tuple[str, ...]
    resolution: int | None = None
    trial_average: bool = True
    distractors: str = "truth"
    pool_size: int | None = None
    blend: str = "none"

    @property
    def extractors(self) -> list[str]:
        """Names of the feature extractors that the metrics need."""
        names = [re.fullmatch(r"(?:two_way|distance)_(\w+?)(?:_same_background)?", name) for name in self.metrics]
        return list(dict.fromkeys(match.group(1) for match in names if match))

    def with_trial_average(self, average: bool) -> "Protocol":
        """The same protocol for averaged or for single trials."""
        return replace(self, trial_average=average)

    def to_dict(self) -> dict[str, Any]:
        """For report.json; every metric is described."""
        return {**asdict(self), "metrics": [asdict(metric_info(name)) for name in self.metrics]}


DEFAULT_PROTOCOL = "standard"

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "standard",
            "Pixel metrics and identification by pixels at the pictures' own size, two-way identification by an "
            "ImageNet network that had no part in training, retrieval in a subject's whole test set both ways, and "
            "scene factors where they are known.",
            (
                "pixcorr",
                "ssim",
                "mse",
                "pairwise_pixcorr",
                "identification_top1",
                "two_way_efficientnet_lite0",
                "two_way_efficientnet_lite0_same_background",
                "retrieval_query_brain_top1",
                "retrieval_query_brain_top5",
                "retrieval_query_image_top1",
                "retrieval_query_image_top5",
                "factor_accuracy_kind",
                "factor_accuracy_colour",
                "factor_accuracy_place",
            ),
        ),
        Protocol(
            "small_pictures",
            "For digits, figures and other small pictures: pixel metrics and identification by pixels among the test "
            "pictures (of the same fold).",
            ("pixcorr", "ssim", "ssim_uniform", "mse", "pairwise_pixcorr", "identification_top1"),
        ),
    )
}


def get_protocol(name: str | None = None) -> Protocol:
    """The protocol of that name; `standard` if None.

    Raises:
        FmriModelsError: There is none of that name.
    """
    name = name or DEFAULT_PROTOCOL
    if name not in PROTOCOLS:
        raise FmriModelsError(
            f"There is no protocol {name!r}; there are {', '.join(sorted(PROTOCOLS))}.{did_you_mean(name, PROTOCOLS)}"
        )
    return PROTOCOLS[name]


@dataclass(frozen=True)
class RowInfo:
    """What a row of a report is.

    Args:
        kind: `"brain"`, `"part"` of it, `"control"` or `"reference"`.
        label: Short, for tables and grids.
        description: One sentence.
    """

    kind: str
    label: str
    description: str


ROWS = {
    "brain": RowInfo("brain", "from brain", "The reconstruction from brain activity."),
    "brain_low_level": RowInfo("part", "low level only", "The decoded low-level latent alone."),
    "brain_embeds_only": RowInfo("part", "embeddings only", "The decoded embeddings alone."),
    "shuffled_brain": RowInfo(
        "control", "shuffled brain", "Whole patterns exchanged between stimuli before the model saw them."
    ),
    "permuted_training": RowInfo(
        "control",
        "permuted training (ridge)",
        "Ridge regression, whatever the evaluated method is, fitted after the pictures were exchanged between training "
        "stimuli.",
    ),
    "permuted_training_own": RowInfo(
        "control",
        "permuted training (own)",
        "The evaluated method itself, trained anew by its recipe after the pictures were exchanged between training "
        "stimuli, and between validation stimuli.",
    ),
    "mean_image": RowInfo(
        "control", "mean image", "An average picture, the same for every stimulus of a subject and fold."
    ),
    "nearest_train": RowInfo("control", "nearest training", "The training picture nearest to what was decoded."),
    "floor": RowInfo("control", "floor", "The generator without any embedding."),
    "ceiling": RowInfo(
        "reference", "ceiling", "The generator with the true embedding and latent, as far as the model decodes them."
    ),
    "ceiling_embeds_only": RowInfo("reference", "ceiling, embeddings", "The generator with the true embedding alone."),
    "ridge": RowInfo("reference", "ridge", "The linear method on the same data."),
    "background": RowInfo(
        "reference", "background", "The true scene without its object: what sky and ground alone give away."
    ),
    "noise_free": RowInfo("reference", "noise-free", "The model on responses without noise (simulated data only)."),
}


def row_info(row: str) -> RowInfo:
    """What a row is; rows of others (such as `reference_<name>`) are references."""
    return ROWS.get(row, RowInfo("reference", row.replace("_", " "), "A further row given by the caller."))
