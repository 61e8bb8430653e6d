"""Types of columns on both engines, for the tables' description and for the migrations."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa


def text_key() -> sa.types.TypeEngine[str]:
    """Text that is compared byte by byte."""
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def timestamp() -> sa.types.TypeEngine[datetime]:
    """A time in UTC; text on SQLite."""
    return sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def json() -> sa.JSON:
    """A JSON document as it came; text on SQLite."""
    # json, not jsonb, on PostgreSQL: jsonb turns -0.0 into 0 and drops the order of keys (docs/adr/0002).
    return sa.JSON().with_variant(sa.Text(), "sqlite")
