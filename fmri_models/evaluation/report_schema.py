"""What report.json has to hold. Keys are only ever added, so that unknown ones are let through."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from ..errors import FmriModelsError
from ..names import check_line
from .named_metrics import get_metric


def _line(text: str) -> str:
    try:
        return check_line(text, "text", most=10_000)
    except FmriModelsError as error:
        raise ValueError("one line of at most 10000 characters, without control characters") from error


def _known_metric(name: str) -> str:
    try:
        get_metric(name)
    except FmriModelsError as error:
        raise ValueError("the name of a metric that this version knows") from error
    return name


def _in_order(bounds: list[float]) -> list[float]:
    if bounds[0] > bounds[1]:
        raise ValueError("a lower bound that is not above the upper one")
    return bounds


# No figure comes near, and sums and intervals of such numbers stay finite.
LARGEST = 1e12
Number = Annotated[float, Field(allow_inf_nan=False, ge=-LARGEST, le=LARGEST)]
Count = Annotated[int, Field(ge=1, le=2**53)]
Whole = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Line = Annotated[str, AfterValidator(_line)]
Name = Annotated[Line, Field(min_length=1, max_length=300)]
Metric = Annotated[str, Field(max_length=200), AfterValidator(_known_metric)]
Bounds = Annotated[list[Number], Field(min_length=2, max_length=2), AfterValidator(_in_order)]


class _Content(BaseModel):
    model_config = ConfigDict(extra="allow")


class Result(_Content):
    """A mean with its interval."""

    value: Number
    ci95: Bounds | None = None
    n: Count
    stimuli: Count | None = None


class SubjectResult(_Content):
    """A subject's mean."""

    value: Number
    n: Count


class OverSubjects(_Content):
    """Mean of the subjects' means."""

    value: Number
    sd: Annotated[Number, Field(ge=0)]
    n: Count


class RepetitionCurve(_Content):
    """What the row `brain` scores over the number of averaged repetitions."""

    items: Annotated[Whole, Field(ge=0)] = 0
    left_out: Annotated[Whole, Field(ge=0)] = 0
    results: Annotated[
        dict[Annotated[str, Field(pattern=r"^[1-9][0-9]{0,5}$")], dict[Metric, Result | None]], Field()
    ] = {}


class Difference(_Content):
    """A paired difference with its interval."""

    difference: Number
    ci95: Bounds | None = None
    n: Count
    stimuli: Count | None = None


class Permutation(_Content):
    """What random pairings score."""

    mean: Number
    sd: Annotated[Number, Field(ge=0)]
    n: Count
    p: Annotated[Number, Field(ge=0, le=1)]
    smallest_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    exhaustive: bool | None = None


class MetricDescription(_Content):
    """How to read a metric."""

    name: Metric
    label: Line
    higher_is_better: bool
    description: Line = ""
    chance: Number | None = None


class RowDescription(_Content):
    """What a row is."""

    kind: Literal["brain", "part", "control", "reference"]
    label: Line
    description: Line = ""
    uses_test_images: bool = False


class ProtocolDescription(_Content):
    """Which metrics, and what changes their values."""

    name: Line = ""
    description: Line = ""
    metrics: list[MetricDescription] = Field(default=[], max_length=1000)
    resolution: Annotated[int, Field(ge=1, le=2**31)] | None = None
    trial_average: bool = True
    distractors: Line = "truth"
    pool_size: Annotated[Number, Field(ge=0)] | None = None
    blend: Line = "none"
    size: Annotated[int, Field(ge=1, le=2**31)] | None = None
    interpolation: Line = "bilinear"
    antialias: bool = False
    crop: Line = "none"
    low_level_share: Annotated[Number, Field(ge=0, le=1)] = 0.0
    test_pictures: Annotated[list[Count], Field(max_length=100)] = []
    candidates: Count | None = None
    selection: Line | None = None
    samples: Count = 1
    sample_average: Line = "scores"
    measured_trials: Line = "all"
    exchange_within: Line | None = None
    left_out: Annotated[list[Line], Field(max_length=1000)] = []
    deviations: Annotated[list[Line], Field(max_length=100)] = []


class TrainingAmount(_Content):
    """How much of a subject was learned from."""

    trials: Annotated[Whole, Field(ge=0)]
    sessions: Annotated[Whole, Field(ge=0)]
    hours: Annotated[Number, Field(ge=0)] | None = None


