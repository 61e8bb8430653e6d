"""Store's methods for what goes and what stays: purges, an owner's removal, and what calls have cost."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Literal

from tokenmem.models import Purged, Usage
from tokenmem.store_methods.base import BaseMethods


class RetentionMethods(BaseMethods):
    """Store's methods for what goes and what stays."""

    def purge(
        self,
        *,
        older_than: timedelta | None = None,
        idle_for: timedelta | None = None,
        keys_older_than: timedelta | None = None,
        owner: str | None = None,
        dry_run: bool = False,
        by: Literal["stored", "created"] = "stored",
    ) -> Purged:
        """Remove what is old, by the database's clock, some conversations a transaction.

        With `older_than`, in each conversation every message before the first younger one goes, pinned ones
        too, and what edits have replaced in them; so does a model call of which no message stays, with the
        instructions and tools that only it has sent. A conversation that holds nothing younger, and has not
        changed since, goes as a whole. With `idle_for` only whole conversations go: those that have not
        changed for so long, and of which no model call runs. Conversations whose `keep` is true are spared
        by both. What calls that go have cost stays in `usage`.

        With `keys_older_than`, idempotency keys go, those of conversations with `keep` too, but for keys
        whose call runs. It is the horizon of replays: a request that is repeated later stores its messages
        again.

        Args:
            older_than: how old a message may be. Not together with `idle_for`.
            idle_for: for how long nothing may have changed in a conversation.
            keys_older_than: how old an idempotency key may be; alone, or beside one of the others.
            owner: only this owner's conversations.
            dry_run: count what would be removed, and remove nothing.
            by: which age of a message `older_than` means: since it was "stored" here, or, where it came in
                with a time of its own, since that time: "created".

        Raises:
            InvalidArgument: no age is given, one is not possible, or `older_than` and `idle_for` both are.
        """
        return self._run(
            self._procedures.purge(
                older_than=older_than,
                idle_for=idle_for,
                keys_older_than=keys_older_than,
                owner=owner,
                by=by,
                dry_run=dry_run,
            )
        )

    def delete_owner(self, owner: str) -> int:
        """Remove all of an owner's conversations and what is kept of them, and return how many there were.

        What removed ones have cost goes too. Some hundred conversations go by the transaction, until a look
        finds none: if it is interrupted, calling it again goes on. In a store from `bind` all of it happens
        in your transaction.
        """
        return self._run(self._procedures.delete_owner(owner))

    def anonymize_owner(self, owner: str) -> int:
        """Drop the texts of an owner's conversations, keep counts and calls; return how many there were.

        Messages stay at their positions with their times and token counts, as plain messages without a text;
        model calls stay with their counts. Titles, metadata, payloads, tool calls, replaced contents,
        instructions, tools, options, errors, the provider's request ids and idempotency keys go. The
        conversations are archived, and belong to a random name, `anonymous-…`, under which `usage` has what
        they cost; their ids stay, since your tables may name them: if an id tells who it was, delete instead.
        A call that runs is ended, so that its reply is not stored.

        Some hundred conversations go by the transaction, until a look finds none: if it is interrupted,
        calling it again goes on, under another random name.
        """
        return self._run(self._procedures.anonymize_owner(owner))

    def usage(
        self,
        *,
        owner: str | None = None,
        since: date | datetime | None = None,
        until: date | datetime | None = None,
        by: Literal["day", "model", "owner"] = "day",
    ) -> list[Usage]:
        """What model calls have cost, in the order of the days, models or owners.

        Removed conversations stay in the sums. For a call without a bill what is stored of its reply counts:
        who removes or edits that changes the sum. A conversation that was exported, deleted and imported
        again counts twice.

        Of removed conversations the sums of each day are kept, so days count as a whole, in UTC. With `since`
        it costs as much as the conversations that have changed since then have calls, so that it can be asked
        before each call.

        Args:
            owner: only this owner's calls.
            since: the first day that counts, or a moment in it.
            until: the last day that counts, or a moment in it.
            by: what each line of the result sums up.

        Raises:
            InvalidArgument: `since` or `until` is no day, or a moment without a time zone.
        """
        return self._run(self._procedures.usage(owner, since, until, by))
