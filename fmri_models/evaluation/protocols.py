"""Which metrics are measured together, and how: the choices of `--protocol`, which name them and import none."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from ..errors import FmriModelsError
from ..names import did_you_mean

if TYPE_CHECKING:
    from .named_metrics import Metric


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
        return list(dict.fromkeys(name for metric in self.measured() for name in metric.needs.extractors))

    def measured(self) -> "list[Metric]":
        """The metrics themselves.

        Raises:
            FmriModelsError: There is none of one of the names.
        """
        # Brings PyTorch, without which the command line completes the names of protocols.
        from .named_metrics import get_metric

        return [get_metric(name) for name in self.metrics]

    def check_names(self, given: Collection[str] = ()) -> None:
        """Refuses metrics and feature extractors that there are none of, before any work.

        Args:
            given: Names of extractors that need not be known, since they are handed in.

        Raises:
            FmriModelsError: Names the first one.
        """
        from .extractors import check_extractor

        for name in self.extractors:
            if name not in given:
                check_extractor(name)

    def with_trial_average(self, average: bool) -> "Protocol":
        """The same protocol for averaged or for single trials."""
        return replace(self, trial_average=average)

    def to_dict(self) -> dict[str, Any]:
        """For report.json; every metric is described."""
        return {**asdict(self), "metrics": [metric.described() for metric in self.measured()]}


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