class Data(_Content):
    """What was measured on."""

    name: Line | None = None
    fingerprint: Line | None = None
    simulated: bool | None = None
    mean_noise_ceiling: Number | None = None
    noise_ceiling_source: list[Line] = []
    noise_ceiling_repetitions: list[Whole] = []
    num_voxels: dict[Name, Count] = {}
    split: Line | None = None
    split_how: Annotated[dict[Name, Line | Whole | Number], Field(max_length=100)] = {}
    folds: list[Whole] = []
    train_parts: list[Line] = []
    test_items: Count | None = None
    test_trials: Count | None = None
    repeats_stimuli: Line | None = None
    modality: Line = "fmri"
    windows: Line | None = None
    cautions: Annotated[list[Line], Field(max_length=100)] = []
    test_factor_combinations_seen_in_training: Number | None = None
    test_stimuli: Count | None = None
    test_repetitions: Annotated[list[Count], Field(min_length=2, max_length=2)] | None = None
    test_fingerprints: dict[Line, Line] = {}
    training: dict[Name, TrainingAmount] = {}

    @model_validator(mode="after")
    def _split_is_described(self) -> "Data":
        if self.split and (self.test_items is None or self.test_trials is None or not self.folds):
            raise ValueError("folds, test_items and test_trials where a split is named")
        return self


class Model(_Content):
    """What was measured."""

    path: Line | None = None
    images: Line | None = None
    method: Line | None = None
    subjects: list[Name] = []
    image_generator: Line | None = None
    repetitions_trained_on: Line | None = None
    training_seconds: Number | None = None
    settings: dict[Line, Line | bool | int | float | None] = {}
    transductive: bool | None = None
    image_generator_was_trained: bool | None = None


class Look(_Content):
    """An evaluation on a test split, as it is on record."""

    time: Line = ""
    fingerprint: Line = ""
    split: Line = ""
    commit: Line | None = None
    config: dict[str, Any] = {}
    score: dict[Line, Number | None] = {}
    test_trials: dict[Line, Line] = {}


class NearCopyPair(_Content):
    """A test picture, and one of the training or validation that shows nearly the same."""

    fold: Whole
    stimulus: Name
    copy_of: Name
    correlation: Annotated[Number, Field(ge=-1, le=1)]
    mirrored: bool = False
    cropped: bool = False


class NearCopies(_Content):
    """Test pictures that were nearly learned from, and what the row `brain` scores without them."""

    threshold: Number | None = None
    tested: Annotated[Whole, Field(ge=0)] = 0
    copied: Annotated[Whole, Field(ge=0)] = 0
    pairs: list[NearCopyPair] = Field(default=[], max_length=10_000)
    results_without: dict[Metric, Result | None] | None = None


Shares = Annotated[list[Annotated[Number, Field(ge=0)]], Field(max_length=1000)]


class AttentionLayer(_Content):
    """Attention between ROIs in a layer."""

    matrix: Annotated[list[Shares], Field(max_length=1000)]
    received: Shares
    ratio: Shares


class Attention(_Content):
    """What a subject's tokens attend to, by ROI, or why that is not defined."""

    not_defined: Line | None = None
    rois: Annotated[list[Line], Field(max_length=1000)] = []
    voxels: Shares = []
    chance: Shares = []
    items: Annotated[Whole, Field(ge=0)] = 0
    layers: Annotated[list[AttentionLayer], Field(max_length=10_000)] = []

    @model_validator(mode="after")
    def _of_the_same_rois(self) -> "Attention":
        count = len(self.rois)
        lengths = {len(self.voxels), len(self.chance)}
        for layer in self.layers:
            lengths |= {len(layer.matrix), *(len(each) for each in (layer.received, layer.ratio, *layer.matrix))}
        if self.not_defined is None and not (count and self.layers and lengths == {count}):
            raise ValueError(
                "ROIs, layers, and a number for each ROI in voxels, chance and every layer, or not_defined"
            )
        return self


class SynthesisScores(_Content):
    """What responses are worth that were made of another subject's, or those beside them."""

    top1: Number
    two_way: Number
    cosine: Number
    voxel_correlation: Number | None = None
    pattern_correlation: Number | None = None


class GuideContent(_Content):
    """What of a layer was decoded."""

    units: Count
    space: dict[Line, Any] = {}
    results: dict[Name, dict[Metric, Result | None]] = {}
    permutation: dict[Metric, Permutation] = {}
    profile_correlation: dict[Name, Number | None] = {}
    category_identification: dict[Name, Number | None] = {}


