"""A reader of the caller's own that fails itself, where it is to tell what had arrived."""

from typing import Any

import pytest

from tests.support.stores import Stores
from tokenmem import Chat
from tokenmem.chat import Answer, ModelAPI, StreamReader

SYNC = pytest.mark.parametrize("stores", ["sqlite-sync", "postgresql-sync"], indirect=True)


class Reader:
    complete = False

    def feed(self, event: str) -> str:
        if event == "!":
            raise ConnectionError("the provider is gone")
        return event

    def answer(self) -> Answer:
        raise NotImplementedError

    def part(self) -> Answer:
        raise LookupError("where was I?")


class Failing(ModelAPI):
    def read(self, response: Any) -> Answer:
        raise NotImplementedError

    def reader(self, response: Any) -> StreamReader | None:  # noqa: ARG002
        return Reader()


@SYNC
def test_the_first_error_is_told_and_the_call_ends(stores: Stores) -> None:
    store = stores.open()
    chat = Chat(store, lambda **_: iter(["At ", "!"]), api=Failing())
    with pytest.raises(ConnectionError, match="gone") as caught:
        chat.send("c1", "When does it leave?")
    assert caught.value.__notes__ == ["tokenmem could not store what had arrived: LookupError: where was I?"]
    assert [message.content for message in store.messages("c1")] == ["When does it leave?"]
    (call,) = store.calls("c1")
    assert (call.status, call.error, call.reply_position) == ("error", "ConnectionError", None)


@SYNC
def test_a_stream_that_is_left_ends_its_call(stores: Stores) -> None:
    store = stores.open()
    chat = Chat(store, lambda **_: iter(["At ", "21:58."]), api=Failing())
    stream: Any = chat.stream("c1", "When does it leave?")
    assert next(stream) == "At "
    stream.close()
    (call,) = store.calls("c1")
    assert call.status == "cancelled"
