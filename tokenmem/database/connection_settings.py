"""How a store connects: what its URL and its arguments say, checked."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from tokenmem.arguments import checked_number
from tokenmem.database.urls import redacted
from tokenmem.errors import InvalidArgument

POOL_SIZE = 10
"""Connections that a store opens at most, unless the URL or the store says pool_size."""

TIMEOUT = 60.0
"""Seconds that a store waits: for a connection, for SQLite's write lock, for a server's answer."""

LONGEST_TIMEOUT = 1_000_000_000
"""Seconds, some 30 years: what locks and drivers can still count, which threading.TIMEOUT_MAX bounds."""

CONNECT_TIMEOUT = 10
"""Seconds to wait for a PostgreSQL server to accept a connection, unless the URL says connect_timeout."""

KEEPALIVES: dict[str, int] = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""libpq's parameters (its manual, "Parameter Key Words"), in seconds, and for the last in milliseconds.

An idle connection whose other end is gone is noticed after a minute, one on which something was sent after
half a minute. The system's own defaults are hours and a quarter of one.
"""

_OFF = ("0", "none")


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """What the arguments of a store say of its connections.

    Attributes:
        pool_size: connections at most; None for what the URL says, or 10.
        timeout: seconds to wait at most; None for what the URL says, or 60.
    """

    pool_size: int | None = None
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.pool_size is not None:
            checked_number(self.pool_size, "pool_size", least=1, most=10_000)
        if self.timeout is not None:
            _check_timeout(self.timeout)


DEFAULTS = ConnectionOptions()


@dataclass(slots=True)
class Preparation:
    """Whether a store's statements are prepared on the server.

    Attributes:
        is_off: never; a pooler between was found to lose them, or the URL says so.
    """

    is_off: bool = False


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How a store's engines connect.

    Attributes:
        url: the database, without what is said here.
        pool_size: connections at most.
        answer_timeout: seconds that a server may be silent; None for without limit.
        timeout: seconds to wait for a connection and for SQLite's write lock.
        prepare_threshold: after how many runs psycopg prepares a statement; None for its default.
        preparation: whether it does so at all.
    """

    url: sa.URL
    pool_size: int
    timeout: float
    answer_timeout: float | None
    prepare_threshold: int | None = None
    preparation: Preparation = field(default_factory=Preparation)

    @property
    def pool_timeout(self) -> float | None:
        """Seconds to wait for a connection; None for as long as it takes."""
        return None if math.isinf(self.timeout) else self.timeout

    @property
    def lock_timeout(self) -> float | None:
        """Seconds to wait for SQLite's write lock, which its driver's `timeout` in the URL says first."""
        try:
            said = float(str(self.url.query["timeout"]))
        except (KeyError, ValueError):
            return self.pool_timeout
        return said if math.isfinite(said) else None

    def connect_arguments(self) -> dict[str, Any]:
        """What the driver is told besides the URL; what the URL says itself goes before."""
        if self.url.get_backend_name() == "sqlite":
            longest = 2**31 / 1000 - 1  # SQLite counts milliseconds in 32 bits
            given: dict[str, Any] = {"timeout": min(self.timeout, longest)}
            return {"check_same_thread": False} | _unless_in(self.url, given)
        threshold = self.prepare_threshold
        preparing = {} if threshold is None else {"prepare_threshold": threshold}
        return preparing | _unless_in(
            self.url,
            {
                "application_name": "tokenmem",
                "connect_timeout": max(2, math.ceil(min(self.timeout, CONNECT_TIMEOUT))),
                "client_encoding": "utf8",  # whatever the server's is: it converts, or says that it cannot
                **KEEPALIVES,
            },
        )


def _unless_in(url: sa.URL, arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in url.query}


def settings_of(url: sa.URL, options: ConnectionOptions) -> ConnectionSettings:
    """How to connect to a URL. What the store's arguments say goes before what the URL says.

    Args:
        url: may say `pool_size` behind its question mark, and on PostgreSQL `timeout` and
            `prepare_threshold`. SQLite's own `timeout` stays what its driver takes it for: the wait for the
            write lock.
        options: the store's arguments.

    Raises:
        InvalidArgument: one of them is no number, or out of its range.
    """
    pool_size, timeout, threshold = options.pool_size, options.timeout, None
    said = _said(url, "pool_size")
    if pool_size is None and said is not None:
        pool_size = _integer(url, "pool_size", said, least=1)
    own = ["pool_size"]
    preparation = Preparation()
    if url.get_backend_name() != "sqlite":
        own += ["timeout", "prepare_threshold"]
        said = _said(url, "timeout")
        if timeout is None and said is not None:
            timeout = _seconds(url, said)
        said = _said(url, "prepare_threshold")
        if said is not None and said.lower() in _OFF:
            preparation.is_off = True
        elif said is not None:
            threshold = _integer(url, "prepare_threshold", said, least=1)
    timeout = TIMEOUT if timeout is None else timeout
    return ConnectionSettings(
        url.difference_update_query(own),
        POOL_SIZE if pool_size is None else pool_size,
        timeout,
        None if math.isinf(timeout) else timeout,
        threshold,
        preparation,
    )


def settings_of_engine(url: sa.URL, options: ConnectionOptions) -> ConnectionSettings:
    """The same for an engine of the caller's: how long to wait for an answer is all that there is to say.

    Raises:
        InvalidArgument: a pool's size is given.
    """
    if options.pool_size is not None:
        raise InvalidArgument("pool_size is for a URL; give it to the create_engine that made your engine")
    timeout = options.timeout
    limited = None if timeout is None or math.isinf(timeout) else timeout
    return ConnectionSettings(url, POOL_SIZE, TIMEOUT if timeout is None else timeout, limited)


def _said(url: sa.URL, name: str) -> str | None:
    value = url.query.get(name)
    if isinstance(value, tuple):
        raise InvalidArgument(f"{redacted(url)}: {name} stands there twice; leave one")
    return value


def _integer(url: sa.URL, name: str, value: str, *, least: int) -> int:
    if not (value.isascii() and value.isdigit()) or not least <= int(value) <= 10_000:
        raise InvalidArgument(f"{redacted(url)}: {name} is {value!r}; write a number from {least} to 10000")
    return int(value)


def _seconds(url: sa.URL, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not _can_be_waited(seconds):
        bounds = f"above 0 and up to {LONGEST_TIMEOUT}"
        raise InvalidArgument(f"{redacted(url)}: timeout is {value!r}; write seconds {bounds}, or inf")
    return seconds


def _can_be_waited(seconds: float) -> bool:
    return 0 < seconds <= LONGEST_TIMEOUT or seconds == math.inf


def _check_timeout(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidArgument(f"timeout is a {type(value).__name__}; pass seconds, as a number")
    if not _can_be_waited(value):
        bounds = f"above 0 and up to {LONGEST_TIMEOUT}"
        raise InvalidArgument(f"timeout is {value!r:.40}; pass seconds {bounds}, or math.inf for no limit")
