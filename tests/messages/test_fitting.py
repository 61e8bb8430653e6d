"""What is sent is what the endpoint takes, and what is stored stays as it came."""

import json
import string
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from tokenmem import Message
from tokenmem.chat.apis.completions import chat_fit
from tokenmem.chat.prompt import no_result_for, sendable
from tokenmem.messages.conversions import chat_messages
from tokenmem.messages.endpoint_rules import EndpointRules
from tokenmem.messages.fitting import INVALID_ARGUMENTS, NO_SIGNATURE, call_id_of, fitted
from tokenmem.messages.parsing import parse_message, parse_messages
from tokenmem.messages.sequences import EARLIER, NO_ANSWER, joined
from tokenmem.testing import problems_in

ANY = EndpointRules()
STRICT = EndpointRules(only_documented=True)
CHAT = "/v1/chat/completions"


def sent(message: dict[str, Any], rules: EndpointRules = ANY) -> dict[str, Any]:
    """How a message that came in as this goes out."""
    (only,) = chat_messages(chat_fit([parse_message(message)], rules))
    return only


def call(name: object = "look", arguments: object = "{}", **more: object) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": "call_1", "type": "function", "function": function, **more}


@pytest.mark.parametrize("key", ["annotations", "images", "citations", "logprobs", "odd"])
def test_what_only_replies_have_is_not_sent(key: str) -> None:
    assert sent({"role": "assistant", "content": "Hi", key: [{"a": 1}]}).keys() == {"role", "content"}


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
def test_reasoning_is_sent_beside_calls_alone(key: str) -> None:
    assert key not in sent({"role": "assistant", "content": "Hi", key: "Hm."})
    assert sent({"role": "assistant", "content": "Hi", key: "Hm.", "tool_calls": [call()]})[key] == "Hm."


@pytest.mark.parametrize(
    "key", ["reasoning_details", "thinking_blocks", "reasoning_opaque", "encrypted_content", "extra_content"]
)
def test_what_servers_want_back_they_get_back_unless_they_refused_it(key: str) -> None:
    reply = {"role": "assistant", "content": "Hi", key: [{"type": "reasoning.text", "text": "Hm."}]}
    assert sent(reply)[key] == reply[key]
    assert key not in sent(reply, STRICT)
    assert key not in sent(reply, EndpointRules(without=frozenset({key})))


def test_signatures_of_calls_go_back() -> None:
    signed = call(extra_content={"google": {"thought_signature": "c2ln"}}, index=0, custom=None)
    reply = {"role": "assistant", "content": None, "tool_calls": [signed, call()]}
    first, second = sent(reply)["tool_calls"]
    assert first["extra_content"] == signed["extra_content"]
    assert first.keys() == {"id", "type", "function", "extra_content"}
    assert second.keys() == {"id", "type", "function"}
    assert "extra_content" not in sent(reply, STRICT)["tool_calls"][0]
    wanted = sent({**reply, "tool_calls": [call()]}, EndpointRules(wants_signatures=True))["tool_calls"][0]
    assert wanted["extra_content"] == {"google": {"thought_signature": NO_SIGNATURE}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("{}", "{}"),
        ('{"a": 1}', '{"a": 1}'),
        ("", "{}"),
        ("  ", "{}"),
        ("null", "{}"),
        (None, "{}"),
        ({"a": 1}, '{"a":1}'),
        ('{"text": "Once upo', {INVALID_ARGUMENTS: '{"text": "Once upo'}),
        ("[1, 2]", {INVALID_ARGUMENTS: "[1, 2]"}),
        ('"text"', {INVALID_ARGUMENTS: '"text"'}),
        ('{"a": NaN}', {INVALID_ARGUMENTS: '{"a": NaN}'}),
        ("[" * 5000, {INVALID_ARGUMENTS: "[" * 5000}),
    ],
)
def test_arguments_are_a_json_object(given: object, expected: Any) -> None:
    (only,) = sent({"role": "assistant", "content": None, "tool_calls": [call(arguments=given)]})[
        "tool_calls"
    ]
    arguments = only["function"]["arguments"]
    assert arguments == expected if isinstance(expected, str) else json.loads(arguments) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Ann Lee", "Ann_Lee"), ("<b>\\x|/", "_b_x_"), ("Åsa", "Åsa"), ("a" * 90, "a" * 64), (" ", "_")],
)
def test_speakers_names(name: str, expected: str) -> None:
    assert sent({"role": "user", "content": "Hi", "name": name})["name"] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("look", "look"), ("get weather", "get_weather"), ("a.b", "a_b"), ("", "unknown"), (None, "unknown")],
)
def test_functions_names(name: object, expected: str) -> None:
    reply = {"role": "assistant", "content": None, "tool_calls": [call(name)]}
    assert sent(reply)["tool_calls"][0]["function"]["name"] == expected


