"""Store: conversations in a SQL database."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import Self, TypeVar

import sqlalchemy as sa

from tokenmem.counting.counters import DEFAULT_COUNTER, TokenCounter
from tokenmem.database.engine import (
    check_connection,
    default_schema,
    open_engine,
    single_statement_engine,
)
from tokenmem.database.statements import Scope
from tokenmem.database.urls import default_url, redacted
from tokenmem.edges import StartOn
from tokenmem.execution.effects import Procedure, Work
from tokenmem.execution.runners import BoundRunner, EngineRunner, Execution, Runner, run
from tokenmem.messages.json_lines import ConversationLine
from tokenmem.messages.message import Message
from tokenmem.messages.parsing import MessageLike
from tokenmem.messages.values import JSONObject
from tokenmem.models import Appended, Conversation, LLMCall, Problem, Purged, Window
from tokenmem.procedures import Procedures, resolve_counter

T = TypeVar("T")


class Store:
    """Conversations in a SQL database.

    One store serves all threads of a process, and the processes forked from it. Every method raises
    `DatabaseUnavailable` where the database cannot be reached, and `SchemaOutOfDate` where `upgrade` has
    not been run; what else it raises it says.

    Args:
        url: `sqlite:///file.db`, `postgresql+psycopg://…`, or an Engine of your own, which `close` leaves
            open. Without one: the environment variable TOKENMEM_URL, else `sqlite:///tokenmem.db`.
        counter: the token counter of new conversations: a name ("o200k_base", "cl100k_base", a model's
            name) or an object of your own. A conversation keeps the counter that it began with.
        schema: the PostgreSQL schema, "tokenmem" unless given.

    Raises:
        InvalidArgument: the URL or the schema is wrong.
        UnknownTokenCounter: no counter has this name.
    """

    def __init__(
        self,
        url: str | sa.URL | sa.Engine | None = None,
        *,
        counter: str | TokenCounter = DEFAULT_COUNTER,
        schema: str | None = None,
    ) -> None:
        self._engine = open_engine(default_url() if url is None else url)
        self._owns_engine = not isinstance(url, sa.Engine)
        single = single_statement_engine(self._engine, own=self._owns_engine)
        self._connections = EngineRunner(self._engine, single)
        self._runner: Runner = self._connections
        scope = Scope(default_schema(self._engine.dialect.name, schema))
        self._procedures = Procedures(resolve_counter(counter), scope)

    def append(
        self,
        conversation_id: str,
        messages: Iterable[MessageLike],
        *,
        owner: str | None = None,
        idempotency_key: str | None = None,
        expected_position: int | None = None,
        counter: str | TokenCounter | None = None,
        title: str | None = None,
        metadata: JSONObject | None = None,
    ) -> Appended:
        """Store messages behind the conversation's last, all or none; a new id makes a new conversation.

        Args:
            conversation_id: the application's own id, 1 to 255 characters.
            messages: OpenAI chat messages as dicts, Messages, or messages as the openai package returns them.
            owner: the user or tenant whose conversation it is.
            idempotency_key: a retry with the same key stores nothing and returns what the first one stored.
            expected_position: the last position that the caller has seen; 0 for a new conversation.
            counter: the token counter of a new conversation, in place of the store's.
            title: of a new conversation.
            metadata: of a new conversation.

        Raises:
            InvalidMessage: a message cannot be stored; nothing was written.
            InvalidArgument: another argument is wrong; nothing was written.
            ConversationNotFound: the conversation is another owner's.
            PositionConflict: the conversation is not at expected_position.
            IdempotencyConflict: the key has stored other messages.
            UnknownTokenCounter: the conversation's counter is not known here.
        """
        return self._run(
            self._procedures.append(
                conversation_id,
                messages,
                owner=owner,
                idempotency_key=idempotency_key,
                expected_position=expected_position,
                counter=counter,
                title=title,
                metadata=metadata,
            )
        )

    def import_conversations(
        self,
        conversations: Iterable[ConversationLine],
        *,
        owner: str | None = None,
        counter: str | TokenCounter | None = None,
        idempotency_key: str | None = None,
    ) -> list[Appended | None]:
        """Store whole conversations whose ids are new, all of them or, after an error, none.

        In one transaction, and several times as fast a message as `append`; some thousand messages at a time
        are a good measure. `tokenmem.messages.parse_line` makes conversations of lines of JSON.

        Args:
            conversations: what to store.
            owner: of those that name none.
            counter: of all of them, in place of what each names, or the store's.
            idempotency_key: the key of each: an `append` of the same messages with it stores nothing again.

        Returns:
            For each what was stored, or None where the id is taken.

        Raises:
            InvalidMessage: a message cannot be stored; nothing was written.
            InvalidArgument: another argument is wrong; nothing was written.
            UnknownTokenCounter: no counter has a name that one of them gives.
        """
        return self._run(
            self._procedures.import_conversations(conversations, owner, counter, idempotency_key)
        )

    def window(
        self,
        conversation_id: str,
        token_limit: int,
        start_on: StartOn = "step",
        stride: int | None = None,
    ) -> Window:
        """The newest messages that fit the limit, behind the pinned ones; at a cost that the conversation's
        length does not change.

        Args:
            conversation_id: the conversation.
            token_limit: what they may cost together, in tokens.
            start_on: where the window may start: at any "message", at a "step" (never between a tool call
                and its results), or at a "turn" (a user's message; a step where no turn fits).
            stride: move the start in steps of this many tokens, so that prompts share their beginning.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            WindowTooSmall: nothing fits.
            InvalidArgument: an argument is wrong.
        """
        return self._run(self._procedures.window(conversation_id, token_limit, start_on, stride))

    def messages(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int | None = 100,
        newest_first: bool = False,
    ) -> list[Message]:
        """A page of messages, with after < position < before; all of them where limit is None.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
        """
        return self._run(self._procedures.messages(conversation_id, after, before, limit, newest_first))

    def calls(
        self,
        conversation_id: str,
        *,
        after: int | None = None,
        limit: int | None = 100,
        newest_first: bool = False,
    ) -> list[LLMCall]:
        """A page of the model calls of a conversation, in the order of their numbers.

        Args:
            conversation_id: the conversation.
            after: only those with a higher number.
            limit: how many at most; all of them where it is None.
            newest_first: the highest number first.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
        """
        return self._run(self._procedures.calls(conversation_id, after, limit, newest_first))

    def conversation(self, conversation_id: str) -> Conversation:
        """The conversation's own row, without its messages.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
        """
        return self._run(self._procedures.conversation(conversation_id))

    def conversations(
        self, *, owner: str | None = None, after: str | None = None, limit: int | None = 100
    ) -> list[Conversation]:
        """A page of conversations in the order of their ids, from behind the id `after`."""
        return self._run(self._procedures.conversations(owner, after, limit))

    def update(
        self, conversation_id: str, *, title: str | None = None, metadata: JSONObject | None = None
    ) -> Conversation:
        """Set the title, the metadata, or both; what is None stays.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
        """
        return self._run(self._procedures.update(conversation_id, title, metadata))

    def edit(
        self, conversation_id: str, position: int, message: MessageLike, *, pinned: bool | None = None
    ) -> Message:
        """Put another message in the place of the one at a position.

        Args:
            conversation_id: the conversation.
            position: where.
            message: what is to stand there; a pinned place stays pinned.
            pinned: pin or unpin it.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            InvalidArgument: there is no message at the position.
            InvalidMessage: the message cannot be stored; nothing was written.
        """
        return self._run(self._procedures.edit(conversation_id, position, message, pinned))

    def delete_message(self, conversation_id: str, position: int) -> None:
        """Remove one message; its position is not given again.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            InvalidArgument: there is no message at the position.
        """
        return self._run(self._procedures.delete_message(conversation_id, position))

    def truncate(self, conversation_id: str, *, after: int) -> int:
        """Remove the messages behind a position and return how many; their positions are not given again.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
        """
        return self._run(self._procedures.truncate(conversation_id, after))

    def fork(self, conversation_id: str, new_id: str, *, at: int | None = None) -> Conversation:
        """Copy a conversation up to a position, that included, under a new id.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            InvalidArgument: it has no such position, or the new id is taken.
        """
        return self._run(self._procedures.fork(conversation_id, new_id, at))

    def delete(self, conversation_id: str) -> None:
        """Remove a conversation and all that belongs to it.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
        """
        return self._run(self._procedures.delete(conversation_id))

    def delete_owner(self, owner: str) -> int:
        """Remove all of an owner's conversations, in one transaction, and return how many there were."""
        return self._run(self._procedures.delete_owner(owner))

    def purge(self, *, older_than: timedelta, dry_run: bool = False) -> Purged:
        """In each conversation, delete every message before the first one newer than `older_than`.

        Pinned messages go too. A conversation that holds nothing newer, and has not changed since, goes as a
        whole.

        Args:
            older_than: how old a message may be, by the database's clock.
            dry_run: count what would be deleted, and delete nothing.
        """
        return self._run(self._procedures.purge(older_than, dry_run))

    def recount(self, conversation_id: str, counter: str | TokenCounter) -> Conversation:
        """Count a conversation anew by another counter, which it keeps from then on; all of it or nothing.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            UnknownTokenCounter: no counter has this name.
        """
        return self._run(self._procedures.recount(conversation_id, counter))

    def verify(self) -> list[Problem]:
        """Every place where stored totals, counts and positions do not agree; empty where all do."""
        return self._run(self._procedures.verify())

    def upgrade(self, revision: str = "head") -> None:
        """Create the tables, or migrate them; safe when many processes start at once.

        Where a newer tokenmem has migrated them and this one works on them, nothing is done, with a
        RuntimeWarning.

        Raises:
            SchemaOutOfDate: there is no such revision, or only a newer tokenmem works on the database.
        """
        return self._run(self._procedures.upgrade(revision, own_file=self._owns_engine))

    def bind(self, connection: sa.Connection) -> Self:
        """A store that works on your connection, inside your transaction: you commit or roll back.

        The connection of a Store is a Connection, that of an AsyncStore an AsyncConnection.

        A write that fails leaves your transaction as it was before that write. On SQLite the first write
        takes the file's write lock, and fails if your transaction has read before and another has written.

        Raises:
            InvalidArgument: the connection is of another kind of database.
        """
        check_connection(connection, sa.Connection, self._engine)
        return self._with(BoundRunner(connection), self._procedures)

    def for_owner(self, owner: str) -> Self:
        """A store in which every statement carries the owner: others' conversations do not exist in it."""
        return self._with(self._runner, self._procedures.for_owner(owner))

    @property
    def engine(self) -> sa.Engine:
        """The engine beneath: for transactions of your own, to `bind` to."""
        return self._engine

    def close(self) -> None:
        """Close the connections, unless the Engine is your own."""
        if self._owns_engine:
            self._connections.dispose()

    def _with(self, runner: Runner, procedures: Procedures) -> Self:
        other = object.__new__(type(self))
        other._engine, other._owns_engine = self._engine, False
        other._connections = self._connections
        other._runner, other._procedures = runner, procedures
        return other

    def _run(self, procedure: Procedure[T]) -> T:
        execution: Execution[Work, T] = Execution(procedure)
        return run(execution, self._runner)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {redacted(self._engine.url)}>"
