"""Arrays and sessions as a caller hands them over: numbers, and nothing that would only be taken for them."""

import sys
from typing import Any

import numpy as np

from .errors import FmriModelsError
from .names import one_line

_LARGEST_SESSION = 2**63 - 1


def as_numbers(values: Any, what: str = "Voxels") -> np.ndarray:
    """Numbers in the byte order of this machine, without a change of any value that float64 can hold.

    Args:
        values: An array, a tensor, a data frame, or a sequence of these or of numbers.
        what: What they are, as the beginning of a sentence in the plural.

    Raises:
        FmriModelsError: It holds something else than real numbers, or some of its values are masked.
    """
    if isinstance(values, list | tuple) and any(hasattr(value, "shape") for value in values):
        values = [as_numbers(value, what) for value in values]
    try:
        array = np.asarray(_without_torch(unmasked(values, what), what))
    except FmriModelsError:
        # It is a ValueError, too, and says already what to do.
        raise
    except (ValueError, TypeError) as error:
        raise FmriModelsError(
            f"{what} can't be read as one array ({one_line(error, 120)}); expected rows of numbers, all of one length."
        ) from error
    if is_bfloat16(array.dtype):
        # The upper half of a float32.
        return (np.ascontiguousarray(array).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if array.dtype.kind not in "fiu":
        raise FmriModelsError(f"{what} have the dtype {array.dtype}; expected numbers (float32 betas).")
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        # Of what is too large for float64 later checks say that it is infinite.
        with np.errstate(over="ignore"):
            return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def is_bfloat16(dtype: np.dtype) -> bool:
    """Whether a type is bfloat16, which NumPy takes for two bytes without a meaning."""
    return dtype.kind == "V" and dtype.itemsize == 2 and dtype.fields is None and dtype.subdtype is None


def as_sessions(values: Any, what: str = "session") -> np.ndarray:
    """Sessions as int64, of the shape they have; whole numbers alone.

    Args:
        values: A number, a sequence or an array of them.
        what: What they are called in the message.

    Raises:
        FmriModelsError: One is no whole number.
    """
    try:
        array = np.asarray(_without_torch(unmasked(values, "Sessions"), "Sessions"))
    except FmriModelsError:
        raise
    except (ValueError, TypeError) as error:
        raise FmriModelsError(f"{what} can't be read ({one_line(error, 120)}); {_EXPECTED}.") from error
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "fiu" or _has_bool(values):
        raise FmriModelsError(f"{what} is {one_line(repr(values), 80)}; {_EXPECTED}.")
    wrong = array[~(np.isfinite(array) & (array == np.floor(array)) & (np.abs(array.astype(float)) < _LARGEST_SESSION))]
    if wrong.size:
        raise FmriModelsError(f"{what} is {wrong.reshape(-1)[0]}; {_EXPECTED}.")
    return array.astype(np.int64)


_EXPECTED = "expected a whole number, or one for each pattern"


def _has_bool(values: Any) -> bool:
    return isinstance(values, list | tuple) and any(isinstance(value, bool | np.bool_) for value in values)


def unmasked(values: Any, what: str) -> Any:
    """Values as they are; of a masked array its data, if nothing is masked.

    Args:
        values: Anything.
        what: What they are, as the beginning of a sentence in the plural.

    Raises:
        FmriModelsError: Some are masked.
    """
    if np.ma.isMaskedArray(values):
        count = int(np.ma.count_masked(values))
        if not count:
            return np.ma.getdata(values)
        raise FmriModelsError(
            f"{what} are a masked array ({count} of {values.size} values are masked), of which the masked values would "
            "be used like the others; leave these trials or voxels out and pass a plain array (numpy.asarray)."
        )
    return values


def _without_torch(values: Any, what: str) -> Any:
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(values, torch.Tensor):
        return values
    if values.layout != torch.strided or values.is_meta or values.is_quantized:
        raise FmriModelsError(f"{what} are a tensor that holds no plain array ({values.layout}); pass a dense tensor.")
    values = values.detach().cpu()
    # NumPy has none of the short types of torch, such as bfloat16; float32 holds all of their numbers.
    short = values.is_floating_point() and values.element_size() <= 2
    return (values.float() if short else values.resolve_conj().resolve_neg()).numpy()
