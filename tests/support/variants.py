"""In which of the four variants a test runs, where all four would cost twice the time of two."""

import zlib
from collections import defaultdict
from collections.abc import Iterable

import pytest

from tests.support.stores import VARIANTS

# Each half has both engines and both modes. Which half is a test's first goes by its name, so that the tests
# of one operation meet all four.
HALVES = ({"sqlite-sync", "postgresql-async"}, {"sqlite-async", "postgresql-sync"})


def left_out(items: Iterable[pytest.Item], half: str) -> list[pytest.Item]:
    """The items that do not run: two of the four of each test that is there in all variants and not marked.

    Args:
        items: what was collected.
        half: "first" or "second"; what the one leaves out the other has.
    """
    groups: dict[str, dict[str, pytest.Item]] = defaultdict(dict)
    for item in items:
        parameters = getattr(item, "callspec", None)
        variant = parameters.params.get("stores") if parameters else None
        if variant in VARIANTS and not item.get_closest_marker("every_variant"):
            groups[item.nodeid.replace(variant, "*")][variant] = item
    left = []
    for name, variants in groups.items():
        if len(variants) == len(VARIANTS):
            kept = HALVES[(zlib.crc32(name.encode()) + (half == "second")) % 2]
            left += [item for variant, item in variants.items() if variant not in kept]
    return left
