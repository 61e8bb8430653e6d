"""What is the same in every call of a chat: the model, the limits, instructions and tools."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tokenmem.arguments import checked_choice, checked_name, checked_number
from tokenmem.call_options import named_scalars
from tokenmem.chat.apis.completions import ChatCompletions
from tokenmem.chat.apis.function import Function
from tokenmem.chat.apis.interface import ModelAPI
from tokenmem.chat.apis.responses import Responses
from tokenmem.chat.endpoints import LearnedEndpoint, endpoint_of
from tokenmem.chat.options import OptionCheck
from tokenmem.chat.prompt import NO_RESULT
from tokenmem.chat.structured import ResponseFormat, structured
from tokenmem.counting.counters import TiktokenCounter, TokenCounter
from tokenmem.counting.model_rules import prompt_tokens, request_tokens
from tokenmem.edges import StartOn
from tokenmem.errors import InvalidArgument, InvalidMessage, UnknownTokenCounter
from tokenmem.messages.message import Message
from tokenmem.messages.values import JSONObject, check_json, check_text, dump_json
from tokenmem.operations.start_call import prompt_digest

API = Literal["chat", "responses"]
Stride = int | Literal["eighth"] | None
Oversized = Literal["refuse", "cut"]

_APIS: Mapping[str, type[ModelAPI]] = {"chat": ChatCompletions, "responses": Responses}
_API_NAMES: Mapping[type[ModelAPI], str] = {
    **{kind: name for name, kind in _APIS.items()},
    Function: "function",
}

_READ_OPTIONS = ("response_format", "text", "tool_choice")


def _take_any(options: Mapping[str, object]) -> None:
    """What a turn takes whose options are checked elsewhere."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a chat, checked.

    Attributes:
        api: how prompts are sent and replies read.
        model: the model's name.
        head: the parameters that are the same in every request.
        window_limit: what a window may cost, in tokens: the limit less instructions, tools and the reserve.
        extra: what is sent besides the window, in tokens.
        token_limit: what the caller gave, in tokens.
        stride: in tokens, or None.
        start_on: "step" or "turn".
        oversized_results: what happens to a tool result that no window holds.
        counter: counts new conversations, and what is not in one: the model's own encoding, or the store's.
        no_result_tokens: what the result of an unanswered call costs, in tokens.
        instructions: or None.
        tools_json: the tools' schemas, or None.
        digest: tells these instructions and tools from others; None where there are none.
        cache_key: whether requests tell the provider which of them share a prefix.
        new_beside_limit: the limit is for what was said before; new messages come on top.
        by_bill: the limit is the model's bill, whatever counter a conversation has: its encoding is known.
        as_counted: what is sent costs what the counter says, whatever the model: it is one text.
        endpoint: what is known of the endpoint, and learned of it.
        asks_again: whether a request that the endpoint has refused is mended and sent again.
        check_options: raises where options of a turn are not what the API takes.
        options: those of every request.
        api_name: by what name the API is on record.
        recorded_options: what is on record of the options, as JSON text; None where nothing is.
        response_format: the class of which every reply is to be an object, or None.
    """

    api: ModelAPI
    model: str
    head: JSONObject
    window_limit: int
    extra: int
    token_limit: int
    stride: int | None
    start_on: StartOn
    counter: TokenCounter
    oversized_results: Oversized = "refuse"
    no_result_tokens: int = 0
    instructions: str | None = None
    tools_json: str | None = None
    digest: str | None = None
    cache_key: bool = False
    new_beside_limit: bool = False
    by_bill: bool = True
    as_counted: bool = False
    endpoint: LearnedEndpoint = field(default_factory=LearnedEndpoint)
    asks_again: bool = True
    check_options: Callable[[Mapping[str, object]], None] = _take_any
    options: Mapping[str, object] = field(default_factory=dict)
    api_name: str | None = None
    recorded_options: str | None = None
    response_format: ResponseFormat | None = None

    def recorded(self, options: Mapping[str, object]) -> str | None:
        """What is on record of the options of a turn, those of the chat among them, as JSON text."""
        return recorded({**self.options, **options}) if options else self.recorded_options

    def option_tokens(self, options: Mapping[str, object]) -> int:
        """What the model reads of a turn's options, beyond those of the chat that they replace, in tokens."""
        replaced = {name: self.options[name] for name in options if name in self.options}
        return option_tokens(options, self.counter) - option_tokens(replaced, self.counter)


def recorded(options: Mapping[str, object]) -> str | None:
    """What is on record of a request's options, as JSON text; None where nothing is."""
    kept = named_scalars(options)
    return None if kept is None else dump_json(kept)


