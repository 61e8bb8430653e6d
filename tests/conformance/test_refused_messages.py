"""What was refused once is not sent for ever, and a fault of configuration makes the model forget nothing."""

from typing import Any

import openai
import pytest

from tests.support.chats import Chats
from tests.support.refusing import BAD, changes, refusing, sent
from tests.support.stores import Stores
from tokenmem import Message
from tokenmem.testing import Answer, Failure, ModelServer
from tokenmem.testing.replies import Reply, Request


def statuses(chats: Chats) -> list[str]:
    return [call.status for call in chats.store.calls("c")]


def test_a_message_that_nobody_named(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with(refusing("The image data you provided does not represent a valid image"))
    chat = chats.open(api=api)
    with pytest.raises(openai.BadRequestError) as raised:
        chat.send("c", BAD)
    assert "message 1" in str(raised.value.__notes__)
    assert chat.send("c", "Never mind. What is 2+2?").text == "Fine."
    assert statuses(chats) == ["refused", "ok"]
    assert changes(chats, 1) == [(1, "perhaps_refused")]
    assert changes(chats, 2) == [(1, "refused")]
    asked = len(server.requests)
    assert chats.open(api=api).send("c", "And 3+3?").text == "Fine.", "in another process"
    assert len(server.requests) == asked + 1, "it is known now"
    assert "2+2" in sent(server.requests[-1])
    assert chats.store.messages("c")[0].to_openai()["content"] == BAD, "the rows keep everything"


def test_a_message_that_is_named(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with(refusing("Invalid '{name}[1].content': not a valid image"))
    chat = chats.open(api=api, instructions="Be brief." if api == "chat" else None)
    if api == "responses":
        chats.store.append("c", [Message.user("Hello"), Message.assistant("Hi")])
        server.reply_with(refusing("Invalid '{name}[2].content': not a valid image"))
    first = 3 if api == "responses" else 1
    with pytest.raises(openai.BadRequestError) as raised:
        chat.send("c", BAD)
    assert f"message {first} was refused" in str(raised.value.__notes__)
    assert changes(chats, 1) == [(first, "refused")]
    asked = len(server.requests)
    assert chat.send("c", "Never mind.").text == "Fine."
    assert len(server.requests) == asked + 1, "it is left out at once"
    for number in range(12):  # more calls than are looked at
        chat.send("c", f"And {number}?")
        assert "BAD" not in sent(server.requests[-1])
    assert chats.store.verify() == []


def test_asking_without_a_message_sends_it_again(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with(refusing("Invalid '{name}[0].content': not a valid image"))
    chat = chats.open(api=api)
    for ask in (lambda: chat.send("c", BAD), lambda: chat.send("c")):
        with pytest.raises(openai.BadRequestError):
            ask()
    server.reply_with(Answer("A cat."))
    assert chat.send("c").text == "A cat."
    assert "BAD" in sent(server.requests[-1])
    assert changes(chats, 3) == [(1, "accepted")]
    chat.send("c", "What colour?")
    assert "BAD" in sent(server.requests[-1]), "it was accepted"
    assert changes(chats, 4) == []


def test_a_repeated_request_asks_for_its_own_message(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with(refusing("Invalid '{name}[0].content': not a valid image"))
    chat = chats.open(api=api)
    with pytest.raises(openai.BadRequestError):
        chat.send("c", BAD, idempotency_key="k")
    server.reply_with(Answer("A cat."))
    assert chat.send("c", BAD, idempotency_key="k").text == "A cat."
    assert "BAD" in sent(server.requests[-1])
    assert [message.role for message in chats.store.messages("c")] == ["user", "assistant"]


def test_an_edited_message_is_sent(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with(refusing("Invalid '{name}[0].content': not a valid image"))
    chat = chats.open(api=api)
    with pytest.raises(openai.BadRequestError):
        chat.send("c", BAD)
    chats.store.edit("c", 1, {"role": "user", "content": "Never mind the picture."})
    chat.send("c", "Hello?")
    assert "Never mind the picture." in sent(server.requests[-1])


def test_answers_to_a_refused_message_go_with_it(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with(Answer("Fine."))
    chat = chats.open(api=api)
    for text in ("First.", "BAD words.", "Last."):
        chat.send("c", text)
    server.reply_with(refusing("Invalid '{name}[2].content': against our rules"))
    with pytest.raises(openai.BadRequestError):
        chat.send("c", "Anything else?")
    reply = chat.send("c", "Hello?")
    assert [each["content"] for each in _plain(server.requests[-1])] == [
        *("First.", "Fine.", "Last.", "Fine.", "Anything else?", "Hello?")
    ]
    assert [(each["position"], each["change"]) for each in reply.call.changes] == [
        (3, "refused"),
        (4, "left_out"),
    ]


def _plain(request: Request) -> list[Any]:
    """Messages as role and text, whichever the API."""
    found = []
    for each in request.body.get("messages", request.body.get("input")):
        content = each["content"]
        text = content if isinstance(content, str) else "".join(part["text"] for part in content)
        found.append({"role": each["role"], "content": text})
    return found


def test_a_content_filter_names_the_newest(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with(refusing("Filtered by the content management policy.", "content_filter"))
    chat = chats.open(api=api)
    with pytest.raises(openai.BadRequestError):
        chat.send("c", "BAD words")
    assert changes(chats, 1) == [(1, "refused")]
    asked = len(server.requests)
    assert chat.send("c", "Good words").text == "Fine."
    assert len(server.requests) == asked + 1


def test_a_prompt_that_is_too_long_means_a_smaller_window(
    chats: Chats, server: ModelServer, api: str
) -> None:
    def answer(request: Request) -> Reply:
        if len(sent(request)) > 6000:
            return Failure(
                400, "context_length_exceeded", "This model's maximum context length is 1000 tokens."
            )
        return Answer("Fine.")

    server.reply_with(answer)
    chat = chats.open(api=api, token_limit=20_000)
    words = iter(range(100))
    with pytest.raises(openai.BadRequestError):  # noqa: PT012 -- at some time
        while True:
            chat.send("c", f"{next(words)} " * 200)
    calls = chats.store.calls("c")
    refused = calls[-1]
    assert refused.status == "refused"
    assert [each for each in changes(chats, len(calls)) if each[1] == "too_long"], (
        "not yet how long it may be"
    )
    (told,) = [each for each in chat.send("c", "Hello?").call.changes or () if each["change"] == "too_long"]
    assert told["token_limit"] < refused.window_tokens
    for number in range(11):
        reply = chat.send("c", f"And {number}?")
        assert reply.call.window_tokens <= refused.window_tokens
    assert reply.window.first_position > 1
    assert statuses(chats)[len(calls) :] == ["ok"] * 12


WRONG: dict[str, dict[str, Any]] = {
    "option": {"temperature": 2},
    "tool": {"tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "x"}}}]},
    "model": {"model": "gpt-99"},
}
TOLD = {
    "option": "Invalid 'temperature': decimal above maximum value.",
    "tool": "Invalid schema for function 'look': 'x' is not valid.",
    "model": "The model `gpt-99` does not exist or you do not have access to it.",
}


@pytest.mark.parametrize("says", ["what", "nothing"])
@pytest.mark.parametrize("wrong", ["option", "tool", "model"])
def test_a_fault_of_configuration_forgets_nothing(
    chats: Chats, server: ModelServer, api: str, wrong: str, says: str
) -> None:
    """However often it is refused, and whether the server says what it refuses or not."""
    server.reply_with(Failure(400, None, TOLD[wrong] if says == "what" else "Bad Request"))
    chat = chats.open(api=api, **WRONG[wrong])
    for number in range(20):
        with pytest.raises(openai.BadRequestError):
            chat.send("c", f"Question {number}.")
    server.reply_with(Answer("Here are all the answers."))
    assert chats.open(api=api).send("c", "Well?").text == "Here are all the answers."
    prompt = sent(server.requests[-1])
    assert all(f"Question {number}." in prompt for number in range(20))
    assert statuses(chats) == ["refused"] * 20 + ["ok"]


@pytest.mark.parametrize("status", [401, 403, 404, 409, 429, 500, 503])
def test_other_failures_leave_nothing_out(chats: Chats, server: ModelServer, status: int) -> None:
    server.reply_with([*[Failure(status, None, "messages[0]: no")] * 3, Answer("Fine.")])
    chat = chats.open()
    for number in range(3):
        with pytest.raises(openai.APIStatusError):
            chat.send("c", f"Question {number}.")
    chat.send("c", "Well?")
    assert "Question 0." in sent(server.requests[-1])
    assert statuses(chats) == ["error"] * 3 + ["ok"]
    assert [call.changes for call in chats.store.calls("c")] == [None] * 4


def test_several_bad_messages_in_a_row(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with(refusing("Bad Request"))
    chat = chats.open(api=api)
    for _ in range(10):
        with pytest.raises(openai.BadRequestError):
            chat.send("c", BAD)
    assert chat.send("c", "Hello?").text == "Fine."
    assert chat.send("c", "And now?").text == "Fine."


def test_a_history_that_came_from_elsewhere(chats: Chats, server: ModelServer, api: str) -> None:
    """Nobody knows which of many messages it is: the conversation goes on all the same."""
    server.reply_with(refusing("Bad Request"))
    chats.store.append("c", [Message.user("One."), Message.user(BAD), Message.assistant("Two.")] * 5)
    chat = chats.open(api=api)
    with pytest.raises(openai.BadRequestError):
        chat.send("c", "Hello?")
    assert chat.send("c", "Hello again?").text == "Fine."
    prompt = sent(server.requests[-1])
    assert "One." in prompt, "what is plain stays where that is enough"
    assert "Hello?" in prompt


@pytest.mark.parametrize("bad", range(7))
def test_an_old_text_is_found(chats: Chats, server: ModelServer, bad: int) -> None:
    """And nothing else is left out, where there are few messages."""
    server.reply_with(refusing("Bad Request"))
    texts = [f"{'BAD ' if place == bad else ''}text {place}" for place in range(7)]
    chats.store.append("c", [Message.user(text) for text in texts])
    chat = chats.open()
    with pytest.raises(openai.BadRequestError):
        chat.send("c", "Hello?")
    assert chat.send("c", "Hello again?").text == "Fine."
    assert [each["content"] for each in _plain(server.requests[-1])] == [
        *(text for place, text in enumerate(texts) if place != bad),
        *("Hello?", "Hello again?"),
    ]


def test_usage_counts_refused_calls_as_failed(chats: Chats, server: ModelServer) -> None:
    server.reply_with(refusing("Bad Request"))
    chat = chats.open()
    with pytest.raises(openai.BadRequestError):
        chat.for_owner("ann").send("c", BAD)
    (day,) = chats.store.usage(owner="ann")
    assert (day.calls, day.failed_calls) == (1, 1)


def test_a_refused_field_is_asked_for_once(stores: Stores) -> None:
    def answer(request: Request) -> Reply:
        for index, message in enumerate(request.body["messages"]):
            if "reasoning_details" in message:
                return Failure(400, None, f"'messages.{index}' : property 'reasoning_details' is unsupported")
        return Answer("Fine.", extra={"reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]})

    with ModelServer(answer, allow_keys=("reasoning_details",)) as server:
        chats = Chats(stores, server)
        chat = chats.open()
        for number in range(4):
            assert chat.send("c", f"Question {number}.").text == "Fine."
        chats.close()
    assert len(server.requests) == 5, "it is learned in the second turn"
    assert statuses(chats) == ["ok"] * 4
    assert changes(chats, 2) == [(2, "changed")]
    assert chats.store.messages("c")[1].to_openai()["reasoning_details"]


def test_more_than_half_of_the_window(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with([Answer("Fine."), Answer("word " * 500), Answer("Fine.")])
    chat = chats.open(api=api, token_limit=700)
    assert chat.send("c", "Hello?").over_half == ()
    long = chat.send("c", "Tell me all.")
    assert long.over_half == (4,)
    assert changes(chats, 2) == [(4, "over_half")]
    after = chat.send("c", "And?")
    assert after.over_half == ((4,) if after.window.first_position <= 4 else ())


def test_a_pinned_message_that_is_refused(chats: Chats, server: ModelServer, api: str) -> None:
    server.reply_with(refusing("Bad Request"))
    chats.store.append(
        "c", [Message.user("BAD words", pinned=True), Message.user("Hi"), Message.assistant("Ho")]
    )
    chat = chats.open(api=api)
    with pytest.raises(openai.BadRequestError):
        chat.send("c", "Hello?")
    assert chat.send("c", "Hello again?").text == "Fine."
    asked = len(server.requests)
    assert chat.send("c", "And now?").text == "Fine."
    assert len(server.requests) == asked + 1
    assert "Ho" in sent(server.requests[-1]), "what stands behind a pinned message does not answer it"
