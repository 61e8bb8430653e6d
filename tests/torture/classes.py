"""All classes of faults, in the order of the page."""

from tests.torture import killed_writers
from tests.torture.support.outcome import FaultClass

CLASSES: tuple[FaultClass, ...] = (killed_writers.CLASS,)

BY_NAME = {each.name: each for each in CLASSES}
