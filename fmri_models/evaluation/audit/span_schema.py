"""What report.json holds of the directions of predictions."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..report_schema import Bounds, Count, Difference, Name, Number, Result

What = Literal["image_embeds", "latents", "reconstructions"]
MOST_POINTS = 30
REFERENCES = ("permuted_training", "ridge")


class _Content(BaseModel):
    model_config = ConfigDict(extra="allow")


Share = Annotated[Number, Field(ge=0, le=1)]
FromTo = Annotated[list[Count], Field(min_length=2, max_length=2)]
Positive = Annotated[Number, Field(gt=0)]


class _Rank(_Content):
    participation: Positive
    entropy: Positive


class _Ratio(_Content):
    ratio: Positive
    ci95: Bounds | None
    stimuli: Count


class _Level(_Content):
    variance: Annotated[Number, Field(gt=0, le=1)]
    dimensions: FromTo
    without_direction: Share
    truth: Result | None
    predictions: Result | None


class _HeldOutLevel(_Content):
    variance: Annotated[Number, Field(gt=0, le=1)]
    truth: Result | None
    held_out: Result | None
    difference: Difference | None


class _HeldOut(_Content):
    spanning: FromTo
    stimuli: FromTo
    levels: Annotated[list[_HeldOutLevel], Field(min_length=1, max_length=10)]


class _Curves(_Content):
    dimensions: Annotated[list[Count], Field(min_length=1, max_length=MOST_POINTS)]
    training: list[Share]
    truth: list[Share]
    predictions: list[Share]

    @model_validator(mode="after")
    def _of_the_same_dimensions(self) -> "_Curves":
        if {len(each) for each in (self.training, self.truth, self.predictions)} != {len(self.dimensions)}:
            raise ValueError("a share for each number of dimensions in every curve")
        return self


class _Ranks(_Content):
    predictions: _Rank | None
    truth: _Rank | None
    training: _Rank | None
    permuted_training: _Rank | None = None
    ridge: _Rank | None = None


class SpanContent(_Content):
    """What the part has found."""

    what: Literal["image_embeds", "latents", "reconstructions"]
    values: Count
    pictures: FromTo
    training: FromTo
    spanning: FromTo
    dimensions: FromTo
    ranks: _Ranks
    ratios: dict[Name, _Ratio | None]
    outside: Annotated[list[_Level], Field(min_length=1, max_length=10)]
    held_out: _HeldOut | None
    curves: _Curves
