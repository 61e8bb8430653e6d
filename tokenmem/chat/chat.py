"""Chat: the window before every call of a model, and a record of what it saw."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from tokenmem.chat.base import BaseChat
from tokenmem.chat.effects import StreamLeft, TurnProcedure, TurnWork, text_of, whole
from tokenmem.chat.open_turn import Turn
from tokenmem.chat.requests import UserMessage, user_messages
from tokenmem.chat.runners import ModelRunner
from tokenmem.chat.tools import Functions, OnError, Results, result_messages
from tokenmem.execution.effects import Deliver
from tokenmem.execution.runners import Execution, advance, run
from tokenmem.messages.values import JSONObject
from tokenmem.models import Reply
from tokenmem.store import Store

if TYPE_CHECKING:
    from openai import OpenAI  # noqa: F401 -- named in the class's bases

P = TypeVar("P")


class Chat(BaseChat[Store, "OpenAI"]):
    """A model that answers in the conversations of a store.

    A turn reads what is there, makes the prompt of it, and stores the user's message and the call if nothing
    has changed meanwhile; the model is asked with no connection held; its reply is stored and ends the call.
    A call that fails or is cancelled leaves the user's message, its record in `llm_calls`, and, when
    streaming, the part that had arrived.

    One chat serves all threads of a process.

    Args:
        store: where the conversations are; not one that is bound to a connection.
        client: an `openai.OpenAI`, whatever its base_url; or a function that takes OpenAI chat messages and
            returns one, or its text, or yields the text in pieces; or what an `api` of your own takes.
            Without one: OpenAI(), which reads OPENAI_API_KEY and OPENAI_BASE_URL.
        model: the model's name; for a function any name, by which `llm_calls` knows it.
        token_limit: what a prompt may cost, in tokens: instructions, tools and messages together.
        instructions: what the model is told before the messages.
        tools: the tools that it may call, as either of OpenAI's APIs describes them.
        api: "chat" for Chat Completions, "responses" for the Responses API, or for another provider's a
            `tokenmem.chat.ModelAPI` of your own.
        reserve: how many tokens of the limit to leave for the reply.
        stride: the window's start moves in steps of this many tokens, so that prompts share their beginning
            and the provider's prompt cache serves it: "eighth" of what messages may cost; None moves it with
            every message.
        start_on: where windows may start: at a "step" (never between a call and its results) or at a "turn".
        oversized_results: what to do with tool results that no window holds: "refuse" them with
            WindowTooSmall, or "cut" them, with a mark.
        prompt_cache_key: send the provider a key for each conversation, by which its cache is found.
        **options: further parameters of every request, such as `temperature`; those that the client does not
            take are refused. As `response_format` a pydantic class is taken too: its JSON schema is sent, and
            `reply.parsed` is the object.

    Raises:
        InvalidArgument: an argument is wrong, or instructions and tools leave no room for messages.
    """

    _is_async = False
    _store_type = Store

    def send(
        self,
        conversation_id: str,
        message: UserMessage | None = None,
        *,
        idempotency_key: str | None = None,
        expected_position: int | None = None,
        call_metadata: JSONObject | None = None,
        **options: Any,
    ) -> Reply:
        """Store what the user says, ask the model, and return its stored reply.

        Args:
            conversation_id: the conversation; a new id makes a new one.
            message: a text, content parts, or a message; None asks the model with what is there.
            idempotency_key: a repeated request with the same key neither stores nor calls twice: it returns
                the stored reply, waits for it where it is still being made, and asks again where that failed.
            expected_position: the last position that the caller has seen, 0 for a new conversation: of two
                that answer the same state, one is refused.
            call_metadata: whatever JSON object is to stand on the call's record, such as a trace's id.
            **options: further parameters of this request; see Chat.

        Raises:
            InvalidMessage: the message cannot be stored; nothing was written.
            InvalidArgument: another argument is wrong; nothing was written.
            WindowTooSmall: it does not fit the limit; nothing was written.
            ConversationNotFound: the conversation is another owner's, or was deleted meanwhile.
            IdempotencyConflict: the key has stored another message.
            PositionConflict: the conversation is not at expected_position; or what the key has stored is
                gone, or has no reply and something else stands behind it. Nothing was written, nobody asked.
            ModelError: the answer is none, or was not complete.
            Whatever the client raises, unchanged; the call is recorded.
        """
        request = self._request(
            conversation_id,
            user_messages(message, self._unstorable),
            options,
            idempotency_key=idempotency_key,
            expected_position=expected_position,
            call_metadata=call_metadata,
        )
        return self._run(self._turns.turn(request))

    def stream(
        self,
        conversation_id: str,
        message: UserMessage | None = None,
        *,
        idempotency_key: str | None = None,
        expected_position: int | None = None,
        call_metadata: JSONObject | None = None,
        **options: Any,
    ) -> Generator[str | Reply, None, None]:
        """As `send`, but yield the text as it comes, piece by piece, and then the Reply.

        Who stops reading cancels the call: close the iterator, as leaving a `for` loop with an exception or
        forgetting it does. What closes an AsyncChat's at once is `contextlib.aclosing`.
        """
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

    def open(
        self,
        conversation_id: str,
        message: UserMessage | None = None,
        *,
        idempotency_key: str | None = None,
        expected_position: int | None = None,
        call_metadata: JSONObject | None = None,
        **options: Any,
    ) -> Turn:
        """As `stream`, but raise what goes wrong before the model begins to answer, and only then return.

        When it returns the message is stored and the first event of the model's stream has come: whatever
        `send` raises until then is raised here, where a backend has not yet sent a status of its own. What
        comes is read from the turn.
        """
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
        return Turn(self._stream(self._turns.turn(request), whole))

    def send_tool_results(
        self,
        conversation_id: str,
        results: Results,
        *,
        idempotency_key: str | None = None,
        expected_position: int | None = None,
        call_metadata: JSONObject | None = None,
        **options: Any,
    ) -> Reply:
        """Store the results of the tools that the model has called, ask it again, and return its reply.

        Args:
            conversation_id: the conversation.
            results: for every call its result, `{call.id: result}` or messages of the role tool. What is not
                a text is sent as JSON.
            idempotency_key: as for `send`.
            expected_position: as for `send`.
            call_metadata: as for `send`.
            **options: further parameters of this request.

        Raises:
            InvalidArgument: a result answers no open call, or a call of the newest reply has none; nothing
                was written.
            WindowTooSmall: the results do not fit the limit, and are not to be cut; nothing was written.
            What `send` raises.
        """
        request = self._request(
            conversation_id,
            result_messages(results, self._unstorable),
            options,
            idempotency_key=idempotency_key,
            expected_position=expected_position,
            call_metadata=call_metadata,
        )
        return self._run(self._turns.answer_calls(request))

    def stream_tool_results(
        self,
        conversation_id: str,
        results: Results,
        *,
        idempotency_key: str | None = None,
        expected_position: int | None = None,
        call_metadata: JSONObject | None = None,
        **options: Any,
    ) -> Generator[str | Reply, None, None]:
        """As `send_tool_results`, but yield the text as it comes, and then the Reply."""
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

    def run(
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
        """As `send`, then call the functions that the model asks for until it asks for none.

        An AsyncChat calls the functions of one reply at the same time, those that are not async in threads.

        Args:
            conversation_id: the conversation.
            message: as for `send`.
            functions: by the tool's name; each gets the arguments by name.
            max_calls: how often the model is asked at most.
            on_error: "tell" the model what a function raised, or "raise" it; the model is also told where it
                calls a function that is not there or writes arguments that are no JSON object.
            idempotency_key: as for `send`, for all of it; a function may run again where the process died
                before its result was stored, or where the request is repeated while it runs.
            expected_position: as for `send`.
            call_metadata: as for `send`, on the record of each call.
            **options: further parameters of every request.

        Raises:
            TooManyModelCalls: the model still calls tools; all that was said is stored.
            What `send` and `send_tool_results` raise.
        """
        request = self._request(
            conversation_id,
            user_messages(message, self._unstorable),
            options,
            idempotency_key=idempotency_key,
            expected_position=expected_position,
            call_metadata=call_metadata,
        )
        return self._run(self._turns.run(request, functions, max_calls, on_error))

    def _runner(self) -> ModelRunner:
        return ModelRunner(self.store._runner, self._endpoint)

    def _run(self, procedure: TurnProcedure[Reply]) -> Reply:
        with closing(self._runner()) as runner:
            execution: Execution[TurnWork, Reply] = Execution(procedure)
            return run(execution, runner)

    def _stream(
        self, procedure: TurnProcedure[Reply], piece: Callable[[Deliver], P]
    ) -> Generator[P | Reply, None, None]:
        execution: Execution[TurnWork, Reply] = Execution(procedure)
        with closing(self._runner()) as runner, suppress(StreamLeft):
            while (delivery := advance(execution, runner)) is not None:
                try:
                    yield piece(delivery)
                except GeneratorExit:
                    execution.fail(StreamLeft())
                except BaseException as error:
                    execution.fail(error)
            yield execution.result
