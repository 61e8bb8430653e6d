"""What a model's provider bills for a whole request, in tokens: the family's constants, tools, corrections.

`TiktokenCounter` prices a message once, for all models and rather above; what depends on the model is here.
Numbers rest on OpenAI's documents where they have any, else they are fitted to bills:

- "recordings": 53 calls of text and tools to OpenAI's models with the `usage` that was billed.
- "published recordings": 31 such bills in the tests of ruby_llm, ruby_llm-mcp, llm, magentic, crewAI and
  OpenTelemetry's instrumentation, and the cookbook's example, read for schemas that others wrote.

Errors that remain stand in docs/token-counting.md.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TypeGuard

from tokenmem.counting.counters import TiktokenCounter
from tokenmem.counting.media import IMAGE_TILES, image_of, image_tiles
from tokenmem.counting.message_costs import PER_CALL, PER_SEVERAL_CALLS
from tokenmem.counting.tool_schemas import rendered_functions
from tokenmem.messages.items import is_item_without_role
from tokenmem.messages.message import Message, is_role_and_content, is_text_part, provider_fields
from tokenmem.messages.parsing import MessageLike, parse_messages
from tokenmem.messages.values import JSONMapping, JSONValue

Tool = JSONMapping
"""A tool, or a call of one, in the form of either of OpenAI's APIs."""


@dataclass(frozen=True, slots=True)
class Tiles:
    """An image's price by tiles of 512 by 512 pixels, as `media.image_tiles` counts them.

    Attributes:
        base: tokens for any image, and all that one at low detail costs.
        tile: tokens for each tile.
    """

    base: int
    tile: int

    def tokens(self, size: tuple[int, int] | None, *, is_low: bool) -> int:
        """What an image of this width and height in pixels costs; of unknown size, the most possible."""
        if is_low:
            return self.base
        return self.base + self.tile * (IMAGE_TILES if size is None else image_tiles(*size))


@dataclass(frozen=True, slots=True)
class Patches:
    """An image's price by patches of 32 by 32 pixels; low detail does not make it cheaper.

    Attributes:
        factor: tokens for each patch.
        maximum: how many patches are billed at most. Larger images are scaled down to about as many.
    """

    factor: float
    maximum: int = 1_536

    def tokens(self, size: tuple[int, int] | None, *, is_low: bool) -> int:  # noqa: ARG002
        """What an image of this width and height in pixels costs; of unknown size, the most possible."""
        if size is None:
            return math.ceil(self.maximum * self.factor)
        patches = min(self.maximum, math.ceil(size[0] / 32) * math.ceil(size[1] / 32))
        return math.ceil(patches * self.factor)


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """Models whose requests are billed alike.

    Attributes:
        name: gpt-4o (also 4.1 and 4.5), gpt-5, o-series, gpt-4 (also 3.5) or unknown.
        reasoning: whether the models reason before they answer.
        encoding: what their text is counted by.
        opening: tokens that open the reply.
        channel: tokens by which each earlier reply of the assistant names its channel.
        tools: tokens around the functions' declarations where the prompt has no instructions.
        tools_in_instructions: the same where it begins with a system or developer message.
        cheap_calls: whether tool calls are billed below the price of `message_costs`.
        image: what images cost.
    """

    name: str
    reasoning: bool
    encoding: str
    opening: int
    channel: int
    tools: int
    tools_in_instructions: int
    cheap_calls: bool
    image: Tiles | Patches


