"""The door of every file: what was asked for, or one sentence."""

import dataclasses
import io
import json
import math
import os
import socket
import time
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from fmri_models.errors import FmriModelsError
from fmri_models.in_memory import as_numbers
from fmri_models.names import one_line
from fmri_models.reading import (
    MAX_JSON_BYTES,
    MAX_NESTING,
    MAX_YAML_BYTES,
    check_regular_file,
    checked,
    parse_json,
    parse_yaml,
    read_array,
    read_bytes,
    read_json,
    read_object,
    read_text,
)

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=8), below, max_size=4),
    max_leaves=20,
)


def is_one_line(message):
    return one_line(message, most=10_000) == str(message)


def sentence(reading, *arguments, **options):
    """The one sentence that a refusal is."""
    with pytest.raises(FmriModelsError) as caught:
        reading(*arguments, **options)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message and len(message) < 2000 and is_one_line(message)
    return message


@pytest.fixture(params=["missing", "folder", "fifo", "socket", "device", "dangling", "circle", "below", "long", "nul"])
def no_file(request, tmp_path):
    path = tmp_path / "it"
    if request.param == "folder":
        path.mkdir()
    elif request.param == "fifo":
        os.mkfifo(path)
    elif request.param == "socket":
        server = socket.socket(socket.AF_UNIX)
        request.addfinalizer(server.close)
        previous = os.getcwd()
        os.chdir(tmp_path)  # the path of a socket has 108 characters at most
        server.bind("it")
        os.chdir(previous)
    elif request.param == "device":
        path.symlink_to("/dev/zero")
    elif request.param == "dangling":
        path.symlink_to("nowhere")
    elif request.param == "circle":
        path.symlink_to("it")
    elif request.param == "below":
        (tmp_path / "file").write_text("1")
        path = tmp_path / "file" / "it"
    elif request.param == "long":
        path = tmp_path / ("x" * 300)
    elif request.param == "nul":
        path = f"{tmp_path}/\0"
    return path


@pytest.mark.parametrize(
    "reading", [check_regular_file, read_bytes, read_text, read_json, read_object, read_array], ids=lambda f: f.__name__
)
def test_what_is_no_file_is_a_sentence_and_never_waited_for(no_file, reading):
    started = time.monotonic()
    assert "it" in sentence(reading, no_file, "recipe", "give it again")
    assert time.monotonic() - started < 2


def test_a_file_in_itself_is_given_back(tmp_path):
    (tmp_path / "a").write_text("\ufeffä", encoding="utf-8")
    (tmp_path / "link").symlink_to("a")
    assert check_regular_file(tmp_path / "link", "file", "mend it") == tmp_path / "link"
    assert read_bytes(tmp_path / "link", "file", "mend it") == b"\xef\xbb\xbf\xc3\xa4"
    assert read_text(str(tmp_path / "a"), "file", "mend it") == "ä"


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**40)
    for reading in (read_bytes, read_text, read_json, read_object):
        message = sentence(reading, tmp_path / "huge", "report", "make it again")
        assert f"{2**40} bytes" in message and "expected" in message
    (tmp_path / "ten").write_bytes(b"x" * 10)
    assert len(read_bytes(tmp_path / "ten", "file", "mend it", limit=10)) == 10
    assert "10 bytes; expected 9 at most" in sentence(read_bytes, tmp_path / "ten", "file", "mend it", limit=9)


