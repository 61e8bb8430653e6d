"""Types of columns on both engines, for the tables' description and for the migrations."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa


def text_key() -> sa.types.TypeEngine[str]:
    """Text that is compared byte by byte."""
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def timestamp() -> sa.types.TypeEngine[Any]:
    """A time in UTC; text on SQLite."""
    return sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def json() -> sa.types.TypeEngine[Any]:
    """A JSON document as it came; text on SQLite."""
    # json, not jsonb, on PostgreSQL: jsonb turns -0.0 into 0 and drops the order of keys (docs/adr/0002).
    return sa.JSON().with_variant(sa.Text(), "sqlite")
