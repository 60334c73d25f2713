"""What a stranger's report says of an audit and of a split gap is refused, or shown like any other."""

import copy

import pytest

from fmri_models.evaluation.audit import checked_audit
from fmri_models.evaluation.split_gap_schema import checked_gap

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
