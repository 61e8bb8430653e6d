"""All classes of faults, in the order of the page."""

from tests.torture import commit_unknown, failing_server, killed_turns, killed_writers
from tests.torture.support.outcome import FaultClass

CLASSES: tuple[FaultClass, ...] = (
    killed_writers.CLASS,
    killed_turns.CLASS,
    commit_unknown.CLASS,
    failing_server.CLASS,
)

BY_NAME = {each.name: each for each in CLASSES}