# The opening is `<|start|>assistant<|message|>` up to gpt-4.5, 3 tokens (OpenAI's cookbook, "How to count
# tokens with tiktoken"), and one less where the model itself goes on with a channel: all 4 plain recordings
# of gpt-5, gpt-5.6 and o3-mini. The channel of an earlier reply, `<|channel|>final`, is 2 tokens: the format
# is in OpenAI's cookbook, "OpenAI harmony response format", and two published recordings bill it.
#
# Tools. Recordings, 13 of gpt-4o and 4o-mini, and 20 published ones: 3 above the rendered text without
# instructions, where they take a system message of their own, and 4 less where they follow one, or 3 less
# if its end does not merge with the line break (`_merged`). The cookbook's examples of 101 tokens for
# gpt-4o and 105 for gpt-4 come out by the same numbers. gpt-5, 17 recordings and 7 published ones: 85, with
# instructions not first in the prompt or absent. No bill shows gpt-5's with instructions first; a discount
# would be at most 4.
#
# Images: OpenAI, "Images and vision", platform.openai.com/docs/guides/images-vision#calculating-costs.
_GPT_4O = ModelFamily("gpt-4o", False, "o200k_base", 3, 0, 3, 0, True, Tiles(85, 170))
_GPT_4 = replace(_GPT_4O, name="gpt-4", encoding="cl100k_base", cheap_calls=False)
_GPT_5 = ModelFamily("gpt-5", True, "o200k_base", 2, 2, 85, 85, False, Tiles(70, 140))
# No bill of an o-series model with tools or earlier replies is known: as gpt-5, which is the most.
_O_SERIES = replace(_GPT_5, name="o-series", image=Tiles(75, 150))
# One recording: o1-mini is told 8 tokens more than other models of the series, whatever was sent.
_O1_MINI = replace(_O_SERIES, opening=10)
_UNKNOWN = replace(_GPT_5, name="unknown", reasoning=False, opening=3, image=Tiles(85, 170))

# The first that is found in a model's name, at a word's beginning. From gpt-5.2 on images are patches by what
# users were billed, 1.2 tokens each and up to 2,500 (community.openai.com/t/1377015); the guide has more for
# small models, and that is taken.
_MODELS: tuple[tuple[str, ModelFamily], ...] = (
    (r"gpt-?4o-mini", replace(_GPT_4O, image=Tiles(2_833, 5_667))),
    (r"gpt-?4\.1-mini", replace(_GPT_4O, image=Patches(1.62))),
    (r"gpt-?4\.1-nano", replace(_GPT_4O, image=Patches(2.46))),
    (r"(?:chat)?gpt-?4(?:o|\.1|\.5)", _GPT_4O),
    (r"gpt-?(?:4|3\.?5)", _GPT_4),
    (r"gpt-?5(?:\.\d+)?-chat", replace(_GPT_5, reasoning=False)),
    (r"gpt-?5(?:\.\d+)?-mini", replace(_GPT_5, image=Patches(1.62, 2_500))),
    (r"gpt-?5(?:\.\d+)?-nano", replace(_GPT_5, image=Patches(2.46, 2_500))),
    (r"gpt-?5(?:\.[01])?(?![.\d])", _GPT_5),
    (r"gpt-?[5-9]", replace(_GPT_5, image=Patches(1.2, 2_500))),
    (r"o1-(?:mini|preview)", _O1_MINI),
    (r"o4-mini|codex-mini", replace(_O_SERIES, image=Patches(1.72))),
    (r"o[1-9](?![a-z0-9])", _O_SERIES),
)
_PATTERNS = tuple((re.compile(rf"(?<![a-z0-9]){pattern}"), family) for pattern, family in _MODELS)

# Fitted. gpt-4o: a call and its result cost 5 besides the name, twice, once as it stands behind
# `functions.`, and the arguments, as compact JSON; 5 recordings and 4 published ones, all exact.
_PER_CHEAP_CALL = 5
# Several calls are one, of `multi_tool_use.parallel`, with all of them in its arguments: 12 besides these, by
# 3 recordings and 4 published ones, none below; 1 above for one pair, and 4 above for three calls.
_PER_PARALLEL_CALLS = 12
# A call and the text before it are two messages to a model with channels: not recorded, by the format.
_PER_TEXT_BEFORE_CALLS = 4

