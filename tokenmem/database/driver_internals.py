"""The one name that we use of psycopg's and that it does not document: a test holds that it is there."""

from __future__ import annotations

import secrets
from contextlib import suppress

from tokenmem.database.statements import DriverConnection


def begin_names_anywhere(connection: DriverConnection) -> None:
    """Have the names of a connection's prepared statements begin at a number that no other one has.

    Every client of psycopg's calls its first one `_pg3_0`. Behind a pooler that knows nothing of prepared
    statements one client's name is another's statement on the same server connection, and would be run with
    the wrong parameters; like this the server says that there is none of that name.
    """
    with suppress(AttributeError):
        connection._prepared._prepared_idx = secrets.randbits(48)