def settings_of(
    *,
    client: object,
    model: str,
    token_limit: int,
    instructions: str | None,
    tools: Sequence[Mapping[str, object]] | None,
    api: ModelAPI,
    reserve: int,
    stride: Stride,
    start_on: str,
    oversized_results: str,
    prompt_cache_key: bool,
    options: Mapping[str, object],
    store_counter: TokenCounter,
) -> Settings:
    """Check the arguments of a chat and count what is the same in every call.

    Raises:
        InvalidArgument: one is wrong, or instructions and tools leave no room for messages.
    """
    checked_name(model, "model")
    checked_number(token_limit, "token_limit", least=1)
    checked_number(reserve, "reserve")
    checked_choice(oversized_results, "oversized_results", ("refuse", "cut"))
    checked_choice(start_on, "start_on", ("step", "turn"))  # any message would cut calls from their results
    described = _checked_tools(tools)
    options, response_format = structured(api, options)
    check_options = OptionCheck(api, client)
    check_options(options)
    if described and isinstance(api, Function) and not _takes_tools(api, client):
        raise InvalidArgument("client is a function that takes no tools; give it a parameter `tools`")
    own = counter_of_model(model)
    counter = own or store_counter
    if instructions is None:
        extra = request_tokens(model, described or None, has_instructions=False)
    else:
        _check_instructions(instructions)
        system = Message.system(instructions)
        extra = prompt_tokens(model, [system], described) if own else request_tokens(model, described)
        extra += 0 if own else counter.count(system)
    extra += option_tokens(options, counter)
    window_limit = token_limit - reserve - extra
    if window_limit < 1:
        raise InvalidArgument(
            f"token_limit is {token_limit}; instructions and tools cost {extra} tokens of it, {reserve} are "
            f"reserved for the reply, and nothing is left for messages: raise token_limit"
        )
    head: JSONObject = {"model": model, **options}
    if described:
        head["tools"] = api.tools(described)
    if instructions is not None:
        head |= api.instructions(instructions)
    tools_json = dump_json(described) if described else None
    return Settings(
        api=api,
        model=model,
        head=head,
        window_limit=window_limit,
        extra=extra,
        token_limit=token_limit,
        stride=_stride(stride, window_limit),
        start_on="turn" if start_on == "turn" else "step",
        oversized_results="cut" if oversized_results == "cut" else "refuse",
        counter=counter,
        no_result_tokens=counter.count(Message.tool(NO_RESULT, tool_call_id="")),
        instructions=instructions,
        tools_json=tools_json,
        digest=prompt_digest(instructions, tools_json),
        cache_key=bool(prompt_cache_key) and api.takes_cache_key,
        by_bill=own is not None,
        endpoint=endpoint_of(client, described, has_instructions=instructions is not None),
        check_options=check_options,
        options=dict(options),
        api_name=name_of(api),
        recorded_options=recorded(options),
        response_format=response_format,
    )


def counter_of_model(model: str) -> TokenCounter | None:
    """The model's own encoding; None where tiktoken does not know the model."""
    try:
        return TiktokenCounter(model.rpartition("/")[2])
    except UnknownTokenCounter:
        return None


def api_of(api: object, client: object) -> ModelAPI:
    """How the client is spoken to: the API of this name, the caller's own, or, for a function, as one.

    Raises:
        InvalidArgument: there is no API of this name, or the caller's own lacks what every API has.
    """
    if isinstance(api, str):
        checked_choice(api, "api", tuple(_APIS))
        is_function = callable(client) and not hasattr(client, "chat")
        return Function() if is_function else _APIS[api]()
    if isinstance(api, ModelAPI) and not isinstance(api, type):
        return api
    raise InvalidArgument(
        f"api is {api!r:.60}; pass {' or '.join(map(repr, _APIS))}, or an object of a class derived from "
        f"tokenmem.chat.ModelAPI"
    )


def name_of(api: ModelAPI) -> str:
    """By what name an API is on record: that by which it is chosen, or its class's."""
    return _API_NAMES.get(type(api)) or type(api).__name__


def _takes_tools(api: ModelAPI, client: object) -> bool:
    accepted = api.accepted_options(client)
    return accepted is None or "tools" in accepted


def option_tokens(options: Mapping[str, object], counter: TokenCounter) -> int:
    """What the model reads of the options, in tokens: the schema of its reply, the tool that it has to call.

    The provider documents no price; their JSON text is taken for it.
    """
    read = [options[name] for name in _READ_OPTIONS if isinstance(options.get(name), Mapping)]
    return sum(counter.count(Message.user(json.dumps(value, default=str))) for value in read)


def _check_instructions(instructions: object) -> None:
    if not isinstance(instructions, str):
        raise InvalidArgument(f"instructions is a {type(instructions).__name__}; pass a string or None")
    try:
        check_text(instructions, "instructions")
    except InvalidMessage as error:
        raise InvalidArgument(str(error)) from None


def _checked_tools(tools: object) -> list[JSONObject]:
    if tools is None:
        return []
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise InvalidArgument(f"tools is a {type(tools).__name__}; pass a list of tools as OpenAI has them")
    described = []
    for index, tool in enumerate(tools):
        if not isinstance(tool, Mapping) or not isinstance(tool.get("type"), str):
            raise InvalidArgument(
                f'tools[{index}] is no tool; pass {{"type": "function", "function": {{…}}}}'
            )
        check_json(dict(tool), f"tools[{index}]")
        described.append(copy.deepcopy(dict(tool)))
    return described


def _stride(stride: object, window_limit: int) -> int | None:
    if stride is None:
        return None
    if stride == "eighth":
        return max(window_limit // 8, 1)
    return checked_number(stride, "stride", least=1)
