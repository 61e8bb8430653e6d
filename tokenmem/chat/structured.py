"""Structured output: a class is sent as its JSON schema, and the reply to it read as its object."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeGuard, get_origin

from tokenmem.chat.apis.interface import ModelAPI
from tokenmem.chat.apis.responses import Responses
from tokenmem.errors import InvalidArgument, MissingExtra, ModelError
from tokenmem.messages.message import Message, as_sent, provider_fields
from tokenmem.messages.values import JSONObject, JSONValue, dump_json
from tokenmem.models import Reply

if TYPE_CHECKING:
    from pydantic import ValidationError

NAME = "response_format"
"""The option that takes a class, as in the openai package's `chat.completions.parse`."""

NAME_OF_RESPONSES = "text_format"
"""What the openai package's `responses.parse` calls it."""

_FREE_TEXT: JSONObject = {"type": "text"}

_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_LONGEST_NAME = 64
"""Characters; what OpenAI's API reference says of a schema's name, as the pattern above."""

_A_TYPE = re.compile(r"[a-z_]{1,60}")
_A_REASON = re.compile(r"[\w.-]{1,60}", re.ASCII)
_ENDED = ("stop", "completed")
"""Why a model stops that has come to its end, in either API's word."""

_SHOWN = 3
"""How many of a reply's mistakes an error lists at most."""


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The class of which a reply is to be an object.

    Attributes:
        model: a pydantic model, or a pydantic dataclass.
        name: by which the provider is told of it.
        schema: its JSON schema, strict: every property is required, and there are no others.
    """

    model: type
    name: str
    schema: JSONObject

    def read(self, text: str) -> Any:
        """The object that a JSON text is.

        Raises:
            pydantic.ValidationError: it is none.
        """
        from pydantic import BaseModel, TypeAdapter

        if issubclass(self.model, BaseModel):
            return self.model.model_validate_json(text)
        return TypeAdapter(self.model).validate_json(text)


def format_of(model: object, argument: str) -> ResponseFormat:
    """The format of a class.

    Args:
        model: what the caller has given.
        argument: by which name.

    Raises:
        InvalidArgument: it is no pydantic model, or has no JSON schema that a model could follow.
    """
    if not _is_model(model):
        shown = f"the class {model.__name__}" if isinstance(model, type) else f"{model!r:.60}"
        raise InvalidArgument(
            f"{argument} is {shown}; pass a class derived from pydantic.BaseModel, a pydantic dataclass, or "
            f"a dict as the API takes it"
        )
    schema = _schema_of(model, argument)
    if schema.get("type") != "object":
        raise InvalidArgument(
            f"{argument} is {model.__name__}, whose JSON is no object, as models answer: make it a field of "
            f"another class, and pass that"
        )
    return ResponseFormat(model, _NOT_IN_A_NAME.sub("_", model.__name__)[:_LONGEST_NAME], schema)


def _is_model(model: object) -> TypeGuard[type]:
    try:
        from pydantic import BaseModel, TypeAdapter  # noqa: F401 -- only pydantic 2 has a TypeAdapter
        from pydantic.dataclasses import is_pydantic_dataclass
    except ImportError:
        raise MissingExtra(
            "a class for the reply needs pydantic 2: pip install 'pydantic>=2', or pass a dict"
        ) from None
    return isinstance(model, type) and (issubclass(model, BaseModel) or is_pydantic_dataclass(model))


def _schema_of(model: type, argument: str) -> JSONObject:
    from openai import pydantic_function_tool
    from pydantic import BaseModel, TypeAdapter

    try:
        # The one public function of the openai package, in all versions, that makes a strict schema: it takes
        # a TypeAdapter too, which its types do not say.
        told: Any = model if issubclass(model, BaseModel) else TypeAdapter(model)
        tool: Mapping[str, Any] = pydantic_function_tool(told, name="reply", description="")["function"]
        schema: JSONObject = tool["parameters"]
        dump_json(schema)
    except Exception as error:  # whatever a type's own schema raises; RecursionError where it has no end
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InvalidArgument(
            f"{argument} is {model.__name__}, of which no JSON schema can be made ({reason:.200}); give its "
            f"fields types that JSON has, or pass a dict as the API takes it"
        ) from error
    return schema


# --- where it is in a request


def structured(
    api: ModelAPI,
    options: Mapping[str, object],
    options_of_chat: Mapping[str, object] | None = None,
    format_of_chat: ResponseFormat | None = None,
) -> tuple[Mapping[str, object], ResponseFormat | None]:
    """The options as the API takes them, and the class of the reply; None where it has none.

    Args:
        api: the chat's API.
        options: those of a chat, or of one turn.
        options_of_chat: where they are a turn's, the chat's, as this function has returned them.
        format_of_chat: where they are a turn's, the chat's class.

    Raises:
        InvalidArgument: a class is of no use, or more than one format is given.
    """
    names = (NAME, NAME_OF_RESPONSES) if isinstance(api, Responses) else (NAME,)
    given = [name for name in names if _is_class(options.get(name))]
    if not given and format_of_chat is None:
        return options, None
    free = [name for name in names if name in options and options[name] is None]
    rest = {name: value for name, value in options.items() if name not in (*given[:1], *free)}
    both = {**(options_of_chat or {}), **rest}
    if given:
        wanted = format_of(options[given[0]], given[0])
        if len(given) > 1 or _has_format(api, rest):
            raise InvalidArgument(
                f"{given[0]} is {wanted.name}, and another format of the reply is given besides; pass one"
            )
        return {**rest, **_with_format(api, both, _told(api, wanted))}, wanted
    if free:
        return {**rest, **_with_format(api, both, _FREE_TEXT)}, None
    if format_of_chat is None or _has_format(api, options):
        return options, None
    if isinstance(api, Responses) and "text" in options:  # else it would take the place of the chat's
        return {**options, **_with_format(api, both, _told(api, format_of_chat))}, format_of_chat
    return options, format_of_chat


def _is_class(value: object) -> bool:
    """Whether a value is a class, or a type made of others such as `list[Answer]`."""
    return isinstance(value, type) or get_origin(value) is not None


def _told(api: ModelAPI, wanted: ResponseFormat) -> JSONObject:
    described = {"name": wanted.name, "strict": True, "schema": wanted.schema}
    if isinstance(api, Responses):
        return {"type": "json_schema", **described}
    return {"type": "json_schema", "json_schema": described}


def _has_format(api: ModelAPI, options: Mapping[str, object]) -> bool:
    if not isinstance(api, Responses):
        return NAME in options
    text = options.get("text")
    return isinstance(text, Mapping) and "format" in text


def _with_format(api: ModelAPI, options: Mapping[str, object], told: JSONObject) -> JSONObject:
    """The option that holds the format; what else is in it stays."""
    if not isinstance(api, Responses):
        return {NAME: told}
    text = options.get("text")
    return {"text": {**(text if isinstance(text, Mapping) else {}), "format": told}}


# --- the reply


def with_parsed(reply: Reply, wanted: ResponseFormat | None) -> Reply:
    """The reply of a turn, which `parsed` reads as an object of the class; None where there is no class."""
    if wanted is None or reply.tool_calls:
        return reply
    said = [provider_fields(as_sent(message)) for message in reply.messages if _answers(message)]
    if any(map(_refuses, said)):
        return reply
    texts = [text for text in map(_text_of, said) if text]
    return replace(reply, _parsed=ParsedText(wanted, texts[-1] if texts else "", reply.call.finish_reason))


def _answers(message: Message) -> bool:
    """Whether a message of a reply is its answer: not what a model says of its work while it is at it."""
    phase = provider_fields(message).get("phase")
    return message.role == "assistant" and message.kind == "message" and phase in (None, "final_answer")


def _refuses(message: Mapping[str, object]) -> bool:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return bool(message.get("refusal")) or any(
        isinstance(part, Mapping) and part.get("type") == "refusal" for part in parts
    )


def _text_of(message: Mapping[str, object]) -> str:
    content = message.get("content")
    if not isinstance(content, list):
        return content if isinstance(content, str) else ""
    texts = (
        part.get("text") if isinstance(part, Mapping) else part
        for part in content
        if not isinstance(part, Mapping) or part.get("type") in (None, "text", "output_text")
    )
    return "".join(text for text in texts if isinstance(text, str))


class ParsedText:
    """The object that a reply's text is, made when somebody first looks at it.

    Args:
        wanted: the class.
        text: the JSON text.
        finish_reason: why the model stopped, in the provider's word; or None.
    """

    def __init__(self, wanted: ResponseFormat, text: str, finish_reason: str | None) -> None:
        self._wanted = wanted
        self._text = text
        self._finish_reason = finish_reason

    def __call__(self) -> Any:
        """The object, always the same.

        Raises:
            ModelError: the text is none.
        """
        return self._object

    @cached_property
    def _object(self) -> Any:
        from pydantic import ValidationError

        try:
            return self._wanted.read(self._text)
        except ValidationError as error:
            problems = _problems(error, self._wanted.schema)
        except Exception as error:  # whatever a validator of the class raises
            problems = type(error).__name__
        # Out here nothing of pydantic's hangs on it, which quotes the reply.
        raise ModelError(
            f"the reply is no valid {self._wanted.model.__name__} ({problems}{self._stopped()}); "
            f"it is stored, and reply.text is its text: ask again"
        )

    def _stopped(self) -> str:
        reason = self._finish_reason
        if reason is None or reason in _ENDED or not _A_REASON.fullmatch(reason):
            return ""
        return f"; finish_reason {reason!r}"


def _problems(error: ValidationError, schema: JSONObject) -> str:
    """What is wrong with a reply: where, and pydantic's word for it; nothing of what it says."""
    known = set(_properties(schema))
    found = error.errors(include_url=False, include_context=False, include_input=False)
    listed = [_problem(each["loc"], each["type"], known) for each in found[:_SHOWN]]
    return ", ".join(listed) + (", …" if len(found) > _SHOWN else "")


def _problem(place: Sequence[int | str], type_: str, known: set[str]) -> str:
    """One of them; what stands in a place and is no property of the class may be the model's own word."""
    shown = ".".join(str(each) if isinstance(each, int) or each in known else "…" for each in place)
    kind = type_ if _A_TYPE.fullmatch(type_) else "invalid"
    return f"{shown}: {kind}" if shown else kind


def _properties(schema: JSONValue) -> Iterator[str]:
    """The names of all properties in a schema."""
    if isinstance(schema, Mapping):
        properties = schema.get("properties")
        yield from properties if isinstance(properties, Mapping) else ()
        for value in schema.values():
            yield from _properties(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _properties(value)
