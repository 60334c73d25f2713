"""Which metrics are measured together, and how: the choices of `--protocol`, which name them and import none."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

from ..errors import FmriModelsError
from ..names import did_you_mean, listed, one_line

if TYPE_CHECKING:
    from .named_metrics import Metric
    from .preparation import Preparation

Interpolation = Literal["bilinear", "bicubic"]
Crop = Literal["none", "centre"]
# Which of the test trials are measured: of pictures that were seen, or imagined.
Measured = Literal["all", "seen", "imagined"]
# Inside what alone the permutation test exchanges stimuli.
ExchangeWithin = Literal["session", "run", "block"]
# What `without` takes for all metrics whose network can't be had.
UNAVAILABLE = "unavailable"
_MOST_SAMPLES = 1000


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
        pool_size: Of retrieval; None for a subject's whole test set, in which pictures are always identified.
        blend: What was mixed into the reconstructions before scoring (published protocols differ here).
        size: Side of the square to which all pictures are resized before anything is measured; None for their own.
        interpolation: How pictures are resized.
        antialias: Whether they are smoothed before they become smaller.
        crop: `"centre"` takes the central square of pictures first.
        low_level_share: Share of the decoded low-level picture that is mixed into the reconstruction before scoring.
        test_pictures: Number of test pictures of the published evaluation, or of each of several data sets.
        candidates: How many pictures are drawn of each response, of which one is taken; None for the pipeline's own
            setting.
        selection: By what it is taken, as of [`DrawingSettings`]; None for the pipeline's own setting.
        samples: How many pictures of each response are drawn, over which scores are a mean.
        sample_average: `"correlations"` averages the correlations of a response's pictures before they are compared,
            in the place of the scores.
        measured_trials: Which of the test trials are measured.
        exchange_within: Inside what alone the permutation test exchanges stimuli; None for a subject's whole test set.
        left_out: Metrics that somebody left out.
    """

    name: str
    description: str
    metrics: tuple[str, ...]
    resolution: int | None = None
    trial_average: bool = True
    distractors: str = "truth"
    pool_size: int | None = None
    blend: str = "none"
    size: int | None = None
    interpolation: Interpolation = "bilinear"
    antialias: bool = False
    crop: Crop = "none"
    low_level_share: float = 0.0
    test_pictures: tuple[int, ...] = ()
    candidates: int | None = None
    selection: str | None = None
    samples: int = 1
    sample_average: Literal["scores", "correlations"] = "scores"
    measured_trials: Measured = "all"
    exchange_within: ExchangeWithin | None = None
    left_out: tuple[str, ...] = ()

    @property
    def extractors(self) -> list[str]:
        """Names of the feature extractors that the metrics need."""
        return list(dict.fromkeys(name for metric in self.measured() for name in metric.needs.extractors))

    @property
    def preparation(self) -> "Preparation":
        """What is done with pictures before they are measured."""
        from .preparation import Preparation

        return Preparation(self.size, self.resolution, self.interpolation, self.antialias, self.crop)

    @property
    def drawing(self) -> dict[str, Any]:
        """The drawing settings that the protocol fixes."""
        fixed = {"num_candidates": self.candidates, "selection": self.selection}
        return {name: value for name, value in fixed.items() if value is not None}

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

    def check_available(self, given: Collection[str] = (), weights: str | PathLike | None = None) -> None:
        """Refuses networks that can't be had, before any work; fetches their weights where that is possible.

        Args:
            given: Names of extractors that are handed in.
            weights: Folder with weights.

        Raises:
            FmriModelsError: Names all of these networks, and how to do without.
        """
        hindered = self._hindered(given, weights)
        if not hindered:
            return
        if len(hindered) == len(self.extractors) == 1:
            (error,) = hindered.values()
            raise FmriModelsError(f"{str(error).rstrip('.')}. `--without {UNAVAILABLE}` leaves its metrics out.")
        raise FmriModelsError(
            f"The protocol {self.name!r} measures by {len(hindered)} networks that can't be had here "
            f"({_hindrances(hindered)}). Provide them (files of weights in a folder that `--weights` names), or leave "
            f"their metrics out: `--without {UNAVAILABLE}`, or name some, which the report says."
        )

    def without(
        self, names: Sequence[str], given: Collection[str] = (), weights: str | PathLike | None = None
    ) -> "Protocol":
        """The same protocol without some metrics.

        Args:
            names: Metrics, or extractors for all of their metrics; `"unavailable"` for those of all extractors that
                can't be had.
            given: Extractors that somebody hands in.
            weights: Folder with weights of others.

        Raises:
            FmriModelsError: The protocol has no such metric or extractor, or none would be left.
        """
        hindered = self._hindered(given, weights) if UNAVAILABLE in names else {}
        known = [*self.metrics, *self.extractors, UNAVAILABLE]
        for name in names:
            if name not in known:
                raise FmriModelsError(
                    f"The protocol {self.name!r} has no metric or network {one_line(repr(name), 80)}; it has "
                    f"{listed(known[:-1], 40, 2000)}.{did_you_mean(str(name), known)}"
                )
        unwanted = {*names, *hindered}
        left_out = tuple(
            metric.name
            for metric in self.measured()
            if metric.name in unwanted or unwanted.intersection(metric.needs.extractors)
        )
        kept = tuple(name for name in self.metrics if name not in left_out)
        if not kept:
            raise FmriModelsError(f"Without {listed(names, 20)} the protocol {self.name!r} has no metric left.")
        return replace(self, metrics=kept, left_out=(*self.left_out, *left_out))

    def with_trial_average(self, average: bool) -> "Protocol":
        """The same protocol for averaged or for single trials."""
        return replace(self, trial_average=average)

    def drawing_samples(self, samples: int | None) -> "Protocol":
        """The same protocol with so many pictures of each response; None leaves it as it is.

        Raises:
            FmriModelsError: Fewer than one, or more than anybody draws.
        """
        if samples is None:
            return self
        if not 1 <= samples <= _MOST_SAMPLES:
            raise FmriModelsError(
                f"{samples} pictures of each response were asked for; expected a number from 1 to {_MOST_SAMPLES}."
            )
        return replace(self, samples=samples)

    def exchanging_within(self, what: ExchangeWithin | None) -> "Protocol":
        """The same protocol whose permutation test exchanges stimuli inside sessions, runs or blocks alone."""
        return self if what is None else replace(self, exchange_within=what)

    def to_dict(self) -> dict[str, Any]:
        """For report.json; every metric is described."""
        return {**asdict(self), "metrics": [metric.described() for metric in self.measured()]}

    def _hindered(self, given: Collection[str], weights: str | PathLike | None) -> dict[str, FmriModelsError]:
        """Extractor ▶ why it can't be had, of those that nobody hands in."""
        from .extractors import check_weights

        hindered = {}
        for name in self.extractors:
            try:
                if name not in given:
                    check_weights(name, weights)
            except FmriModelsError as error:
                hindered[name] = error
        return hindered