def test_a_tool_of_the_chat_keeps_its_name() -> None:
    rules = EndpointRules(tool_names=frozenset({"server.look"}))
    reply = {"role": "assistant", "content": None, "tool_calls": [call("server.look")]}
    assert sent(reply, rules)["tool_calls"][0]["function"]["name"] == "server.look"


@pytest.mark.parametrize(
    ("rules", "is_taken"),
    [
        (ANY, lambda call_id: len(call_id) <= 40),
        (EndpointRules(longest_call_id=64), lambda call_id: len(call_id) <= 64),
        (EndpointRules(nine_character_ids=True), lambda call_id: len(call_id) == 9 and call_id.isalnum()),
    ],
)
def test_ids_are_the_same_for_call_and_result_and_different_for_others(
    rules: EndpointRules, is_taken: Callable[[str], bool]
) -> None:
    random = Random(7)
    ids = {"".join(random.choices(string.printable, k=random.randint(1, 120))) for _ in range(500)}
    made = {call_id: call_id_of(call_id, rules) for call_id in ids}
    assert all(map(is_taken, made.values()))
    assert len(set(made.values())) == len(ids)
    for call_id in list(ids)[:50]:
        asked = parse_message(
            {"role": "assistant", "content": None, "tool_calls": [call() | {"id": call_id}]}
        )
        answered = parse_message({"role": "tool", "tool_call_id": call_id, "content": "x"})
        one, other = chat_messages(chat_fit([asked, answered], rules))
        assert one["tool_calls"][0]["id"] == other["tool_call_id"] == made[call_id]


def test_an_id_that_carries_a_signature_stays() -> None:
    signed = f"call_1__thought__{'A' * 400}"
    assert call_id_of(signed, ANY) == signed
    assert len(call_id_of(signed, STRICT)) == 40


def test_a_picture_that_a_tool_returned_follows_in_a_users_message() -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
    calls = [call() | {"id": each} for each in ("a", "b")]
    messages = parse_messages(
        [
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "A cat."}, picture]},
            {"role": "tool", "tool_call_id": "b", "content": [picture]},
            {"role": "user", "content": "What do you see?"},
        ]
    )
    _, first, second, pictures, user = chat_messages(chat_fit(messages, ANY))
    assert first["content"] == "A cat.\n[image_url: in the next message]"
    assert second["content"] == "[image_url: in the next message]"
    assert pictures == {"role": "user", "content": [picture, picture]}
    assert user["content"] == "What do you see?"


def test_media_in_a_text_is_named_and_examples_stay() -> None:
    media = f"data:image/png;base64,{'iVBOR' * 1000}"
    message = Message.assistant(f"Here: ![a cat]({media}) and more.")
    text = fitted(message, ANY).content
    assert text == "Here: ![a cat](data:image/png [5,000 characters left out]) and more."
    short = Message.user("What is data:image/png;base64,iVBORw0KGgo= ?")
    assert fitted(short, ANY) is short


def test_learned_forms() -> None:
    assert (
        sent({"role": "developer", "content": "x"}, EndpointRules(developer_is_system=True))["role"]
        == "system"
    )
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert sent({"role": "user", "content": parts}, EndpointRules(plain_text=True))["content"] == "a\nb"
    reply = {"role": "assistant", "content": None, "tool_calls": [call()]}
    assert sent(reply)["content"] is None
    assert sent(reply, EndpointRules(no_null=True))["content"] == ""
    thought = {**reply, "reasoning": "Hm."}
    assert sent(reply, EndpointRules(wants_reasoning=True))["reasoning_content"] == ""
    assert sent(thought, EndpointRules(wants_reasoning=True))["reasoning_content"] == "Hm."


