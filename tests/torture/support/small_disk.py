"""A file system of a few megabytes in memory, where it may be mounted."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path


class SmallDisk:
    """A small file system that can be filled and emptied."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._filler = directory / "filler"

    def fill(self) -> None:
        """Leave no byte free."""
        with self._filler.open("ab", buffering=0) as file:
            for piece in (1 << 16, 1 << 12, 1 << 8, 1):
                try:
                    while file.write(b"x" * piece) == piece:
                        pass
                except OSError:
                    continue

    def free(self) -> None:
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(megabytes: int, owner: int | None = None) -> Iterator[SmallDisk]:
    """Mounted for the block; everybody may enter it."""
    directory = Path(tempfile.mkdtemp(prefix="tokenmem-disk-", dir="/tmp"))
    try:
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "tmpfs", str(directory)]
        subprocess.run(command, check=True, capture_output=True)
        directory.parent.stat()
        try:
            if owner is not None:
                os.chown(directory, owner, -1)
            yield SmallDisk(directory)
        finally:
            subprocess.run(["umount", "--lazy", str(directory)], check=True, capture_output=True)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@cache
def cannot_mount() -> str:
    """Why none can be had; empty where one can."""
    try:
        with small_disk(1):
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        told = getattr(error, "stderr", b"") or b""
        return f"a small file system cannot be mounted here ({told.decode().strip() or error})"
