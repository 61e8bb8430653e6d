"""New processes for tests: each starts as a copy of one that has imported the library and done nothing else.

A process that starts from nothing needs about a second for its imports, and a test run starts hundreds. These
are copies (`fork`) of a server process that has imported them once, never of the process that runs the tests:
they inherit no store, no connection, no lock and no event loop.
"""

import multiprocessing

NEW = multiprocessing.get_context("forkserver")
NEW.set_forkserver_preload(["tests.support.imported"])
