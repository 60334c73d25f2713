"""Pickled arrays are read without unpickling, and a pickle that does anything else is refused in a sentence."""

import collections
import datetime
import os
import pickle
import struct
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from fmri_models.data.published.pickled_arrays import PickledArrays
from fmri_models.errors import FmriModelsError

RIDGE = ("sklearn.linear_model._ridge", "Ridge")
VALUES = {
    "rows": np.arange(6, dtype=np.float32).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "exchanged": np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
    "big_endian": np.arange(4, dtype=">i2"),
    "empty": np.zeros((0, 3)),
    "truth": np.array([True, False]),
    "names": ["a", "é", "c"],
    "texts": np.array(["one", "two"]),
    "number": np.float64(1.5),
    "nested": {"more": [1, 2.0, None, (True, b"bytes", 2**40)]},
}


def stored(folder: Path, data: bytes) -> Path:
    path = folder / "file.pkl"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_was_pickled_is_read(tmp_path, protocol):
    found = PickledArrays(stored(tmp_path, pickle.dumps(VALUES, protocol)), "ask")
    for name in ("rows", "columns", "exchanged", "big_endian", "empty", "truth"):
        assert np.array_equal(found.read(name), VALUES[name]) and found.read(name).dtype == VALUES[name].dtype
        assert found.shapes[name] == VALUES[name].shape
    assert [row.tolist() for row in found.rows("columns")] == [[0, 1, 2], [3, 4, 5]]
    assert found.texts("names") == ["a", "é", "c"] and found.texts("texts") == ["one", "two"]
    assert "rows" in found and "names" not in found


def test_a_dictionary_that_numpy_has_saved(tmp_path):
    np.save(tmp_path / "file.npy", VALUES)
    assert np.array_equal(PickledArrays(tmp_path / "file.npy", "ask").read("rows"), VALUES["rows"])
    np.save(tmp_path / "plain.npy", VALUES["rows"])
    with pytest.raises(FmriModelsError, match="array of float32 and holds no dictionary.*; ask"):
        PickledArrays(tmp_path / "plain.npy", "ask")


def test_attributes_of_one_class_that_is_named(tmp_path):
    rng = np.random.default_rng(0)
    model = Ridge(alpha=np.float64(3)).fit(rng.normal(size=(20, 4)), rng.normal(size=(20, 2)))
    path = stored(tmp_path, pickle.dumps(model))
    assert np.array_equal(PickledArrays(path, "ask", record=RIDGE).read("coef_"), model.coef_)
    with pytest.raises(FmriModelsError, match=r"names sklearn.linear_model._ridge.Ridge, which is neither called nor"):
        PickledArrays(path, "ask")
    # joblib puts an array's bytes between instructions.
    joblib.dump(model, path)
    with pytest.raises(FmriModelsError, match="names joblib.numpy_pickle.NumpyArrayWrapper"):
        PickledArrays(path, "ask", record=RIDGE)


