"""Ids made of texts that are longer than an id may be."""

import pytest

from tests.support.stores import Unit
from tokenmem import Store, errors, hashed_id

LONG = "agent/ünïcode/" + "x" * 300


def test_a_hashed_id(ready_url: str) -> None:
    for short in ("c1", "x" * 255, "é" * 255, "😀" * 255):
        assert hashed_id(short) == short
    made = hashed_id(LONG)
    # Conversations are found by it: it stays the same in every version.
    assert (
        made
        == "agent/ünïcode/" + "x" * 176 + "#68d29e170065ce903a184a3845b5654edc684e52f5e9ff793ee5b4f111658445"
    )
    assert len(made) == 255
    assert hashed_id(made) == made
    assert len({hashed_id("x" * 190 + str(number) * 70) for number in range(200)}) == 200
    assert hashed_id("x" * 256) != hashed_id("x" * 257)
    with Store(ready_url, counter=Unit()) as store:
        assert store.create(hashed_id(LONG)).id == made
        assert len(store.create(hashed_id("😀" * 1000)).id) == 255
    for wrong in ("", None, 5, "a\0", "a\0" * 200, "x" * 300 + "\0", "\ud800", "x" * 300 + "\ud800"):
        with pytest.raises(errors.InvalidArgument, match="text"):
            hashed_id(wrong)  # type: ignore[arg-type]
