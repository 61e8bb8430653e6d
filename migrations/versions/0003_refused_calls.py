"""Calls that the provider has refused: one more word in `llm_calls.status`, told in columns' comments."""

from alembic import op

from tokenmem.database.migration_steps import dialect_name, keep_writers_out, tables_schema

revision = "tokenmem_0003"
down_revision = "tokenmem_0002"
branch_labels = None
depends_on = None

CHANGED = "What was changed in what was sent: a list of positions and what was done"
REFUSED = "What was changed in what was sent, or refused of it: a list of positions and what was done"

# (table, column, comment until now, comment from now on)
COMMENTS = (
    ("llm_calls", "status", "ok, error or cancelled", "ok, error, refused or cancelled"),
    ("llm_calls", "changes", CHANGED, REFUSED),
    ("usage_kept", "failed_calls", "Of these, failed or cancelled", "Of these, failed, refused or cancelled"),
)


def upgrade() -> None:
    """No row is read and nobody waits: what a call's status may be no constraint says."""
    for table, column, before, after in COMMENTS:
        set_comment(table, column, before, after)


def downgrade() -> None:
    """A refused call becomes one that failed; its `error` still says what the provider answered."""
    keep_writers_out()
    for table, column, before, after in COMMENTS:
        set_comment(table, column, after, before)
    schema = tables_schema()
    calls = f"{schema}.llm_calls" if schema else "llm_calls"
    op.execute(f"UPDATE {calls} SET status = 'error' WHERE status = 'refused'")


def set_comment(table: str, column: str, before: str, after: str) -> None:
    """Say what a column holds; SQLite keeps no comments. Whoever reads or writes the table goes on."""
    if dialect_name() == "postgresql":
        op.alter_column(table, column, comment=after, existing_comment=before, schema=tables_schema())