class Runs:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_nothing_is_run(tmp_path, protocol):
    marker = tmp_path / "ran"
    path = stored(tmp_path, pickle.dumps({"rows": VALUES["rows"], "other": Runs(marker)}, protocol))
    with pytest.raises(FmriModelsError, match="file.pkl is not as expected .*; ask") as refused:
        PickledArrays(path, "ask")
    assert not marker.exists() and ("mkdir" in str(refused.value) or "no pickle of protocol 2" in str(refused.value))
    pickle.loads(path.read_bytes())
    assert marker.is_dir()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "damaged"),
        (b"\x80\x04", "cut short or damaged"),
        (b"\x80\x04K\x01.", "holds int and no dictionary"),
        (b"\x80\x04).", "holds tuple and no dictionary"),
        (b"\x80\x04\x85.", "asks for more values than there are"),
        (b"\x80\x02(dNs.", "instruction DICT"),
        (b"\x80\x02U\x01x.", "instruction SHORT_BINSTRING"),
        (b"\x80\x02Pid\n.", "instruction PERSID"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"\x80\x02(iposix\nsystem\n.", "instruction INST"),
        (b"\x80\x05\x97.", "instruction NEXT_BUFFER"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "object of another class"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "calls numpy.ndarray otherwise than NumPy does"),
        (b"\x80\x02ccodecs\nencode\n.", "names codecs.encode"),
        (b"\x80\x02cnumpy\ndtype\nX\x01\x00\x00\x00O\x85Rq\x00}b.", "sets the state of something else"),
        (b"\x80\x02cnumpy\ndtype\nX\x05\x00\x00\x00i4,i4\x85R.", "of the type i4,i4"),
        (b"\x80\x04}h\x09.", "damaged"),
        (b"\x80\x04})Ns.", "key of the type tuple"),
        (b"\x80\x04B\xff\xff\xff\xffab.", "cut short"),
    ],
)
def test_hostile_and_damaged_files_are_a_sentence(tmp_path, data, said):
    with pytest.raises(FmriModelsError, match=said):
        PickledArrays(stored(tmp_path, data), "ask")


def test_other_classes_are_refused(tmp_path):
    for value in (datetime.date(2020, 1, 1), collections.OrderedDict(a=1), {1, 2}, np.array([1, None], dtype=object)):
        path = stored(tmp_path, pickle.dumps({"value": value, "rows": VALUES["rows"]}))
        if isinstance(value, np.ndarray):
            assert PickledArrays(path, "ask").shapes == {"rows": (2, 3)}
        else:
            with pytest.raises(FmriModelsError, match="is not as expected"):
                PickledArrays(path, "ask")


def test_a_shape_of_other_bytes_is_refused(tmp_path):
    data = pickle.dumps({"rows": np.zeros((2, 3), np.float32)})
    with pytest.raises(FmriModelsError, match=r"shape \(9, 3\) of float32 has another number of bytes"):
        PickledArrays(stored(tmp_path, data.replace(b"K\x02K\x03\x86", b"K\x09K\x03\x86")), "ask")


def test_whatever_is_changed_in_a_file_is_read_or_refused(tmp_path):
    data = pickle.dumps(VALUES)
    rng = np.random.default_rng(0)
    for place in range(0, len(data), 7):
        PickledArrays(stored(tmp_path, data), "ask")
        with pytest.raises(FmriModelsError):
            PickledArrays(stored(tmp_path, data[:place]), "ask")
    refused = 0
    for _ in range(500):
        changed = bytearray(data)
        changed[rng.integers(len(data))] = rng.integers(256)
        try:
            PickledArrays(stored(tmp_path, bytes(changed)), "ask")
        except FmriModelsError:
            refused += 1
    assert refused > 100


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def array(shape: bytes, code: str, data: bytes, order: str = "|") -> bytes:
    """The instructions of one array, under the name `a`."""
    return (
        b"\x80\x03}" + text("a") + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R(K\x01"
        + shape + b"cnumpy\ndtype\n" + text(code) + b"K\x00K\x01\x87R(K\x03" + text(order)
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89C" + bytes([len(data)]) + data + b"tbs."
    )  # fmt: skip


# 2**60 parts, were they written out.
TUPLE_OF_TUPLES = b")q\x00" + b"q\x00h\x00\x86" * 60
LONGEST_NUMBER = b"\x8a\xfb" + (2**2000).to_bytes(251, "little")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x80\x02cnumpy\ndtype\n" + TUPLE_OF_TUPLES + b"\x85R.", "type is given as tuple; expected a text"),
        (array(b"(" + LONGEST_NUMBER + b"q\x01" + b"h\x01" * 1000 + b"t", "f4", b"abcd"), "an array has no shape"),
        (array(b"(" + b"K\x01" * 65 + b"t", "f4", b"abcd"), "65 axes; expected 64 at most"),
        # 8 GB of texts of no characters.
        (array(b"J\x00\x00\x00\x77\x85", "U0", b""), "of the type U0"),
        (
            b"\x80\x02}" + text("x" * 1000) + b"q\x00(" + text("latin1") + b"q\x02c_codecs\nencode\nq\x01"
            + b"h\x01h\x00h\x02\x86R" * 200 + b"t.",
            "makes more bytes than it has",
        ),
        (b"\x93NUMPY\x03\x00\x00\x00\x00\x00", "npy file of version 3.0; expected 1.0 or 2.0"),
    ],
)  # fmt: skip
def test_a_small_file_does_not_fill_the_memory_or_take_for_ever(tmp_path, data, said):
    with pytest.raises(FmriModelsError, match=said):
        PickledArrays(stored(tmp_path, data), "ask")


