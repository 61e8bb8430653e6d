"""${message}"""

import sqlalchemy as sa
from alembic import op

from tokenmem.database.migration_steps import downgrade_views, keep_writers_out, tables_schema, upgrade_views

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    schema = tables_schema()
    keep_writers_out()
    ${upgrades if upgrades else "# tables first: views read their columns"}
    upgrade_views(revision)


def downgrade() -> None:
    schema = tables_schema()
    keep_writers_out()
    downgrade_views(revision)
    ${downgrades if downgrades else "# tables last: SQLite drops no column that a view reads"}
