"""One store for all memories of a process that name none: a pool for each would use up the server."""

from __future__ import annotations

import weakref
from concurrent.futures import Future

import sqlalchemy as sa

from tokenmem.database.urls import default_url, is_in_memory, parse_url, with_absolute_path
from tokenmem.forks import ForkSafeLock, reset_after_fork
from tokenmem.procedures.reopening import Reopening
from tokenmem.store import Store

_lock = ForkSafeLock()


class _FirstUse:
    """The upgrade of one store at its first use: once, by whichever thread comes first."""

    def __init__(self, *, in_memory: bool) -> None:
        self._in_memory = in_memory
        self._is_done = False
        self._attempt: Future[None] | None = None
        reset_after_fork(self, _FirstUse._forget)

    def upgrade(self, store: Store) -> None:
        """Upgrade, or wait for the thread that does. Both raise what it raises."""
        while not self._is_done:
            mine: Future[None] = Future()
            with _lock:
                if self._attempt is None:
                    self._attempt = mine
                attempt = self._attempt
            try:
                if attempt is mine:
                    self._run(store, attempt)
                attempt.result()
            finally:
                del mine, attempt  # else an error would hold itself and, in its traceback, the store

    def _run(self, store: Store, attempt: Future[None]) -> None:
        try:
            if not self._is_done:  # another thread may have come to its end meanwhile
                store.upgrade()
                self._is_done = True
        except Exception as error:
            attempt.set_exception(error)
        finally:
            self._attempt = None
            if not attempt.done():  # done, or interrupted: then one of those who wait tries again
                attempt.set_result(None)
            del attempt

    def _forget(self) -> None:
        """In a forked child: no other thread is at it, and what the parent has in memory is not there."""
        self._attempt = None
        self._is_done = self._is_done and not self._in_memory


_stores: weakref.WeakValueDictionary[sa.URL, Store] = weakref.WeakValueDictionary()
_reopened: weakref.WeakValueDictionary[tuple[object, ...], Store] = weakref.WeakValueDictionary()
_held: weakref.WeakKeyDictionary[Store, Store] = weakref.WeakKeyDictionary()
_first_uses: weakref.WeakKeyDictionary[Store, _FirstUse] = weakref.WeakKeyDictionary()


def shared_store(url: str | sa.URL | None = None) -> Store:
    """The store of this process on a database, the same one for as long as somebody holds it.

    Its connections are closed when nobody holds it any more. A SQLite file is the same one wherever the
    process has moved to since; a database in memory is shared, too, and gone with the last who holds it.

    Args:
        url: as for Store; without one, TOKENMEM_URL, else `sqlite:///tokenmem.db`, as they are now.

    Raises:
        InvalidArgument: the URL is wrong.
    """
    opened = with_absolute_path(parse_url(default_url() if url is None else url))
    with _lock:
        store = _stores.get(opened)
        if store is None:
            store = _closed_with_its_last(Store(opened))
            _first_uses[store] = _FirstUse(in_memory=is_in_memory(opened))
            _stores[opened] = store
        return store


def reopened_store(state: Reopening) -> Store:
    """The store of this process that is as one in a pickle was, the same one while somebody holds it.

    Args:
        state: what the pickle holds of the store.
    """
    options = state.options()
    of_it = (options["schema"], options["keep_versions"], options["unstorable"], state.counter.name)
    key = (state.url, state.connections, *of_it)
    with _lock:
        store = _reopened.get(key)
        if store is None:
            store = _closed_with_its_last(Store(state.url, **options))
            _reopened[key] = store
    if state.owner is None:
        return store
    owned = store.for_owner(state.owner)
    _held[owned] = store  # the next one in a pickle is to find it
    return owned


def _closed_with_its_last(store: Store) -> Store:
    """The store, whose connections are closed when nobody holds it any more.

    A store for one owner lives on the same connections, and may outlive this one. What closes them may run in
    any thread at any moment, also in one that holds the lock: it takes none of ours.
    """
    weakref.finalize(store._connections, store._connections.engines.dispose)
    return store


def shared_url(store: object) -> sa.URL | None:
    """The URL of a shared store; None of any other."""
    return store._url if isinstance(store, Store) and store in _first_uses else None


def upgrade_once(store: Store) -> None:
    """Create or migrate the tables at the first use of a shared store; of any other store, do nothing.

    Raises:
        SchemaOutOfDate: only a newer tokenmem works on the database.
        DatabaseUnavailable: it cannot be reached; the next use tries again.
    """
    first_use = _first_uses.get(store)
    if first_use is not None:
        first_use.upgrade(store)
