"""Servers that speak OpenAI's protocol in their own ways: what they refuse, and how their answers look.

    with ModelServer(script, profile="alternating roles") as server:

Each is after public reports of servers that do so. `PROFILES` has them by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from tokenmem.testing import profile_answers as answers
from tokenmem.testing import profile_refusals as refusals
from tokenmem.testing.replies import JSONObject

Refuses = Callable[[Sequence[JSONObject], JSONObject], str | None]
"""Says what is wrong with the messages or input items of a request, and with its body; None: nothing."""

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"


def _takes_all(messages: Sequence[JSONObject], body: JSONObject) -> str | None:  # noqa: ARG001
    return None


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of server.

    Attributes:
        name: by which it is chosen.
        does: what such a server does, in a sentence.
        remedy: what tokenmem does about it, in a sentence.
        known_from: servers or models of which it is known.
        refuses: what it refuses besides what OpenAI refuses.
        status: of its refusals.
        code: of its refusals, or None.
        shape: how its whole answers and the chunks of its streams look.
        allow_keys: keys of messages that it takes, or wants, besides those that OpenAI documents.
        swaps: whether it answers JSON to who wants a stream, and a stream to who does not.
        paths: the endpoints that it has.
    """

    name: str
    does: str
    remedy: str
    known_from: str
    refuses: Refuses = _takes_all
    status: int = 400
    code: str | None = "invalid_request_error"
    shape: answers.Shape = answers.AS_IT_IS
    allow_keys: Collection[str] = ()
    swaps: bool = False
    paths: Collection[str] = (CHAT,)

    def problem(self, path: str, body: JSONObject) -> str | None:
        """What the server would say to refuse a request; None where it takes it."""
        sent = body.get("messages" if path == CHAT else "input")
        if path not in self.paths or not isinstance(sent, list):
            return None
        return self.refuses([each for each in sent if isinstance(each, dict)], body)


_BOTH = (CHAT, RESPONSES)
_LEARNED = "asked again without, once for each chat"

_REFUSING = (
    Profile(
        "no extra keys",
        "refuses keys of messages that it does not know, the reasoning that it sent itself among them",
        f"keys that only replies have are not sent; others: {_LEARNED}",
        "Groq, Cerebras, Mistral",
        refusals.extra_keys,
    ),
    Profile(
        "unknown parameters",
        "refuses parameters that only OpenAI has, such as prompt_cache_key and stream_options",
        _LEARNED,
        "vLLM, Mistral, older gateways",
        refusals.unknown_parameters,
        status=422,
        paths=_BOTH,
    ),
    Profile(
        "arguments are objects",
        "reads the arguments of calls that it is sent again, and refuses what is no JSON object",
        "arguments that are none are sent as an object that holds them; empty ones as {}",
        "vLLM, Gemini's and Anthropic's compatible endpoints",
        refusals.arguments_no_object,
        paths=_BOTH,
    ),
    Profile(
        "alternating roles",
        "refuses two messages of one role in a row",
        "such messages are joined in what is sent, once it has said so",
        "Gemma and Mistral templates in vLLM, llama.cpp and LM Studio",
        refusals.same_role_twice,
    ),
    Profile(
        "begins with the user",
        "refuses a prompt in which the model speaks first",
        "prompts begin with a message of the user's, once it has said so",
        "Anthropic's compatible endpoint, many templates",
        refusals.model_speaks_first,
    ),
    Profile(
        "system only first",
        "refuses the system's messages behind others",
        "they are sent as the user's, once it has said so",
        "Qwen templates in vLLM",
        refusals.system_behind_others,
    ),
    Profile(
        "no developer",
        "does not know the role developer",
        "it is sent as system, once it has said so",
        "nearly all but OpenAI",
        refusals.developer,
    ),
    Profile(
        "text is a string",
        "refuses a list of parts where all of them are text",
        "such a list is sent as one string, once it has said so",
        "DeepSeek, Cerebras, templates in llama.cpp",
        refusals.text_in_parts,
    ),
    Profile(
        "no nulls",
        "refuses the content null, also beside calls",
        'it is sent as "", once it has said so',
        "older vLLM, Mistral",
        refusals.null_content,
    ),
    Profile(
        "nine characters",
        "takes ids of calls only where they are nine letters and digits, and wants an answer behind results",
        "ids are made of the stored ones, for call and result alike, once it has said so",
        "Mistral",
        refusals.ids_not_of_nine,
    ),
    Profile(
        "wants reasoning back",
        "refuses a reply with calls without the reasoning_content that it came with",
        "what such servers want back is sent: reasoning_content beside calls, signatures, reasoning_details",
        "DeepSeek, Moonshot",
        refusals.reasoning_missing,
        shape=answers.REASONING_CONTENT,
        allow_keys=("reasoning_content",),
    ),
    Profile(
        "wants signatures back",
        "refuses a call of its own without its thought signature",
        "the keys of calls that carry them are sent; calls that have none get Google's stand-in",
        "Gemini's compatible endpoint",
        refusals.signature_missing,
        shape=answers.SIGNATURES,
        allow_keys=("extra_content",),
    ),
    Profile(
        "names the message",
        "refuses a message for what it says, and names its place",
        "later prompts leave it out, and what answers it; asking without a message sends it again",
        "OpenAI, for pictures and files that it cannot read",
        refusals.forbidden_by_index,
        paths=_BOTH,
    ),
    Profile(
        "content filter",
        "refuses a request for what is said in it, by a filter",
        "later prompts leave out what was newest then",
        "Azure, Qwen",
        refusals.forbidden_by_filter,
        code="content_filter",
        paths=_BOTH,
    ),
    Profile(
        "names nothing",
        "refuses a request for a message, and does not say for which",
        "where the next turn is refused too, it is asked again without what is new since the last answer",
        "OpenAI for pictures, proxies",
        refusals.forbidden_somewhere,
        code=None,
        paths=_BOTH,
    ),
    Profile(
        "short context",
        "refuses prompts that are longer than its own limit",
        "later windows are shorter",
        "any model whose limit is below token_limit",
        refusals.too_long,
        code="context_length_exceeded",
        paths=_BOTH,
    ),
)

