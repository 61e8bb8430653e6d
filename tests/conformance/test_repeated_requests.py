"""A keyed request keeps its question: on every engine, sync and async, through the real client."""

from typing import Any

import openai
import pytest

from tests.support.chats import Chats, said
from tokenmem import errors
from tokenmem.testing import Answer, Cut, Failure, ModelServer


def asked(server: ModelServer) -> list[str]:
    """What the newest prompt said."""
    return [message["content"] for message in server.requests[-1].body["messages"]]


def fail(chat: Any, key: str, text: str, server: ModelServer) -> None:
    server.reply_with([Failure(500)])
    with pytest.raises(openai.InternalServerError):
        chat.send("c", text, idempotency_key=key)


def test_a_request_that_failed_is_not_answered_with_what_came_after_it(
    chats: Chats, server: ModelServer
) -> None:
    chat = chats.open()
    fail(chat, "K1", "First?", server)
    server.reply_with(Answer("Second."))
    chat.send("c", "Second?", idempotency_key="K2")
    stored, requests = said(chats), len(server.requests)
    with pytest.raises(errors.PositionConflict) as refused:
        chat.send("c", "First?", idempotency_key="K1")
    assert (refused.value.expected_position, refused.value.last_position) == (1, 3)
    assert (said(chats), len(server.requests)) == (stored, requests)
    assert len(chats.store.calls("c")) == 2
    # What comes next is not disturbed by it.
    server.reply_with(Answer("Third."))
    assert chat.send("c", "Third?").text == "Third."


def test_a_request_that_was_answered_is_answered_alike_whatever_stands_behind_it(
    chats: Chats, server: ModelServer
) -> None:
    chat = chats.open()
    server.reply_with([Answer("One."), Answer("Two.")])
    first = chat.send("c", "One?", idempotency_key="K1")
    chat.send("c", "Two?")
    again = chat.send("c", "One?", idempotency_key="K1")
    assert again.replayed
    assert (again.text, again.message, again.messages) == (first.text, first.message, first.messages)
    assert said(chats) == ["One?", "One.", "Two?", "Two."]


def test_a_request_that_failed_is_answered_for_its_own_message(chats: Chats, server: ModelServer) -> None:
    chat = chats.open()
    fail(chat, "K1", "First?", server)
    fail(chat, "K1", "First?", server)
    server.reply_with(Answer("First."))
    reply = chat.send("c", "First?", idempotency_key="K1")
    assert said(chats) == ["First?", "First."]
    assert (reply.window.first_position, reply.window.last_position) == (1, 1)
    assert [call.status for call in chats.store.calls("c")] == ["error", "error", "ok"]
    assert chats.store.verify() == []


def test_parts_of_its_own_do_not_count_and_are_not_sent(chats: Chats, server: ModelServer) -> None:
    chat = chats.open()
    for _ in range(2):
        server.reply_with([Cut(3, Answer("Once upon a time there was"))])
        with pytest.raises(Exception):  # noqa: B017 - the client's own, or the connection's
            list(chat.stream("c", "Tell.", idempotency_key="K1"))
    parts = said(chats)
    assert len(parts) == 3
    server.reply_with(Answer("The end."))
    reply = chat.send("c", "Tell.", idempotency_key="K1")
    assert asked(server) == ["Tell."]
    assert reply.message.position == 4
    assert said(chats) == [*parts, "The end."]
    assert chat.send("c", "Tell.", idempotency_key="K1").replayed


def test_parts_of_another_request_do_count(chats: Chats, server: ModelServer) -> None:
    chat = chats.open()
    fail(chat, "K1", "Tell.", server)
    server.reply_with([Cut(3, Answer("Once upon a time there was"))])
    with pytest.raises(Exception):  # noqa: B017 - the client's own, or the connection's
        list(chat.stream("c"))  # asks with what is there, without a key
    assert len(said(chats)) == 2
    with pytest.raises(errors.PositionConflict):
        chat.send("c", "Tell.", idempotency_key="K1")


def test_a_message_that_is_gone(chats: Chats, server: ModelServer) -> None:
    chat = chats.open()
    server.reply_with(Answer("Zero."))
    chat.send("c", "Zero?")
    fail(chat, "K1", "First?", server)
    chats.store.truncate("c", after=2)
    stored, requests = said(chats), len(server.requests)
    with pytest.raises(errors.PositionConflict):
        chat.send("c", "First?", idempotency_key="K1")
    assert (said(chats), len(server.requests)) == (stored, requests)