class TrainingPoint(_Content):
    """A point of the training curve."""

    stage: Name
    step: Annotated[Whole, Field(ge=0)]
    train_loss: Number | None = None
    validation_loss: Number | None = None


Share = Annotated[Number, Field(ge=0, le=1)]
_Tally = Annotated[Whole, Field(ge=0)]
_Correlation = Annotated[Number, Field(ge=-1, le=1)]


class Rater(_Content):
    """A person who has answered a rater pack."""

    counts: bool
    right: Share | None
    catch_right: _Tally
    catch_trials: _Tally
    repeated_alike: _Tally
    repeated_trials: _Tally
    left_chosen: Share
    median_seconds: Annotated[Number, Field(ge=0)]


class Alpha(_Content):
    """Agreement beyond chance."""

    alpha: Annotated[Number, Field(le=1)] | None
    ci95: Bounds | None = None


class Agreement(_Content):
    """How far raters agree."""

    raters: Count
    trials: Count
    same_choice: Share
    choices: Alpha
    which_are_right: Alpha


class PeopleBesideMetric(_Content):
    """How far a metric's choices are people's."""

    right: Share
    same_choice: Result
    correlation: _Correlation | None
    correlation_ci95: Bounds | None = None


class PeopleBesideScores(_Content):
    """Whether people are right where a metric's scores are good."""

    correlation: _Correlation | None
    correlation_ci95: Bounds | None = None
    stimuli: Count


class People(_Content):
    """What the raters of a pack have answered."""

    pack: Line
    catch_trials: _Tally
    catch_needed: _Tally
    guessers_pass: Share
    trials: _Tally
    same_pictures: _Tally
    groups: _Tally
    raters: Annotated[dict[Name, Rater], Field(min_length=1, max_length=10_000)]
    agreement: Agreement | None = None
    metrics: dict[Metric, PeopleBesideMetric] = {}
    scores: dict[Metric, PeopleBesideScores] = {}
    notes: Annotated[list[Line], Field(max_length=1000)] = []


Results = dict[Name, dict[Metric, Result | None]]


class ReportContent(_Content):
    """The whole of report.json, less its schema's version."""

    results: Results
    protocol: ProtocolDescription = ProtocolDescription()
    permutation: dict[Metric, Permutation] = {}
    per_subject: dict[Name, dict[Name, dict[Metric, SubjectResult | None]]] = {}
    over_subjects: dict[Name, dict[Metric, OverSubjects | None]] = {}
    repetition_curve: RepetitionCurve = RepetitionCurve()
    comparisons: dict[Name, dict[Metric, Difference | None]] = {}
    rows: dict[Name, RowDescription] = {}
    missing_rows: dict[Name, Line] = {}
    data: Data = Data()
    model: Model = Model()
    extractors: dict[Line, dict[Line, Line]] = {}
    versions: dict[Line, Line] = {}
    timing: dict[Line, Number] = {}
    seed: Whole = 0
    looks: list[Look] = []
    near_copies: NearCopies = NearCopies()
    attention: dict[Name, Attention] = {}
    synthesis: dict[Name, dict[Name, SynthesisScores]] = {}
    guides: Annotated[dict[Name, GuideContent], Field(max_length=1000)] = {}
    training_curve: Annotated[
        dict[Annotated[str, Field(pattern=r"^[0-9]{1,6}$")], Annotated[list[TrainingPoint], Field(max_length=2**14)]],
        Field(max_length=1000),
    ] = {}
    audit: Annotated[dict[Name, dict[str, Any]], Field(max_length=100)] = {}
    split_gap: dict[str, Any] = {}
    people: People | None = None
    same_pictures: list[list[Name]] = Field(default=[], max_length=1_000_000)
    warnings: list[Line] = []
    notes: list[Line] = []
    items_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    @field_validator("audit")
    @classmethod
    def _as_its_parts_say(cls, audit: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        # Parts are made of what is checked here.
        from .audit import checked_audit

        return checked_audit(audit)

    @field_validator("split_gap")
    @classmethod
    def _as_its_schema_says(cls, split_gap: dict[str, Any]) -> dict[str, Any]:
        from .split_gap_schema import checked_gap

        return checked_gap(split_gap)