def test_bytes_of_protocol_2_may_be_as_many_as_the_file(tmp_path):
    values = {f"array{number}": np.arange(number, dtype=np.uint8) for number in range(200)}
    found = PickledArrays(stored(tmp_path, pickle.dumps(values, 2)), "ask")
    assert all(np.array_equal(found.read(name), value) for name, value in values.items())


def test_texts_that_are_no_unicode_are_a_sentence(tmp_path):
    for data in (b"\xff\xff\xff\xff", b"\x00\x00\x11\x00"):
        with pytest.raises(FmriModelsError, match="its texts a have a character U\\+"):
            PickledArrays(stored(tmp_path, array(b"K\x01\x85", "U1", data, "<")), "ask").texts("a")
    half = b"\x80\x03}" + text("a") + b"]X\x03\x00\x00\x00\xed\xa0\x80as."
    with pytest.raises(FmriModelsError, match="which is no Unicode"):
        PickledArrays(stored(tmp_path, half), "ask").texts("a")
    swapped = np.array(["é", "z"]).astype(">U1")
    assert PickledArrays(stored(tmp_path, pickle.dumps({"a": swapped})), "ask").texts("a") == ["é", "z"]


def of_buffer(order: str, axes: bytes) -> bytes:
    """How NumPy 2.4 writes an array (1, 2) of protocol 5, which older ones do not."""
    return (
        b"\x80\x05}" + text("a") + b"cnumpy._core.numeric\n_frombuffer\n(\x96\x02" + b"\x00" * 7 + b"\x07\x08"
        + b"cnumpy\ndtype\n" + text("u1") + b"\x85RK\x01K\x02\x86" + text(order) + axes + b"tRs."
    )  # fmt: skip


def test_the_order_of_axes_of_protocol_5(tmp_path):
    found = PickledArrays(stored(tmp_path, of_buffer("K", b"K\x01K\x00\x86")), "ask").read("a")
    assert found.tolist() == [[7], [8]]
    for axes in (b"K\x01K\x01\x86", b"K\x00\x85", b"K\x01", b"]"):
        with pytest.raises(FmriModelsError, match="order of axes that are not its own"):
            PickledArrays(stored(tmp_path, of_buffer("K", axes)), "ask")
    with pytest.raises(FmriModelsError, match="neither by row nor by column"):
        PickledArrays(stored(tmp_path, of_buffer("A", b"")), "ask")


def test_a_single_number_has_no_rows(tmp_path):
    with pytest.raises(FmriModelsError, match="is a single number and has no rows"):
        list(PickledArrays(stored(tmp_path, array(b")", "f4", b"abcd")), "ask").rows("a"))


def test_what_is_not_there_is_a_sentence(tmp_path):
    found = PickledArrays(stored(tmp_path, pickle.dumps(VALUES)), "ask")
    with pytest.raises(FmriModelsError, match="has no array other; it has"):
        found.read("other")
    with pytest.raises(FmriModelsError, match="has no texts rows"):
        found.texts("rows")
    with pytest.raises(FmriModelsError, match="No such file"):
        PickledArrays(tmp_path / "none.pkl", "ask")