@pytest.mark.parametrize("remove", ["delete_message", "truncate"])
def test_a_reply_that_is_gone(chats: Chats, server: ModelServer, remove: str) -> None:
    chat = chats.open()
    server.reply_with(Answer("First."))
    chat.send("c", "First?", idempotency_key="K1")
    if remove == "truncate":
        chats.store.truncate("c", after=1)
    else:
        chats.store.delete_message("c", 2)
    requests = len(server.requests)
    with pytest.raises(errors.PositionConflict):
        chat.send("c", "First?", idempotency_key="K1")
    assert (said(chats), len(server.requests)) == (["First?"], requests)


def test_what_was_removed_behind_it_does_not_count(chats: Chats, server: ModelServer) -> None:
    chat = chats.open()
    fail(chat, "K1", "First?", server)
    chats.store.append("c", [{"role": "user", "content": "wait"}])
    chats.store.truncate("c", after=1)
    server.reply_with(Answer("First."))
    assert chat.send("c", "First?", idempotency_key="K1").text == "First."


def test_a_repeated_request_without_a_message(chats: Chats, server: ModelServer) -> None:
    chat = chats.open()
    chats.store.append("c", [{"role": "user", "content": "Well?"}])
    server.reply_with([Failure(500)])
    with pytest.raises(openai.InternalServerError):
        chat.send("c", idempotency_key="K1")
    server.reply_with(Answer("Well."))
    first = chat.send("c", idempotency_key="K1")
    again = chat.send("c", idempotency_key="K1")
    assert (first.text, again.text, again.replayed) == ("Well.", "Well.", True)
    assert said(chats) == ["Well?", "Well."]


def test_other_messages_under_a_known_key(chats: Chats, server: ModelServer) -> None:
    chat = chats.open()
    server.reply_with(Answer("One."))
    chat.send("c", "One?", idempotency_key="K1")
    requests = len(server.requests)
    with pytest.raises(errors.IdempotencyConflict, match="'K1'"):
        chat.send("c", "Two?", idempotency_key="K1")
    assert (said(chats), len(server.requests)) == (["One?", "One."], requests)


class TestExpectedPosition:
    def test_two_tabs_cannot_both_answer(self, chats: Chats, server: ModelServer) -> None:
        chat = chats.open()
        server.reply_with([Answer("One."), Answer("Two.")])
        chat.send("c", "One?", expected_position=0)
        chat.send("c", "Two?", expected_position=2)
        requests = len(server.requests)
        with pytest.raises(errors.PositionConflict) as refused:
            chat.send("c", "Other?", expected_position=2)
        assert (refused.value.expected_position, refused.value.last_position) == (2, 4)
        assert (len(said(chats)), len(server.requests)) == (4, requests)

    def test_a_new_conversation(self, chats: Chats) -> None:
        with pytest.raises(errors.PositionConflict):
            chats.open().send("c", "Hi", expected_position=3)
        with pytest.raises(errors.ConversationNotFound):
            chats.store.conversation("c")

    def test_a_repeated_request_is_not_asked_where_the_conversation_is(
        self, chats: Chats, server: ModelServer
    ) -> None:
        chat = chats.open()
        server.reply_with(Answer("One."))
        chat.send("c", "One?", expected_position=0, idempotency_key="K1")
        again = chat.send("c", "One?", expected_position=0, idempotency_key="K1")
        assert (again.text, again.replayed) == ("One.", True)

    @pytest.mark.parametrize("position", [-1, 1.5, "1", True])
    def test_no_position(self, chats: Chats, position: Any) -> None:
        with pytest.raises(errors.InvalidArgument, match="expected_position"):
            chats.open().send("c", "Hi", expected_position=position)


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_reply_equals_what_is_stored(chats: Chats, server: ModelServer, api: str) -> None:
    chat = chats.open(api=api)
    server.reply_with(Answer("One."))
    fresh = chat.send("c", "One?", idempotency_key="K1")
    stored = chats.store.messages("c")
    assert list(fresh.messages) == stored[1:]
    assert fresh.message == stored[-1]
    assert list(fresh.window.messages) == stored[:1]
    again = chat.send("c", "One?", idempotency_key="K1")
    assert (again.message, again.messages) == (fresh.message, fresh.messages)
    (call,) = chats.store.calls("c")
    assert fresh.call == call
