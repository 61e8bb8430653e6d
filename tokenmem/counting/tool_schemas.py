"""The text that OpenAI makes of function tools, and bills: declarations of a TypeScript namespace.

What is rendered was worked out from bills. The text below gives the billed number exactly, up to one
constant a model family, for strings, numbers, enums, arrays, nested objects, alternatives (`anyOf`),
optional members, titles and descriptions. The layout is the one that OpenAI publishes for its open models,
github.com/openai/harmony, src/encoding.rs, but for two things that the bills say: the last member has no
comma unless a comment stands before it, and alternatives are written out. Keys that no bill tells about
(defaults, bounds, patterns, examples, references) are written out too, so that they are rather counted
above the bill than below it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

OPENING = "# Tools\n\n## functions\n\nnamespace functions {\n\n"
CLOSING = "} // namespace functions"

_TYPES = {"integer": "number"}
_ALTERNATIVES = ("anyOf", "oneOf")
_BOUNDS = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "pattern", "format", "minItems", "maxItems", "uniqueItems"),
)
_ANY = "any"

# A schema may refer to itself, and references may double at each level. Beyond these a type is `any`.
_DEPTH = 50
_TYPES_A_FUNCTION = 5_000


def rendered_functions(functions: Sequence[Mapping[str, object]]) -> str:
    """The namespace with these functions, each a mapping with name, description and parameters."""
    return OPENING + "".join(map(_function, functions)) + CLOSING


def _function(function: Mapping[str, object]) -> str:
    name = _text(function.get("name"))
    comment = _comment(function.get("description"))
    parameters = function.get("parameters")
    if not isinstance(parameters, Mapping) or not _has_members(parameters):
        return f"{comment}type {name} = () => any;\n\n"
    return f"{comment}type {name} = (_: {_Schema(parameters).root()}) => any;\n\n"


def _has_members(schema: Mapping[str, object]) -> bool:
    """Whether the function takes anything; additionalProperties=true alone says nothing about what."""
    keys = ("properties", "$ref", "allOf", *_ALTERNATIVES)
    return any(schema.get(key) for key in keys) or isinstance(schema.get("additionalProperties"), Mapping)


class _Schema:
    """One function's parameters on their way to text."""

    def __init__(self, root: Mapping[str, object]) -> None:
        self._root = root
        self._types = 0
        self._open: list[str] = []  # the references that are being written out

    def root(self) -> str:
        return self._type(self._root, 0)

    def _type(self, schema: object, depth: int) -> str:
        self._types += 1
        if not isinstance(schema, Mapping) or depth > _DEPTH or self._types > _TYPES_A_FUNCTION:
            return _ANY
        text = self._bare_type(schema, depth)
        return f"{text} | null" if schema.get("nullable") is True else text

    def _bare_type(self, schema: Mapping[str, object], depth: int) -> str:
        reference, values = schema.get("$ref"), schema.get("enum")
        if isinstance(reference, str):
            return self._reference(reference, depth)
        if isinstance(values, list) and values:
            return " | ".join(map(_text_of_json, values))
        if "const" in schema:
            return _text_of_json(schema["const"])
        for key, separator in (*((key, " | ") for key in _ALTERNATIVES), ("allOf", " & ")):
            parts = schema.get(key)
            if isinstance(parts, list) and parts:
                members = [self._object(schema, depth)] if schema.get("properties") else []
                return separator.join([*members, *(self._type(part, depth + 1) for part in parts)])
        kind = schema.get("type")
        if isinstance(kind, list):
            return " | ".join(self._named_type(each, schema, depth) for each in kind) or _ANY
        return self._named_type(kind, schema, depth)

    def _named_type(self, kind: object, schema: Mapping[str, object], depth: int) -> str:
        if kind == "object" or (kind is None and "properties" in schema):
            return self._object(schema, depth)
        if kind == "array" or (kind is None and "items" in schema):
            return self._array(schema, depth)
        return _TYPES.get(kind, kind) if isinstance(kind, str) and kind else _ANY

    def _reference(self, reference: str, depth: int) -> str:
        found: object = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            found = found.get(step) if isinstance(found, Mapping) else None
        if reference in self._open or found is None:
            return reference.rsplit("/", 1)[-1]
        self._open.append(reference)
        text = self._type(found, depth + 1)
        self._open.pop()
        return text

    def _array(self, schema: Mapping[str, object], depth: int) -> str:
        several = schema.get("prefixItems")
        if isinstance(several, list):
            return f"[{', '.join(self._type(item, depth + 1) for item in several)}]"
        item = self._type(schema.get("items"), depth + 1)
        alternatives = " | " in item and not item.startswith("{")
        return f"({item})[]" if alternatives else f"{item}[]"

    def _object(self, schema: Mapping[str, object], depth: int) -> str:
        # What a bill says of the outermost title, recorded: one comment. A member's own stands above it.
        comments = _comments(schema) if depth == 0 or self._open else ""
        text = f"\n{comments}" if comments else ""
        properties = schema.get("properties")
        required = schema.get("required")
        required = required if isinstance(required, list) else []
        members = list(properties.items()) if isinstance(properties, Mapping) else []
        others = schema.get("additionalProperties")
        if isinstance(others, Mapping):
            members.append(("[key: string]", others))
            required = [*required, "[key: string]"]
        for index, (name, member) in enumerate(members):
            comments = _comments(member)
            if comments and not text.endswith("\n"):
                text += "\n"
            mark = "" if name in required else "?"
            text += f"{comments}{_text(name)}{mark}: {self._type(member, depth + 1)}"
            text += _end(member, is_last=index == len(members) - 1, has_comment=bool(comments))
        return "{" + text + "}" if members else "object"


def _end(member: object, *, is_last: bool, has_comment: bool) -> str:
    if isinstance(member, Mapping) and "default" in member:
        return f", // default: {_text_of_json(member['default'])}\n"
    return ",\n" if has_comment or not is_last else ""


def _comments(schema: object) -> str:
    if not isinstance(schema, Mapping):
        return ""
    bounds = [f"{key}: {_text_of_json(schema[key])}" for key in _BOUNDS if schema.get(key) is not None]
    examples = schema.get("examples")
    shown = list(map(_text_of_json, examples)) if isinstance(examples, list) else []
    return "".join(
        (
            _comment(schema.get("title")),
            _comment(schema.get("description")),
            _comment(", ".join(bounds)),
            _comment("\n".join(["Examples:", *(f"- {each}" for each in shown)]) if shown else ""),
        )
    )


def _comment(text: object) -> str:
    if not isinstance(text, str) or not text:
        return ""
    return "".join(f"// {line}\n" for line in text.split("\n"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else _text_of_json(value)


def _text_of_json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):  # not JSON, or a value that contains itself
        return "null"
