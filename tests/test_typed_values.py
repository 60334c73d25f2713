"""Values that were written as text, by the declared types of their options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from fmri_models.errors import FmriModelsError
from fmri_models.reading import Written, parse_yaml
from fmri_models.typed_values import Argument, Candidates, OneOf, Options, expectation, options_of, typed, unshared


@dataclass
class Inner:
    width: int = 3
    rates: Sequence[float] = (1.0,)


@dataclass
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    several: list[Inner] = field(default_factory=list)
    by_name: Mapping[str, Mapping[str, float]] | None = None


class Model(BaseModel):
    side: Annotated[int, Field(ge=1)] | None = None


class Keys(TypedDict, total=False):
    count: int


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("run #3", str, "run #3"), ("a: b", str, "a: b"), ("on", str, "on"), ("2025", str, "2025"), ("01", str, "01"),
        ("[a", str, "[a"), ("{a}", str, "{a}"), ("a,b", str, "a,b"), ("null", str, "null"), ("~", str, "~"),
        ("'it''s'", str, "it's"), (r'"a\tb"', str, "a\tb"), ('"a" b', str, '"a" b'), ('"', str, '"'), ("'", str, "'"),
        (""" '"quoted"' """, str, '"quoted"'), ("ü/ö", str, "ü/ö"), ("- a", str, "- a"), ("!!x", str, "!!x"),
        ("*a", str, "*a"), ("&a b", str, "&a b"), ("%x", str, "%x"), ("a\\b", str, "a\\b"),
        ("null", str | None, None), ("'null'", str | None, "null"), ("[a]", str | None, "[a]"),
        ("01", int, 1), ("+7", int, 7), ("-7", int, -7), ("1e1", int, 10), ("10.0", int, 10), ("1_000", int, 1000),
        ("'5'", int, 5), ("9" * 25, int, int("9" * 25)), ("null", int | None, None), ("~", int | None, None),
        ("1e-1", float, 0.1), (".5", float, 0.5), ("5.", float, 5.0), ("3", float, 3.0), ("-1E+2", float, -100.0),
        ("3", float | int, 3), ("3.0", float | int, 3), ("3.5", int | float, 3.5),
        ("true", bool, True), ("No", bool, False), ("ON", bool, True), ("off", bool, False), ("yes", bool, True),
        ("no", Literal["no", "bf16"], "no"), ("2", Literal[1, 2], 2), ("'no'", Literal["no"], "no"),
        ("subj01", list[str], ["subj01"]), ("1", list[str], ["1"]), ("[01]", list[str], ["01"]),
        ("[1,2]", list[str], ["1", "2"]), ("[on, null, '', a b]", list[str], ["on", "null", "", "a b"]),
        ("a, b", list[str], ["a, b"]), ("null", list[str] | None, None), ("'[a]'", list[str], ["[a]"]),
        ("[]", list[str], []), ("3", list[int], [3]), ("[1e1, 2]", Sequence[int], [10, 2]),
        ("5", Sequence[float] | Mapping[str, float], [5.0]),
        ("{01: 5}", Sequence[float] | Mapping[str, float], {"01": 5.0}),
        ("[1, x]", tuple[int, str], [1, "x"]), ("[[1], [2]]", list[list[str]], [["1"], ["2"]]),
        ("3", str | dict[str, Any], "3"), ("{a: 3}", str | dict[str, Any], {"a": 3}),
        ("3", Any, 3), ("3.5", Any, 3.5), ("on", Any, True), ("'on'", Any, "on"), ("x", Any, "x"),
        ("[1, null]", Any, [1, None]),
        ("2001-01-01", Any, "2001-01-01"), ("1:30", Any, "1:30"), ("5", "A name that is nowhere", 5),
        ("{width: 1e1, rates: 3}", Inner, {"width": 10, "rates": [3.0]}),
        ("{name: 1, several: [{rates: [1]}]}", Outer, {"name": "1", "several": [{"rates": [1.0]}]}),
        ("{name: a, by_name: {01: {x: 1}}}", Outer, {"name": "a", "by_name": {"01": {"x": 1.0}}}),
        ("{side: 1e1}", Model, {"side": 10}), ("{side: null}", Model, {"side": None}),
        ("{count: 01}", Keys, {"count": 1}),
    ],
)  # fmt: skip
def test_a_text_becomes_what_is_declared(text, kind, expected):
    found = typed(Argument(text), kind, "key")
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("x", int, "key is 'x'; expected a whole number"),
        ("1.5", int, "key is 1.5; expected a whole number"),
        ("1e-1", int, "key is 1e-1; expected a whole number"),
        ("1e9999", int, "expected a whole number"),
        ("1:30", int, "key is '1:30'; expected a whole number"),
        ("0x10", int, "key is '0x10'; expected a whole number"),
        ("true", int, "key is 'true'; expected a whole number"),
        ("null", int, "key is null; expected a whole number"),
        ("1_0e-4", float, "key is '1_0e-4'; expected a number"),
        ("inf", float, "key is 'inf'; expected a number"),
        ("1", bool, "key is 1; expected true or false"),
        ("tRUE", bool, "key is 'tRUE'; expected true or false"),
        ("b", Literal["a", "c"] | None, "key is 'b'; expected 'a', 'c' or null"),
        ("x", int | None, "key is 'x'; expected a whole number or null"),
        ("[1, x]", list[int], r"key\.1 is 'x'; expected a whole number"),
        ("[1", list[int], "does not end with ]"),
        ("[a] # b", list[str], "does not end with ]"),
        ("[a, b #c]", list[str], "no valid YAML"),
        ("{a: 1}", list[str], "key is a mapping; expected a list of texts"),
        ("{a: 1, a: 2}", dict[str, int], "the key 'a' twice"),
        ("[1]", dict[str, int], "key is a list; expected a mapping"),
        ("x", dict[str, int], "key is 'x'; expected a mapping"),
        ("[1]", int, "key is a list; expected a whole number"),
        ("{a: 1}", bool, "key is a mapping; expected true or false"),
        ("{widht: 1}", Inner, "key of the value has the unknown key 'widht'; did you mean 'width'?"),
        ("{x: 1}", Inner, "has the unknown key 'x'; known keys: width, rates"),
        ("{name: a, several: [{rate: 1}]}", Outer, r"key\.several\.0 of .* unknown key 'rate'; did you mean 'rates'"),
        ("{by_name: {a: {b: c}}}", Outer, r"key\.by_name\.a\.b is 'c'; expected a number"),
        ("{counts: 1}", Keys, "unknown key 'counts'; did you mean 'count'"),
        ("[" * 90 + "]" * 90, list[list[str]], "is a list; expected a text"),
        ("[" * 900 + "]" * 900, Any, "nested"),
    ],
)  # fmt: skip
def test_what_is_not_declared_is_a_sentence(text, kind, message):
    with pytest.raises(FmriModelsError, match=message) as caught:
        typed(Argument(text), kind, "key")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


@given(
    st.text(max_size=40) | st.text("[]{}'\"#:,&*!01e.-_ ~", max_size=40),
    st.sampled_from(
        [str, int, float, bool, list[str], list[int], dict[str, float], Literal["a"], Inner, Any, int | None]
    ),
)
def test_any_text_is_typed_or_a_sentence(text, kind):
    try:
        found = typed(Argument(text), kind, "key")
    except FmriModelsError as error:
        assert str(error)
        return
    if kind in (str, int, float, bool):
        assert type(found) is kind or (kind is float and type(found) is int)
    assert not isinstance(found, Written | Argument)


@given(st.text("abc #:,'\"[]{}01 ", min_size=1, max_size=20).filter(lambda text: text == text.strip()))
def test_a_text_is_itself_unless_it_is_quoted(text):
    if text[0] not in "'\"":
        assert typed(Argument(text), str, "key") == text


def test_values_of_python_stay_as_they_are():
    values = {"name": "a", "inner": {"width": 3}, "several": [{"rates": [1.0]}]}
    assert typed(values, Outer, "") == values
    assert typed(5, str, "key") == 5
    with pytest.raises(FmriModelsError, match="'widht'; did you mean 'width'"):
        typed({"inner": {"widht": 1}}, Outer, "")


def test_dotted_keys_have_the_kinds_of_what_they_reach():
    kind = Candidates(options_of(Outer), ("inner", "several"))
    assert typed(Argument("{inner.width: 1e1, several.0.rates: 3, name: 5}"), kind, "key") == {
        "inner.width": 10, "several.0.rates": [3.0], "name": 5,
    }  # fmt: skip
    with pytest.raises(FmriModelsError, match="'widht'; did you mean 'width'"):
        typed(Argument("{inner.widht: 1}"), kind, "key")


def test_arguments_of_functions_are_options():
    def function(a: int, *args: Any, b: "list[str] | None" = None, c=3, **options: Any) -> None: ...

    assert options_of(function).types == {"a": int, "b": list[str] | None, "c": Any}
    assert not options_of(function).closed and options_of(lambda a: a).closed
    assert options_of(function, without=("a",)).types.keys() == {"b", "c"}
    assert options_of(5) is Any


def test_expectations_are_words():
    assert expectation(OneOf((list[str], Options({}), None))) == "a list of texts, a mapping or null"
    assert expectation(Annotated[int, Field(ge=1)] | None) == "a whole number or null"
    assert expectation(bytes) == "something else"


def test_what_a_reference_repeats_can_be_changed_in_one_place():
    values = unshared(parse_yaml("a: &a {b: [1]}\nc: *a", "It", as_written=True))
    values["a"]["b"][0] = "2"
    assert values == {"a": {"b": ["2"]}, "c": {"b": ["1"]}}
