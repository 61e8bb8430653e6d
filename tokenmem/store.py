"""Store: conversations in a SQL database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from tokenmem.arguments import checked_flag
from tokenmem.counting.counters import DEFAULT_COUNTER, TokenCounter
from tokenmem.database.connection_settings import ConnectionOptions
from tokenmem.database.engine import check_connection, default_schema, open_engines
from tokenmem.database.statements import Scope
from tokenmem.database.urls import default_url, parse_url, redacted, with_absolute_path
from tokenmem.execution.runners import BoundRunner, EngineRunner, Runner
from tokenmem.execution.transactions import transaction_of
from tokenmem.messages.parsing import Unstorable
from tokenmem.procedures import Procedures, checked_unstorable, resolve_counter
from tokenmem.procedures.reopening import Reopening, reopening_of
from tokenmem.store_methods.calls import CallMethods
from tokenmem.store_methods.changing import ChangingMethods
from tokenmem.store_methods.conversations import ConversationMethods
from tokenmem.store_methods.messages import MessageMethods
from tokenmem.store_methods.organizing import OrganizingMethods
from tokenmem.store_methods.reading import ReadingMethods
from tokenmem.store_methods.retention import RetentionMethods
from tokenmem.store_methods.transfer import TransferMethods
from tokenmem.store_methods.versions import VersionMethods


class Store(
    ConversationMethods,
    OrganizingMethods,
    MessageMethods,
    ReadingMethods,
    ChangingMethods,
    VersionMethods,
    CallMethods,
    RetentionMethods,
    TransferMethods,
):
    """Conversations in a SQL database.

    One store serves all threads of a process, and the processes forked from it. Every method raises
    `DatabaseUnavailable` where the database cannot be reached, and `SchemaOutOfDate` where `upgrade` has
    not been run; what else it raises it says.

    A store on a URL can be pickled, unless it is bound or its database is in memory; the pickle holds the
    URL with its password, and makes a store with connections of its own. A copy (`copy.copy`,
    `copy.deepcopy`) of any store works on the connections of that store, which closes them.

    Args:
        url: `sqlite:///file.db`, `postgresql+psycopg://…`, or an Engine of your own, which `close` leaves
            open. Without one: the environment variable TOKENMEM_URL, else `sqlite:///tokenmem.db`.
        counter: the token counter of new conversations: a name ("o200k_base", "cl100k_base", a model's
            name) or an object of your own. A conversation keeps the counter that it began with.
        schema: the PostgreSQL schema, "tokenmem" unless given.
        keep_versions: whether `edit` keeps what it replaces, see `versions`; False for a store that must not.
        unstorable: what becomes of messages with NUL characters or halves of surrogate pairs, which no
            database holds: "refuse" them, or "escape" their texts. A Chat keeps replies with U+FFFD in their
            place, or as they came, escaped.
        pool_size: connections at most that the store opens in a process, 10 unless given here or in the URL
            (`?pool_size=20`). Who finds them in use waits in line.
        timeout: seconds, 60 unless given here or in the URL, that an operation waits at most for a
            connection, for SQLite's write lock, and for PostgreSQL's answer; `math.inf` for no limit. For an
            Engine of your own only the last, where it is given.

    Raises:
        InvalidArgument: the URL or one of the other arguments is wrong.
        UnknownTokenCounter: no counter has this name.
    """

    def __init__(
        self,
        url: str | sa.URL | sa.Engine | None = None,
        *,
        counter: str | TokenCounter = DEFAULT_COUNTER,
        schema: str | None = None,
        keep_versions: bool = True,
        unstorable: Unstorable = "refuse",
        pool_size: int | None = None,
        timeout: float | None = None,
    ) -> None:
        opened = default_url() if url is None else url
        self._options = ConnectionOptions(pool_size, timeout)
        engines = open_engines(opened, self._options)
        self._engine = engines.public
        # None for an Engine of the caller's. The engine has taken a relative path as it is now.
        self._url = None if isinstance(opened, sa.Engine) else with_absolute_path(parse_url(opened))
        self._is_derived = False
        self._connections = EngineRunner(engines)
        self._runner: Runner = self._connections
        scope = Scope(default_schema(self._engine.dialect.name, schema))
        self._procedures = Procedures(
            resolve_counter(counter),
            scope,
            keep_versions=checked_flag(keep_versions, "keep_versions"),
            unstorable=checked_unstorable(unstorable),
        )

    def upgrade(self, revision: str = "head") -> None:
        """Create the tables, or migrate them; safe when many processes start at once.

        Where a newer tokenmem has migrated them and this one works on them, nothing is done, with a
        RuntimeWarning.

        Raises:
            SchemaOutOfDate: there is no such revision, or only a newer tokenmem works on the database.
        """
        own_file = self._url is not None and not self._is_bound
        return self._run(self._procedures.upgrade(revision, own_file=own_file))

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

    @contextmanager
    def transaction(self) -> Iterator[Self]:
        """A transaction, for `with … as bound`: all that the block writes is stored, or nothing.

        `bound` is a store for the block: what it writes is committed at the block's end, and rolled back
        where the block raises (with AsyncStore, `async with`, also where it is cancelled). A single write
        that fails leaves the others as they are. `bound.transaction()` is a savepoint, as it is on the store
        that `bind` returns. On SQLite the write lock is taken at once, for the whole block.

        Inside the block use `bound` only: another store would wait for what the transaction has locked. Keep
        the block short, use it from one thread, and never call a model in it.

        Raises:
            DatabaseUnavailable: the database cannot be reached, or is locked.
            DatabaseError: at the end of the block, the database refused to commit; nothing was stored.
        """
        with transaction_of(self._runner) as runner:
            yield self._with(runner, self._procedures)

    def for_owner(self, owner: str) -> Self:
        """A store in which every statement carries the owner: others' conversations do not exist in it."""
        return self._with(self._runner, self._procedures.for_owner(owner))

    @property
    def engine(self) -> sa.Engine:
        """The engine beneath: for transactions of your own, to `bind` to."""
        return self._engine

    def close(self) -> None:
        """Close the connections, unless the Engine is your own."""
        if self._url is not None and not self._is_derived:
            self._connections.dispose()

    @property
    def _is_bound(self) -> bool:
        return self._runner is not self._connections

    def _with(self, runner: Runner, procedures: Procedures) -> Self:
        other = object.__new__(type(self))
        other._engine, other._url, other._is_derived = self._engine, self._url, True
        other._connections, other._options = self._connections, self._options
        other._runner, other._procedures = runner, procedures
        return other

    def __copy__(self) -> Self:
        return self._with(self._runner, self._procedures)

    def __deepcopy__(self, _: object) -> Self:
        return self.__copy__()

    def __getstate__(self) -> Reopening:
        return reopening_of(self._url, self._options, self._procedures, is_bound=self._is_bound)

    def __setstate__(self, state: Reopening) -> None:
        Store.__init__(self, state.url, **state.options())
        self._procedures = state.with_owner(self._procedures)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {redacted(self._engine.url)}>"
