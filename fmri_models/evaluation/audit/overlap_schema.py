"""What report.json holds of how near test pictures are to the training."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..report_schema import Bounds, Count, Difference, Line, Metric, Name, Number, Result, Whole

ROWS = ("brain", "nearest_train", "ceiling")
# The brain row less these, item by item.
LESS = ("ceiling", "nearest_train")
SEVERAL = 5
MOST_PAIRS, MOST_POINTS = 20, 1000


class _Content(BaseModel):
    model_config = ConfigDict(extra="allow")


Distance = Annotated[Number, Field(ge=0, le=2)]
Five = Annotated[list[Distance], Field(min_length=5, max_length=5)]
Probability = Annotated[Number, Field(ge=0, le=1)]


class Space(_Content):
    """What compares pictures."""

    kind: Literal["network", "generator", "pixels"]
    name: Name
    digest: Line | None
    values: Count
    projected: bool
    trained_against: bool


class _Nearest(_Content):
    test: Five
    test_of_several: Five
    test_to_rest: Five | None
    held_out_to_rest: Five | None
    held_out: Annotated[list[Annotated[Whole, Field(ge=0)]], Field(min_length=2, max_length=2)]
    farther: Result | None


class _Pair(_Content):
    stimulus: Name
    training: Name
    distance: Distance


class _Bin(_Content):
    from_: Annotated[Distance, Field(alias="from")]
    to: Distance
    mean: Distance
    stimuli: Count


class _Relation(_Content):
    rho: Annotated[Number, Field(ge=-1, le=1)]
    ci95: Bounds | None
    p: Probability
    p_holm: Probability
    n: Count


class _Points(_Content):
    metric: Metric
    distances: Annotated[list[Distance], Field(max_length=MOST_POINTS)]
    scores: Annotated[list[Number], Field(max_length=MOST_POINTS)]

    @model_validator(mode="after")
    def _pairs(self) -> "_Points":
        if len(self.distances) != len(self.scores):
            raise ValueError("a score for each distance")
        return self


class Overlap(_Content):
    """What the part has found."""

    space: Space
    stimuli: Count
    training: Annotated[list[Count], Field(min_length=2, max_length=2)]
    without_picture: Annotated[Whole, Field(ge=0)]
    nearest: _Nearest
    closest: Annotated[list[_Pair], Field(max_length=MOST_PAIRS)]
    bins: Annotated[list[_Bin], Field(max_length=3)]
    scores: dict[Name, dict[Metric, list[Result | None]]]
    less: dict[Name, dict[Metric, list[Difference | None]]]
    far_less_near: dict[Name, dict[Metric, Difference | None]]
    relation: dict[Name, dict[Metric, _Relation | None]]
    points: _Points | None

    @model_validator(mode="after")
    def _of_the_same_bins(self) -> "Overlap":
        lengths = {len(found) for rows in (self.scores, self.less) for row in rows.values() for found in row.values()}
        if len(self.bins) == 1 or lengths - {len(self.bins)}:
            raise ValueError("no bins, or two or three, and a value of each for every row and metric")
        return self
