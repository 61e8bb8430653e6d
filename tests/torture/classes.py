"""All classes of faults, in the order of the page."""

from tests.torture import (
    commit_unknown,
    counting_cost,
    failing_server,
    fuzzed_messages,
    killed_turns,
    killed_writers,
    model,
    terminated_backends,
)
from tests.torture.support.outcome import FaultClass

_MODULES = (
    killed_writers,
    killed_turns,
    failing_server,
    terminated_backends,
    commit_unknown,
    fuzzed_messages,
    counting_cost,
    model,
)

CLASSES: tuple[FaultClass, ...] = tuple(each.CLASS for each in _MODULES)

BY_NAME = {each.name: each for each in CLASSES}
