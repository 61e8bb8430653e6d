"""AsyncChat: the same, awaited."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tokenmem.async_store import AsyncStore
from tokenmem.callables import is_async
from tokenmem.chat.apis.completions import ChatCompletions
from tokenmem.chat.apis.function import Function
from tokenmem.chat.apis.responses import Responses
from tokenmem.chat.asked import UserMessage, answered_with, asked_with
from tokenmem.chat.base import BaseChat
from tokenmem.chat.chat import Chat
from tokenmem.chat.effects import StreamLeft
from tokenmem.chat.runners import AsyncModelRunner
from tokenmem.chat.tools import Functions, OnError, Results
from tokenmem.docstrings import documented_like
from tokenmem.execution.effects import Procedure
from tokenmem.execution.runners import AsyncBoundRunner, Execution, advance_async, run_async
from tokenmem.models import Reply

if TYPE_CHECKING:
    from openai import AsyncOpenAI  # noqa: F401 -- named in the class's bases


@documented_like(Chat)
class AsyncChat(BaseChat[AsyncStore, "AsyncOpenAI"]):
    """A model that answers in the conversations of an AsyncStore. Everything is as for Chat, awaited.

    The client is an `openai.AsyncOpenAI`, or a function, `async` or plain: a plain one runs in a thread, for
    each piece that it yields too. A task that is cancelled records its call and what had arrived before it
    ends.
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
        **options: Any,
    ) -> Reply:
        return await self._run(
            self._turns.turn(asked_with(conversation_id, message, idempotency_key, options))
        )

    def stream(
        self,
        conversation_id: str,
        message: UserMessage | None = None,
        *,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> AsyncGenerator[str | Reply, None]:
        asked = asked_with(conversation_id, message, idempotency_key, options, stream=True)
        return self._stream(self._turns.turn(asked))

    async def send_tool_results(
        self,
        conversation_id: str,
        results: Results,
        *,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Reply:
        asked = answered_with(conversation_id, results, idempotency_key, options)
        return await self._run(self._turns.answer_calls(asked))

    def stream_tool_results(
        self,
        conversation_id: str,
        results: Results,
        *,
        idempotency_key: str | None = None,
        **options: Any,
    ) -> AsyncGenerator[str | Reply, None]:
        asked = answered_with(conversation_id, results, idempotency_key, options, stream=True)
        return self._stream(self._turns.answer_calls(asked))

    async def run(
        self,
        conversation_id: str,
        message: UserMessage | None = None,
        *,
        functions: Functions,
        max_calls: int = 10,
        on_error: OnError = "tell",
        idempotency_key: str | None = None,
        **options: Any,
    ) -> Reply:
        asked = asked_with(conversation_id, message, idempotency_key, options)
        return await self._run(self._turns.run(asked, functions, max_calls, on_error))

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

    async def _run(self, procedure: Procedure[Reply]) -> Reply:
        async with self._runner() as runner:
            return await run_async(procedure, runner)

    async def _stream(self, procedure: Procedure[Reply]) -> AsyncGenerator[str | Reply, None]:
        execution = Execution(procedure)
        with suppress(StreamLeft):
            async with self._runner() as runner:
                while (delivery := await advance_async(execution, runner)) is not None:
                    try:
                        yield delivery.value
                    except GeneratorExit:
                        execution.fail(StreamLeft())
                    except BaseException as error:
                        execution.fail(error)
            yield execution.result
