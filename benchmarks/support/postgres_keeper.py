"""The tests' keeper of a PostgreSQL server, with PostgreSQL's own durability in place of the tests' none."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support import postgres_keeper

for setting in ("fsync", "full_page_writes", "max_wal_size"):
    del postgres_keeper.SETTINGS[setting]

if __name__ == "__main__":
    postgres_keeper.main()
