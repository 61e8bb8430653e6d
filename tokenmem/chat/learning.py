"""What a refusal teaches of an endpoint: the rules by which its next prompts are made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from tokenmem.messages.endpoint_rules import EndpointRules
from tokenmem.messages.values import JSONObject

# What an error says, in lower case, and the rule that it teaches.
_CLUES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL), rule)
    for pattern, rule in (
        (r"alternat|consecutive|same role|more than one (?:user|assistant) message in a row", "alternates"),
        (r"\bfirst\b[^.]{0,60}\buser\b|(?:begin|start)s?\b[^.]{0,40}\buser\b", "begins_with_user"),
        (r"'user' after role 'tool'|tool[^.]{0,60}followed by[^.]{0,30}assistant", "answers_after_tools"),
        (r"\bsystem\b[^.]{0,60}\b(?:begin|beginning|first|start)\b|only one system", "system_only_first"),
        (r"\bdeveloper\b", "developer_is_system"),
        (r"length of 9\b|9 characters", "nine_character_ids"),
        (r"reasoning_content.{0,120}(?:missing|must be|passed back|required)", "wants_reasoning"),
        (r"missing.{0,60}reasoning_content", "wants_reasoning"),
        (r"missing.{0,80}thought_?signature", "wants_signatures"),
        (r"thought_?signature.{0,80}(?:missing|required)", "wants_signatures"),
        (r"content.{0,80}(?:string|\bstr\b)|invalid type: sequence|should be a valid string", "plain_text"),
        (r"content.{0,60}(?:null|none\b)|(?:null|none)\b.{0,60}content|nonetype", "no_null"),
    )
)
_ESSENTIAL = frozenset(
    {"role", "content", "tool_calls", "tool_call_id", "function_call", "type", "function", "custom", "text"}
    | {"call_id", "arguments", "output", "input", "summary", "image_url", "input_audio", "file", "index"}
)
# Keys that are common words as well: named only where an error writes them as a key.
_WORDS = frozenset({"name", "audio", "refusal", "id", "status", "phase", "prefix", "thinking", "signature"})


def learned_rules(told: str, sent: Sequence[object], rules: EndpointRules) -> EndpointRules | None:
    """The rules with what a refusal teaches; None where it teaches nothing.

    Args:
        told: the refusal's text, in lower case.
        sent: the messages that were refused, as they were sent.
        rules: by which they were made.
    """
    taught = {rule: True for clue, rule in _CLUES if clue.search(told)}
    found = replace(rules, **taught)  # type: ignore[arg-type]  # all of them are flags
    named = frozenset(key for key in set(_keys(sent)) if key not in rules.without and _names(told, key))
    if found.wants_reasoning or found.wants_signatures:
        named -= {"reasoning_content", "extra_content"}
    found = replace(found, without=rules.without | named)
    return found if found != rules else None


def strictest(rules: EndpointRules) -> EndpointRules:
    """The rules for an endpoint of which only this is known, that it does not take what other ones take."""
    return replace(
        rules,
        only_documented=True,
        developer_is_system=True,
        plain_text=True,
        alternates=True,
        begins_with_user=True,
        system_only_first=True,
        answers_after_tools=True,
    )


def _keys(sent: Sequence[object]) -> Iterator[str]:
    """The keys and the types of parts in messages that can be left out of them."""
    for message in sent:
        if not isinstance(message, dict):
            continue
        yield from message.keys() - _ESSENTIAL
        for call in _objects(message.get("tool_calls")):
            yield from call.keys() - _ESSENTIAL - {"id"}
            for kind in ("function", "custom"):
                if isinstance(call.get(kind), dict):
                    yield from call[kind].keys() - _ESSENTIAL - {"name"}
        for part in _objects(message.get("content")):
            yield from part.keys() - _ESSENTIAL
            inner = part.get(str(part.get("type")))
            yield from inner.keys() - {"url", "data", "format"} if isinstance(inner, dict) else ()
            if isinstance(part.get("type"), str) and message.get("role") != "user":
                yield from {part["type"]} - _ESSENTIAL - {"refusal", "output_text", "input_text"}


def _objects(value: object) -> list[JSONObject]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _names(told: str, key: str) -> bool:
    """Whether an error names a key: as a word, or, where it is a common one, as keys are written."""
    name = re.escape(key.lower())
    if key in _WORDS:
        return re.search(rf"['\"`]{name}['\"`]|\]\.{name}\b|\.\d+\.(?:\w+\.)?{name}\b", told) is not None
    return re.search(rf"(?<![a-z0-9_]){name}(?![a-z0-9_])", told) is not None
