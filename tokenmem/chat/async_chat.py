"""AsyncChat: the same, awaited."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from tokenmem.async_store import AsyncStore
from tokenmem.callables import is_async
from tokenmem.chat.base import BaseChat
from tokenmem.chat.effects import StreamLeft, TurnProcedure, TurnWork
from tokenmem.chat.requests import TurnRequest, UserMessage, user_messages
from tokenmem.chat.runners import AsyncModelRunner
from tokenmem.chat.tools import Functions, OnError, Results, result_messages
from tokenmem.execution.runners import AsyncBoundRunner, Execution, advance_async, run_async
from tokenmem.models import Reply


class AsyncChat(BaseChat[AsyncStore]):
    """A model that answers in the conversations of an AsyncStore. Everything is as for Chat, awaited.

    The client is an `openai.AsyncOpenAI`, or a function, plain (it runs in a thread) or `async`. A task that
    is cancelled records its call and what had arrived before it ends.
    """

    _is_async = True
    _store_type = AsyncStore
    _bound_type = AsyncBoundRunner

    async def send(
        self,
        conversation_id: str,
        message: UserMessage | None = None,
        *,
        idempotency_key: str | None = None,
        expected_position: int | None = None,
        **options: Any,
    ) -> Reply:
        """See Chat.send."""
        request = TurnRequest(
            conversation_id, user_messages(message), idempotency_key, expected_position, options
        )
        return await self._run(self._turns.turn(request))

    def stream(
        self,
        conversation_id: str,
        message: UserMessage | None = None,
        *,
        idempotency_key: str | None = None,
        expected_position: int | None = None,
        **options: Any,
    ) -> AsyncGenerator[str | Reply, None]:
        """See Chat.stream; who leaves the loop early closes it, with contextlib.aclosing."""
        request = TurnRequest(
            conversation_id, user_messages(message), idempotency_key, expected_position, options, stream=True
        )
        return self._stream(self._turns.turn(request))

    async def send_tool_results(
        self,
        conversation_id: str,
        results: Results,
        *,
        idempotency_key: str | None = None,
        expected_position: int | None = None,
        **options: Any,
    ) -> Reply:
        """See Chat.send_tool_results."""
        request = TurnRequest(
            conversation_id, result_messages(results), idempotency_key, expected_position, options
        )
        return await self._run(self._turns.answer_calls(request))

    def stream_tool_results(
        self,
        conversation_id: str,
        results: Results,
        *,
        idempotency_key: str | None = None,
        expected_position: int | None = None,
        **options: Any,
    ) -> AsyncGenerator[str | Reply, None]:
        """See Chat.stream_tool_results."""
        messages = result_messages(results)
        request = TurnRequest(
            conversation_id, messages, idempotency_key, expected_position, options, stream=True
        )
        return self._stream(self._turns.answer_calls(request))

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
        **options: Any,
    ) -> Reply:
        """See Chat.run; the functions of one reply run at once, those that are not async in threads."""
        request = TurnRequest(
            conversation_id, user_messages(message), idempotency_key, expected_position, options
        )
        return await self._run(self._turns.run(request, functions, max_calls, on_error))

    def _runner(self) -> AsyncModelRunner:
        return AsyncModelRunner(self.store._runner, self._endpoint, blocking=self._blocks)

    @property
    def _blocks(self) -> bool:
        return not (hasattr(self._client, "chat") or is_async(self._client))

    async def _run(self, procedure: TurnProcedure[Reply]) -> Reply:
        async with self._runner() as runner:
            execution: Execution[TurnWork, Reply] = Execution(procedure)
            return await run_async(execution, runner)

    async def _stream(self, procedure: TurnProcedure[Reply]) -> AsyncGenerator[str | Reply, None]:
        execution: Execution[TurnWork, Reply] = Execution(procedure)
        with suppress(StreamLeft):
            async with self._runner() as runner:
                while (delivery := await advance_async(execution, runner)) is not None:
                    try:
                        yield delivery.text
                    except GeneratorExit:
                        execution.fail(StreamLeft())
                    except BaseException as error:
                        execution.fail(error)
            yield execution.result
