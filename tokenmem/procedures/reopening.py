"""What a pickled store is: what it takes to open one like it, in this process or another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import sqlalchemy as sa

from tokenmem.counting.counters import TokenCounter
from tokenmem.database.connection_settings import ConnectionOptions
from tokenmem.database.urls import is_in_memory, redacted
from tokenmem.errors import InvalidArgument
from tokenmem.messages.parsing import Unstorable
from tokenmem.procedures import Procedures


class Options(TypedDict):
    """The arguments of both stores' constructors that are the same in both."""

    counter: TokenCounter
    schema: str | None
    keep_versions: bool
    unstorable: Unstorable
    pool_size: int | None
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Reopening:
    """A store in a pickle.

    Attributes:
        url: the database, with its password.
        connections: what the store's arguments say of its connections.
        counter: the counter of new conversations.
        schema: the PostgreSQL schema, None on SQLite.
        owner: whose conversations alone are there; None for all.
        keep_versions: whether edits keep what they replace.
        unstorable: what becomes of messages with characters that databases cannot hold.
    """

    url: sa.URL
    connections: ConnectionOptions
    counter: TokenCounter
    schema: str | None
    owner: str | None
    keep_versions: bool
    unstorable: Unstorable

    def options(self) -> Options:
        """What the store's constructor takes besides the URL."""
        return {
            "counter": self.counter,
            "schema": self.schema,
            "keep_versions": self.keep_versions,
            "unstorable": self.unstorable,
            "pool_size": self.connections.pool_size,
            "timeout": self.connections.timeout,
        }

    def with_owner(self, procedures: Procedures) -> Procedures:
        """The new store's procedures, for the owner where there is one."""
        return procedures if self.owner is None else procedures.for_owner(self.owner)


def reopening_of(
    url: sa.URL | None, connections: ConnectionOptions, procedures: Procedures, *, is_bound: bool
) -> Reopening:
    """What a store is pickled as.

    Args:
        url: what it was opened on; None for an Engine of the caller's.
        connections: what its arguments say of its connections.
        procedures: the store's.
        is_bound: whether it works on a connection of the caller's or in a transaction.

    Raises:
        InvalidArgument: another process could not use it.
    """
    if is_bound:
        raise InvalidArgument(
            "this store is bound to a connection, which cannot be pickled; pickle the store that it was made "
            "from, outside the transaction"
        )
    if url is None:
        raise InvalidArgument(
            "this store is on an Engine of your own, which cannot be pickled; open the store on a URL, "
            "or make engine and store anew where they are needed"
        )
    if is_in_memory(url):
        raise InvalidArgument(
            f"{redacted(url)} is in the memory of this process, and cannot be pickled; use a file, "
            "sqlite:///file.db"
        )
    scope = procedures.scope
    return Reopening(
        url,
        connections,
        procedures.counter,
        scope.schema,
        scope.owner,
        procedures.keep_versions,
        procedures.unstorable,
    )
