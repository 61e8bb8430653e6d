"""What the conformance tests of chats share: a scripted server, and chats that ask it."""

from collections.abc import Iterator

import pytest

from tests.support.chats import Chats
from tests.support.stores import Stores
from tokenmem.testing import ModelServer


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer([]) as opened:
        yield opened
        assert opened.problems == []


@pytest.fixture(params=["chat", "responses"])
def api(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def chats(stores: Stores, server: ModelServer) -> Iterator[Chats]:
    opened = Chats(stores, server)
    yield opened
    opened.close()
