"""What Chat and AsyncChat have in common: how they are set up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar, overload

from tokenmem.arguments import checked_metadata
from tokenmem.async_store import AsyncStore
from tokenmem.callables import is_async
from tokenmem.chat.apis.interface import Endpoint, ModelAPI
from tokenmem.chat.clients import opened
from tokenmem.chat.requests import TurnRequest
from tokenmem.chat.settings import API, Oversized, Stride, api_of, settings_of
from tokenmem.chat.structured import structured
from tokenmem.chat.tools import ResultTurns
from tokenmem.errors import InvalidArgument
from tokenmem.execution.runners import AsyncBoundRunner, BoundRunner
from tokenmem.execution.transactions import AsyncTransactionRunner
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import Unstorable
from tokenmem.messages.values import JSONObject, dump_json
from tokenmem.store import Store

S = TypeVar("S", Store, AsyncStore)
OpenAIClient = TypeVar("OpenAIClient")


class BaseChat(Generic[S, OpenAIClient]):
    """A chat's store, client and settings; see Chat."""

    _is_async: ClassVar[bool]
    _store_type: ClassVar[type[Store] | type[AsyncStore]]
    _bound_types: ClassVar[tuple[type, ...]] = (BoundRunner, AsyncBoundRunner, AsyncTransactionRunner)

    # Written twice because only an API of the caller's own knows what other clients there are.
    @overload
    def __init__(
        self,
        store: S,
        client: OpenAIClient | Callable[..., object] | None = None,
        model: str = ...,
        token_limit: int = ...,
        *,
        instructions: str | None = None,
        tools: Sequence[Mapping[str, object]] | None = None,
        api: API = ...,
        reserve: int = ...,
        stride: Stride = ...,
        start_on: Literal["step", "turn"] = ...,
        oversized_results: Oversized = ...,
        prompt_cache_key: bool = ...,
        **options: Any,
    ) -> None: ...

    @overload
    def __init__(
        self,
        store: S,
        client: object = None,
        model: str = ...,
        token_limit: int = ...,
        *,
        instructions: str | None = None,
        tools: Sequence[Mapping[str, object]] | None = None,
        api: ModelAPI,
        reserve: int = ...,
        stride: Stride = ...,
        start_on: Literal["step", "turn"] = ...,
        oversized_results: Oversized = ...,
        prompt_cache_key: bool = ...,
        **options: Any,
    ) -> None: ...

    def __init__(
        self,
        store: S,
        client: object = None,
        model: str = "gpt-4o",
        token_limit: int = 8000,
        *,
        instructions: str | None = None,
        tools: Sequence[Mapping[str, object]] | None = None,
        api: API | ModelAPI = "chat",
        reserve: int = 0,
        stride: Stride = "eighth",
        start_on: Literal["step", "turn"] = "step",
        oversized_results: Oversized = "refuse",
        prompt_cache_key: bool = True,
        **options: Any,
    ) -> None:
        if not isinstance(store, self._store_type):
            needed = self._store_type.__name__
            raise InvalidArgument(
                f"store is a {type(store).__name__}; a {type(self).__name__} needs a {needed}"
            )
        if isinstance(store._runner, self._bound_types):
            raise InvalidArgument(
                "the store is bound to a connection, which would be held while the model thinks; "
                "pass the store itself"
            )
        spoken = api_of(api, client)
        if spoken is api:
            if not self._is_async and is_async(spoken.endpoint(client)):
                raise InvalidArgument(f"{type(spoken).__name__} can only be awaited; use AsyncChat")
        else:
            client = opened(client, is_async=self._is_async)
        self._client = client
        settings = settings_of(
            client=client,
            model=model,
            token_limit=token_limit,
            instructions=instructions,
            tools=tools,
            api=spoken,
            reserve=reserve,
            stride=stride,
            start_on=start_on,
            oversized_results=oversized_results,
            prompt_cache_key=prompt_cache_key,
            options=options,
            store_counter=store._procedures.counter,
        )
        self.store: S = store
        self._turns = ResultTurns(store._procedures, settings)

    def for_owner(self, owner: str) -> Self:
        """The same chat with one owner's conversations only; others' do not exist in it."""
        other = object.__new__(type(self))
        other.store = self.store.for_owner(owner)
        other._client = self._client
        other._turns = ResultTurns(other.store._procedures, self._turns.settings)
        return other

    def _request(
        self,
        conversation_id: str,
        messages: Sequence[Message],
        options: Mapping[str, object],
        *,
        idempotency_key: str | None,
        expected_position: int | None,
        call_metadata: JSONObject | None,
        stream: bool = False,
        opens: bool = False,
    ) -> TurnRequest:
        """What is asked of a turn, checked before anything is counted, stored or iterated.

        Raises:
            InvalidArgument: one of them is wrong.
        """
        given = checked_metadata(call_metadata, "call_metadata")
        chosen = self._turns.settings
        options, wanted = structured(chosen.api, options, chosen.options, chosen.response_format)
        request = TurnRequest(
            conversation_id,
            messages,
            idempotency_key,
            expected_position,
            options,
            stream=stream,
            opens=opens,
            metadata=None if given is None else dump_json(given),
            response_format=wanted,
        )
        chosen.check_options(options)
        return request

    @property
    def _unstorable(self) -> Unstorable:
        """What the store does about characters that databases cannot hold."""
        return self._turns.procedures.unstorable

    @property
    def _endpoint(self) -> Endpoint:
        """What sends a request to the model."""
        return self._turns.settings.api.endpoint(self._client)