def test_text_in_another_encoding_is_a_sentence(tmp_path):
    for data in ("ä".encode("latin-1"), "a".encode("utf-16"), b"\xed\xa0\x80"):
        (tmp_path / "a").write_bytes(data)
        assert "no text in UTF-8" in sentence(read_text, tmp_path / "a", "file", "mend it")


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_any_bytes_are_values_or_a_sentence(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    for reading in (read_text, read_json, read_object, read_array):
        try:
            reading(path, "file", "mend it")
        except FmriModelsError as error:
            assert is_one_line(error)


@given(JSON_VALUES)
def test_json_and_yaml_are_read_as_written(values):
    text = json.dumps(values)
    assert parse_json(text, "It", "mend it") == values
    written = yaml.safe_dump(values, allow_unicode=True)
    assert parse_yaml(written, "It") == yaml.safe_load(written)


@given(st.text(max_size=100))
@example("[" * 100_000)
@example("[" * 100_000 + "]" * 100_000)
@example('{"a":' * 100_000)
@example("\ud800")
@example("- " * 50_000)
@example("a: !!python/object/apply:os.system [true]")
@example("a: !!binary x")
@example("2020-99-99")
@example("&a [*a]")
@example("{<<: 3}")
@example("? [a]\n: b")
@example("9" * 10_000)
@example("\0")
def test_any_text_is_values_or_a_sentence(text):
    for parse in (parse_json, parse_yaml):
        try:
            parse(text, "It", "mend it")
        except FmriModelsError as error:
            assert str(error).endswith("mend it.") and is_one_line(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NaN", "NaN is no number"),
        ('{"a": [Infinity]}', "Infinity is no number"),
        ('{"a": [1e999]}', "too large"),
        ("-1e999", "too large"),
        ("9" * 5000, "no readable JSON"),
        ('{"a": "\\ud800"}', "broken characters"),
        ('{"\\udfff": 1}', "broken characters"),
        ("[" * (MAX_NESTING + 1) + "]" * (MAX_NESTING + 1), "nested deeper"),
        ("[" * 200_000 + "]" * 200_000, "too deep"),
        ('{"a": 1, "b": [{"c": 1, "a": 2, "c": 1}]}', "the key 'c' twice"),
        ("", "no readable JSON"),
        ("{'a': 1}", "no readable JSON"),
    ],
)
def test_what_json_does_not_hold(text, message):
    assert message in sentence(parse_json, text, "The report r.json", "make it again")


def test_keys_of_yaml_are_there_once():
    assert "the key 'b' twice" in sentence(parse_yaml, "a:\n  b: 1\n  b: 2\n", "The recipe r.yaml", "mend it")
    assert parse_yaml("a: {b: 1}\nb: 2\n", "The recipe r.yaml") == {"a": {"b": 1}, "b": 2}


def test_a_large_report_is_read_in_a_moment():
    text = json.dumps([{"metric": f"m{index}", "value": index / 7, "n": index} for index in range(180_000)])
    assert len(text) > 10_000_000
    started = time.process_time()
    assert len(parse_json(text, "The report r.json", "make it again")) == 180_000
    assert time.process_time() - started < 5


def test_configurations_of_schedulers_may_hold_infinity():
    assert parse_json('{"a": [Infinity, -Infinity]}', "It", "mend it", infinite=True) == {"a": [math.inf, -math.inf]}
    assert "NaN" in sentence(parse_json, "[NaN]", "It", "mend it", infinite=True)


