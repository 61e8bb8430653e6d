"""AsyncStore's methods for the calls of models, awaited. `help` shows the docstrings of Store's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenmem.arguments import Missing
from tokenmem.docstrings import documented_like
from tokenmem.messages.values import JSONObject
from tokenmem.models import CallStatus, LLMCall
from tokenmem.store_methods.base import AsyncBaseMethods
from tokenmem.store_methods.calls import CallMethods


@documented_like(CallMethods)
class AsyncCallMethods(AsyncBaseMethods):
    """AsyncStore's methods for the model calls of a conversation."""

    async def calls(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        limit: int | None = 100,
        newest_first: bool = False,
        missing: Missing = "error",
    ) -> list[LLMCall]:
        return await self._run(self._procedures.calls(conversation_id, after, limit, newest_first, missing))

    async def record_call(
        self,
        conversation_id: str,
        *,
        model: str,
        first_position: int | None = None,
        last_position: int | None = None,
        window_tokens: int | None = None,
        input_tokens: int | None = None,
        cached_tokens: int | None = None,
        cache_write_tokens: int | None = None,
        output_tokens: int | None = None,
        reasoning_tokens: int | None = None,
        reply_position: int | None = None,
        reply_messages: int | None = None,
        latency_ms: int | None = None,
        first_token_ms: int | None = None,
        finish_reason: str | None = None,
        status: CallStatus = "ok",
        error: str | None = None,
        request_id: str | None = None,
        api: str | None = None,
        token_limit: int | None = None,
        options: Mapping[str, object] | None = None,
        metadata: JSONObject | None = None,
        pinned: Sequence[int] | None = None,
        changes: Sequence[JSONObject] | None = None,
        instructions: str | None = None,
        tools: Sequence[JSONObject] | None = None,
    ) -> LLMCall:
        return await self._run(
            self._procedures.record_call(
                conversation_id,
                model=model,
                first_position=first_position,
                last_position=last_position,
                window_tokens=window_tokens,
                input_tokens=input_tokens,
                cached_tokens=cached_tokens,
                cache_write_tokens=cache_write_tokens,
                output_tokens=output_tokens,
                reasoning_tokens=reasoning_tokens,
                reply_position=reply_position,
                reply_messages=reply_messages,
                latency_ms=latency_ms,
                first_token_ms=first_token_ms,
                finish_reason=finish_reason,
                status=status,
                error=error,
                request_id=request_id,
                api=api,
                token_limit=token_limit,
                options=options,
                metadata=metadata,
                pinned=pinned,
                changes=changes,
                instructions=instructions,
                tools=tools,
            )
        )
