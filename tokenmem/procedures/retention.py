"""Procedures for what goes and what stays: purges, an owner's removal, and what calls have cost."""

from __future__ import annotations

import secrets
from datetime import date, datetime, timedelta
from typing import Concatenate, ParamSpec

from tokenmem.arguments import checked_choice, optional_age, optional_day
from tokenmem.errors import InvalidArgument
from tokenmem.execution.effects import Procedure
from tokenmem.models import Purged, Usage
from tokenmem.operations import owners, purge, usage
from tokenmem.operations.owners import OwnerStep
from tokenmem.operations.purge import PurgeStep
from tokenmem.procedures.base import BaseProcedures, Operation

P = ParamSpec("P")


class RetentionProcedures(BaseProcedures):
    """Procedures for what goes and what stays."""

    __slots__ = ()

    def purge(
        self,
        *,
        older_than: timedelta | None,
        idle_for: timedelta | None,
        keys_older_than: timedelta | None,
        owner: str | None,
        by: str,
        dry_run: bool,
    ) -> Procedure[Purged]:
        """Remove what is older than an age, some conversations a transaction."""
        checked_choice(by, "by", tuple(purge.TIMES))
        if older_than is idle_for is keys_older_than is None:
            raise InvalidArgument(
                "older_than is None, and so are idle_for and keys_older_than; "
                "pass a timedelta for one of them, for example timedelta(days=90)"
            )
        if older_than is not None and idle_for is not None:
            raise InvalidArgument("older_than and idle_for exclude each other; purge twice for both")
        optional_age(older_than, "older_than")
        optional_age(idle_for, "idle_for")
        optional_age(keys_older_than, "keys_older_than")
        scoped = self if owner is None else self.for_owner(owner)
        total = Purged(0, 0)
        if older_than is not None:
            total = yield from scoped._in_steps(purge.purge, bool(dry_run), older_than, by)
        elif idle_for is not None:
            total = yield from scoped._in_steps(purge.purge_idle, bool(dry_run), idle_for)
        if keys_older_than is not None:
            expired = yield from scoped._in_steps(purge.purge_keys, bool(dry_run), keys_older_than)
            total = _sum(total, expired)
        return total

    def _in_steps(
        self,
        operation: Operation[Concatenate[str, bool, P], PurgeStep],
        dry_run: bool,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Procedure[Purged]:
        total, after = Purged(0, 0), ""
        while True:
            step = yield from self.write_long(operation, after, dry_run, *args, **kwargs)
            total = _sum(total, step.purged)
            if step.last_id is None:
                return total
            after = step.last_id

    def delete_owner(self, owner: str) -> Procedure[int]:
        """Remove all of an owner's conversations and what is kept of them; the result is how many."""
        return self.for_owner(owner)._until_none_is_left(owners.delete_next)

    def anonymize_owner(self, owner: str) -> Procedure[int]:
        """Blank all of an owner's conversations and put them under a pseudonym; the result is how many."""
        pseudonym = f"anonymous-{secrets.token_hex(16)}"
        return self.for_owner(owner)._until_none_is_left(owners.anonymize_next, pseudonym)

    def _until_none_is_left(
        self, operation: Operation[Concatenate[str, P], OwnerStep], *args: P.args, **kwargs: P.kwargs
    ) -> Procedure[int]:
        """Go through the owner's conversations, and again through those that have come meanwhile."""
        total, after = 0, ""
        while True:
            step = yield from self.write_long(operation, after, *args, **kwargs)
            total += step.conversations
            if step.last_id is None and not after:
                return total
            after = step.last_id or ""

    def usage(
        self,
        owner: str | None,
        since: date | datetime | None,
        until: date | datetime | None,
        by: str,
    ) -> Procedure[list[Usage]]:
        """Sum up what calls have cost."""
        scoped = self if owner is None else self.for_owner(owner)
        return scoped.read_long(
            usage.usage,
            optional_day(since, "since"),
            optional_day(until, "until"),
            checked_choice(by, "by", usage.KEYS),
        )


def _sum(one: Purged, other: Purged) -> Purged:
    return Purged(
        one.conversations + other.conversations, one.messages + other.messages, one.keys + other.keys
    )