def test_bombs_of_text_are_sentences_in_bounded_time(tmp_path):
    started = time.monotonic()
    assert "expected" in sentence(parse_json, "[" + "{}," * (MAX_JSON_BYTES // 3) + "{}]", "It", "mend it")
    assert "expected" in sentence(parse_yaml, "a" * (MAX_YAML_BYTES + 1), "It")
    # Numbers to the base 60, which take quadratic time.
    parse_yaml("a: 1" + ":1" * (MAX_YAML_BYTES // 2 - 10), "It")
    letters = "abcdefghi"
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise(letters)
    )
    assert "grow beyond" in sentence(parse_yaml, laughs, "It")
    merges = "a: &a {x: 1}\n" + "".join(
        f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n" for before, name in pairwise(letters)
    )
    assert "grow beyond" in sentence(parse_yaml, merges, "It")
    assert "leads back to itself" in sentence(parse_yaml, "a: &a {b: *a}", "It")
    assert time.monotonic() - started < 20


def test_an_object_is_no_list(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    assert "holds no JSON object" in sentence(read_object, tmp_path / "a.json", "report", "make it again")


class Row(TypedDict):
    name: str
    value: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rows: list[Row]
    kind: Literal["a", "b"] = "a"


@dataclasses.dataclass
class Plain:
    number: int
    rate: float = 0.5
    names: list[str] | None = None
    free: dict[str, Any] = dataclasses.field(default_factory=dict)


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"number": 1}, Plain, None),
        ({"number": 1, "rate": 1, "names": ["a"], "free": {"x": [1]}}, Plain, None),
        ({}, Plain, "has no 'number'"),
        ({"number": True}, Plain, "has True as 'number'; expected"),
        ({"number": 1.0}, Plain, "has 1.0 as 'number'"),
        ({"number": "1"}, Plain, "has '1' as 'number'"),
        ({"number": 1, "rate": True}, Plain, "has True as 'rate'"),
        ({"number": 1, "names": "abc"}, Plain, "'abc' as 'names"),
        ({"number": 1, "names": ("a",)}, Plain, "as 'names"),
        ({"number": 1, "free": []}, Plain, "has \\[\\] as 'free'"),
        ({"number": 1, "other\n": 2}, Plain, "has 'other\\\\\\\\n', which is not known there"),
        ([], Plain, "is \\[\\]"),
        (None, Plain, "is None"),
        ({"rows": [{"name": "a", "value": 0}]}, Model, None),
        ({"rows": [{"name": "a", "value": -1}]}, Model, "has -1 as 'rows.0.value'"),
        ({"rows": [{"name": "a", "value": math.nan}]}, Model, "has nan as 'rows.0.value'"),
        ({"rows": [{"name": "a", "value": 10**400}]}, Model, "as 'rows.0.value'"),
        ({"rows": [{"name": "a"}]}, Model, "has no 'rows.0.value'"),
        ({"rows": [], "kind": "c"}, Model, "has 'c' as 'kind'"),
        ({"rows": {}}, Model, "as 'rows'"),
        ({"rows": [], "x": 1}, Model, "'x', which is not known"),
        ({"rows": "x" * 10**6}, Model, "xxx"),
        ({1: 2}, Model, "not known|no 'rows'|as|is"),
        ({"a": 3}, dict[str, int], None),
        ({"a": "3"}, dict[str, int], "has '3' as 'a'"),
    ],
)
def test_values_are_what_their_type_says(values, kind, message):
    if message is None:
        assert checked(values, kind, "The file", "mend it") is not None
        return
    with pytest.raises(FmriModelsError, match=message) as caught:
        checked(values, kind, "The file", "mend it")
    assert is_one_line(caught.value) and len(str(caught.value)) < 600


def npy(values, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, values, version=version, allow_pickle=True)
    return file.getvalue()


def with_header(text, version=(1, 0), data=b"\0" * 64):
    """A .npy file with any header."""
    header = text.encode("latin-1")
    length = len(header).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + length + header + data