def _hindrances(hindered: Mapping[str, FmriModelsError]) -> str:
    """What is missing, each file once, and what else hinders a network."""
    from .extractors.weights_files import MissingWeightsError

    of_file: dict[str, list[str]] = {}
    reasons = []
    for name, error in hindered.items():
        if isinstance(error, MissingWeightsError):
            of_file.setdefault(error.files, []).append(name)
        else:
            reasons.append(f"{name}: {str(error).rstrip('.')}")
    files = [f"{file} of {' and '.join(names)}" for file, names in of_file.items()]
    missing = [f"neither given, nor fetched before or to be fetched now: {', '.join(files)}"] if files else []
    return "; ".join([*missing, *reasons])


DEFAULT_PROTOCOL = "standard"

# What every report of pictures has.
PIXELS = ("pixcorr", "ssim", "mse", "pairwise_pixcorr", "identification_top1")
# The same in our own tables, which begin with what people follow; published ones keep the order of their papers.
_PIXELS_LAST = ("pairwise_pixcorr", "identification_top1", "pixcorr", "ssim", "mse")
# Of the eight columns of tables on the Natural Scenes Dataset those that are not of pixels.
_OF_NETWORKS = (
    "two_way_alexnet2",
    "two_way_alexnet5",
    "two_way_inception_v3",
    "two_way_clip_vit_l14",
    "distance_efficientnet_b1",
    "distance_swav_resnet50",
)
# The same as Brain-Diffuser's evaluation showed pictures to all of them.
_OF_NETWORKS_AT_224 = (
    "two_way_alexnet2_224",
    "two_way_alexnet5_224",
    "two_way_inception_v3_224",
    "two_way_clip_vit_l14_224",
    "distance_efficientnet_b1_v1_224",
    "distance_swav_resnet50_224",
)
# Of Takagi & Nishimoto's table: two poolings and the last ReLU but one of AlexNet.
_OF_TAKAGI = (
    "two_way_alexnet_features5_299",
    "two_way_alexnet_features12_299",
    "two_way_alexnet_classifier5_299",
    "two_way_inception_v3_299",
    "two_way_clip_vit_l14_bicubic",
)
_RETRIEVAL = ("retrieval_query_brain_top1", "retrieval_query_image_top1")

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "standard",
            "Pixel metrics and identification by pixels at the pictures' own size, two-way identification by an "
            "ImageNet network that had no part in training, retrieval in a subject's whole test set both ways, and "
            "scene factors where they are known.",
            (
                "two_way_efficientnet_lite0",
                "two_way_efficientnet_lite0_same_background",
                "retrieval_query_brain_top1",
                "retrieval_query_brain_top5",
                "retrieval_query_image_top1",
                "retrieval_query_image_top5",
                "factor_accuracy_kind",
                "factor_accuracy_colour",
                "factor_accuracy_place",
                *_PIXELS_LAST,
            ),
        ),
        Protocol(
            "small_pictures",
            "For digits, figures and other small pictures: pixel metrics and identification by pixels among the test "
            "pictures (of the same fold).",
            ("pairwise_pixcorr", "identification_top1", "pixcorr", "ssim", "ssim_uniform", "mse"),
        ),
        Protocol(
            "mindeye-982",
            "MindEye on the Natural Scenes Dataset (37 sessions): all pictures at 256, pixels at 425 (bilinear, "
            "without antialiasing), the best of 16 candidates by the decoded embedding, retrieval in pools of 300.",
            (*PIXELS, *_OF_NETWORKS, *_RETRIEVAL),
            resolution=425,
            pool_size=300,
            size=256,
            test_pictures=(982,),
            candidates=16,
            selection="brain",
        ),
        Protocol(
            "mindeye2-1000",
            "MindEye2 on the Natural Scenes Dataset (40 sessions): as MindEye, but one candidate, and a quarter of the "
            "decoded low-level picture is mixed into the reconstruction before it is scored, which raises PixCorr and "
            "SSIM.",
            (*PIXELS, *_OF_NETWORKS, *_RETRIEVAL),
            resolution=425,
            pool_size=300,
            blend=".75 of the reconstruction and .25 of the low-level picture",
            size=256,
            low_level_share=0.25,
            test_pictures=(1000,),
            candidates=1,
        ),
        Protocol(
            "brain-diffuser",
            "Brain-Diffuser on the Natural Scenes Dataset: pixels at 425 (bicubic, antialiased, as Pillow resizes), "
            "224 pixels for every network, one candidate.",
            (*PIXELS, *_OF_NETWORKS_AT_224),
            resolution=425,
            interpolation="bicubic",
            antialias=True,
            test_pictures=(982,),
            candidates=1,
        ),
        Protocol(
            "takagi",
            "Takagi & Nishimoto on the Natural Scenes Dataset: a reconstruction is told from other reconstructions, "
            "and not from other shown pictures; the correlations of five pictures of each response are averaged before "
            "they are compared. Layers 5, 12 and 18 of AlexNet and Inception at 299 pixels, CLIP as its own "
            "preprocessing has it.",
            (*PIXELS, *_OF_TAKAGI),
            distractors="reconstruction",
            test_pictures=(982,),
            candidates=1,
            samples=5,
            sample_average="correlations",
        ),
        Protocol(
            "mind-vis",
            "MinD-Vis on Generic Object Decoding: 50-way and 100-way classification by the classes that a ViT-H/14 "
            "sees in the shown pictures (exact expectation instead of 1,000 draws), identification by pixels, and FID "
            "of the first 64 features. Scores are means over five pictures of each response; higher published ones "
            "are the best of five.",
            (
                "n_way_50_top1",
                "n_way_100_top1",
                "fid_64",
                "pixcorr",
                "ssim",
                "ssim_uniform",
                "mse",
                "pairwise_pixcorr",
                "identification_top1",
            ),
            test_pictures=(50,),
            candidates=1,
            samples=5,
        ),
        Protocol(
            "mindbridge",
            "MindBridge on the Natural Scenes Dataset: pixels at 425 (bilinear, without antialiasing), the best of 8 "
            "candidates by the decoded embedding. The published code chose it by the true picture, which no evaluation "
            "here does.",
            (*PIXELS, *_OF_NETWORKS),
            resolution=425,
            test_pictures=(982,),
            candidates=8,
            selection="brain",
        ),
        Protocol(
            "kamitani",
            "Kamitani's laboratory, pictures that were seen: correlation of pixels, SSIM, and pairwise identification "
            "among the test pictures by pixels and by a layer of AlexNet.",
            (*PIXELS, "two_way_alexnet2", "two_way_alexnet5"),
            test_pictures=(50,),
            candidates=1,
            measured_trials="seen",
        ),
        Protocol(
            "kamitani-imagined",
            "Kamitani's laboratory, pictures that were imagined: the metrics of `kamitani` on imagery trials alone.",
            (*PIXELS, "two_way_alexnet2", "two_way_alexnet5"),
            test_pictures=(50,),
            candidates=1,
            measured_trials="imagined",
        ),
        Protocol(
            "god",
            "Generic Object Decoding (Horikawa & Kamitani), pictures that were seen: identification of categories by "
            "decoded embeddings, among the categories of the test pictures; equal similarity counts as right.",
            ("category_identification", *PIXELS),
            test_pictures=(50,),
            candidates=1,
            measured_trials="seen",
        ),
        Protocol(
            "god-imagined",
            "Generic Object Decoding (Horikawa & Kamitani), pictures that were imagined: the metrics of `god` on "
            "imagery trials alone.",
            ("category_identification", *PIXELS),
            test_pictures=(50,),
            candidates=1,
            measured_trials="imagined",
        ),
        Protocol(
            "imagery",
            "Learned from pictures that were seen, tested on trials in which pictures were imagined (NSD-Imagery): "
            "pixels and the networks of MindEye at 256.",
            (*PIXELS, *_OF_NETWORKS),
            resolution=425,
            size=256,
            measured_trials="imagined",
        ),
    )
}
"""Name, as in `--protocol`, to protocol."""


def get_protocol(name: str | Protocol | None = None) -> Protocol:
    """The protocol of that name; `standard` if None, and a protocol itself as it is.

    Raises:
        FmriModelsError: There is none of that name.
    """
    if isinstance(name, Protocol):
        return name
    name = name or DEFAULT_PROTOCOL
    if name not in PROTOCOLS:
        raise FmriModelsError(
            f"There is no protocol {name!r}; there are {', '.join(sorted(PROTOCOLS))}.{did_you_mean(name, PROTOCOLS)}"
        )
    return PROTOCOLS[name]
