"""An example's backend in a process of its own: uvicorn, over real connections."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path


@contextmanager
def running(app: str, directory: Path, **environment: str) -> Iterator[int]:
    """The application on a free port of loopback, which it is given as an open socket.

    Args:
        app: as uvicorn takes it.
        directory: where it is imported from.
        **environment: variables of its environment besides ours.
    """
    with closing(socket.create_server(("127.0.0.1", 0))) as listening:
        command = [sys.executable, "-m", "uvicorn", app, "--fd", str(listening.fileno())]
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=os.environ | environment,
            pass_fds=[listening.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield listening.getsockname()[1]
        finally:
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=30)
            assert "Traceback" not in told, told