# What a hosted tool (web search, code interpreter) adds is not documented; one recording with web search
# has about 150 tokens for it, besides the 8,000 that OpenAI's price list names for what a search finds.
_PER_HOSTED_TOOL = 400


@functools.lru_cache(maxsize=256)
def family_of(model: str) -> ModelFamily:
    """The family by a model's name: dated, fine-tuned, with a provider's prefix, or an Azure deployment's.

    A name that tells nothing gets the rules that give the most tokens.
    """
    name = str(model).lower().removeprefix("ft:").rsplit("/", 1)[-1]
    return next((family for pattern, family in _PATTERNS if pattern.search(name)), _UNKNOWN)


def request_tokens(model: str, tools: Sequence[Tool] | None = None, *, has_instructions: bool = True) -> int:
    """What a request costs besides its messages, in tokens: the reply's opening and the tools' schemas.

    Never below the bill by what is known of it. `tool_choice` and `response_format` are not counted.

    Args:
        model: the model's name.
        tools: as chat completions or the Responses API take them.
        has_instructions: whether the prompt begins with a system or developer message.
    """
    family = family_of(model)
    return family.opening + _tools_tokens(family, tools, has_instructions=has_instructions)


def difference(model: str, message: Message) -> int:
    """What this model's bill for the message differs from `TiktokenCounter`'s count of it, in tokens.

    That is the counter by the family's own encoding. 0 for plain text, but for the channel of a reply.
    """
    if is_role_and_content(message):
        return family_of(model).channel if message.role == "assistant" else 0
    family = family_of(model)
    sent = provider_fields(message)
    calls, parts = _calls_of(sent), sent.get("content")
    total = _calls_correction(family, calls, has_text=bool(message.content)) if calls else 0
    if message.role == "assistant" and not calls and not is_item_without_role(sent):
        total += family.channel
    return total + (_parts_correction(family, parts) if isinstance(parts, list) else 0)


def prompt_tokens(model: str, messages: Iterable[MessageLike], tools: Sequence[Tool] | None = None) -> int:
    """What the provider bills for a whole prompt, in tokens.

    Exact for text with gpt-4o, gpt-4.1, gpt-4.5 and gpt-5; with tools mostly so, and rather above than
    below.

    Raises:
        InvalidMessage: the messages could not be sent.
    """
    parsed = parse_messages(messages)
    counter = TiktokenCounter(family_of(model).encoding)
    total = request_tokens(model, tools, has_instructions=False) - saved_by_instructions(
        model, tools, parsed[0]
    )
    return total + sum(counter.count(message) + difference(model, message) for message in parsed)


def saved_by_instructions(model: str, tools: Sequence[Tool] | None, first: Message) -> int:
    """What tools cost less where the prompt's first message is the system's or developer's, in tokens.

    They are written at its end, and need no message of their own.
    """
    if not tools or first.role not in ("system", "developer"):
        return 0
    family = family_of(model)
    alone, behind = (request_tokens(model, tools, has_instructions=given) for given in (False, True))
    if family.tools == family.tools_in_instructions:
        return alone - behind
    return alone - behind + _merged(TiktokenCounter(family.encoding), first.content or "")


def _merged(counter: TiktokenCounter, instructions: str) -> int:
    """1 where the instructions' end and the line break before the tools are one token, else 0."""
    return int(counter.count_text(f"{instructions}\n\n") == counter.count_text(instructions))


def _tools_tokens(family: ModelFamily, tools: Sequence[Tool] | None, *, has_instructions: bool) -> int:
    count_text = TiktokenCounter(family.encoding).count_text
    functions: list[Tool] = []
    total = 0
    for tool in tools or ():
        function = _function_of(tool)
        if function is not None:
            functions.append(function)
        else:
            total += _PER_HOSTED_TOOL + count_text(_json(tool))
        if isinstance(tool, Mapping) and tool.get("type") == "custom":  # a grammar, given as text
            total += count_text(_json(tool))
    if not functions:
        return total
    total += family.tools_in_instructions if has_instructions else family.tools
    if family.channel and not functions[0].get("description"):
        total -= 1  # 8 recordings of gpt-5-mini, with one tool that has none
    return total + count_text(rendered_functions(functions))


