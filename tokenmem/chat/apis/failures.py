"""Errors that stand in an answer of status 200: in a whole one, or anywhere in a stream."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from tokenmem.chat.apis.replies import Answer
from tokenmem.errors import ModelError

_A_CODE = re.compile(r"[\w.-]{1,60}", re.ASCII)
"""What a provider's code looks like; a sentence may repeat the prompt."""

_NO_CODES = ("error", "invalid", "fail")
"""Words that stand in the place of a code and say no more than that there is an error."""

_NO_ERRORS = ("", "null", "none", "false")
"""Texts that stand in `error` where there is none."""


def failure_in(body: object) -> ModelError | None:
    """The error in an answer or an event of either API, or None.

    It stands in `error` (OpenAI, OpenRouter), is the object itself (vLLM), or a `detail` in the place of a
    reply (FastAPI).
    """
    if not isinstance(body, Mapping):
        return None
    groq = body.get("x_groq")
    for place in (body, groq if isinstance(groq, Mapping) else {}):
        if _is_error(place.get("error")):
            return failed(place["error"], body)
    if body.get("object") == "error" or _is_bare_error(body):
        return failed(body)
    if body.get("detail") and body.keys().isdisjoint(("choices", "output", "message", "type")):
        return failed(body)
    return next(_failures_of_choices(body.get("choices")), None)


def _is_error(value: object) -> bool:
    """Whether what stands in `error` is one: some servers always send it, with nothing in it."""
    if isinstance(value, Mapping):
        return any(map(_is_error, value.values()))
    if isinstance(value, str):
        return value.strip().lower() not in _NO_ERRORS
    return bool(value)


def _is_bare_error(body: Mapping[str, object]) -> bool:
    """Whether an event is an error's text and code alone: the openai package hands on `event: error` so."""
    if not isinstance(body.get("message"), str) or not body.keys().isdisjoint(("choices", "output")):
        return False
    codes = (code_of(body.get(name)) for name in ("code", "status_code", "status"))
    return any(code is not None for code in codes) or "error" in str(body.get("type")).lower()


def is_error_reason(reason: object) -> bool:
    """Whether a finish_reason says that the reply has failed."""
    return isinstance(reason, str) and reason.lower() == "error"


def ends_in_error(body: object) -> bool:
    """Whether the model's last word of a reply is that it has failed, as OpenRouter has it."""
    choices = body.get("choices") if isinstance(body, Mapping) else None
    listed = choices if isinstance(choices, (list, tuple)) else [choices]
    return any(isinstance(each, Mapping) and is_error_reason(each.get("finish_reason")) for each in listed)


def with_failure(part: Answer, failure: ModelError) -> Answer:
    """The part of a reply whose last word was that it has failed.

    Raises:
        ModelError: the failure, where there is nothing of a reply.
    """
    if not part.messages:
        raise failure
    return replace(part, finish_reason="error", failure=failure)


def _failures_of_choices(choices: object) -> Iterator[ModelError]:
    for choice in choices if isinstance(choices, (list, tuple)) else [choices]:
        if not isinstance(choice, Mapping):
            continue
        said = [place for name in ("delta", "message") if isinstance(place := choice.get(name), Mapping)]
        told = next((place["error"] for place in (choice, *said) if _is_error(place.get("error"))), None)
        if told is not None or is_error_reason(choice.get("finish_reason")):
            yield failed(told)


def failed(*told: object) -> ModelError:
    """The error to raise; its text has the provider's code and nothing of the provider's text.

    Args:
        told: where the code may stand, the likeliest place first.
    """
    code = next((code for place in told if (code := code_of(place)) is not None), None)
    shown = "no code" if code is None else code
    return ModelError(f"the model's answer has failed ({shown}); ask again", code=code)


def code_of(error: object) -> int | str | None:
    """The code in a provider's error, or None."""
    if isinstance(error, Mapping):
        places = (error.get(name) for name in ("code", "status_code", "status", "type"))
        found = next((code for place in places if (code := code_of(place)) is not None), None)
        return code_of(error["error"]) if found is None and isinstance(error.get("error"), Mapping) else found
    if isinstance(error, float) and error.is_integer():
        return int(error)
    if isinstance(error, int) and not isinstance(error, bool):
        return error
    if isinstance(error, str) and error not in _NO_CODES and is_code(error):
        return error
    return None


def is_code(value: object) -> bool:
    """Whether a value can be a status or a provider's code, and is no sentence."""
    return isinstance(value, (int, str)) and _A_CODE.fullmatch(str(value)) is not None
