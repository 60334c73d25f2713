"""What a stranger's report says of an audit and of a split gap is refused, or shown like any other."""

import copy

import pytest

from fmri_models.evaluation.audit import checked_audit
from fmri_models.evaluation.bottleneck_curve import BottleneckContent
from fmri_models.evaluation.split_gap_schema import checked_gap
from fmri_models.evaluation.split_gap_words import gap_notes, gap_tables

_SPACE = {
    "kind": "pixels", "name": "pixels", "digest": None, "values": 9, "projected": False, "trained_against": False,
}  # fmt: skip
_RESULT = {"value": 0.5, "ci95": [0.25, 0.75], "n": 10, "stimuli": 10}
_CLUSTERS = {
    "space": _SPACE,
    "clusterings": [
        {
            "subjects": ["subj01"], "pictures": 10, "training": [40, 40], "silhouette": 0.5,
            "structureless": [0.1, 0.2], "clusters": [{"test": 10, "training": [40, 40], "examples": ["a"]}],
        }
    ],
    "identification": {"brain": {"within": _RESULT, "across": _RESULT, "difference": None}},
}  # fmt: skip
_GAP = {
    "split": {"here": "tau", "there": "stimulus"},
    "how": {"here": {"by": "tau", "tau": 0.2}, "there": {}},
    "stimuli": {"here": 10, "there": 10, "both": 0},
    "training_trials": {"here": 10, "there": 10},
    "remarks": [],
    "rows": {
        "brain": {
            "pixcorr": {
                "here": 0.2, "there": 0.3, "difference": 0.1, "ci95": [0, 0.2],
                "stimuli": {"here": 10, "there": 10, "both": 0},
            }
        }
    },
}  # fmt: skip


def _with(content, place, value):
    damaged = copy.deepcopy(content)
    *path, last = place
    inside = damaged
    for key in path:
        inside = inside[key]
    inside[last] = value
    return damaged


@pytest.mark.parametrize("value", ["1", "0.5", True])
@pytest.mark.parametrize(
    "place",
    [
        ("space", "values"),
        ("clusterings", 0, "pictures"),
        ("clusterings", 0, "clusters", 0, "training", 1),
        ("identification", "brain", "within", "value"),
        ("identification", "brain", "within", "ci95", 0),
    ],
)
def test_text_is_no_number_of_an_audit(place, value):
    assert checked_audit({"clusters": _CLUSTERS})
    with pytest.raises(ValueError, match="what an audit says of clusters"):
        checked_audit({"clusters": _with(_CLUSTERS, place, value)})


@pytest.mark.parametrize("reason", [None, 3, ["x"], {"a": 1}, "two\nlines", "x" * 20_000])
def test_why_a_part_is_not_defined_is_a_line(reason):
    assert checked_audit({"span": {"not_defined": "There is one picture."}})
    with pytest.raises(ValueError, match="what an audit says of span"):
        checked_audit({"span": {"not_defined": reason}})


@pytest.mark.parametrize("value", ["1", True])
@pytest.mark.parametrize(
    "place",
    [
        ("rows", "brain", "pixcorr", "here"),
        ("rows", "brain", "pixcorr", "ci95", 0),
        ("stimuli", "both"),
        ("training_trials", "here"),
    ],
)
def test_text_is_no_number_of_a_split_gap(place, value):
    assert checked_gap(_GAP)
    with pytest.raises(ValueError, match="what a split gap says"):
        checked_gap(_with(_GAP, place, value))


def test_null_is_as_nothing_in_a_split_gap():
    nothing = {"not_comparable": None, "pool": None, "on_shared": None}
    content = _with(_GAP, ("rows", "brain", "pixcorr"), _GAP["rows"]["brain"]["pixcorr"] | nothing)
    content |= {"not_defined": None, "rows": content["rows"] | {"ceiling": {"pixcorr": _not_comparable()}}}
    assert gap_notes(checked_gap(content)) == gap_notes(_GAP)
    (table,) = gap_tables(content)
    assert "None" not in " ".join([table.caption, *table.lines[0]]) and table.lines[0][1:3] == ["0.300", "0.200"]


def test_what_is_not_comparable_has_no_interval():
    with pytest.raises(ValueError, match="no interval"):
        checked_gap(_with(_GAP, ("rows", "brain", "pixcorr"), _not_comparable() | {"ci95": [0, 1]}))


def _not_comparable():
    return {"not_comparable": "Another network.", "difference": None}


@pytest.mark.parametrize("missing", ["ci95", "stimuli"])
def test_a_difference_of_a_bottleneck_says_how_sure_it_is(missing):
    result, difference = {"mse": {"value": 0.1, "n": 10}}, {"difference": 0.1, "ci95": None, "n": 10, "stimuli": 10}
    content = {
        "method": "linear", "map": "reduced_rank", "nothing": "reads nothing", "dimensions": [0, 1],
        "most_possible": 3, "results": {"0": result, "1": result, "full": result},
        "below_full": {"0": {"mse": difference}, "1": {"mse": None}}, "shares": {"1": {}}, "smallest": {"mse": None},
    }  # fmt: skip
    assert BottleneckContent.model_validate(content)
    damaged = {key: value for key, value in difference.items() if key != missing}
    with pytest.raises(ValueError, match=missing):
        BottleneckContent.model_validate(_with(content, ("below_full", "0", "mse"), damaged))
