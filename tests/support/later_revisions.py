"""Made-up later revisions: a copy of the migrations, to which a test adds some."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from tokenmem.database import migrate


class LaterRevisions:
    """A newer tokenmem's migrations, as far as a test makes them up."""

    def __init__(self, directory: Path) -> None:
        shutil.copytree(migrate.directory(), directory, ignore=shutil.ignore_patterns("__pycache__"))
        self.directory = directory
        self._number = migrate.revision_number(migrate.head())

    def add(self, *, upgrade: str = "", downgrade: str = "", **views: str) -> str:
        """Write the next revision as `alembic revision` does, and the texts of the views that it changes.

        Args:
            upgrade: what it does to the tables, in Python.
            downgrade: what takes that back.
            views: their new texts; "" for one that ends.
        """
        self._number += 1
        revision = f"tokenmem_{self._number:04}"
        config = Config()
        config.set_main_option("script_location", str(self.directory))
        config.set_main_option("path_separator", "os")
        written = command.revision(config, message="later", rev_id=revision)
        path = Path(written.path)  # type: ignore[union-attr]
        text = path.read_text()
        for code, place in ((upgrade, "# tables first"), (downgrade, "# tables last")):
            assert text.count(place) == 1
            text = text.replace(place, f"{code or 'pass'}\n    {place}")
        path.write_text(text)
        for name, view in views.items():
            file = self._folder(name) / f"{self._number:04}.sql"
            file.parent.mkdir(exist_ok=True)
            file.write_text(view)
        return revision

    def text(self, name: str) -> str:
        """The newest text of a view, or of a piece that views share."""
        return max(self._folder(name).glob("*.sql")).read_text()

    @contextmanager
    def known(self) -> Iterator[None]:
        """In here, tokenmem knows them."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(migrate, "directory", lambda: self.directory)
            yield

    def _folder(self, name: str) -> Path:
        shared = self.directory / "views" / "shared" / name
        return shared if shared.is_dir() else self.directory / "views" / name
