"""What a refusal is taken for, by the words in which servers refuse."""

from types import SimpleNamespace
from typing import Any

import pytest

from tokenmem import Message
from tokenmem.chat.learning import learned_rules
from tokenmem.chat.refusals import content_digest, known_refusals, refusal_of, still_refused
from tokenmem.messages.endpoint_rules import EndpointRules
from tokenmem.operations.snapshot import CallNote

REQUEST: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}],
    "temperature": 9,
    "max_tokens": 10**9,
    "tools": [{}],
    "stop": ["x"],
    "extra_body": {"top_k": 1},
}


class Refused(Exception):
    """As the openai package's BadRequestError."""

    def __init__(self, told: str, status_code: int | None = 400, **told_by: Any) -> None:
        super().__init__(told)
        self.status_code = status_code
        for name, value in told_by.items():
            setattr(self, name, value)


def kind(told: str, status_code: int | None = 400, **told_by: Any) -> str | None:
    refusal = refusal_of(Refused(told, status_code, **told_by), REQUEST)
    return None if refusal is None else refusal.kind


@pytest.mark.parametrize("status", [401, 403, 404, 408, 409, 429, 500, 502, 503, None])
def test_what_is_no_refusal(status: int | None) -> None:
    assert kind("messages[0]: content filter, maximum context length", status) is None


@pytest.mark.parametrize(
    "told",
    [
        "Invalid 'temperature': decimal above maximum value.",
        "top_k: Extra inputs are not permitted",
        "Invalid 'stop': too many sequences",
        "Invalid schema for function 'look': None is not of type 'object'",
        "tools.0.function: Field required",
        "Invalid 'tools[0].function.name': empty string.",
        "The model `gpt-9` does not exist or you do not have access to it.",
        "model_not_found",
        "[{'type': 'extra_forbidden', 'loc': ('body', 'max_tokens'), 'msg': 'Extra inputs'}]",
    ],
)
def test_a_refusal_of_the_request_itself(told: str) -> None:
    assert kind(told) == "request"


def test_a_parameter_that_only_the_body_names() -> None:
    assert kind("Unsupported value", param="temperature") == "request"
    sure = refusal_of(Refused("Unsupported value", param="temperature"), REQUEST)
    assert sure is not None
    assert sure.is_sure, "nothing else is tried"
    assert kind("Unsupported value", body={"error": {"param": "tools[0].type"}}) == "request"
    assert kind("Invalid", body={"error": {"param": "messages[0].content"}}) == "message"


@pytest.mark.parametrize(
    "told",
    [
        "This model's maximum context length is 4097 tokens. However, your messages resulted in 4301 tokens.",
        "This endpoint's maximum context length is 32768 tokens. However, you requested about 42832 tokens.",
        "Input is too long for requested model.",
        "prompt is too long: 208310 tokens > 200000 maximum",
        "The input token count (1051234) exceeds the maximum number of tokens allowed (1048576).",
        "Please reduce the length of the messages or completion.",
        "the request exceeds the available context size. try increasing the context size",
        "Request too large for gpt-4o",
        "'max_tokens' is too large: 100. This model's maximum context length is 400 tokens.",
        "You requested 500 tokens (400 in the messages, 100 in the completion). Please reduce the length.",
        "context_length_exceeded",
    ],
)
def test_a_prompt_that_is_too_long(told: str) -> None:
    assert kind(told) == "too_long"


@pytest.mark.parametrize(
    ("told", "index"),
    [
        ("Invalid 'messages[3].content[1].image_url.url': invalid base64", 3),
        ("messages.11.content.8.image.source.base64.data: Image format image/png not supported", 11),
        ("messages.[2].content: unsupported file", 2),
        ("{'loc': ['body', 'messages', 4, 'user', 'content'], 'msg': 'Input should be valid'}", 4),
        ("Could not read the picture in message at index 7", 7),
        ("Invalid 'input[2].content[0].file_id'", 2),
        ("('messages', 5, 'content')", 5),
    ],
)
def test_a_message_by_its_index(told: str, index: int) -> None:
    refusal = refusal_of(Refused(told), REQUEST)
    assert refusal is not None
    assert (refusal.kind, refusal.index) == ("message", index)


@pytest.mark.parametrize(
    "told",
    [
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "Invalid prompt: your prompt was flagged as potentially violating our usage policy.",
        "data_inspection_failed: Input data may contain inappropriate content.",
        "content_policy_violation",
    ],
)
def test_a_content_filter(told: str) -> None:
    assert kind(told) == "filter"


@pytest.mark.parametrize(
    "told",
    [
        "Bad Request",
        "Could not process image",
        "The image data you provided does not represent a valid image",
        "This model does not support image input",
        "Invalid request: unsupported image format: text/plain; charset=utf-8",
        "Content moderation is not configured for this deployment",
        "input: 3 is not one of the allowed values",
        "500 in the messages, 100 in the completion",
        "",
    ],
)
def test_nobody_knows_why(told: str) -> None:
    assert kind(told) == "unknown"


def test_an_item_by_its_id() -> None:
    refusal = refusal_of(Refused("The encrypted content for item rs_0aB1 could not be verified."), REQUEST)
    assert refusal is not None
    assert (refusal.kind, refusal.items) == ("message", ("rs_0ab1",))


