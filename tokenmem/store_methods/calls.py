"""Store's methods for the calls of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenmem.arguments import Missing
from tokenmem.messages.values import JSONObject
from tokenmem.models import CallStatus, LLMCall
from tokenmem.store_methods.base import BaseMethods


class CallMethods(BaseMethods):
    """Store's methods for the model calls of a conversation."""

    def calls(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        limit: int | None = 100,
        newest_first: bool = False,
        missing: Missing = "error",
    ) -> list[LLMCall]:
        """A page of the model calls of a conversation, in the order of their numbers.

        Args:
            conversation_id: the conversation.
            after: only those with a higher number.
            limit: how many at most; all of them where it is None.
            newest_first: the highest number first.
            missing: "empty" for [] where there is no such conversation.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
        """
        return self._run(self._procedures.calls(conversation_id, after, limit, newest_first, missing))

    def record_call(
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
        """Put a call on record that you have made yourself, as Chat does with its own.

        It gets the conversation's next call number. Its revision is the one that the conversation has now, so
        that `call_windows` goes on to show what the call sent when messages are edited later.

        Args:
            conversation_id: the conversation.
            model: the model that was asked.
            first_position: the first message of the window that was sent, besides the pinned ones; None or 0
                where there was none.
            last_position: the last one.
            window_tokens: what was sent, in tokens; None takes what the window's messages and the pinned ones
                cost by the conversation's counter.
            input_tokens: the provider's count of it, what came from a cache included.
            cached_tokens: how many of these came from its prompt cache.
            cache_write_tokens: how many were written to it.
            output_tokens: its count of the reply, reasoning included.
            reasoning_tokens: how many of these were spent on reasoning.
            reply_position: where the reply is stored, if you have stored it.
            reply_messages: how many messages it is, from there on; 1 unless given.
            latency_ms: from the request to the end of the reply, in milliseconds.
            first_token_ms: from the request to the first of the reply's text, in milliseconds.
            finish_reason: why the model stopped, in the provider's word.
            status: how the call ended: "ok", "error" (something broke), "refused" (the provider did not take
                the request as it was) or "cancelled".
            error: what went wrong, in a few words without the conversation's text.
            request_id: the provider's id of the request.
            api: the API that was asked.
            token_limit: the limit of the prompt, in tokens.
            options: the request's; those that are numbers, flags, None or names are kept, free text is not.
            metadata: whatever JSON object you want to keep with it, such as a trace's id.
            pinned: the positions of the pinned messages that were sent; None where that is not known.
            changes: what was sent otherwise than it is stored, as `[{"position": 3, "change": "left_out"}]`.
            instructions: what the model was told before the messages.
            tools: the tools' schemas.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            InvalidArgument: an argument is wrong, or the conversation has no such position; nothing was
                written.
        """
        return self._run(
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