ORDERS = [
    (["user", "user", "assistant", "assistant", "user"], {"alternates": True}, ["user", "assistant", "user"]),
    (["assistant", "user"], {"begins_with_user": True}, ["user"]),
    (["system", "assistant", "user"], {"begins_with_user": True}, ["system", "user"]),
    (["system", "assistant"], {"begins_with_user": True}, ["system", "user", "assistant"]),
    (["system", "user", "system"], {"system_only_first": True}, ["system", "user", "user"]),
    (["user", "tool", "user"], {"answers_after_tools": True}, ["user", "tool", "assistant", "user"]),
]


@pytest.mark.parametrize(("roles", "rules", "expected"), ORDERS)
def test_orders(roles: list[str], rules: dict[str, bool], expected: list[str]) -> None:
    messages = [
        Message.tool("r", tool_call_id="call_1") if role == "tool" else Message(role, f"{role} {place}")
        for place, role in enumerate(roles)
    ]
    made = chat_messages(chat_fit(messages, EndpointRules(**rules)))  # type: ignore[arg-type]
    made = joined(made) if rules.get("alternates") else made
    assert [message["role"] for message in made] == expected
    said = json.dumps(made)
    newest = next(message for message in reversed(messages) if message.role != "assistant")
    assert newest.content in said
    if rules.get("alternates"):
        assert all(f"{role} {place}" in said for place, role in enumerate(roles)), "nothing is lost"
    assert (EARLIER in said) is (expected == ["system", "user", "assistant"])
    assert (NO_ANSWER in said) is bool(rules.get("answers_after_tools"))


def some_reply(random: Random) -> dict[str, Any]:
    """A reply as some server may send it."""
    reply: dict[str, Any] = {
        "role": "assistant",
        "content": random.choice(["Hi.", "", None, [{"type": "text", "text": "Hi."}]]),
    }
    for key in ("reasoning", "reasoning_content", "refusal", "images", "audio", "name", "odd", "annotations"):
        if random.random() < 0.3:
            reply[key] = (
                random.choice([None, [], "text", {"id": "a"}, [{"b": 1}]]) if key != "name" else "A B"
            )
    if not isinstance(reply.get("refusal"), str):
        reply.pop("refusal", None)
    if not isinstance(reply.get("audio"), dict):
        reply.pop("audio", None)
    if random.random() < 0.6:
        letters = string.ascii_letters + " .<>|/\\-_\u00e5"
        reply["tool_calls"] = [
            {
                "id": f"{number}{'x' * random.choice([1, 39, 40, 41, 64, 90])}",
                "type": random.choice(["function", None]),
                "index": number,
                "function": {
                    "name": "".join(random.choices(letters, k=random.randint(0, 80))),
                    "arguments": random.choice(["", "{}", '{"a', "null", "[]", None, {"a": 1}]),
                    "odd": None,
                },
                random.choice(["extra_content", "odd"]): {"a": 1},
            }
            for number in range(random.randint(1, 3))
        ]
    return reply


def test_whatever_was_stored_openai_takes_what_is_sent() -> None:
    random = Random(13)
    for _ in range(1500):
        history: list[Any] = [{"role": "user", "name": "Ann | Lee", "content": "Hi"}, some_reply(random)]
        calls = history[1].get("tool_calls") or []
        history += [
            {
                "role": "tool",
                "tool_call_id": each["id"],
                "content": random.choice(["x", [{"type": "text", "text": "x"}]]),
            }
            for each in calls
            if random.random() < 0.7
        ]
        messages = sendable(parse_messages(history), no_result_for(9))
        fit = chat_fit(messages, STRICT)
        assert chat_fit(fit, STRICT) == fit, "what fits stays"
        assert all(one is other for one, other in zip(chat_fit(fit, STRICT), fit, strict=True))
        body = {"model": "gpt-4o", "messages": chat_messages(fit)}
        assert problems_in(CHAT, body) == [], body
        stored = [message.to_openai() for message in parse_messages(history)]
        assert stored == history