@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8", "g", ">g", "i1", "u2", ">i8", "u8"])
@pytest.mark.parametrize("memory_map", [True, False])
def test_arrays_of_numbers_are_read(tmp_path, dtype, memory_map):
    for values in (np.arange(6).reshape(2, 3).astype(dtype), np.zeros((0, 4), dtype), np.asfortranarray(np.eye(3, 2))):
        (tmp_path / "a.npy").write_bytes(npy(values))
        found = read_array(tmp_path / "a.npy", "betas", "save them again", memory_map)
        assert np.array_equal(found, values) and found.shape == values.shape
        assert memory_map or found.dtype.isnative


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no .npy file"),
        (b"PK\x03\x04" + b"\0" * 100, "zip archive"),
        (b"\x80\x04\x95" + b"\0" * 100, "pickle"),
        (b"\x93NUMPY", "header|.npy"),
        (b"\x93NUMPY\x07\x00" + b"\0" * 100, "version|header"),
        (npy(np.zeros(3))[:-1], "cut short"),
        (npy(np.zeros(3)) + b"x", "cut short or changed"),
        (npy(np.array([None, 1], dtype=object)), "expected whole or floating-point"),
        (npy(np.array(["a"])), "expected whole or floating-point"),
        (npy(np.array([True])), "expected whole or floating-point"),
        (npy(np.zeros(3, dtype="c8")), "expected whole or floating-point"),
        (npy(np.zeros(3, dtype="M8[s]")), "expected whole or floating-point"),
        (npy(np.zeros(3, dtype=[("a", "f4")])), "expected whole or floating-point"),
        (npy(np.zeros(4, dtype="G")), "expected whole or floating-point"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (2199023255552,), }\n"), "cut short"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-4, -4), }\n"), "no array has"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (True, 16), }\n"), "no array has"),
        (
            with_header(
                "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 10000000000000000000000), }\n", data=b""
            ),
            "",
        ),
        (
            with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (9" + "9" * 4000 + ",), }\n"),
            "header|cut short",
        ),
        (with_header("{'descr': '<f4', 'fortran_order': 7, 'shape': (16,), }\n"), "header"),
        (with_header("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"), "expected whole"),
        (with_header("(" * 5000), "header"),
        (with_header("'" * 3), "header"),
        (with_header("[]"), "header"),
        (with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (16,)" + " " * 20_000 + "}"), "header"),
        (with_header("{'descr': ('<f4', (10**9,)), 'fortran_order': False, 'shape': (16,)}"), "header|whole"),
        (
            with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 100 + ")}", data=b"\0" * 4),
            "can't be read|header",
        ),
    ],
)
@pytest.mark.parametrize("memory_map", [True, False])
def test_other_arrays_are_sentences(tmp_path, data, message, memory_map):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(FmriModelsError, match=message) as caught:
        read_array(tmp_path / "a.npy", "betas", "save them again", memory_map)
    assert is_one_line(caught.value) and len(str(caught.value)) < 600


@given(
    st.lists(st.tuples(st.integers(0, 200), st.binary(min_size=0, max_size=3)), min_size=1, max_size=4),
    st.sampled_from([(1, 0), (2, 0)]),
)
@settings(max_examples=300)
def test_changed_arrays_are_arrays_or_sentences(tmp_path_factory, changes, version):
    data = npy(np.arange(12, dtype="f4").reshape(3, 4), version)
    for place, new in changes:
        data = data[:place] + new + data[place + 1 :]
    path = tmp_path_factory.getbasetemp() / "changed.npy"
    path.write_bytes(data)
    for memory_map in (True, False):
        try:
            assert read_array(path, "betas", "save them again", memory_map).dtype.kind in "fiu"
        except FmriModelsError as error:
            assert is_one_line(error)


def test_numbers_of_yaml_may_be_written_with_an_exponent_alone():
    values = parse_yaml("[1e7, -1e-4, 1.5e3, .5E+2, 1.0e-3, '1e7', 1e, e7, 1_0e-4]", "It")
    assert values == [1e7, -1e-4, 1500.0, 50.0, 1e-3, "1e7", "1e", "e7", "1_0e-4"]


@pytest.mark.parametrize("memory_map", [False, True])
def test_bfloat16_is_numbers_and_other_bytes_without_a_meaning_are_not(tmp_path, memory_map):
    values = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    # As ml_dtypes saves it: the upper half of a float32.
    np.save(tmp_path / "half.npy", (values.view(np.uint32) >> 16).astype(np.uint16).view("V2"))
    read = as_numbers(read_array(tmp_path / "half.npy", "betas", "mend it", memory_map))
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, (values.view(np.uint32) & 0xFFFF0000).view(np.float32))
    for name, others in (("three", np.zeros(4, "V3")), ("fields", np.zeros(4, [("a", "u1"), ("b", "u1")]))):
        np.save(tmp_path / f"{name}.npy", others)
        with pytest.raises(FmriModelsError, match="expected whole or floating-point numbers"):
            read_array(tmp_path / f"{name}.npy", "betas", "mend it", memory_map)
