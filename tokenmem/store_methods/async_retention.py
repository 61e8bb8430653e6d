"""AsyncStore's methods for what goes and what stays, awaited. `help` shows the docstrings of Store's."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Literal

from tokenmem.docstrings import documented_like
from tokenmem.models import Purged, Usage
from tokenmem.store_methods.base import AsyncBaseMethods
from tokenmem.store_methods.retention import RetentionMethods


@documented_like(RetentionMethods)
class AsyncRetentionMethods(AsyncBaseMethods):
    """AsyncStore's methods for what goes and what stays."""

    async def purge(
        self,
        *,
        older_than: timedelta | None = None,
        idle_for: timedelta | None = None,
        keys_older_than: timedelta | None = None,
        owner: str | None = None,
        dry_run: bool = False,
        by: Literal["stored", "created"] = "stored",
    ) -> Purged:
        return await self._run(
            self._procedures.purge(
                older_than=older_than,
                idle_for=idle_for,
                keys_older_than=keys_older_than,
                owner=owner,
                by=by,
                dry_run=dry_run,
            )
        )

    async def delete_owner(self, owner: str) -> int:
        return await self._run(self._procedures.delete_owner(owner))

    async def anonymize_owner(self, owner: str) -> int:
        return await self._run(self._procedures.anonymize_owner(owner))

    async def usage(
        self,
        *,
        owner: str | None = None,
        since: date | datetime | None = None,
        until: date | datetime | None = None,
        by: Literal["day", "model", "owner"] = "day",
    ) -> list[Usage]:
        return await self._run(self._procedures.usage(owner, since, until, by))
