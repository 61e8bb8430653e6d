"""What a scripted server answers to what it is asked. No sockets here, but many threads."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from tokenmem.testing.chat import ChatCompletion, TextCompletion
from tokenmem.testing.delivery import SpokenReply
from tokenmem.testing.exchange import Exchange, Ids, Rendering
from tokenmem.testing.profile_answers import Reshaped
from tokenmem.testing.profiles import CHAT, Profile
from tokenmem.testing.replies import (
    Answer,
    Cut,
    Failure,
    JSONObject,
    RawReply,
    Reply,
    Request,
    Script,
    Stall,
    StreamError,
)
from tokenmem.testing.responses import Response
from tokenmem.testing.rules import problems_in
from tokenmem.testing.usage import Meter, answer_tokens, text_tokens

_REPLIES = (Answer, Failure, Stall, Cut, StreamError, RawReply)
ENDPOINTS: Mapping[str, Callable[[Exchange], Rendering]] = {
    "/v1/chat/completions": ChatCompletion,
    "/v1/responses": Response,
    "/v1/completions": TextCompletion,
}
# The openai client repeats what fails with a status of 500 or above, unless it is told not to.
_FINAL = {"x-should-retry": "false"}


class ScriptedModel:
    """Takes requests, checks them, and chooses their replies.

    Args:
        script: see ModelServer, as for the others.
        strict: whether a prompt that breaks the rules is refused.
        meter: counts the prompts.
        allow_keys: keys that no rule refuses.
        allow_items: types of items that no rule refuses.
        profile: what kind of server it is.

    Attributes:
        problems: what was wrong with requests and with the script.
        ids: where ids come from.
    """

    def __init__(
        self,
        script: Script,
        *,
        strict: bool,
        meter: Meter,
        allow_keys: Collection[str],
        allow_items: Collection[str],
        profile: Profile,
    ) -> None:
        self.problems: list[str] = []
        self.ids = Ids()
        self._strict = strict
        self._meter = meter
        self._allowed = {
            "allow_keys": frozenset(allow_keys) | frozenset(profile.allow_keys),
            "allow_items": frozenset(allow_items),
        }
        self._profile = profile
        self._requests: list[Request] = []
        self._open_streams = 0
        self._lock = threading.Lock()
        # Held while a script's next reply is taken, so that a generator may look at the server meanwhile.
        self._arrival = threading.Lock()
        self._next_reply = _replies(script)

    @property
    def requests(self) -> list[Request]:
        """What was asked so far, in order of arrival."""
        with self._lock:
            return list(self._requests)

    @property
    def open_streams(self) -> int:
        """How many responses are being written now."""
        with self._lock:
            return self._open_streams

    def reply_with(self, script: Script) -> None:
        """Answer from this script from now on."""
        with self._arrival:
            self._next_reply = _replies(script)

    def note(self, path: str, problem: str) -> None:
        """Add a problem of a request to this path."""
        self.problems.append(f"{path}: {problem}")

    def receive(self, path: str, body: JSONObject, headers: Mapping[str, str]) -> tuple[Request, Reply]:
        """Number a request that has come in, and choose its reply."""
        found = problems_in(path, body, **self._allowed)
        for problem in found:
            self.note(path, problem)
        with self._arrival:
            with self._lock:
                request = Request(path, body, headers, len(self._requests))
                self._requests.append(request)
            if found and self._strict:
                return request, Failure(400, "invalid_request_error", found[0])
            refused = self._profile.problem(path, body)
            if refused is not None:
                return request, Failure(self._profile.status, self._profile.code, refused)
            try:
                reply = self._next_reply()
            except Exception:
                return request, self._script_failed(request)
        if callable(reply):  # outside of the lock: it may take its time
            try:
                reply = reply(request)
            except Exception:
                return request, self._script_failed(request)
        return request, self._checked(request, reply)

    def render(self, request: Request, reply: SpokenReply) -> Rendering:
        """The reply's answer in the form of the endpoint that was asked."""
        answer = reply if isinstance(reply, Answer) else reply.answer
        prompt, cached = self._meter.prompt(request)
        exchange = Exchange(
            request=request,
            answer=answer,
            ids=self.ids,
            prompt_tokens=prompt,
            cached_tokens=cached,
            answer_tokens=answer_tokens(answer),
            reasoning_tokens=text_tokens(answer.reasoning or ""),
            created=int(time.time()),
        )
        rendering = ENDPOINTS[request.path](exchange)
        return Reshaped(rendering, self._profile.shape) if request.path == CHAT else rendering

    def streams(self, request: Request) -> bool:
        """Whether the answer comes as a stream."""
        return (request.body.get("stream") is True) is not self._profile.swaps

    @contextmanager
    def responding(self) -> Iterator[None]:
        """While a response is being written."""
        with self._lock:
            self._open_streams += 1
        try:
            yield
        finally:
            with self._lock:
                self._open_streams -= 1

    def _checked(self, request: Request, reply: object) -> Reply:
        if isinstance(reply, _REPLIES):
            return reply
        if reply is None:
            return self._no_reply(request, f"the script has no reply left for request {request.number}")
        kind = type(reply).__name__
        return self._no_reply(request, f"the script's reply to request {request.number} is a {kind}")

    def _script_failed(self, request: Request) -> Reply:
        """The reply where the script raised the exception that is being handled."""
        error = traceback.format_exc()
        return self._no_reply(request, f"the script failed for request {request.number}:\n{error}")

    def _no_reply(self, request: Request, problem: str) -> Reply:
        self.note(request.path, problem)
        return Failure(500, "script", problem, _FINAL)


def _replies(script: Script) -> Callable[[], Reply | Callable[[Request], Reply] | None]:
    """What gives the next reply of a script, or None where it has no more."""
    if isinstance(script, _REPLIES):
        return lambda: script
    if callable(script):
        return lambda: script
    replies = iter(script)
    return lambda: next(replies, None)
