"""Refusals that name something else than what they are about: the wrong message, an option, a length."""

import json
from itertools import pairwise
from typing import Any

import openai
import pytest

from tests.support.chats import Chats
from tests.support.refusing import BAD, changes, refusing, sent
from tokenmem import Message
from tokenmem.testing import Answer, Failure, ModelServer
from tokenmem.testing.replies import Reply, Request


def longer_than(words: int) -> Any:
    """A server that takes no longer prompts."""

    def answer(request: Request) -> Reply:
        if len(sent(request).split()) > words:
            return Failure(
                400, "context_length_exceeded", f"This model's maximum context length is {words} tokens."
            )
        return Answer("Fine.")

    return answer


def test_what_is_asked_alone_fits(chats: Chats, server: ModelServer, api: str) -> None:
    """Half of the window cannot hold the question, nor can what is known of the limit."""
    server.reply_with(longer_than(900))
    chats.store.append("c", [Message.user("word " * 25), Message.assistant("word " * 25)] * 30)
    chat = chats.open(api=api, token_limit=8000, stride=None)
    with pytest.raises(openai.BadRequestError):
        chat.send("c", "Hello?")
    assert chat.send("c", "word " * 700).text == "Fine."
    assert chat.send("c", "word " * 800).text == "Fine."


def test_a_pinned_message_that_is_too_long(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with(longer_than(600))
    chats.store.append("c", [Message.user("word " * 700, pinned=True)])
    chat = chats.open(api=api, token_limit=8000)
    with pytest.raises(openai.BadRequestError):
        chat.send("c", "Hello?")
    for _ in range(3):
        assert chat.send("c", "Hello?").text == "Fine."


def test_a_picture_that_is_too_large_does_not_shorten_the_window(chats: Chats, server: ModelServer) -> None:
    def answer(request: Request) -> Reply:
        return Failure(413, None, "Payload Too Large") if "BAD" in sent(request) else Answer("Fine.")

    server.reply_with(answer)
    chat = chats.open()
    for number in range(5):
        chat.send("c", f"Question {number}.")
    with pytest.raises(openai.APIStatusError):
        chat.send("c", BAD)
    reply = chat.send("c", "Never mind.")
    assert "Question 0." in sent(server.requests[-1])
    assert {each["change"] for each in reply.call.changes} == {"accepted", "refused"}


@pytest.mark.parametrize(
    "told",
    [
        "This model's maximum context length is 400 tokens. However, you requested 9000 tokens.",
        "'max_tokens' or 'max_completion_tokens' is too large: 100. The context length is 400",
        "Content moderation is not configured for this deployment",
        "Bad Request",
        "Provider returned error",
    ],
)
def test_faults_that_are_told_in_misleading_words(chats: Chats, server: ModelServer, told: str) -> None:
    server.reply_with(Failure(400, None, told))
    chat = chats.open(max_tokens=100, extra_body={"provider": {"order": ["a"]}})
    for number in range(20):
        with pytest.raises(openai.BadRequestError):
            chat.send("c", f"Question {number}.")
    server.reply_with(Answer("Fine."))
    chat.send("c", "Well?")
    assert all(f"Question {number}." in sent(server.requests[-1]) for number in range(20))


@pytest.mark.parametrize(
    "told",
    [
        "Provider returned error",
        "The picture has the wrong temperature",
        "The model could not read the image: file not found",
        "{'metadata': {'raw': 'x'}}",
    ],
)
def test_messages_whose_refusal_has_an_options_name_in_it(
    chats: Chats, server: ModelServer, told: str
) -> None:
    server.reply_with(refusing(told))
    chat = chats.open(temperature=1, extra_body={"provider": {}}, metadata={"a": "b"})
    chat.send("c", "Hello.")
    with pytest.raises(openai.BadRequestError):
        chat.send("c", BAD)
    assert chat.send("c", "Never mind.").text == "Fine."
    assert "Hello." in sent(server.requests[-1])


def test_many_that_are_named_one_after_the_other(chats: Chats, server: ModelServer, api: str) -> None:
    def answer(request: Request) -> Reply:
        messages = request.body.get("messages", request.body.get("input"))
        bad = next((place for place, each in enumerate(messages) if "BAD" in json.dumps(each)), None)
        name = "messages" if "messages" in request.body else "input"
        return Answer("Fine.") if bad is None else Failure(400, None, f"Invalid '{name}[{bad}]': expired")

    server.reply_with(answer)
    chats.store.append("c", [Message.user(BAD), Message.assistant("A cat.")] * 20)
    chat = chats.open(api=api)
    with pytest.raises(openai.BadRequestError):
        chat.send("c", "Hello?")
    assert chat.send("c", "Hello?").text == "Fine."
    asked = len(server.requests)
    assert chat.send("c", "And?").text == "Fine."
    assert len(server.requests) == asked + 1, "all of them are known"


def test_an_index_that_does_not_count_the_instructions(chats: Chats, server: ModelServer) -> None:
    def answer(request: Request) -> Reply:
        messages = [each for each in request.body["messages"] if each["role"] != "system"]
        bad = next((place for place, each in enumerate(messages) if "BAD" in json.dumps(each)), None)
        return (
            Answer("Fine.") if bad is None else Failure(400, None, f"messages.{bad}.content.1.image: invalid")
        )

    server.reply_with(answer)
    chat = chats.open(instructions="Be brief.")
    chat.send("c", "My name is Ann.")
    chat.send("c", "I like cats.")
    with pytest.raises(openai.BadRequestError):
        chat.send("c", BAD)
    assert changes(chats, 3) == [(5, "refused")]
    assert chat.send("c", "Who am I?").text == "Fine."
    assert "Ann" in sent(server.requests[-1])


def test_a_form_that_helped_once_by_chance_is_not_kept(chats: Chats, server: ModelServer) -> None:
    server.reply_with([*[Failure(400, None, "Bad Request")] * 2, *[Answer("Fine.")] * 3])
    chat = chats.open()
    with pytest.raises(openai.BadRequestError):
        chat.send("c", "Hello?")
    chat.send("c", "Hello?")
    chats.store.append("d", [Message.assistant("Welcome!"), Message.user("a"), Message.system("In German.")])
    chat.send("d", "x")
    assert [each["role"] for each in server.requests[-1].body["messages"]] == [
        *("assistant", "user", "system", "user")
    ]


def test_an_unnamed_refusal_is_known_behind_other_failures(chats: Chats, server: ModelServer) -> None:
    server.reply_with(refusing("Bad Request"))
    chat = chats.open()
    with pytest.raises(openai.BadRequestError):
        chat.send("c", BAD)
    server.reply_with(Failure(503, None, "Later", {"x-should-retry": "false"}))
    for _ in range(10):
        with pytest.raises(openai.InternalServerError):
            chat.send("c")
    server.reply_with(refusing("Bad Request"))
    assert chat.send("c", "Never mind.").text == "Fine."


def test_a_rule_and_a_message_in_one_turn(chats: Chats, server: ModelServer) -> None:
    """The server wants roles to alternate, and refuses a picture without a word."""

    def answer(request: Request) -> Reply:
        roles = [each["role"] for each in request.body["messages"]]
        if any(one == other for one, other in pairwise(roles)):
            return Failure(400, None, "Conversation roles must alternate user/assistant/user/assistant/...")
        return Failure(400, None, "Bad Request") if "BAD" in sent(request) else Answer("Fine.")

    server.reply_with(answer)
    chats.store.append("c", [Message.user("One."), Message.user("Two."), Message.assistant("Three.")])
    chat = chats.open()
    with pytest.raises(openai.BadRequestError):
        chat.send("c", BAD)
    assert chat.send("c", "Never mind.").text == "Fine."
    assert "One." in sent(server.requests[-1])
    asked = len(server.requests)
    assert chat.send("c", "And?").text == "Fine."
    assert len(server.requests) == asked + 1