def test_an_error_of_another_package() -> None:
    """As httpx and requests have it: the status and the text are the response's."""
    error = RuntimeError("400 Bad Request")
    error.response = SimpleNamespace(status_code=400, text="messages[3] is no picture")  # type: ignore[attr-defined]
    refusal = refusal_of(error, REQUEST)
    assert refusal is not None
    assert (refusal.kind, refusal.index) == ("message", 3)


def test_a_refusal_in_a_stream_of_status_200() -> None:
    assert kind("Bad Request", None, code=400) == "unknown"
    assert kind("Bad Request", None, body={"error": {"code": "400"}}) == "unknown"
    assert kind("Upstream", None, body={"error": {"code": 502}}) is None


REPLY = {"role": "assistant", "content": "Hi", "reasoning": "Hm.", "name": "Ann", "reasoning_details": []}


@pytest.mark.parametrize(
    ("told", "keys"),
    [
        ("'messages.1' : property 'reasoning' is unsupported", {"reasoning"}),
        ("property {'reasoning'} is unsupported", {"reasoning"}),
        (
            "Extra inputs are not permitted, field: 'messages[8].reasoning', value: 'what is required'",
            {"reasoning"},
        ),
        (
            "messages.2.assistant.reasoning: property 'messages.2.assistant.reasoning' is unsupported",
            {"reasoning"},
        ),
        ("Additional properties are not allowed ('reasoning_details' was unexpected)", {"reasoning_details"}),
        ("{'loc': ['body', 'messages', 1, 'assistant', 'reasoning']}", {"reasoning"}),
        ("'messages[1].name' is not supported", {"name"}),
        ("the name of this model is unknown to us", set()),
        ("messages[1]: unknown field", set()),
        ("missing `reasoning_content` field in the assistant message", set()),
    ],
)
def test_keys_that_a_refusal_names(told: str, keys: set[str]) -> None:
    rules = learned_rules(told.lower(), [REPLY], EndpointRules())
    assert (rules.without if rules is not None else set()) == keys


@pytest.mark.parametrize(
    ("told", "rule"),
    [
        ("Conversation roles must alternate user/assistant/user/assistant/...", "alternates"),
        ("After the optional system message, conversation roles must alternate", "alternates"),
        ("A conversation must alternate between user and assistant roles.", "alternates"),
        ("The first message must be of the role 'user'", "begins_with_user"),
        ("A conversation must start with a user message.", "begins_with_user"),
        ("Unexpected role 'user' after role 'tool'", "answers_after_tools"),
        ("System message must be at the beginning.", "system_only_first"),
        ("unknown variant `developer`, expected one of `system`, `user`", "developer_is_system"),
        ("Tool call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9.", "nine_character_ids"),
        ("The `reasoning_content` in the thinking mode must be passed back to the API.", "wants_reasoning"),
        ("Missing `reasoning_content` field in the assistant message at message index 3", "wants_reasoning"),
        ("Function call is missing a thought_signature in functionCall parts.", "wants_signatures"),
        ("('messages.0.content' : value must be a string)", "plain_text"),
        ("messages[2]: invalid type: sequence, expected a string at line 1 column 13946", "plain_text"),
        ("Invalid 'content' type. Expected one of: ['str'], got list.", "plain_text"),
        ("Input should be a valid string", "plain_text"),
        ("content must not be null", "no_null"),
    ],
)
def test_rules_that_a_refusal_teaches(told: str, rule: str) -> None:
    rules = learned_rules(told.lower(), [REPLY], EndpointRules())
    assert rules is not None
    assert getattr(rules, rule)


def note(number: int, status: str, *changes: dict[str, Any], model: str = "m") -> CallNote:
    return CallNote(number, status, model, number, list(changes))


def change(position: int, what: str, **more: Any) -> dict[str, Any]:
    return {"position": position, "change": what, **more}


def test_of_each_position_the_newest_word_holds() -> None:
    notes = [
        note(1, "refused", change(1, "perhaps_refused"), change(2, "perhaps_refused")),
        note(2, "ok", change(1, "refused", digest="ab"), change(2, "accepted")),
        note(3, "ok", change(1, "refused", digest="cd")),
    ]
    known = known_refusals(notes, 3, "m")
    assert known.refused == {1: "cd"}
    assert not known.perhaps
    assert not known.may_be_blocked
    assert known_refusals([*notes, note(4, "refused")], 4, "m").may_be_blocked
    assert not known_refusals([*notes, note(4, "refused")], 5, "m").may_be_blocked
    assert known_refusals([*notes, note(4, "ok", change(1, "accepted"))], 4, "m").refused == {}


def test_a_limit_is_the_models_own_and_odd_values_are_nothing() -> None:
    notes = [note(1, "refused", change(1, "too_long", token_limit=70)), note(2, "refused", {"change": 7})]
    assert known_refusals(notes, 2, "m").token_limit == 70
    assert known_refusals(notes, 2, "other").token_limit is None
    odd = [change(1, "too_long", token_limit="x"), change("x", "refused"), {"position": 2}]  # type: ignore[arg-type]
    assert known_refusals([note(1, "ok", *odd)], 1, "m").token_limit is None


def test_an_edited_message_is_no_longer_refused() -> None:
    refused, edited = Message("user", "bad", position=3), Message("user", "good", position=3)
    known = known_refusals([note(1, "ok", change(3, "refused", digest=content_digest(refused)))], 1, "m")
    assert still_refused(known, [refused]) == {3}
    assert still_refused(known, [edited]) == set()
