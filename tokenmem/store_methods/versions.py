"""Store's methods for what stood at a position before."""

from __future__ import annotations

from tokenmem.models import MessageVersion
from tokenmem.store_methods.base import BaseMethods


class VersionMethods(BaseMethods):
    """Store's methods for the versions of a message."""

    def versions(self, conversation_id: str, position: int) -> list[MessageVersion]:
        """What stood at a position before what stands there now, the oldest first; empty where nothing did.

        `edit` keeps what it replaces where that says something else, unless the store was opened with
        `keep_versions=False`. What removes a message removes its versions.

        Raises:
            ConversationNotFound: there is none of this id, or it is another owner's.
            MessageNotFound: there is no message at the position.
        """
        return self._run(self._procedures.versions(conversation_id, position))
