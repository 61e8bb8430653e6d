"""Classes made at random: strict schemas, their JSON read back, and errors that repeat nothing of it."""

import json
import pickle
import sys
import traceback
from datetime import date
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model, field_validator
from pydantic_core import PydanticCustomError

from tokenmem.chat.apis.completions import ChatCompletions
from tokenmem.chat.apis.responses import Responses
from tokenmem.chat.structured import ParsedText, format_of, structured
from tokenmem.errors import MissingExtra, ModelError

NAMES = st.sampled_from(
    ["city", "steps", "properties", "items", "type", "Straße", "a_b", "class_", "required"]
)
LEAVES = st.sampled_from(
    [str, int, float, bool, date, Literal["low", "high"], int | None, str | None, list[str], list[int] | None]
)


@st.composite
def models(draw: st.DrawFn, depth: int = 2) -> type[BaseModel]:
    """A model with fields of any kind, with and without defaults and descriptions, and models inside."""
    fields: dict[str, Any] = {}
    for name in draw(st.lists(NAMES, max_size=4, unique=True)):
        kind: Any = draw(LEAVES)
        if depth and draw(st.booleans()):
            inner = draw(models(depth - 1))
            kind = draw(st.sampled_from([inner, list[inner], inner | None]))  # type: ignore[valid-type]
        described: dict[str, Any] = {"description": "What it is."} if draw(st.booleans()) else {}
        optional = draw(st.booleans())
        fields[name] = (kind | None, Field(None, **described)) if optional else (kind, Field(**described))
    return create_model(draw(st.sampled_from(["Answer", "Wörter", "A" * 80])), **fields)


def objects(schema: Any) -> Any:
    """Every schema of an object in a schema."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for key, value in schema.items():
            if (key == "properties" and isinstance(value, dict)) or key == "$defs":
                for each in value.values():
                    yield from objects(each)
            elif key in ("items", "anyOf", "allOf"):
                yield from objects(value)
    elif isinstance(schema, list):
        for each in schema:
            yield from objects(each)


def instance(model: Any, draw: Any) -> Any:
    """An object of a model that follows its schema."""
    values = {name: value_of(field.annotation, draw) for name, field in model.model_fields.items()}
    return model(**values)


def value_of(kind: Any, draw: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return instance(kind, draw)
    if getattr(kind, "__origin__", None) is list:
        return [value_of(kind.__args__[0], draw) for _ in range(draw(st.integers(0, 2)))]
    if hasattr(kind, "__args__") and kind.__class__.__name__ in ("UnionType", "_UnionGenericAlias", "Union"):
        return value_of(draw(st.sampled_from(kind.__args__)), draw)
    if kind is type(None):
        return None
    if kind is float:
        return draw(st.floats(allow_nan=False, allow_infinity=False))
    return draw(st.from_type(kind))


@given(st.data())
def test_a_class_becomes_a_strict_schema_and_its_json_its_object(data: st.DataObject) -> None:
    model = data.draw(models())
    made = instance(model, data.draw)
    for api in (ChatCompletions(), Responses()):
        options, wanted = structured(api, {"response_format": model, "temperature": 0})
        assert wanted is not None
        assert options["temperature"] == 0
        told: Any = json.loads(json.dumps(options))
        told = (
            told["text"]["format"] if isinstance(api, Responses) else told["response_format"]["json_schema"]
        )
        assert told["strict"] is True
        assert 0 < len(told["name"]) <= 64
        assert told["name"].isascii()
        found = list(objects(told["schema"]))
        assert told["schema"] in found
        for each in found:
            assert each["additionalProperties"] is False
            assert each.get("required", []) == list(each.get("properties", {}))
        # A class is left as it was: the same once more.
        assert structured(api, {"response_format": model, "temperature": 0})[0] == options
        parsed = ParsedText(wanted, made.model_dump_json(), "stop")
        assert parsed() == made
        assert parsed() is parsed()


SECRET = "geheim"
TEXTS = st.text("xyz", max_size=3).map(lambda text: f"{SECRET}{text}")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS | NAMES, inner, max_size=4),
)


class Strict(BaseModel, extra="forbid"):
    city: dict[str, int] | list[str] | None = None
    steps: list["Strict"] = []
    items: Literal["low"] = "low"

    @field_validator("city")
    @classmethod
    def check(cls, value: Any) -> Any:
        if value:
            raise ValueError(f"{value} is none")
        return value


class Coded(BaseModel):
    city: str

    @field_validator("city")
    @classmethod
    def check(cls, value: str) -> str:
        raise PydanticCustomError("no_city", "{value} is none", {"value": value})


@given(st.data())
def test_an_error_repeats_nothing_of_a_reply(data: st.DataObject) -> None:
    model: Any = data.draw(st.sampled_from([Strict, Coded]) | models())
    text = json.dumps(data.draw(JSON))
    text = text[: data.draw(st.integers(0, len(text)))] if data.draw(st.booleans()) else text
    reason = data.draw(st.sampled_from(["stop", "length", None, f"because {SECRET}"]))
    parsed = ParsedText(format_of(model, "response_format"), text, reason)
    try:
        found = parsed()
    except ModelError as raised:
        error = raised
    else:
        assert isinstance(found, model)
        return
    assert error.__context__ is None
    assert SECRET not in "".join(traceback.format_exception(error))
    assert model.__name__ in str(error)
    assert ("finish_reason 'length'" in str(error)) == (reason == "length")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    "text", ["\ud800", '{"city": "\ud800"}', '{"city":' * 10_000, "[" * 100_000, "\0", ""]
)
def test_odd_texts(text: str) -> None:
    parsed = ParsedText(format_of(Strict, "response_format"), text, "stop")
    for _ in range(2):
        with pytest.raises(ModelError, match="no valid Strict"):
            parsed()


def test_what_is_wrong_in_a_validator_of_the_callers_own_is_told_by_its_name() -> None:
    class Broken(BaseModel):
        city: str

        @field_validator("city")
        @classmethod
        def check(cls, value: str) -> str:
            known: dict[str, str] = {}
            return known[value]

    parsed = ParsedText(format_of(Broken, "response_format"), '{"city": "Turin"}', "stop")
    with pytest.raises(ModelError, match=r"Broken \(KeyError\)"):
        parsed()


def test_without_pydantic_2_a_class_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic.dataclasses", None)  # as pydantic 1, without a name of 2's
    with pytest.raises(MissingExtra, match="pip install 'pydantic>=2'"):
        structured(ChatCompletions(), {"response_format": Strict})
    assert structured(ChatCompletions(), {"response_format": {"type": "text"}})[1] is None
