"""What is taken for numbers and for sessions, and what is refused because it would only be taken for them."""

import numpy as np
import pandas as pd
import pytest
import torch

from fmri_models.errors import FmriModelsError
from fmri_models.in_memory import as_numbers, as_sessions

VALUES = np.array([[1, 2.5], [-3, 4]])


@pytest.mark.parametrize(
    "given",
    [
        VALUES,
        VALUES.astype(">f4"),
        VALUES.astype(np.float16),
        VALUES.astype(np.longdouble),
        VALUES.astype(np.dtype(np.longdouble).newbyteorder()),
        VALUES.tolist(),
        [VALUES[0], VALUES[1].tolist()],
        torch.from_numpy(VALUES),
        torch.from_numpy(VALUES).bfloat16().requires_grad_(),
        [torch.from_numpy(row).bfloat16() for row in VALUES],
        torch.view_as_complex(torch.from_numpy(np.stack([VALUES, VALUES], axis=-1))).real,
        pd.DataFrame(VALUES),
        np.ma.masked_greater(VALUES, 100),
        [np.ma.masked_greater(row, 100) for row in VALUES],
    ],
)
def test_numbers_are_taken_as_they_are(given):
    found = as_numbers(given)
    np.testing.assert_array_equal(found, VALUES)
    assert found.dtype.isnative and found.dtype.itemsize <= 8


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ma.masked_less(VALUES, 0), "masked array .1 of 4 values are masked"),
        ([np.ma.masked_less(VALUES[1], 0), VALUES[0]], "masked array"),
        (VALUES > 0, "dtype bool"),
        (VALUES.astype(complex), "dtype complex128"),
        (torch.from_numpy(VALUES).to(torch.complex64), "dtype complex64"),
        (torch.ones(2, 2, dtype=torch.bool), "dtype bool"),
        (VALUES.astype(object), "dtype object"),
        (VALUES.astype(str), "dtype <U"),
        (pd.DataFrame({"a": [1, "x"]}), "dtype object"),
        (np.array(["2020"], dtype="M8[Y]"), "dtype datetime64"),
        (np.zeros(2, dtype=[("a", "f4")]), "dtype"),
        ([[1, 2], [3]], "can't be read as one array"),
        (torch.eye(2).to_sparse(), "no plain array"),
        (torch.zeros(2, device="meta"), "no plain array"),
        (None, "dtype object"),
    ],
)
def test_what_is_no_array_of_numbers_is_a_sentence(given, message):
    with pytest.raises(FmriModelsError, match=message) as caught:
        as_numbers(given)
    assert "\n" not in str(caught.value)
    # What to do is the end of the one sentence, which nothing is wrapped around.
    assert str(caught.value).count("Voxels") == 1 and "..." not in str(caught.value)


@pytest.mark.parametrize("given", [3, np.int16(3), 3.0, np.array(3), torch.tensor(3)])
def test_a_session_is_a_whole_number(given):
    assert as_sessions(given).tolist() == 3


@pytest.mark.parametrize("given", [[1, 2], (1, 2), np.array([1, 2.0]), torch.tensor([1, 2]), pd.Series([1, 2])])
def test_sessions_of_patterns(given):
    found = as_sessions(given)
    assert found.tolist() == [1, 2] and found.dtype == np.int64


@pytest.mark.parametrize(
    "given",
    [1.9, True, "1.0", "1", None, [1, 2.5], [1, True], [1, None], ["1"], np.nan, np.inf, 1e30, 1j, np.array([True]),
     np.ma.masked_equal([1, 2], 2), [[1], [1, 2]], torch.tensor([True]), 2**70],
)  # fmt: skip
def test_what_is_no_session_is_a_sentence(given):
    with pytest.raises(FmriModelsError, match=r"session|Sessions") as caught:
        as_sessions(given)
    assert str(caught.value).lower().count("session") == 1


def test_sessions_of_a_masked_array_without_masked_values():
    assert as_sessions(np.ma.masked_equal([1, 2], 9)).tolist() == [1, 2]