_ANSWERING = (
    Profile(
        "doubled calls",
        "streams a call's name and whole arguments once more, or sends a call twice",
        "a call with the same id, name and arguments is one",
        "gateways in front of other APIs",
        shape=answers.DOUBLED_CALLS,
    ),
    Profile(
        "several choices",
        "puts the text in one choice and the calls in another",
        "all choices are one reply",
        "GitHub Copilot",
        shape=answers.SEVERAL_CHOICES,
    ),
    Profile(
        "parts in chunks",
        "streams the content as a list of parts",
        "neighbouring texts are one part",
        "Mistral's reasoning models",
        shape=answers.PARTS,
    ),
    Profile(
        "halves of characters",
        "cuts its pieces in the middle of a character",
        "a half waits for the other one",
        "Gradio, servers that stream tokens as they are",
        shape=answers.HALVES,
    ),
    Profile(
        "names in fragments",
        "streams the names of functions in pieces",
        "they are joined",
        "llama.cpp, some gateways",
        shape=answers.NAME_FRAGMENTS,
    ),
    Profile(
        "no finish reason",
        "ends its streams without a finish_reason",
        "a reply whose text is complete is stored whole; its finish_reason is null",
        "proxies, older llama.cpp",
        shape=answers.NO_FINISH_REASON,
    ),
    Profile(
        "streams and JSON swapped",
        "answers JSON to who wants a stream, or a stream to who does not",
        "read as what it is",
        "caching proxies, Ollama with tools",
        swaps=True,
        paths=_BOTH,
    ),
    Profile(
        "reasoning details",
        "streams reasoning_details of several types with the same index, and wants them back",
        "pieces belong together by index, type and id; they are sent again",
        "OpenRouter",
        refusals.details_missing,
        shape=answers.REASONING_DETAILS,
        allow_keys=("reasoning_details",),
    ),
    Profile(
        "odd forms",
        "answers with another role, content that is no text, calls that are no list",
        "stored as well as can be, with the reply as it came in the payload",
        "home-made servers",
        shape=answers.ODD_FORMS,
    ),
    Profile(
        "usage elsewhere",
        "tells its usage in the choice, by other names, or with zeros behind figures",
        "found in each of these places",
        "Moonshot, Groq, DeepSeek",
        shape=answers.USAGE_ELSEWHERE,
    ),
    Profile(
        "errors in answers",
        "breaks off with an error in an answer of status 200",
        "an error, wherever it stands; what had arrived is stored as a part",
        "OpenRouter, vLLM",
        shape=answers.ERRORS,
    ),
)

OPENAI = Profile("openai", "is as OpenAI documents it", "", "OpenAI, Azure")
PROFILES: Mapping[str, Profile] = {profile.name: profile for profile in (*_REFUSING, *_ANSWERING)}
"""The kinds of servers, by name."""


def profile_named(profile: Profile | str | None) -> Profile:
    """A profile by its name; OpenAI's own where there is none.

    Raises:
        ValueError: there is none of this name.
    """
    if isinstance(profile, Profile):
        return profile
    if profile is not None and profile not in PROFILES:
        raise ValueError(f"profile is {profile!r:.60}; use one of {', '.join(map(repr, PROFILES))}")
    return OPENAI if profile is None else PROFILES[profile]
