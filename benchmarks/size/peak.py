"""Run a command and print its exit code, seconds and peak memory as JSON: a program, `python -S peak.py …`.

A process of its own, and a small one: the kernel counts what a child was before it became the command among
the command's memory, and the benchmark itself is larger than what it measures.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time

MEMORY = 12 * 2**30


def main() -> None:
    seconds, *command = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        timer = threading.Timer(float(seconds), os.kill, (process.pid, signal.SIGKILL))
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        taken = time.perf_counter() - started
        timer.cancel()
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()
    code = os.waitstatus_to_exitcode(status)
    process.returncode = code
    answer = {"seconds": taken, "bytes": usage.ru_maxrss * 1024, "processor": usage.ru_utime + usage.ru_stime}
    if code:
        late = taken >= float(seconds)
        answer = {"failed": f"gave up after {taken:,.0f} s" if late else f"exit code {code}: {said[-200:]}"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
