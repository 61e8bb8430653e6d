"""Several threads at once."""

import threading
from typing import Any


def in_threads(count: int, work: Any) -> None:
    """Run `work(number)` in so many threads at once; what one raises is raised."""
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=[number]) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
