"""What a report.json may say of the gap of two splits."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .report_schema import Bounds, Count, Line, Metric, Name, Number, Whole


class _Content(BaseModel):
    model_config = ConfigDict(extra="allow")


class Stimuli(_Content):
    """Test pictures."""

    here: Count
    there: Count
    both: Annotated[Whole, Field(ge=0)]


class SharedGap(_Content):
    """The paired difference on pictures that both tests have."""

    difference: Number
    ci95: Bounds | None = None
    stimuli: Count


class MetricGap(_Content):
    """A metric on both splits, or why it is not comparable."""

    here: Number | None = None
    there: Number | None = None
    difference: Number | None = None
    ci95: Bounds | None = None
    stimuli: Stimuli | None = None
    pool: Count | None = None
    on_shared: SharedGap | None = None
    not_comparable: Line | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "MetricGap":
        known = (self.here, self.there, self.difference, self.stimuli)
        if (self.not_comparable is None) == any(each is None for each in known):
            raise ValueError("here, there, difference and stimuli, or not_comparable")
        if self.not_comparable is not None and self.ci95 is not None:
            raise ValueError("no interval where scores are not comparable")
        return self


class OfBoth(_Content):
    """A number of either report."""

    here: Annotated[Whole, Field(ge=0)] | None = None
    there: Annotated[Whole, Field(ge=0)] | None = None


class Splits(_Content):
    """Names of both splits."""

    here: Name
    there: Name


How = Annotated[dict[Name, Line | bool | Whole | Number], Field(max_length=100)]


class Ways(_Content):
    """How both were drawn."""

    here: How = {}
    there: How = {}


class SplitGap(_Content):
    """How much better a method scores on another split, or why nobody can say."""

    not_defined: Line | None = None
    report: Line | None = None
    split: Splits | None = None
    how: Ways | None = None
    stimuli: Stimuli | None = None
    training_trials: OfBoth | None = None
    folds: OfBoth | None = None
    remarks: Annotated[list[Line], Field(max_length=100)] | None = None
    rows: Annotated[dict[Name, dict[Metric, MetricGap]], Field(max_length=100)] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> "SplitGap":
        known = (self.split, self.how, self.stimuli, self.training_trials, self.remarks, self.rows)
        if (self.not_defined is None) == any(each is None for each in known):
            raise ValueError("split, how, stimuli, training_trials, remarks and rows, or not_defined")
        return self


def checked_gap(content: Mapping[str, Any]) -> dict[str, Any]:
    """The gap of a report that was read; nothing where it has none.

    Raises:
        ValueError: It has something else than the schema says.
    """
    if content:
        try:
            # As of an audit: text that would pass for a number is refused.
            SplitGap.model_validate(content, strict=True)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"what a split gap says ({'.'.join(map(str, first['loc']))}: {first['msg']})") from error
    return dict(content)