def _function_of(tool: object) -> Tool | None:
    """Name, description and parameters, whichever API's form they are in; None for a hosted tool."""
    if not isinstance(tool, Mapping):
        return None
    kind = tool.get("type", "function")
    inner = tool.get(kind) if kind in ("function", "custom") else None
    function = inner if isinstance(inner, Mapping) else tool
    if kind not in ("function", "custom") or "name" not in function:
        return None
    if kind == "custom":
        parameters = {"type": "object", "properties": {"input": {"type": "string"}}}
        return {**function, "parameters": parameters}
    return function


def _calls_of(sent: Mapping[str, object]) -> list[object]:
    calls = sent.get("tool_calls")
    if isinstance(calls, list) and calls:
        return calls
    if sent.get("function_call"):
        return [{"function": sent["function_call"]}]
    return [sent] if sent.get("type") == "function_call" else []


def _calls_correction(family: ModelFamily, calls: Sequence[object], *, has_text: bool) -> int:
    if family.channel and has_text:
        return _PER_TEXT_BEFORE_CALLS + family.channel
    found = (call.get("function", call) if isinstance(call, Mapping) else 0 for call in calls)
    functions = list(filter(_is_function, found))
    if not family.cheap_calls or has_text or len(functions) < len(calls):
        return 0
    count_text = TiktokenCounter(family.encoding).count_text
    counted = sum(
        PER_CALL + 2 * count_text(each["name"]) + count_text(each["arguments"]) for each in functions
    )
    if len(functions) > 1:
        return _PER_PARALLEL_CALLS + count_text(_parallel_arguments(functions)) - PER_SEVERAL_CALLS - counted
    name = functions[0]["name"]
    names = count_text(name) + count_text(f"functions.{name}") - count_text("functions")
    return _PER_CHEAP_CALL + names + count_text(_compact(functions[0]["arguments"])) - counted


def _parallel_arguments(functions: Sequence[Tool]) -> str:
    names = (_json(f"functions.{each['name']}") for each in functions)
    arguments = (_compact(each["arguments"]) for each in functions)
    uses = (f'{{"recipient_name":{n},"parameters":{a}}}' for n, a in zip(names, arguments, strict=True))
    return f'{{"tool_uses":[{",".join(uses)}]}}'


def _is_function(function: object) -> TypeGuard[Tool]:
    return isinstance(function, Mapping) and all(
        isinstance(function.get(key), str) for key in ("name", "arguments")
    )


def _compact(arguments: str) -> str:
    """JSON text without spaces between its parts; text that is none, as it is."""
    try:
        return json.dumps(json.loads(arguments), ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError):
        return arguments


def _parts_correction(family: ModelFamily, parts: Sequence[JSONValue]) -> int:
    """Images by the family's formula, and neighbouring texts as one: they are billed without a border."""
    total = 0
    counter = TiktokenCounter(family.encoding)
    for is_text, group in groupby(parts, is_text_part):
        run = list(group)
        if is_text and len(run) > 1:
            texts = [part["text"] for part in run]
            total += counter.count_text("".join(texts)) - sum(map(counter.count_text, texts))
        elif not is_text:
            total += sum(_image_correction(family, part) for part in run)
    return total


def _image_correction(family: ModelFamily, part: object) -> int:
    if not isinstance(part, Mapping) or part.get("type") not in ("image_url", "input_image"):
        return 0
    is_low, size = image_of(part)
    counted = _GPT_4O.image.tokens(size, is_low=is_low)
    return family.image.tokens(size, is_low=is_low) - counted


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        return repr(value)
