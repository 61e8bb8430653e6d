"""AsyncChat: the same, awaited."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from tokenmem.async_store import AsyncStore
from tokenmem.callables import is_async
from tokenmem.chat.apis.completions import ChatCompletions
from tokenmem.chat.apis.function import Function
from tokenmem.chat.apis.responses import Responses
from tokenmem.chat.base import BaseChat
from tokenmem.chat.chat import Chat
from tokenmem.chat.effects import StreamLeft, TurnProcedure, TurnWork, text_of, whole
from tokenmem.chat.open_turn import AsyncTurn
from tokenmem.chat.requests import UserMessage, user_messages
from tokenmem.chat.runners import AsyncModelRunner
from tokenmem.chat.tools import Functions, OnError, Results, result_messages
from tokenmem.docstrings import documented_like
from tokenmem.execution.effects import Deliver
from tokenmem.execution.runners import Execution, advance_async, run_async
from tokenmem.messages.values import JSONObject
from tokenmem.models import Reply

if TYPE_CHECKING:
    from openai import AsyncOpenAI  # noqa: F401 -- named in the class's bases

P = TypeVar("P")


@documented_like(Chat)
class AsyncChat(BaseChat[AsyncStore, "AsyncOpenAI"]):
    """A model that answers in the conversations of an AsyncStore. Everything is as for Chat, awaited.

    The client is an `openai.AsyncOpenAI`, or a function, `async` or plain: a plain one runs in a thread, for
    each piece that it yields too. A task that is cancelled records its call and what had arrived before it
    ends.
    """

    _is_async = True
    _store_type = AsyncStore

    async def send(
        self,
        conversation_id: str,
        message: UserMessage | None = None,
        *,
        idempotency_key: str | None = None,
        expected_position: int | None = None,
        call_metadata: JSONObject | None = None,
        **options: Any,
    ) -> Reply:
        request = self._request(
            conversation_id,
            user_messages(message, self._unstorable),
            options,
            idempotency_key=idempotency_key,
            expected_position=expected_position,
            call_metadata=call_metadata,
        )
        return await self._run(self._turns.turn(request))

    def stream(
        self,
        conversation_id: str,
        message: UserMessage | None = None,
        *,
        idempotency_key: str | None = None,
        expected_position: int | None = None,
        call_metadata: JSONObject | None = None,
        **options: Any,
    ) -> AsyncGenerator[str | Reply, None]:
        request = self._request(
            conversation_id,
            user_messages(message, self._unstorable),
            options,
            idempotency_key=idempotency_key,
            expected_position=expected_position,
            call_metadata=call_metadata,
            stream=True,
        )
        return self._stream(self._turns.turn(request), text_of)

    async def open(
        self,
        conversation_id: str,
        message: UserMessage | None = None,
        *,
        idempotency_key: str | None = None,
        expected_position: int | None = None,
        call_metadata: JSONObject | None = None,
        **options: Any,
    ) -> AsyncTurn:
        request = self._request(
            conversation_id,
            user_messages(message, self._unstorable),
            options,
            idempotency_key=idempotency_key,
            expected_position=expected_position,
            call_metadata=call_metadata,
            stream=True,
            opens=True,
        )
        parts = self._stream(self._turns.turn(request), whole)
        return AsyncTurn(await anext(parts), parts)

    async def send_tool_results(
        self,
        conversation_id: str,
        results: Results,
        *,
        idempotency_key: str | None = None,
        expected_position: int | None = None,
        call_metadata: JSONObject | None = None,
        **options: Any,
    ) -> Reply:
        request = self._request(
            conversation_id,
            result_messages(results, self._unstorable),
            options,
            idempotency_key=idempotency_key,
            expected_position=expected_position,
            call_metadata=call_metadata,
        )
        return await self._run(self._turns.answer_calls(request))

    def stream_tool_results(
        self,
        conversation_id: str,
        results: Results,
        *,
        idempotency_key: str | None = None,
        expected_position: int | None = None,
        call_metadata: JSONObject | None = None,
        **options: Any,
    ) -> AsyncGenerator[str | Reply, None]:
        request = self._request(
            conversation_id,
            result_messages(results, self._unstorable),
            options,
            idempotency_key=idempotency_key,
            expected_position=expected_position,
            call_metadata=call_metadata,
            stream=True,
        )
        return self._stream(self._turns.answer_calls(request), text_of)

    async def run(
        self,
        conversation_id: str,
        message: UserMessage | None = None,
        *,
        functions: Functions,
        max_calls: int = 10,
        on_error: OnError = "tell",
        idempotency_key: str | None = None,
        expected_position: int | None = None,
        call_metadata: JSONObject | None = None,
        **options: Any,
    ) -> Reply:
        request = self._request(
            conversation_id,
            user_messages(message, self._unstorable),
            options,
            idempotency_key=idempotency_key,
            expected_position=expected_position,
            call_metadata=call_metadata,
        )
        return await self._run(self._turns.run(request, functions, max_calls, on_error))

    def _runner(self) -> AsyncModelRunner:
        return AsyncModelRunner(self.store._runner, self._endpoint, blocking=self._blocks)

    @property
    def _blocks(self) -> bool:
        """Whether asking the model would block the event loop."""
        api = self._turns.settings.api
        if type(api) in (ChatCompletions, Responses):
            return False
        asked = self._client if isinstance(api, Function) else self._endpoint
        return not (callable(asked) and is_async(asked))

    async def _run(self, procedure: TurnProcedure[Reply]) -> Reply:
        async with self._runner() as runner:
            execution: Execution[TurnWork, Reply] = Execution(procedure)
            return await run_async(execution, runner)

    async def _stream(
        self, procedure: TurnProcedure[Reply], piece: Callable[[Deliver], P]
    ) -> AsyncGenerator[P | Reply, None]:
        execution: Execution[TurnWork, Reply] = Execution(procedure)
        with suppress(StreamLeft):
            async with self._runner() as runner:
                while (delivery := await advance_async(execution, runner)) is not None:
                    try:
                        yield piece(delivery)
                    except GeneratorExit:
                        execution.fail(StreamLeft())
                    except BaseException as error:
                        execution.fail(error)
            yield execution.result
